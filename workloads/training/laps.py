"""The parts that a training step's time is made of, measured where it runs: on a GPU by its own events."""

import time
from collections.abc import Sequence

import torch

from labs.results import Span
from workloads.device import Device


class Laps:
    """Marks the end of each part of a step; a part that comes several times is summed. The step is the sum of all."""

    def __init__(self, device: Device) -> None:
        """Begin now."""
        self._device = device
        self._marks: list[tuple[str, torch.cuda.Event | float]] = []
        self.mark("")

    def mark(self, name: str) -> None:
        """What was done since the last mark was `name`."""
        moment: torch.cuda.Event | float = time.perf_counter()
        if self._device.cuda:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._marks.append((name, moment))

    def seconds(self) -> dict[str, float]:
        """Seconds of each part, in order of appearance; waits for the device."""
        self._device.synchronize()
        found: dict[str, float] = {}
        for (_, before), (name, after) in zip(self._marks, self._marks[1:], strict=False):
            taken = before.elapsed_time(after) / 1e3 if self._device.cuda else after - before  # type: ignore[union-attr]
            found[name] = found.get(name, 0.0) + taken
        return found


def median_parts(every: Sequence[dict[str, float]]) -> dict[str, float]:
    """The parts of the step whose total is the median; of the two in the middle, their mean. They add up to it."""
    ordered = sorted(every, key=lambda parts: sum(parts.values()))
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    return {name: sum(parts[name] for parts in middle) / len(middle) for name in middle[0]}


def spans(every: Sequence[dict[str, float]], how: str) -> tuple[Span, ...]:
    """The median step's parts as a record has them, largest first."""
    parts = sorted(median_parts(every).items(), key=lambda part: -part[1])
    return tuple(Span(name=name, seconds=taken, how=f"measured: {how}") for name, taken in parts)
