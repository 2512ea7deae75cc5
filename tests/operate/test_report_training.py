"""The figures of training on one device: batches, fp8 beside bf16, memory against time, saves, data."""

import re
from typing import Any

import pytest

from labs.results import Measurement, Record, Roof, Span
from operate.report.checkpoint import checkpoint
from operate.report.data_loading import data_loading
from operate.report.element import document, el
from operate.report.parity import parity
from operate.report.recompute import recompute
from operate.report.train_step import train_step
from tests.operate.made_run import NO_ROOF, record


def row(name: str, value: float, unit: str, **given: Any) -> Measurement:
    roof = given.get("roof")
    return Measurement(name=name, value=value, unit=unit, estimator="median of 3",
                       no_roof_because="" if roof else NO_ROOF, **given)  # fmt: skip


def spans(**seconds: float) -> tuple[Span, ...]:
    return tuple(Span(name=name.replace("_", " "), seconds=taken, how="measured") for name, taken in seconds.items())


def words(elements: list[Any]) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", document(el("div", *elements))))


def batches(known: bool) -> Record:
    roof = Roof(value=2e4, source="dense bf16 peak") if known else None
    others = () if known else (Roof(value=1.5e4, source="measured before in this run, fp32"),)
    return record("train-step", [
        row(f"batch {batch} × 64", 6e3 * batch, "token/s", roof=roof, others=others, samples_s=(0.02, 0.02, 0.02),
            expected=Roof(value=7e3 * batch, source="model") if batch == 1 else None,
            spans=spans(backward=0.012, forward=0.006, optimiser=0.002),
            config={"batch": batch, "tokens_per_step": 64 * batch})
        for batch in (1, 2)
    ])  # fmt: skip


@pytest.mark.parametrize(("known", "said"), [(True, "roof 20,000 token/s"), (False, "ceiling 15,000 token/s")])
def test_training_over_the_batch_stands_beside_its_roof_or_the_measured_ceiling(known: bool, said: str) -> None:
    text = words(train_step([batches(known)]))
    assert said in text
    assert "batch 2: 12,000 token/s, a step 20.0 ms" in text
    assert ("No roof of a datasheet is drawn" in text) is not known
    assert train_step([record("train-step", [])]) == []


def curves(speeds: bool) -> Record:
    rows = [
        row(f"loss in {dtype}, seed {seed}", late, "nat/token",
            others=(Roof(value=0.73, source="entropy"),), config={"kind": "loss", "dtype": dtype, "seed": seed,
            "losses": [7.0, 5.0, late]})
        for dtype, seed, late in (("bf16", 0, 4.0), ("fp8", 0, 4.1), ("bf16", 1, 4.4))
    ]  # fmt: skip
    if speeds:
        for dtype, taken in (("bf16", 0.3), ("fp8", 0.24)):
            told = {"kind": "speed", "dtype": dtype}
            rows.append(row(f"{dtype} training", 1 / taken, "token/s", samples_s=(taken,) * 3, config=told))
    return record("fp8-training", rows)


def test_losses_of_both_arithmetics_lie_over_each_other() -> None:
    text = words(parity([curves(True)]))
    assert "4.100 in the last quarter, bf16 4.000." in text
    assert "bf16, 2 seeds" in text
    assert "240 ms" in text
    assert "No speed is shown: fp8 was emulated here." in words(parity([curves(False)]))
    assert parity([record("fp8-training", curves(True).measurements[:1])]) == []


def test_time_against_memory_names_both_ends() -> None:
    rows = [
        row(f"step, {count} of 4 layers again", 0.1 + 0.01 * count, "s", samples_s=(0.1,) * 3,
            expected=Roof(value=0.1 + 0.008 * count, source="FLOPs"),
            config={"kind": "time", "kept_bytes": 10e6 - 2e6 * count, "predicted_bytes": 10e6 - 2e6 * count})
        for count in range(5)
    ]  # fmt: skip
    text = words(recompute([record("recompute", rows)]))
    assert "10.0 MB down to 2.00 MB, 5.0 times less, for 1.40 times the time" in text
    assert recompute([record("recompute", rows[:1])]) == []


def test_saves_show_the_later_ones_and_what_stood_in_the_way() -> None:
    rows = [
        row(f"{name}, {way}", value, "s", samples_s=(value,), spans=spans(the_call=value, waiting_for_the_copy=0.01),
            config={"kind": "blocked", "way": way, "first": name == "first save", "ends_s": [value + 0.1, value + 0.2],
                    "written_s": [value], "noise_s": 0.01})
        for way, first, later in (("torch.save", 0.9, 0.8), ("dcp.async_save", 2.9, 0.05))
        for name, value in (("first save", first), ("blocked", later))
    ]  # fmt: skip
    text = words(checkpoint([record("checkpoint", rows)]))
    assert "torch.save: blocked 800 ms; dcp.async_save: blocked 50.0 ms." in text
    assert "least by dcp.async_save, 50.0 ms" in text
    assert "2.90 s" not in text
    assert checkpoint([record("checkpoint", [])]) == []


def test_waiting_for_data_is_drawn_apart_from_training() -> None:
    rows = [
        row(name, 64 / 0.1, "token/s", samples_s=(0.1,) * 3, expected=Roof(value=64 / 0.09, source="in turn"),
            config={"waited_s": waited, "starved_share": waited / 0.1, "tokens_per_step": 64})
        for name, waited in (("memory", 0.0), ("text, 0 workers", 0.04))
    ]  # fmt: skip
    text = words(data_loading([record("data-loading", rows)]))
    assert "Most starved is text, 0 workers, 40 % of its time." in text
    assert "40.0 ms waiting" in text
    assert data_loading([record("data-loading", [])]) == []
