"""Times paths: alone, on buffers of a few sizes, and in training steps. How often follows from a budget of seconds.

All ranks take the same number of iterations: what the slowest of them needed for the first decides. A sample is the
slowest rank's.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labs.latency import Fit, fit
from labs.traffic import Traffic
from workloads.exchange.paths import Path
from workloads.group import Group
from workloads.parallel.counting import counted
from workloads.parity import digest

SIZES_BYTES = (64 * 2**10, 512 * 2**10, 2 * 2**20)
"""Of the buffers that a path carries alone: none is as large as the gradients, whose time is foretold from these."""
_EACH_S = 0.3
_LEAST, _MOST = 2, 10


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Steps of one way."""

    samples_s: tuple[float, ...]
    """Of each step the slowest rank's."""
    traffic: Traffic
    """Counted on this rank in the step before them."""


def line_of(path: Path, group: Group) -> tuple[Fit | None, dict[int, float]]:
    """The path's latency and rate, and the medians that they are from; None where time does not grow with the size.

    Raises:
        CheckFailed: on every rank, if a sum is wrong.
    """
    group.require(f"sum over {path.name}", _wrong(path, group))
    found: dict[int, float] = {}
    for size in SIZES_BYTES:
        buffer_E = torch.ones(size // 4, device=group.device.torch)

        def once(given_E: Tensor = buffer_E) -> None:
            path.add(given_E)

        _sample(once, group)
        first = _sample(once, group)
        times = sorted((first, *(_sample(once, group) for _ in range(_times(first, _EACH_S, _LEAST, _MOST) - 1))))
        found[size] = times[len(times) // 2]
        if len(found) > 1 and found[size] > _EACH_S:
            break
    return fit(tuple(found), tuple(found.values())), found


def _wrong(path: Path, group: Group) -> str:
    """What is wrong with a sum of small integers, or nothing ("")."""
    buffer_E = torch.full((1001,), 1.0 + group.rank % 4, device=group.device.torch)
    path.add(buffer_E)
    wanted = float(sum(1 + rank % 4 for rank in path.ranks))
    different = int((buffer_E != wanted).sum())
    return f"{different} of 1001 sums are not {wanted:g}" if different else ""


def time_steps(step: Callable[[Tensor], object], shares: Sequence[Tensor], group: Group, budget_s: float) -> Timed:
    """At least two and at most one step for each of `shares` but the first, which warms up and is counted."""
    traffic = counted(lambda: step(shares[0]))
    rest, samples = iter(shares[1:]), []
    first = _sample(lambda: step(next(rest)), group)
    samples.append(first)
    for _ in range(_times(first, budget_s, _LEAST, len(shares) - 1) - 1):
        samples.append(_sample(lambda: step(next(rest)), group))
    return Timed(samples_s=tuple(samples), traffic=traffic)


def _times(first_s: float, budget_s: float, least: int, most: int) -> int:
    return max(least, min(most, int(budget_s / max(first_s, 1e-9))))


def _sample(work: Callable[[], object], group: Group) -> float:
    """The slowest rank's seconds of one iteration that all begin together."""
    group.device.synchronize()
    group.gather(None)
    begin = time.perf_counter()
    work()
    group.device.synchronize()
    return max(group.gather(time.perf_counter() - begin))


def unequal(model: torch.nn.Module, path: Path, group: Group) -> str:
    """Which of the path's ranks hold other parameters than its first, or nothing ("")."""
    every = group.gather(digest(model))
    others = [rank for rank in path.ranks if every[rank] != every[path.ranks[0]]]
    return f"parameters of ranks {others} are not rank {path.ranks[0]}'s" if others else ""
