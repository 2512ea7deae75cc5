"""Parts of a step's time: they add up to the median step, whatever each part's own median."""

import statistics
import time

import pytest

from workloads.device import Device
from workloads.training.laps import Laps, median_parts, spans

STEPS = [{"forward": 1.0, "backward": 5.0}, {"forward": 3.0, "backward": 1.0}, {"forward": 2.0, "backward": 7.0}]


@pytest.mark.parametrize("every", [STEPS, STEPS[:2], STEPS[:1]])
def test_the_parts_add_up_to_the_median_step(every: list[dict[str, float]]) -> None:
    totals = [sum(parts.values()) for parts in every]
    assert sum(median_parts(every).values()) == pytest.approx(statistics.median(totals))


def test_spans_are_named_largest_first() -> None:
    assert [(span.name, span.seconds) for span in spans(STEPS, "here")] == [("backward", 5.0), ("forward", 1.0)]


def test_a_part_that_comes_twice_is_summed(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 3.0, 6.0, 10.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    watch = Laps(cpu)
    for name in ("forward", "backward", "forward", "backward"):
        watch.mark(name)
    assert watch.seconds() == {"forward": 4.0, "backward": 6.0}
