"""How many ranks a cluster workload gets: one a GPU, and on a node without any as many as it asks for."""

from dataclasses import replace

import pytest

from labs.catalog import LABS, Workload
from operate.launch import Plan, Seat, job, script

LOCAL = Seat(node="node0", index=0, processes=2, cores=2, gpus=False)
L4S = Seat(node="node0", index=0, processes=4, cores=48)


def written(workload: Workload, seat: Seat) -> str:
    plan = Plan(run="20261120-141503-lab2", jobs=(job(workload),), seats=(seat,), head="127.0.0.1", lab=2)
    return script(plan, seat)


def named(name: str) -> Workload:
    return next(workload for workload in LABS[2].workloads if workload.name == name)


@pytest.mark.parametrize(("name", "ranks"), [("mesh", 4), ("scaling", 4), ("ddp", 2), ("collectives", 2)])
def test_a_node_without_gpus_gets_as_many_ranks_as_the_workload_asks_for(name: str, ranks: int) -> None:
    threads = max(1, 2 // ranks)
    line = next(line for line in written(named(name), LOCAL).splitlines() if f"work {name} " in line)
    assert f"work {name} cluster {named(name).timeout_s} {threads} torchrun --nnodes 1 " in line
    assert f" --nproc-per-node {ranks} " in line


@pytest.mark.parametrize("name", ["mesh", "ddp"])
def test_a_node_with_gpus_gets_one_rank_each(name: str) -> None:
    assert "--nproc-per-node 4 " in written(named(name), L4S)
    assert "--nproc-per-node 1 " in written(named(name), replace(L4S, processes=1))
