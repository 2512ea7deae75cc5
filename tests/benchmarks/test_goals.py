"""Every goal's figure is found in the record that its workload really writes; on a CPU that passes for an H200."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.goals import GOALS, outcomes
from labs.accelerators import by_driver_name
from labs.results import Machine, Measurement, Record, Roof, read
from workloads import bandwidth, command, fp8_training, gemm, optimise, train_step, weights
from workloads.device import Device
from workloads.ladder import rungs
from workloads.training.cost import gains
from workloads.training.curves import Curve
from workloads.training.savers import ASIDE, ASYNCHRONOUS, PLAIN

PEERS = {"mamf-finder": 8e14, "gpt-fast": 4e-3, "hf-trainer": 100.0, "stream-triad": 1e10, "stream-dot": 1e10}
MACHINE = Machine(hostname="one", device="NVIDIA H200", devices=1)


@pytest.fixture(autouse=True)
def h200(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """Arithmetic of this CPU, roofs of an H200; one thread, and nothing compiled."""
    device = Device(torch=torch.device("cpu"), name="NVIDIA H200", accelerator=by_driver_name("NVIDIA H200"))
    monkeypatch.setattr(command, "find_device", lambda _wanted: device)
    monkeypatch.setattr(rungs, "_no_compiler", lambda _device: "no C++ compiler")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(bandwidth, "cache_bytes", lambda _device: 2**16)
    monkeypatch.setattr(optimise, "measured_read", lambda *_: Roof(value=1e10, source="measured before"))
    yield device
    torch.set_num_threads(threads)


def told(stage: str, record: Record) -> dict[str, str]:
    """What is said of each goal of that stage."""
    return {goal.name: said for goal, _, said in outcomes({stage: record}, PEERS) if goal.stage == stage}


def ran(main: Callable[[list[str]], None], workload: str, out: Path, *flags: str) -> Record:
    main([*flags, "--out", str(out)])
    return read(out / f"{workload}.node0.json")


def test_gemm_tells_burst_sustained_and_what_mamf_finder_is_held_to(tmp_path: Path) -> None:
    record = ran(gemm.main, "gemm", tmp_path, "--dtypes", "bf16", "--shapes", "8x16x32", "--iterations", "3",
                 "--warmup", "1", "--search-s", "0.05", "--sustain-s", "0.02")  # fmt: skip
    said = told("gemm", record)
    assert {name for name, word in said.items() if word == "not told"} == {"fp8 GEMM, burst", "fp8 GEMM, sustained"}


def test_bandwidth_tells_read_and_triad(tmp_path: Path) -> None:
    record = ran(bandwidth.main, "bandwidth", tmp_path, "--largest-mib", "1", "--iterations", "2")
    assert "not told" not in told("bandwidth", record).values()
    assert len(told("bandwidth", record)) == 3


def test_optimise_tells_its_best_rung_in_bf16(tmp_path: Path) -> None:
    record = ran(optimise.main, "optimise", tmp_path, "--model", "mistral-nano", "--prompt", "4", "--tokens", "2",
                 "--kept", str(tmp_path / "kept"))  # fmt: skip
    assert "not told" not in told("optimise-7b", record).values()
    assert len(told("optimise-7b", record)) == 2


def test_train_step_tells_its_share_by_the_other_convention(tmp_path: Path) -> None:
    record = ran(train_step.main, "train-step", tmp_path, "--model", "mistral-nano", "--dtype", "bf16", "--batches",
                 "1", "--sequence", "16", "--steps", "4", "--accumulate", "1", "--learning-rate", "3e-3")  # fmt: skip
    assert "not told" not in told("train-7b", record).values()
    assert len(told("train-7b", record)) == 2


def test_weights_tell_warm_beside_mmap_and_cold_beside_the_disk(tmp_path: Path) -> None:
    record = ran(weights.main, "weights", tmp_path, "--model", "mistral-nano", "--repeats", "1", "--path",
                 str(tmp_path))  # fmt: skip
    found = {goal.name: figure for goal, figure, _ in outcomes({"weights": record}, {})}
    values = {row.name: row.value for row in record.measurements}
    assert found["weights, warm, beside mmap"] == values["rooflab over safetensors mmap, warm"]
    disk = max(value for name, value in values.items() if name.startswith("file, cold"))
    assert found["weights, cold"] == pytest.approx(values["rooflab, cold"] / disk)


def record_of(rows: Any) -> Record:
    return Record(workload="made", machine=MACHINE, measurements=tuple(rows))


def test_checkpoint_tells_its_gain() -> None:
    blocked_s = {PLAIN: 4.0, ASIDE: 0.1, ASYNCHRONOUS: 0.2}
    taken: Any = SimpleNamespace(noise_s=0.01, later_s=blocked_s.__getitem__)
    (found,) = [figure for goal, figure, _ in outcomes({"checkpoint": record_of(gains(taken, {}))}, {})
                if goal.stage == "checkpoint"]  # fmt: skip
    assert found == pytest.approx(40)


def test_fp8_training_tells_its_gain(h200: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8_training, "emulated", lambda _device: False)
    config = fp8_training.Config(model="mistral-nano", recipe="tensorwise", sequence=16, batch=1, accumulate=1, steps=8,
                                 seeds=2, learning_rate=1e-3, seed=0, threads=1)  # fmt: skip
    curves = [Curve(dtype=dtype, seed=0, losses=(3.0, 2.0, 1.0, 1.0), parts=({"forward": seconds},))
              for dtype, seconds in (("bf16", 1.0), ("fp8", 0.8))]  # fmt: skip
    rows = fp8_training.summarise(config, curves, None, None, h200, "", None)
    (found,) = [figure for goal, figure, _ in outcomes({"fp8-training": record_of(rows)}, {})
                if goal.stage == "fp8-training"]  # fmt: skip
    assert found == pytest.approx(1.25)


def test_every_goals_stage_is_tried_here() -> None:
    tried = {"gemm", "bandwidth", "optimise-7b", "train-7b", "weights", "checkpoint", "fp8-training"}
    assert {goal.stage for goal in GOALS} == tried


def test_a_row_that_cannot_be_counts_for_nothing() -> None:
    row = Measurement(name="read", value=2.0, unit="B/s", estimator="", roof=Roof(value=1.0, source="datasheet"),
                      config={"kernel": "read", "past_cache": True})  # fmt: skip
    assert row.suspect
    assert set(told("bandwidth", record_of([row])).values()) == {"not told"}
