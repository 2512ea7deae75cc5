"""train-step: tokens are counted once, the step is checked, and what ends a sweep is told."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labs.models import find_model
from labs.results import Machine, Measurement, Record, read
from labs.roofs import mfu
from workloads import train_step
from workloads.chain import draw
from workloads.command import CheckFailed, Parser
from workloads.device import Device
from workloads.nvml import Gauge
from workloads.record import Surroundings
from workloads.training import sweep, trainee
from workloads.training.exactness import check_gradients
from workloads.training.loss import chunked_loss
from workloads.training.masters import Masters
from workloads.training.sweep import Config, Sweep, Taken
from workloads.training.trainee import Trainee

NANO = find_model("mistral-nano")
SMALL = ["--device", "cpu", "--batches", "1,2", "--sequence", "16", "--steps", "4", "--budget-s", "600"]
CONFIG = Config(model="mistral-nano", dtype="fp32", sequence=16, batches=(1, 2), accumulate=2, steps=4, chunk=10,
                compiled=False, learning_rate=3e-3, budget_s=60.0, seed=0, threads=1)  # fmt: skip


def ceilings(folder: Path, device: Device) -> None:
    """What bandwidth and gemm leave behind."""
    given = {
        "bandwidth": Measurement(name="fp32 read", value=1e10, unit="B/s", estimator="", no_roof_because="made up",
                                 config={"kernel": "read", "by": "dot", "past_cache": True}),
        "gemm": Measurement(name="fp32 512x512x512 burst", value=1e11, unit="FLOP/s", estimator="",
                            no_roof_because="made up", config={"dtype": "fp32"}),
    }  # fmt: skip
    machine = Machine(hostname="here", device=device.name, devices=1)
    for name, row in given.items():
        Record(workload=name, machine=machine, measurements=(row,), node="node0").write(folder)


def test_a_sweep_writes_throughput_and_memory_of_each_batch(
    tmp_path: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROOFLAB_USD_PER_HOUR", "3.6")
    ceilings(tmp_path, cpu)
    train_step.main([*SMALL, "--accumulate", "2", "--out", str(tmp_path)])
    record = read(tmp_path / "train-step.node0.json")
    first, memory, second, _ = record.measurements
    assert [row.name for row in record.measurements] == [
        "batch 1 × 16", "memory of batch 1 × 16", "batch 2 × 16", "memory of batch 2 × 16",
    ]  # fmt: skip
    assert second.config["tokens_per_step"] == 2 * 2 * 16
    assert len(second.samples_s) == 4
    assert len(second.config["losses"]) == 4 + sweep.WARMUP
    median_s = sorted(second.samples_s)[1] / 2 + sorted(second.samples_s)[2] / 2
    assert second.value == pytest.approx(64 / median_s)
    assert sum(span.seconds for span in second.spans) == pytest.approx(median_s)
    assert {span.name for span in second.spans} == {"forward", "backward", "optimiser"}
    assert second.usd_per_unit == pytest.approx(3.6 / 3600 / second.value * 1e6)
    assert second.roof is None
    assert second.others[0].value == pytest.approx(1e11 / NANO.train_flops(16))
    assert second.expected is not None
    assert second.expected.value == pytest.approx(64 / sum(second.config["predicted_parts_s"].values()))
    assert first.config["bytes_per_parameter"] == 16
    assert memory.config["parts_bytes"]["weights"] == 4 * NANO.parameters
    assert memory.expected is not None
    assert memory.value == pytest.approx(memory.expected.value, rel=0.01)
    said = capsys.readouterr().out
    assert said.index("predicted batch   1") < said.index("measured  batch   1")
    assert "3,934,464 parameters × 16 bytes = 0.06 GiB" in said


def test_mfu_counts_causal_attention_exactly_and_shows_the_other_conventions_beside(tmp_path: Path, l4: Device) -> None:
    flags = Parser("train_step", "").parse_args(["--out", str(tmp_path)])
    within = Surroundings(started=0.0)
    config = Config(**{**vars(CONFIG), "model": "mistral-7b", "dtype": "bf16", "sequence": 4096})
    beside = train_step.limits(config, l4, flags, within)
    taken = Taken(batch=1, parts=({"forward": 40.0, "backward": 60.0},), losses=(1.0,), peak_bytes=1, joules=8192.0)
    row, _ = train_step.summarise(config, taken, beside, l4, "checked", None)
    assert row.value == pytest.approx(2 * 4096 / 100)
    assert row.fraction is not None
    assert row.fraction == pytest.approx(mfu(45_903_249_408, row.value, 1, 121e12))
    palm, titan = (row.share_of(other) for other in row.others)
    assert palm == pytest.approx(mfu(49_930_592_256, row.value, 1, 121e12))
    assert titan == pytest.approx(mfu(49_125_285_888, row.value, 1, 121e12))
    assert palm / row.fraction == pytest.approx(1.088, abs=1e-3)
    assert row.config["joules_per_token"] == pytest.approx(1.0)


def test_the_arithmetic_is_six_flops_a_multiplying_weight_and_token() -> None:
    model = Trainee(NANO, chunk=10)
    with FlopCounterMode(display=False) as counter:  # it leaves attention out on a CPU
        model(draw(0, 0, 2, 17)).backward()
    assert counter.get_total_flops() == 6 * NANO.multiplying_weights * 2 * 16


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_gradients_hold_against_float64(cpu: Device, dtype: str) -> None:
    assert check_gradients(dtype, cpu, compiled=False, seed=1).startswith("gradients of mistral-nano within ")


def test_masters_learn_what_bf16_weights_alone_would_lose(
    tmp_path: Path, cpu: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    ceilings(tmp_path, cpu)
    train_step.main([*SMALL, "--batches", "2", "--dtype", "bf16", "--masters", "--out", str(tmp_path)])
    row, memory = read(tmp_path / "train-step.node0.json").measurements
    assert (row.config["masters"], row.config["bytes_per_parameter"]) == (True, 16)
    assert row.config["losses"][-1] < 0.9 * row.config["losses"][0]
    parts = memory.config["parts_bytes"]
    assert parts["masters"] == 2 * parts["weights"] == 4 * NANO.parameters
    assert memory.expected is not None
    assert memory.value == pytest.approx(memory.expected.value, rel=0.01)
    assert "gradients of mistral-nano within" in capsys.readouterr().out


def test_a_step_too_small_for_bf16_is_in_the_master_and_adds_up() -> None:
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    masters = Masters([weight], 1e-3)
    seen = []
    for _ in range(5):
        weight.grad = torch.ones(4, dtype=torch.bfloat16)
        masters.step()
        seen.append(float(weight.detach()[0]))
        masters.zero_grad()
        assert weight.grad is None
    assert seen[0] == 1.0, "1 − 0.001 is 1 in bf16"
    assert seen[-1] == 1 - 2**-8, "five such steps are not"


def test_masters_of_fp32_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        train_step.main([*SMALL, "--dtype", "fp32", "--masters"])
    assert "dtype='fp32' needs no masters: write --dtype bf16, or leave --masters out" in capsys.readouterr().err


def test_a_wrong_gradient_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = chunked_loss
    monkeypatch.setattr(trainee, "chunked_loss", lambda hidden, weight, labels, chunk: right(
        1.01 * hidden, weight, labels, chunk))  # fmt: skip
    with pytest.raises(CheckFailed, match=r"^gradients of mistral-nano: \S+ differs by \S+ from float64's, allowed"):
        train_step.main([*SMALL, "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_learn_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"^loss falls: from \d\.\d+ only to \d\.\d+, must be below 90%"):
        train_step.main([*SMALL, "--learning-rate", "1e-9", "--out", str(tmp_path)])


def test_micro_batches_add_up_to_the_whole_batchs_step(cpu: Device) -> None:
    torch.manual_seed(0)
    model = Trainee(NANO, chunk=100)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.decoder.lm_head.weight.detach().clone()
    tokens_GT = draw(0, 0, 4, 9)
    model(tokens_GT).backward()
    expected = before - model.decoder.lm_head.weight.grad
    model.zero_grad()
    parts, loss = trainee.step(model, optimiser, tokens_GT.split(2), cpu)
    torch.testing.assert_close(model.decoder.lm_head.weight.detach(), expected)
    assert list(parts) == ["forward", "backward", "optimiser"]
    assert loss == pytest.approx(6.93, abs=0.3)
    assert model.decoder.lm_head.weight.grad is None


def out_of_memory_at(limit: int):
    def train(model, optimiser, config: Config, device: Device, batch: int, gauge: Gauge) -> Taken:
        if batch >= limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Taken(batch=batch, parts=({"forward": 1.0},), losses=(1.0,), peak_bytes=1, joules=None)

    return train


def test_a_batch_that_does_not_fit_ends_the_sweep_and_is_told(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "train", out_of_memory_at(2))
    found = Sweep()
    assert [taken.batch for taken in found.run(CONFIG, cpu)] == [1]
    assert found.notes == [f"batch 2 does not fit into the memory of {cpu.name}"]


def test_where_no_batch_fits_there_is_no_record(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "train", out_of_memory_at(1))
    with pytest.raises(torch.OutOfMemoryError):
        list(Sweep().run(CONFIG, cpu))


def test_the_budget_ends_a_sweep_but_not_before_the_first_batch(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "train", out_of_memory_at(100))
    found = Sweep()
    config = Config(**{**vars(CONFIG), "budget_s": 0.0})
    assert [taken.batch for taken in found.run(config, cpu)] == [1]
    assert found.notes == ["batch 2 and later were left out: the budget of 0 s is used up, write --budget-s for more"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dtype", "fp16"], "dtype='fp16' is not one that training runs in: write fp32 or bf16"),
        (["--steps", "3"], "steps=3 cannot show a falling loss: write at least 4"),
        (["--model", "gpt"], "model='gpt' does not exist: write one of mistral-7b"),
        (["--batches", "1,x"], "argument --batches: 'x' is not a whole number of at least 1"),
        (["--learning-rate", "2"], "'2' is not a learning rate between 0 and 1: write for example 3e-4"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train_step.main(["--device", "cpu", *flags])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
