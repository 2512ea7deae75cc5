"""The figures of the ladder and of the batch sweep: gains, floors and limits, in words as well as drawn."""

import re
from dataclasses import replace
from typing import Any

import pytest

from labs.results import Measurement, Record, Roof
from operate.report.batch_sweep import batch_sweep
from operate.report.element import document, el
from operate.report.figures import _FIGURES
from operate.report.ladder import ladder
from operate.report.lessons import LESSONS
from tests.operate.made_run import NO_ROOF, record

LEFT_OUT = "CUDA graph: not applicable, a CPU has no launches to save"


def rung(name: str, on: str, value: float, floor_s: float, base: float | None, **more: Any) -> Measurement:
    told = {
        "kind": "rung", "rung": name, "on": on, "does": "one thing", "bytes": floor_s * 10e9, "error": 0.0123,
        "kl_nats": 1.5e-4, "agreement": 0.9375, "positions": 16, "peak_bytes": 512 * 2**20,
        "gain": base / value if base else None, **more,
    }  # fmt: skip
    return Measurement(name=f"mistral-mini {name}", value=value, unit="s", estimator="median of 16",
                       samples_s=(value,) * 16, no_roof_because=NO_ROOF, config=told,
                       others=(Roof(value=floor_s, source="bytes ÷ measured here, memory by dot"),))  # fmt: skip


def climbed(**more: Any) -> Record:
    rows = [
        rung("eager fp32", "", 30e-3, 12e-3, None, **more),
        rung("bf16", "eager fp32", 15e-3, 6e-3, 30e-3, **more),
        rung("compile", "bf16", 12e-3, 6e-3, 15e-3, **more),
        rung("int8 weights, not compiled", "bf16", 40e-3, 3e-3, 15e-3, **more),
        rung("int8 weights", "compile", 7e-3, 3e-3, 12e-3, **more),
    ]
    return record("optimise", rows, node="node0", notes=(LEFT_OUT, "another note"))


def swept() -> Record:
    rows = []
    for batch in (1, 4, 16):
        roof = Roof(value=40.0 * batch, source="measured here, memory by dot × intensity")
        rows.append(Measurement(
            name=f"mistral-mini decode, batch {batch}", value=30.0 * batch, unit="token/s", estimator="median",
            samples_s=(1 / 30,) * 3, no_roof_because=NO_ROOF, others=(roof,), expected=roof,
            config={"kind": "batch", "model": "mistral-mini", "dtype": "bf16", "batch": batch, "context": 128,
                    "ridge": 20.0},
        ))  # fmt: skip
    return record("batch-sweep", rows, node="node0")


def words(elements: list[Any]) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", document(el("div", *elements))))


@pytest.fixture(scope="module")
def text() -> str:
    """What the ladder's figure and table say; drawing it takes a second."""
    return words(ladder([climbed()]))


def test_the_waterfall_names_the_whole_gain_every_floor_and_what_was_left_out(text: str) -> None:
    assert "From 30.0 ms to 7.00 ms, 4.3 times, by int8 weights." in text
    assert "int8 weights, not compiled 40.0 ms, floor 3.00 ms" in text
    assert f"Left out: {LEFT_OUT}." in text
    assert "another note" not in text


def test_the_table_tells_gain_share_and_quality_of_each_rung(text: str) -> None:
    assert "int8 weights one thing 30.0 MB 43 % 1.71 × compile 0.012 0.00015 nat 94 % 512 MiB" in text
    assert "int8 weights, not compiled one thing 30.0 MB 7.5 % 0.375 × bf16" in text
    assert "eager fp32 one thing 120 MB 40 % – " in text
    assert "Quality beside eager fp32, on the same 16 tokens" in text
    assert "Perplexity" not in text
    assert re.search(r"Perplexity .* 13\.2 ", words(ladder([climbed(perplexity=13.2)])))


def test_a_batch_stands_under_its_roof_and_the_family_says_where_the_ridge_is_out_of_reach() -> None:
    text = words(batch_sweep([swept()]))
    assert "at 128 tokens of context" in text
    reach = 2 * 142_606_336 / (8192 * (20 - 4))
    assert f"which some batch reaches up to {reach:,.0f} tokens of context" in text
    assert "Tokens per second from 30.0 token/s at batch 1 to 480 token/s at batch 16" in text
    assert "L4 403" in text
    assert "H200 206" in text


def test_a_record_without_rungs_or_batches_draws_nothing() -> None:
    assert ladder([record("optimise", (), node="node0")]) == []
    assert batch_sweep([record("batch-sweep", (), node="node0")]) == []
    unknown = replace(swept().measurements[0], config={**swept().measurements[0].config, "model": "other"})
    assert batch_sweep([record("batch-sweep", (unknown,), node="node0")]) == []


def test_both_have_a_figure_and_a_lesson_with_a_next_step() -> None:
    for name in ("optimise", "batch-sweep"):
        assert name in _FIGURES
        assert LESSONS[name].next
