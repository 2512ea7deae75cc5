"""optimise: every rung beside its floor and the rung it stands on; what is left out says why, and counts as no gain."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from labs.models import find_model
from labs.results import Roof, read
from workloads import optimise
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.ladder import climb, overhead, rungs, trained
from workloads.ladder.overhead import Starts
from workloads.ladder.static import Static

NANO = find_model("mistral-nano")
SMALL = ["--device", "cpu", "--model", "mistral-nano", "--prompt", "6", "--tokens", "4"]
MEMORY = Roof(value=10e9, source="measured before in this run, memory by dot")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The read rate is told, and nothing is compiled: tests/workloads/ladder captures what would be."""
    monkeypatch.setattr(optimise, "measured_read", lambda *_: MEMORY)
    monkeypatch.setattr(rungs, "_no_compiler", lambda _device: "no C++ compiler")


def run(tmp_path: Path, *flags: str) -> Any:
    optimise.main([*SMALL, *flags, "--out", str(tmp_path), "--kept", str(tmp_path / "kept")])
    return read(tmp_path / "optimise.node0.json")


def test_a_run_writes_every_rung_beside_its_floor_and_names_those_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOFLAB_USD_PER_HOUR", "3.6")
    record = run(tmp_path)
    rows = {row.config["rung"]: row for row in record.measurements}
    assert list(rows) == ["eager fp32", "bf16", "fused attention", "static cache", "fused projections",
                          "int8 weights, not compiled"]  # fmt: skip
    context = 6 + 2
    assert rows["eager fp32"].config["bytes"] == NANO.decode_bytes(context, weight_size=4, kv_size=4)
    assert rows["bf16"].config["bytes"] == NANO.decode_bytes(context)
    assert rows["int8 weights, not compiled"].config["bytes"] < 0.6 * rows["bf16"].config["bytes"]
    for row in rows.values():
        assert row.unit == "s"
        assert len(row.samples_s) == 4
        assert row.others[0].value == pytest.approx(row.config["bytes"] / 10e9)
        assert row.roof is None
        assert row.no_roof_because
        assert row.expected is not None
        assert row.expected.value > row.others[0].value
        assert sum(span.seconds for span in row.spans) == pytest.approx(row.value)
        assert row.usd_per_unit == pytest.approx(1e-3 * row.value * 1e6)
        assert row.config["positions"] == 4
        assert row.config["peak_bytes"] is None or row.config["peak_bytes"] > 2**20
    base = rows["fused projections"].config
    assert base["on"] == "static cache"
    assert base["gain"] == pytest.approx(rows["static cache"].value / rows["fused projections"].value)
    assert base["removed_s"] == pytest.approx(rows["static cache"].value - rows["fused projections"].value)
    assert rows["eager fp32"].config["gain"] is None
    assert rows["eager fp32"].config["against"] == "one pass without a cache"
    assert rows["bf16"].config["against"] == "eager fp32"
    assert rows["eager fp32"].config["error"] < 1e-5 < rows["bf16"].config["error"] < 0.1
    assert "compile: not applicable, no C++ compiler" in record.notes
    assert "CUDA graph: not applicable, no C++ compiler" in record.notes
    assert "torchao" in record.machine.versions
    lines = capsys.readouterr().out.splitlines()
    kinds = [line.split()[0] for line in lines if line.startswith(("predicted", "measured"))]
    assert kinds == ["predicted", "measured"] * 6


def test_what_the_budget_does_not_allow_is_skipped_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, *[9.0] * 100])
    monkeypatch.setattr(optimise, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    record = run(tmp_path, "--budget-s", "5")
    assert [row.config["rung"] for row in record.measurements] == ["eager fp32"]
    assert "bf16: skipped, the budget of 5 s was spent" in record.notes


def test_a_rung_that_fails_is_named_the_others_are_kept_and_the_run_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, *_: object, **__: object) -> None:
            raise RuntimeError("kernel refused\nand a long tail")

    monkeypatch.setattr(climb, "Static", Broken)
    with pytest.raises(
        CheckFailed, match=r"^static cache, fused projections, int8 weights, not compiled failed: .*json"
    ):
        run(tmp_path)
    record = read(tmp_path / "optimise.node0.json")
    assert [row.config["rung"] for row in record.measurements] == ["eager fp32", "bf16", "fused attention"]
    assert "static cache: failed, kernel refused" in record.notes


def test_a_wrong_rung_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Static.step

    def shifted(engine: Static) -> torch.Tensor:
        return taken(engine).roll(1, -1)

    monkeypatch.setattr(Static, "step", shifted)
    with pytest.raises(
        CheckFailed, match=r"^static cache: logits are 1\.\d standard deviations from eager fp32, allowed"
    ):
        run(tmp_path)
    assert not (tmp_path / "optimise.node0.json").exists()


def test_trained_weights_have_a_perplexity_on_every_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimise, "STEPS", 4)
    monkeypatch.setattr(trained, "BATCH", 2)
    monkeypatch.setattr(trained, "TOKENS", 16)
    monkeypatch.setattr(trained, "project_text", lambda: "the quick brown fox reads a page of text, " * 200)
    record = run(tmp_path, "--trained")
    assert record.config["trained_steps"] == 4
    for row in record.measurements:
        assert 1 < row.config["perplexity"] < 1024
    first, half = record.measurements[:2]
    assert half.config["perplexity"] == pytest.approx(first.config["perplexity"], rel=0.05)


def test_training_lowers_perplexity_on_text_held_out(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "BATCH", 2)
    monkeypatch.setattr(trained, "TOKENS", 16)
    monkeypatch.setattr(trained, "project_text", lambda: "the quick brown fox reads a page of text, " * 200)
    made = trained.train(NANO, cpu, 0, 12)
    assert made.before > 300
    assert made.after < made.before / 3
    assert torch.equal(made.model("bf16").lm_head.weight, made.model("fp32").lm_head.weight.bfloat16())


def test_the_projects_text_is_there_and_its_tokens_are_of_the_vocabulary() -> None:
    text = trained.project_text(20_000)
    assert len(text) == 20_000
    tokens = trained.tokens_of(text, 1024)
    assert 20_000 / 5 < len(tokens) < 20_000
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < 1024


def test_perplexity_of_an_even_guess_is_the_vocabulary() -> None:
    assert trained.perplexity(torch.zeros(5, 1024), torch.arange(5)) == pytest.approx(1024)


def test_operations_are_counted_without_views() -> None:
    x = torch.ones(4, 4)
    assert overhead.operations(lambda: (x.view(16) + 1).t().exp()) == 2


def test_a_cpu_starts_and_reads_in_turn_and_a_gpu_at_once() -> None:
    assert Starts(count=1000, each_s=2e-6, hidden=False).expected(5e-3, "rate").value == pytest.approx(7e-3)
    assert Starts(count=1000, each_s=2e-6, hidden=True).expected(5e-3, "rate").value == pytest.approx(5e-3)
    assert Starts(count=4000, each_s=2e-6, hidden=True).expected(5e-3, "rate").value == pytest.approx(8e-3)


@pytest.mark.parametrize(
    ("taken_s", "started", "names"),
    [
        (
            10e-3,
            Starts(count=1000, each_s=2e-6, hidden=False),
            ["weights and cache", "the rest", "starting operations"],
        ),
        (10e-3, Starts(count=4000, each_s=2e-6, hidden=True), ["weights and cache", "starting operations", "the rest"]),
        (6e-3, Starts(count=9000, each_s=2e-6, hidden=False), ["weights and cache", "starting operations"]),
        (4e-3, Starts(count=9000, each_s=2e-6, hidden=False), ["weights and cache"]),
        (6e-3, None, ["weights and cache", "the rest"]),
    ],
)
def test_named_milliseconds_add_up_to_the_step(taken_s: float, started: Starts | None, names: list[str]) -> None:
    found = overhead.spans(taken_s, 5e-3, "rate", started)
    assert sum(span.seconds for span in found) == pytest.approx(taken_s)
    assert [span.name for span in found] == names


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "mistral-9b"], "model='mistral-9b' does not exist: write one of mistral-7b"),
        (["--model", "mistral-mini", "--trained"], "model='mistral-mini' is not trained on the spot: write --trained"),
        (["--tokens", "0"], "'0' is not a whole number of at least 1"),
        (["--budget-s", "-1"], "'-1' is not a number of seconds"),
        (["--weights", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_flags_are_one_line_that_says_what_to_write(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        optimise.main(["--device", "cpu", *flags])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_what_was_compiled_is_kept_and_loaded_again(
    tmp_path: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workloads.ladder.compiler import kept, kept_at

    loaded: list[bytes] = []
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", loaded.append)
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (b"kernels", None))
    path = kept_at(tmp_path / "kept", cpu)
    for _ in range(2):
        with kept(path):
            pass
    assert loaded == [b"kernels"]
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: None)
    with kept(tmp_path / "other.bin"):
        pass
    assert not (tmp_path / "other.bin").exists()
