"""--allow-tcp reaches the workload that proves EFA, and no other."""

import pytest

from labs.catalog import LABS
from operate.choice import choose_workloads
from operate.launch import Plan, Seat, job, script


def test_the_flag_reaches_the_workload_that_proves_efa_alone() -> None:
    chosen = choose_workloads(LABS[3], "", allow_tcp=True)
    assert {workload.name: workload.args for workload in chosen if workload.args} == {"collectives": ("--allow-tcp",)}
    assert [workload.name for workload in chosen] == [workload.name for workload in LABS[3].workloads]
    seat = Seat(node="node0", index=0, processes=4, cores=48)
    plan = Plan(run="20261120-141503-lab3", jobs=tuple(map(job, chosen)), seats=(seat,), head="10.0.0.1", lab=3)
    lines = [line for line in script(plan, seat).splitlines() if line.startswith("work ")]
    assert [line.split()[1] for line in lines if line.endswith(" --allow-tcp")] == ["collectives"]


def test_without_it_nothing_changes() -> None:
    assert choose_workloads(LABS[3], "collectives")[0].args == ()


def test_where_nothing_proves_efa_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^allow_tcp=True is for collectives, which is none of ddp: leave it out$"):
        choose_workloads(LABS[3], "ddp", allow_tcp=True)
