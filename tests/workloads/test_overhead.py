"""overhead: real ranks send gradients by every path, and what is foretold, counted and checked is what it says."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from labs.latency import Fit
from labs.models import find_model
from labs.results import Record, read
from labs.traffic import Traffic
from tests.workloads.launching import torchrun
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.exchange import sharedmemory, timing
from workloads.exchange.between import Between, between, kind_of
from workloads.exchange.outcome import Outcome, rows, wire_roof
from workloads.exchange.paths import averaging, least_crossing, over_network
from workloads.exchange.timing import Timed
from workloads.overhead import Config, main

NANO = 4 * find_model("mistral-nano").parameters
pytestmark = pytest.mark.timeout(650)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Record]:
    """Four ranks as two nodes, and what they printed and wrote."""
    out = tmp_path_factory.mktemp("records")
    outcome = torchrun(4, "-m", "workloads.overhead", "--device", "cpu", "--batch", "1", "--sequence", "8", "--steps",
                       "8", "--nodes-as", "2", "--budget-s", "0", "--out", str(out), limit_s=600)  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout, read(out / "overhead.json")


def test_every_path_is_foretold_timed_and_checked(launched: tuple[str, Record]) -> None:
    said, record = launched
    steps = [row for row in record.measurements if row.unit == "s"]
    assert [row.name for row in steps] == [
        "step: all ranks", "step: all ranks, in bf16", "step: node by node", "step: within the node",
        "step: nothing sent",
    ]  # fmt: skip
    assert "4 ranks on 2 nodes, between them loopback: loopback is as fast as this machine copies" in said
    for row in steps[:-1]:
        assert len(row.samples_s) == 2, "the least, where there is no time for more"
        assert sum(span.seconds for span in row.spans) == pytest.approx(row.value)
        assert row.checked == "sums exact; bytes counted as predicted; parameters bitwise equal"
        assert row.config["link"] == "loopback"
        assert row.roof is None
        if row.expected is not None:  # a busy machine may find a larger buffer faster
            assert row.expected.value == pytest.approx(row.config["quiet_s"] + row.config["talk_s"])
            assert f"expected: {row.config['strategy']}: " in said
    assert all(row.config["quiet_s"] == steps[-1].value for row in steps[:-1])


def test_bf16_halves_the_bytes_and_shared_memory_sends_none(launched: tuple[str, Record]) -> None:
    sent = {row.config["strategy"]: row for row in launched[1].measurements if row.unit == "B"}
    assert {name: row.value for name, row in sent.items()} == {
        "all ranks": 1.5 * NANO, "all ranks, in bf16": 0.75 * NANO, "node by node": NANO,
    }  # fmt: skip
    crossing = {name: row.config["crossing_bytes"] for name, row in sent.items()}
    assert crossing == {"all ranks": NANO, "all ranks, in bf16": NANO / 2, "node by node": NANO}


def test_one_rank_alone_has_nobody_to_send_to(tmp_path: Path) -> None:
    main(["--device", "cpu", "--batch", "1", "--sequence", "8", "--steps", "8", "--budget-s", "0", "--out",
          str(tmp_path)])  # fmt: skip
    record = read(tmp_path / "overhead.json")
    assert [row.name for row in record.measurements] == ["step: all ranks", "step: nothing sent"]
    assert record.measurements[0].expected is None


def outcome(device: Device, *, talk_s: float | None, median_s: float, half: bool = False) -> Outcome:
    group, places = SimpleNamespace(size=4, rank=0, device=device), SimpleNamespace(nodes=2)
    path = over_network(group, places, half=half)  # type: ignore[arg-type]
    line = Fit(alpha_s=1e-3, bytes_per_s=12.5e6, residuals=())
    return Outcome(path=path, timed=Timed(samples_s=(median_s,) * 3, traffic=Traffic(calls=())), line=line, lines={},
                   talk_s=talk_s, quiet_s=0.2)  # fmt: skip


def test_what_the_step_takes_beyond_its_arithmetic_is_exposed_and_the_rest_hidden(cpu: Device) -> None:
    found = outcome(cpu, talk_s=1.0, median_s=0.9)
    assert found.exposed_s == pytest.approx(0.7)
    assert found.hidden == pytest.approx(0.3)
    assert outcome(cpu, talk_s=1.0, median_s=0.1).hidden == 1
    assert outcome(cpu, talk_s=1.0, median_s=2.0).hidden == 0
    assert outcome(cpu, talk_s=None, median_s=0.9).hidden is None


def test_a_step_is_held_against_what_must_leave_each_node(cpu: Device) -> None:
    link = Between(name="link of 100 Mbit/s", bytes_per_s=12.5e6, source="as the rehearsal limits it")
    step, *_ = rows(outcome(cpu, talk_s=1.9, median_s=2.0), NANO, link, {})
    assert step.roof is not None
    assert step.roof.value == pytest.approx(1.259, rel=1e-3), "15.7 MB at 100 Mbit/s"
    assert step.fraction == pytest.approx(0.63, rel=1e-2)
    halved, *_ = rows(outcome(cpu, talk_s=1.0, median_s=1.1, half=True), NANO, link, {})
    assert halved.roof is not None
    assert halved.roof.value == step.roof.value / 2
    assert wire_roof(0.0, link) == (None, "nothing leaves the node")
    assert least_crossing(8, 4) == 12


@pytest.mark.parametrize(
    ("environment", "nodes", "name", "rate"),
    [
        (
            {"ROOFLAB_LINK": "100mbit", "ROOFLAB_PEERS": "node0=10.0.0.4 node1=10.0.0.5"},
            2,
            "link of 100 Mbit/s",
            12.5e6,
        ),
        ({"ROOFLAB_LINK": "1gbit"}, 2, "link of 1 Gbit/s", 125e6),
        ({"ROOFLAB_LINK": "unlimited"}, 2, "link without a limit", None),
        ({"ROOFLAB_LINK": "1gbit"}, 1, "loopback", None),
        ({"ROOFLAB_PEERS": "node0=127.77.0.1 node1=127.77.0.2"}, 2, "loopback", None),
        ({"ROOFLAB_PEERS": "node0=10.0.0.4 node1=10.0.0.5"}, 2, "TCP", 5e9),
        ({"ROOFLAB_PEERS": "node0=10.0.0.4 node1=10.0.0.5", "ROOFLAB_EFAS": "1"}, 2, "EFA", 5e9),
        ({"ROOFLAB_PEERS": "node0=gpu-a node1=gpu-b"}, 2, "TCP", 5e9),
    ],
)
def test_the_link_is_named_by_what_is_really_there(
    environment: dict[str, str], nodes: int, name: str, rate: float | None, l4: Device
) -> None:
    found = between(nodes, kind_of(l4, "g6.12xlarge"), environment)
    assert (found.name, found.bytes_per_s) == (name, rate)


def test_a_machine_without_a_types_gpus_has_not_its_network(cpu: Device, l4: Device) -> None:
    assert kind_of(cpu, "g6.12xlarge") is None
    assert kind_of(cpu, None) is None
    assert kind_of(l4, "g5.12xlarge") is None
    assert between(2, None, {"ROOFLAB_PEERS": "node0=10.0.0.4"}).source == "the network between the nodes is not known"


def test_gradients_travel_in_so_many_buckets() -> None:
    told: dict[str, Any] = {"model": "mistral-nano", "dtype": "fp32", "batch": 1, "sequence": 8, "steps": 8,
                            "learning_rate": 1e-3, "seed": 0, "threads": 1, "budget_s": 1.0}  # fmt: skip
    assert Config(bucket_mb=25, **told).buckets == 2
    assert Config(bucket_mb=4, **told).buckets == 1 + 4


def test_a_wrong_sum_is_found(cpu: Device) -> None:
    group, places = SimpleNamespace(size=2, rank=0, device=cpu), SimpleNamespace(nodes=1)
    path = over_network(group, places)  # type: ignore[arg-type]
    object.__setattr__(path, "add", lambda buffer_E: buffer_E.mul_(2))
    assert timing._wrong(path, group) == "1001 of 1001 sums are not 3"  # type: ignore[arg-type]
    object.__setattr__(path, "add", lambda buffer_E: buffer_E.fill_(3))
    assert timing._wrong(path, group) == ""  # type: ignore[arg-type]


def test_a_hook_of_our_own_averages() -> None:
    kept = torch.full((4,), 6.0)
    bucket: Any = SimpleNamespace(buffer=lambda: kept)
    done = averaging(lambda buffer_E: buffer_E.mul_(3))(SimpleNamespace(size=lambda: 3), bucket)
    assert torch.equal(done.value(), torch.full((4,), 6.0))


def test_bytes_or_parameters_that_are_wrong_end_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("workloads.overhead.unequal", lambda *_given: "parameters of ranks [1] are not rank 0's")
    with pytest.raises(CheckFailed, match="parameters of all ranks equal on its ranks: rank 0: parameters of ranks"):
        main(["--device", "cpu", "--batch", "1", "--sequence", "8", "--steps", "8", "--budget-s", "0", "--out",
              str(tmp_path)])  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--nodes-as", "2"], "nodes-as=2 does not divide 1 ranks: write 1"),
        (["--budget-s", "long"], "'long' is not a number of seconds"),
        (["--bucket", "0"], "'0' is not a whole number of at least 1"),
        (["--steps", "4"], "steps=4 cannot show a falling loss"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("overhead: ")
    assert words in line


def test_without_memory_that_has_no_name_shared_memory_is_not_applicable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", lambda _name: 0, raising=False)
    assert sharedmemory.impossible() == ""
    monkeypatch.delattr(os, "memfd_create")
    assert sharedmemory.impossible() == "it takes memory that has no name, which is Linux's"
