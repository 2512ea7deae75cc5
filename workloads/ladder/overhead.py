"""What a step costs beside reading the weights: how many operations it starts, and what starting one costs here."""

# mypy follows no imports into torch, so that TorchDispatchMode is Any to it.
# mypy: allow-subclassing-any

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from labs.models import Model
from labs.results import Roof, Span
from workloads.device import Device, time_each
from workloads.ladder.rungs import Rung

CHAIN = 200
"""Operations in one sample of the cost of a start."""
KERNELS_A_LAYER = 8
"""Of a compiled layer: two norms, four products with what is fused into them, rotation with the cache, attention."""
KERNELS_BESIDE = 8
"""Of a step's beginning and end: table, angles, mask, last norm, output, choice, position."""
GAP_S = 2.5e-6
"""Between two kernels of a CUDA graph, their ramps included: what hand-tuned decoders show."""


@dataclass(frozen=True, kw_only=True)
class Starts:
    """The predicted cost of starting a step's operations."""

    count: int
    each_s: float
    hidden: bool
    """They run ahead of a GPU that is busy; on a CPU each comes on top."""

    def expected(self, floor_s: float, source: str) -> Roof:
        """The step's time by bytes and starts."""
        total_s = self.count * self.each_s
        value = max(floor_s, total_s) if self.hidden else floor_s + total_s
        how = "or" if self.hidden else "and"
        return Roof(value=value, source=f"bytes ÷ {source}, {how} {self.count} starts of {self.each_s * 1e6:.1f} µs")


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A view starts nothing on a device.
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(step: Callable[[], object]) -> int:
    """How many of torch's operations one call of `step` starts; views are none."""
    counter = _Counter()
    with counter:
        step()
    return counter.count


def start_s(device: Device) -> float:
    """Seconds to start one operation that has nothing to do."""
    one = torch.ones(1, device=device.torch)

    def chain() -> None:
        for _ in range(CHAIN):
            one.add_(1)

    return statistics.median(time_each(device, chain, 5, lead=1)) / CHAIN


def starts(rung: Rung, shape: Model, device: Device, step: Callable[[], object], each_s: float) -> Starts | None:
    """What starting the operations of this rung's step is predicted to cost; None where nothing tells how many."""
    if not rung.compiled:
        return Starts(count=operations(step), each_s=each_s, hidden=device.cuda)
    if not device.cuda:
        return None
    kernels = shape.layers * KERNELS_A_LAYER + KERNELS_BESIDE
    return Starts(count=kernels, each_s=GAP_S, hidden=False) if rung.graph else (
        Starts(count=kernels, each_s=each_s, hidden=True))  # fmt: skip


def spans(taken_s: float, floor_s: float, source: str, started: Starts | None) -> tuple[Span, ...]:
    """What a step's time is made of, largest first, as far as it is known; never more than it took."""
    read_s = min(floor_s, taken_s)
    found = [Span(name="weights and cache", seconds=read_s, how=f"predicted: bytes ÷ {source}")]
    if started:
        over_s = started.count * started.each_s - (read_s if started.hidden else 0.0)
        told = f"predicted: {started.count} × {started.each_s * 1e6:.1f} µs"
        found.append(Span(name="starting operations", seconds=min(max(over_s, 0.0), taken_s - read_s), how=told))
    rest_s = taken_s - sum(span.seconds for span in found)
    found.append(Span(name="the rest", seconds=rest_s, how="measured: kernels slower than the read, Python"))
    return tuple(sorted((span for span in found if span.seconds > 0), key=lambda span: -span.seconds))
