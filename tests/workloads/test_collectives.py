"""collectives: real ranks, exact sums, and a rank whose sums are wrong."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from labs.instances import instance_type
from labs.results import read
from tests.workloads.launching import torchrun
from workloads import collectives
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.group import Group
from workloads.record import Surroundings

SMALL = ["--device", "cpu", "--smallest", "1KiB", "--largest", "16KiB", "--iterations", "3"]

ONE_RANK_IS_WRONG = """
import os, sys
import torch.distributed as dist
from workloads import collectives
from workloads.command import start
truth = dist.all_reduce
def lying(buffer_E, *given, **named):
    outcome = truth(buffer_E, *given, **named)
    if os.environ["RANK"] == "1" and buffer_E.numel() == 1024:
        buffer_E[700] += 1
    return outcome
dist.all_reduce = lying
start("collectives", collectives.main)
"""


def test_two_ranks_reduce_and_both_contribute_their_times(tmp_path: Path) -> None:
    outcome = torchrun(2, "-m", "workloads.collectives", *SMALL, "--out", str(tmp_path),
                       ROOFLAB_RUN="20260101-000000-lab3", ROOFLAB_LAB="3")  # fmt: skip
    assert outcome.stderr == ""
    assert outcome.returncode == 0
    assert outcome.stdout.startswith("roof busbw: none, the network between the devices is not known\n")
    assert [file.name for file in tmp_path.iterdir()] == ["collectives.json"]
    record = read(tmp_path / "collectives.json")
    *sizes, latency = record.measurements
    assert (record.ranks, record.run, record.lab, record.node) == (2, "20260101-000000-lab3", 3, "")
    assert [row.config["bytes"] for row in sizes] == [1024, 4096, 16384]
    for row in sizes:
        assert len(row.config["rank_median_s"]) == 2
        assert row.config["spread"] >= 1
        assert len(row.samples_s) == 3
        assert row.config["algbw"] == pytest.approx(row.config["bytes"] / row.config["time_s"])
        assert row.value == row.config["busbw"] == pytest.approx(row.config["algbw"])  # 2(n−1)/n = 1 for two
        assert row.checked == "every sum exact on every rank"
    assert (latency.unit, latency.value) == ("s", sizes[0].config["time_s"])


def test_a_wrong_sum_on_one_rank_fails_the_run_and_names_size_and_rank(tmp_path: Path) -> None:
    script = tmp_path / "lying.py"
    script.write_text(ONE_RANK_IS_WRONG)
    outcome = torchrun(2, str(script), *SMALL, "--out", str(tmp_path / "records"))
    line = "collectives: check failed: all-reduce of 4 KiB: rank 1: 5 of 5120 sums are wrong"
    assert outcome.returncode == 1
    assert line in outcome.stderr.splitlines()
    assert not (tmp_path / "records").exists()


def test_one_rank_alone_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda buffer_E: buffer_E.zero_())
    with pytest.raises(CheckFailed, match=r"^all-reduce of 1 KiB: rank 0: \d+ of 1280 sums are wrong$"):
        collectives.main([*SMALL, "--out", str(tmp_path)])


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 64])
def test_the_expected_sum_is_that_of_all_contributions(cpu: Device, ranks: int, dtype: str) -> None:
    total_E = sum(collectives.contribution(rank, 1000, dtype, cpu).double() for rank in range(ranks))
    expected_E = collectives.expected_sum(ranks, 1000, dtype, cpu)
    assert torch.equal(total_E, expected_E.double())
    assert float(expected_E.max()) <= 256


def test_more_ranks_than_bf16_can_count_are_refused(cpu: Device) -> None:
    flags = Namespace(smallest=1024, largest=1024, factor=2, dtype="bf16", iterations=1, warmup=1)
    with pytest.raises(ValueError, match=r"^dtype='bf16' cannot hold the sums of 65 ranks exactly: write fp32$"):
        collectives.configure(flags, cpu, 65)


@pytest.mark.parametrize(
    ("size_bytes", "name"), [(512, "0.5 KiB"), (1024, "1 KiB"), (2**22, "4 MiB"), (2**30, "1 GiB")]
)
def test_size_names(size_bytes: int, name: str) -> None:
    assert collectives.size_name(size_bytes) == name


@pytest.mark.parametrize(("text", "size_bytes"), [("1KiB", 1024), ("4 MiB", 2**22), ("1GiB", 2**30)])
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    assert collectives.size(text) == size_bytes


def test_the_roof_is_the_network_of_the_type_whose_gpu_this_is(l4: Device) -> None:
    assert collectives.network(l4, "g6.12xlarge") is instance_type("g6.12xlarge")
    group, within = Group(rank=0, size=8, device=l4), Surroundings(nodes=2, instance_type="g6.12xlarge", started=0)
    roof = collectives.bound_of(group, within).roof
    assert roof is not None
    assert roof.value == pytest.approx(8.75e9)
    assert roof.source == "g6.12xlarge: 40 Gbit/s a node, fewest bytes on the wire"


def test_a_rehearsed_node_does_not_get_the_roof_of_the_type_it_plays(cpu: Device, l4: Device) -> None:
    assert collectives.network(cpu, "g6.12xlarge") is None
    assert collectives.network(l4, "p5.48xlarge") is None
    assert collectives.network(l4, "my-own-box") is None
    assert collectives.network(l4, None) is None


def test_a_sample_is_the_slowest_ranks() -> None:
    assert collectives.slowest([(1.0, 5.0), (2.0, 3.0)]) == (2.0, 5.0)
