"""batch-sweep: tokens/s beside what bytes and FLOPs allow, and every sequence's logits those of a batch of one."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from labs.models import find_model
from labs.results import Roof, read
from workloads import batch_sweep
from workloads.ceilings import Ceilings
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.ladder.static import Static
from workloads.record import surroundings

NANO = find_model("mistral-nano")
TOPS = Ceilings(memory=Roof(value=10e9, source="measured here, memory by dot"),
                peaks={"fp32": Roof(value=50e9, source="measured here, fp32 512x512x512")})  # fmt: skip
SMALL = ["--device", "cpu", "--model", "mistral-nano", "--largest", "4", "--context", "16", "--iterations", "2"]


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ceilings, as an earlier workload would have left them."""
    monkeypatch.setattr(batch_sweep, "ceilings", lambda *_: TOPS)


def test_a_run_predicts_every_batch_then_measures_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOFLAB_USD_PER_HOUR", "3.6")
    batch_sweep.main([*SMALL, "--out", str(tmp_path)])
    record = read(tmp_path / "batch-sweep.node0.json")
    assert [row.config["batch"] for row in record.measurements] == [1, 2, 4]
    for row in record.measurements:
        batch = row.config["batch"]
        flops, moved = batch * NANO.decode_flops(16), NANO.decode_bytes(16, batch=batch, weight_size=4, kv_size=4)
        assert (row.config["flops"], row.config["bytes"]) == (flops, moved)
        assert row.config["intensity"] == pytest.approx(flops / moved)
        assert row.expected is not None
        assert row.expected.value == pytest.approx(batch / max(flops / 50e9, moved / 10e9))
        assert row.others[0] == row.expected
        assert row.value == pytest.approx(batch / (sum(row.samples_s) / 2))
        assert sum(span.seconds for span in row.spans) == pytest.approx(batch / row.value)
        assert row.usd_per_unit == pytest.approx(1e-3 / row.value * 1e6)
        assert row.checked.startswith("logits of every sequence within")
    out = capsys.readouterr().out
    assert out.index("predicted batch     4") < out.index("measured  batch     1")
    assert "context 4096: intensity tends to" in out


@pytest.mark.parametrize(("batch", "bound_by"), [(1, "memory"), (64, "arithmetic")])
def test_what_bounds_a_batch_is_what_the_two_ceilings_say(batch: int, bound_by: str, cpu: Device) -> None:
    config = batch_sweep.Config(model="mistral-nano", dtype="fp32", context=16, batches=(batch,), iterations=1,
                                budget_s=1e9, seed=0, threads=1)  # fmt: skip
    (row,) = batch_sweep.measure(config, cpu, TOPS, surroundings({}), [])
    assert row.config["bound_by"] == bound_by
    assert ("arithmetic beyond the reading" in [span.name for span in row.spans]) == (bound_by == "arithmetic")


def test_a_sequence_with_another_ones_answer_is_found(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    config = batch_sweep.Config(model="mistral-nano", dtype="fp32", context=16, batches=(1, 2), iterations=1,
                                budget_s=1e9, seed=0, threads=1)  # fmt: skip
    step = Static.step

    def mixed(engine: Static) -> torch.Tensor:
        logits = step(engine)
        return torch.cat([logits[:1], logits[1:].roll(1, -1)])

    monkeypatch.setattr(Static, "step", mixed)
    rows = batch_sweep.measure(config, cpu, TOPS, surroundings({}), [])
    next(rows)
    with pytest.raises(CheckFailed, match=r"^mistral-nano decode, batch 2: a sequence's logits are .* allowed 0\.001"):
        next(rows)


def test_after_the_budget_no_larger_batch_is_begun(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    config = batch_sweep.Config(model="mistral-nano", dtype="fp32", context=16, batches=(1, 2, 4), iterations=1,
                                budget_s=5, seed=0, threads=1)  # fmt: skip
    clock = iter([0.0, 1.0, 9.0])
    monkeypatch.setattr(batch_sweep, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    notes: list[str] = []
    assert len(list(batch_sweep.measure(config, cpu, TOPS, surroundings({}), notes))) == 1
    assert notes == ["batch 2 and more: skipped, the budget of 5 s was spent"]


def test_a_batch_whose_cache_does_not_fit_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Device(torch=torch.device("cuda"), name="NVIDIA L4", accelerator=None)
    monkeypatch.setattr(Device, "memory_bytes", 8 * 2**30)
    config = batch_sweep.Config(model="mistral-7b", dtype="bf16", context=128, batches=(1,), iterations=20,
                                budget_s=1.0, seed=0, threads=1)  # fmt: skip
    assert batch_sweep.fits(config, gpu, 128) == ""
    assert batch_sweep.fits(config, gpu, 256) == "its cache takes 8.8 GiB, and 8.0 are free"


def test_without_room_or_time_for_one_batch_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"^no batch ran: raise --budget-s"):
        batch_sweep.main([*SMALL, "--budget-s", "0", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dtype", "fp8"], "dtype='fp8' is not one that models run in: write fp32, fp16, bf16"),
        (["--model", "big"], "model='big' does not exist"),
        (["--largest", "-4"], "'-4' is not a whole number of at least 1"),
    ],
)
def test_wrong_flags_say_what_to_write(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        batch_sweep.main(["--device", "cpu", *flags])
    assert said in capsys.readouterr().err
