"""The four latencies, by hand, and what counts as good."""

import pytest

from workloads.serving.timeline import Promise, Timeline, errors, good

EXAMPLE = Timeline(
    due_s=0.0, sent_s=0.0, texts_s=(0.235, *(0.235 + 0.01 * gap for gap in range(1, 256))), prompt_tokens=8, tokens=256
)
"""Sent at 0, first token at 0.235 s, last at 2.785 s, 256 tokens."""


def test_the_latencies_of_the_example_are_those_worked_out_by_hand() -> None:
    assert EXAMPLE.ttft_s == 0.235
    assert EXAMPLE.e2e_s == pytest.approx(2.785)
    assert EXAMPLE.tpot_s == pytest.approx(0.010)
    assert EXAMPLE.decode_rate == pytest.approx(100)
    assert EXAMPLE.whole_rate == pytest.approx(91.9, abs=0.05)
    assert EXAMPLE.gaps_s == pytest.approx([0.01] * 255)


def test_tokens_are_those_of_usage_whatever_the_chunks() -> None:
    """Four tokens in two pieces: three gaps' worth of time, one gap seen."""
    line = Timeline(due_s=1.0, sent_s=1.0, texts_s=(1.1, 1.4), tokens=4)
    assert line.tpot_s == pytest.approx(0.1)
    assert line.gaps_s == pytest.approx([0.3])


def test_waiting_counts_from_when_a_request_was_due_not_from_when_it_was_sent() -> None:
    line = Timeline(due_s=0.0, sent_s=0.5, texts_s=(0.6,), tokens=1)
    assert line.ttft_s == pytest.approx(0.6)
    assert line.tpot_s is None
    assert line.decode_rate is None


@pytest.mark.parametrize(
    ("promise", "kept"),
    [
        (Promise(ttft_s=0.235, tpot_s=0.0101), True),
        (Promise(ttft_s=0.234, tpot_s=1.0), False),
        (Promise(ttft_s=1.0, tpot_s=0.0099), False),
    ],
)
def test_a_promise_is_kept_only_in_both_bounds(promise: Promise, kept: bool) -> None:
    assert promise.kept(EXAMPLE) is kept


def test_a_failed_request_is_never_good_and_is_counted_by_its_cause() -> None:
    lines = [
        EXAMPLE, Timeline(due_s=0, sent_s=0, error="HTTP 503"), Timeline(due_s=0, sent_s=0, error="HTTP 503"),
    ]  # fmt: skip
    assert good(lines) == [EXAMPLE]
    assert errors(lines) == {"HTTP 503": 2}
    assert not Promise(ttft_s=9, tpot_s=9).kept(lines[1])
