"""Levels as rows: what was foretold, what physics allows, what failed."""

from dataclasses import replace

import pytest

from labs.models import find_model
from labs.results import Roof
from workloads.device import Device
from workloads.serving.driving import Demand, Level
from workloads.serving.foretelling import Alone, Physics
from workloads.serving.rows import level_notes, row_line, rows
from workloads.serving.timeline import Promise, Timeline

DEMAND = Demand(prompt=1000, new_tokens=48, seed=0)
PROMISE = Promise(ttft_s=0.5, tpot_s=0.05)


def answer(due_s: float, first_s: float, each_s: float = 0.01, tokens: int = 11) -> Timeline:
    texts_s = tuple(due_s + first_s + each_s * token for token in range(tokens))
    return Timeline(due_s=due_s, sent_s=due_s, texts_s=texts_s, tokens=tokens, prompt_tokens=1000)


ONE = Level(kind="closed", load=1, begin_s=0.0, window_s=1.0,
            timelines=tuple(answer(due_s, 0.1) for due_s in (0.0, 0.2, 0.4)))  # fmt: skip
"""Each takes 0.1 s to the first token, then ten of 10 ms."""


def of(level: Level, physics: Physics | None = None, **given: object) -> dict:
    settings = {"foretold_rate": None, "foretold_first": None, "price": 3.6, "checked": "usage", **given}
    found = rows(level, PROMISE, physics, "no device there", **settings)  # type: ignore[arg-type]
    return {row.config["what"]: row for row in found}


def test_one_client_by_hand() -> None:
    found = of(ONE)
    assert found["throughput"].value == pytest.approx(33 / 0.6)
    assert found["throughput"].usd_per_unit == pytest.approx(1e-3 / (33 / 0.6) * 1e6)
    assert found["goodput"].value == pytest.approx(3 / 0.6)
    assert found["first"].value == pytest.approx(0.1)
    assert found["token"].value == pytest.approx(0.01)
    assert found["gap"].value == pytest.approx(0.01)
    assert len(found["gap"].samples_s) == 30
    assert found["whole"].value == pytest.approx(0.2)
    assert sum(span.seconds for span in found["whole"].spans) == pytest.approx(0.2)
    assert found["first"].no_roof_because == "no device there"


def test_goodput_counts_only_what_kept_both_promises_and_failures_stand_apart() -> None:
    failed = Timeline(due_s=0.5, sent_s=0.5, error="HTTP 503: busy")
    level = Level(kind="open", load=4.0, begin_s=0.0, window_s=1.0,
                  timelines=(answer(0.0, 0.1), answer(0.2, 0.6), answer(0.3, 0.1, each_s=0.06), failed))  # fmt: skip
    found = of(level)
    assert found["goodput"].value == pytest.approx(1.0), "one of four, over the window of a second"
    assert found["goodput"].others[0].value == pytest.approx(4.0)
    assert found["goodput"].config["answered"] == 3
    assert found["throughput"].value == pytest.approx(33.0)
    assert found["throughput"].no_roof_because == "no more comes out than is asked for"
    assert list(level_notes(level, 11)) == [
        "4 requests/s: 1 of 4 requests failed, counted apart: HTTP 503: busy (×1)"
    ]  # fmt: skip
    assert "kept 1 of 4, 1.00 good requests/s" in row_line(level, list(found.values()))


def test_a_level_without_an_answer_has_a_throughput_of_nothing_and_no_times() -> None:
    level = replace(ONE, timelines=(Timeline(due_s=0.0, sent_s=0.0, error="no connection"),))
    found = of(level)
    assert set(found) == {"throughput", "goodput"}
    assert (found["throughput"].value, found["goodput"].value) == (0.0, 0.0)
    assert found["throughput"].usd_per_unit is None


def test_notes_name_pieces_lateness_and_short_answers() -> None:
    line = Timeline(due_s=0.0, sent_s=0.25, texts_s=(0.3, 0.4), tokens=4)
    assert list(level_notes(replace(ONE, timelines=(line,)), 8)) == [
        "1 client: 2.00 tokens in a piece of text, by usage",
        "1 client: the client sent up to 250 ms late; latencies count from when due",
        "1 client: 1 of 1 answers ended before 8 tokens",
    ]


def test_floors_of_7b_on_an_l4(l4: Device) -> None:
    """S = 1024 at the middle of the answer: 14,361,837,568 bytes at 300 GB/s."""
    memory = Roof(value=250e9, source="measured before in this run, memory by sum")
    physics = Physics(device=l4, model=find_model("mistral-7b"), dtype="bf16", demand=DEMAND, memory=memory)
    assert physics.token.roof is not None
    assert physics.token.roof.value == pytest.approx(14_361_837_568 / 300e9)
    assert physics.measured()[0].value == pytest.approx(14_361_837_568 / 250e9)
    alone, four = physics.rate(1).roof, physics.rate(4).roof
    assert alone is not None
    assert four is not None
    assert alone.value == pytest.approx(1 / physics.token.roof.value)
    assert 3.8 * alone.value < four.value < 4 * alone.value, "the weights are shared, the KV caches are not"
    found = of(ONE, physics)
    assert found["token"].roof == physics.token.roof
    assert found["whole"].roof is not None
    assert physics.first.roof is not None
    assert found["whole"].roof.value == pytest.approx(physics.first.roof.value + 47 * physics.token.roof.value)
    assert found["throughput"].others[0].value == pytest.approx(1 / physics.measured()[0].value)


def test_what_one_client_foretells_of_a_server_that_takes_requests_in_turn() -> None:
    alone = Alone.of(ONE, batching=False)
    assert (alone.first_s, alone.whole_s) == pytest.approx((0.1, 0.2))
    assert alone.rate(4).value == pytest.approx(alone.token_rate)
    assert alone.first(3).value == pytest.approx(0.1 + 2 * 0.2)
    assert alone.first_due((0.0, 0.1, 0.2)).value == pytest.approx(0.1 + 0.1), "waits of 0, 0.1 and 0.2 s"
    assert "one request after another" in alone.first_due((0.0,)).source


def test_what_one_client_foretells_of_a_server_that_batches() -> None:
    alone = Alone.of(ONE, batching=True)
    assert alone.rate(4).value == pytest.approx(4 * alone.token_rate)
    assert alone.first(4).value == alone.first_due((0.0, 0.0, 0.0)).value == pytest.approx(0.1)
