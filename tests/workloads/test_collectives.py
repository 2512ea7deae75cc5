"""collectives: real ranks, exact elements, a rank whose elements are wrong, and a budget that does not suffice."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from labs.instances import instance_type
from labs.results import read
from labs.wire import COLLECTIVES
from tests.workloads.launching import torchrun
from workloads import collectives
from workloads.command import CheckFailed
from workloads.device import Device

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


def test_ranks_on_two_nodes_run_all_six_and_all_contribute_their_times(tmp_path: Path) -> None:
    outcome = torchrun(4, "-m", "workloads.collectives", *SMALL, "--budget-s", "600", "--out", str(tmp_path),
                       ROOFLAB_RUN="20260101-000000-lab3", ROOFLAB_LAB="3", ROOFLAB_NODES="2",
                       GLOO_SOCKET_IFNAME="lo")  # fmt: skip
    assert outcome.stderr == ""
    assert outcome.returncode == 0
    assert outcome.stdout.startswith("not an EFA lab: nothing to prove\n"
                                     "roof busbw: none, the network between the devices is not known\n")  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["collectives.json"]
    record = read(tmp_path / "collectives.json")
    assert (record.ranks, record.run, record.lab, record.node) == (4, "20260101-000000-lab3", 3, "")
    assert record.notes[0] == "gloo: TCP over lo, by GLOO_SOCKET_IFNAME"
    sizes = [row for row in record.measurements if row.unit == "B/s"]
    assert [(row.config["collective"], row.config["dtype"], row.config["bytes"]) for row in sizes] == [
        (name, dtype, size_bytes) for dtype in ("fp32", "bf16") for name in COLLECTIVES
        for size_bytes in (1024, 4096, 16384)
    ]  # fmt: skip
    assert len({row.name for row in record.measurements}) == len(record.measurements)
    for row in sizes:
        assert len(row.config["rank_median_s"]) == 4
        assert row.config["spread"] >= 1
        assert len(row.samples_s) == 3
        assert row.config["algbw"] == pytest.approx(row.config["bytes"] / row.config["time_s"])
        assert row.value == row.config["busbw"]
        assert row.checked == "every element exact on every rank"
    first, gathered = sizes[0], sizes[3]
    assert first.value == pytest.approx(1.5 * first.config["algbw"])  # 2(n−1)/n
    assert gathered.value == pytest.approx(0.75 * gathered.config["algbw"])
    # On two nodes of two a ring puts busbw/2 of each GPU on the wire, a tree busbw/3.
    assert first.config["wire_high"] == pytest.approx(first.value / 2)
    assert first.config["wire_low"] == pytest.approx(first.value / 3)
    latencies = [row for row in record.measurements if row.unit == "s"]
    assert [row.name for row in latencies[:2]] == ["all-reduce latency", "all-gather latency"]
    assert latencies[0].value == first.config["time_s"]
    assert any("two nodes are a case of their own" in note for note in record.notes)


def test_a_wrong_element_on_one_rank_fails_the_run_and_names_size_and_rank(tmp_path: Path) -> None:
    script = tmp_path / "lying.py"
    script.write_text(ONE_RANK_IS_WRONG)
    outcome = torchrun(2, str(script), *SMALL, "--out", str(tmp_path / "records"))
    line = "collectives: check failed: all-reduce of 4 KiB in fp32: rank 1: 5 of 5120 elements are wrong"
    assert outcome.returncode == 1
    assert line in outcome.stderr.splitlines()
    assert not (tmp_path / "records").exists()


def test_one_rank_alone_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda buffer_E: buffer_E.zero_())
    words = r"^all-reduce of 1 KiB in fp32: rank 0: \d+ of 1280 elements are wrong$"
    with pytest.raises(CheckFailed, match=words):
        collectives.main([*SMALL, "--out", str(tmp_path)])


def test_one_rank_alone_sends_nothing_and_passes_nothing_on(tmp_path: Path) -> None:
    """A budget that is used up leaves each collective its smallest size, and the notes say what was left out."""
    collectives.main([*SMALL, "--budget-s", "0", "--dtypes", "fp32", "--out", str(tmp_path)])
    record = read(tmp_path / "collectives.json")
    sizes = [row for row in record.measurements if row.unit == "B/s"]
    assert [row.name for row in sizes] == [f"{name} 1 KiB" for name in COLLECTIVES if name != "send-recv"]
    assert sizes[0].value == 0
    latency = next(row for row in record.measurements if row.unit == "s")
    assert "alpha_s" not in latency.config, "one size has no line through it"
    assert "all-reduce ends at 1 KiB: its share of the budget of 0 s was used; --budget-s gives more" in record.notes


def flags(**given: Any) -> Namespace:
    known = {"smallest": 1024, "largest": 4096, "factor": 2, "dtypes": None, "collectives": None, "iterations": 1,
             "warmup": 1, "budget_s": None, "allow_tcp": False}  # fmt: skip
    return Namespace(**known | given)


def test_what_a_cpu_measures_unless_told_otherwise(cpu: Device) -> None:
    config = collectives.configure(flags(largest=None, factor=None, iterations=None, warmup=None), cpu, 4)
    assert config.sizes_bytes == (2**10, 2**12, 2**14, 2**16, 2**18, 2**20, 2**22)
    assert (config.collectives, config.dtypes) == (COLLECTIVES, ("fp32", "bf16"))
    assert (config.iterations, config.warmup, config.budget_s) == (10, 2, 7)


def test_more_ranks_than_bf16_can_count_are_left_out_or_refused(cpu: Device) -> None:
    assert collectives.configure(flags(), cpu, 65).dtypes == ("fp32",)
    with pytest.raises(ValueError, match=r"^dtypes='bf16' cannot hold the sums of 65 ranks exactly: write fp32$"):
        collectives.configure(flags(dtypes=("bf16",)), cpu, 65)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"collectives": ("scan",)},
            r"^collectives='scan' is not known: write some of all-reduce,all-gather,reduce-sc",
        ),
        ({"collectives": ("send-recv",)}, r"^collectives='send-recv' needs a second rank: start it with torchrun"),
        ({"dtypes": ("fp8",)}, r"^dtypes='fp8' is not known: write some of fp32,bf16$"),
        ({"largest": 2**50}, r"^largest=1.04858e\+06 GiB does not fit: .* has room for "),
    ],
)
def test_what_cannot_be_measured_is_refused(cpu: Device, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collectives.configure(flags(**given), cpu, 1)


def test_the_roof_is_the_network_of_the_type_whose_gpu_this_is(l4: Device) -> None:
    assert collectives.network(l4, "g6.12xlarge") is instance_type("g6.12xlarge")


def test_a_rehearsed_node_does_not_get_the_roof_of_the_type_it_plays(cpu: Device, l4: Device) -> None:
    assert collectives.network(cpu, "g6.12xlarge") is None
    assert collectives.network(l4, "p5.48xlarge") is None
    assert collectives.network(l4, "my-own-box") is None
    assert collectives.network(l4, None) is None
