"""Times every collective over the sizes, checked each time, within a budget: what is too long is left out and named."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from workloads.collective.operations import operation
from workloads.collective.sizes import size_name
from workloads.device import time_each
from workloads.group import Group

LEAST = 5
"""Samples a size must have, or it is left out."""
_WEIGHTS = {("all-reduce", "fp32"): 2.0}
"""Shares of the budget; 1 for the others. Other workloads predict from the all-reduce."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One size of one collective."""

    nominal_bytes: int
    """The size that was asked for."""
    size_bytes: int
    """The size it is: what the ranks divide."""
    by_rank: list[tuple[float, ...]]
    """Seconds of every call, by rank."""

    @property
    def samples_s(self) -> tuple[float, ...]:
        """A collective is over when its last rank is: of each call the slowest rank's seconds."""
        return tuple(max(call) for call in zip(*self.by_rank, strict=True))


@dataclass(frozen=True, kw_only=True)
class Series:
    """One collective in one data type, over its sizes."""

    collective: str
    dtype: str
    timed: tuple[Timed, ...]
    left_out: tuple[int, ...] = ()
    """Sizes for which the budget did not suffice."""


def sweep(
    named: Sequence[tuple[str, str]], sizes_bytes: Sequence[int], *, iterations: int, warmup: int, budget_s: float,
    group: Group, tell: Callable[[str, str, Timed], None],
) -> list[Series]:  # fmt: skip
    """Each collective with its data type, in that order; `tell` hears of each size as it is done.

    Raises:
        CheckFailed: on every rank, if one of them got a wrong element.
    """
    ends = time.monotonic() + budget_s
    done = []
    for index, (collective, dtype) in enumerate(named):
        weights = [_WEIGHTS.get(name, 1.0) for name in named[index:]]
        begins = time.monotonic()
        until = begins + max(0.0, ends - begins) * weights[0] / sum(weights)
        timed: list[Timed] = []
        for place, size_bytes in enumerate(sizes_bytes):
            found = measure_within(until - time.monotonic(), collective, size_bytes, dtype, group,
                                   iterations=iterations, warmup=warmup, sizes=len(sizes_bytes) - place,
                                   must=not timed)  # fmt: skip
            if found is None:
                break
            timed.append(found)
            tell(collective, dtype, found)
        left_out = tuple(sizes_bytes[len(timed) :])
        done.append(Series(collective=collective, dtype=dtype, timed=tuple(timed), left_out=left_out))
    return done


def measure(collective: str, size_bytes: int, dtype: str, group: Group, *, iterations: int, warmup: int) -> Timed:
    """That size, however long it takes.

    Raises:
        CheckFailed: on every rank, if one of them got a wrong element.
    """
    found = measure_within(math.inf, collective, size_bytes, dtype, group, iterations=iterations, warmup=warmup)
    assert found is not None
    return found


def measure_within(left_s: float, collective: str, size_bytes: int, dtype: str, group: Group, *, iterations: int,
                   warmup: int, sizes: int = 1, must: bool = False) -> Timed | None:  # fmt: skip
    """That size, in fewer iterations where `left_s` of the first rank does not suffice for it and the `sizes` to come.

    None, on every rank, where it does not suffice for `LEAST` of them, unless it `must` be measured all the same.

    Raises:
        CheckFailed: on every rank, if one of them got a wrong element.
    """
    device, prepared = group.device, operation(collective, size_bytes, dtype, group)
    wrong = torch.zeros((), dtype=torch.int64, device=device.torch)

    def before() -> None:
        prepared.prepare()
        group.meet()  # on a GPU each collective aligns the next

    def after() -> None:
        wrong.add_(prepared.due.wrong())

    def timed(count: int) -> tuple[float, ...]:
        return time_each(device, prepared.call, count, before=before, after=after)

    begins = time.monotonic()
    timed(warmup)
    told = group.gather(((time.monotonic() - begins) / warmup, left_s))
    count = iterations_within(told[0][1], max(each_s for each_s, _ in told), iterations, sizes)
    if not count and not must:
        return None
    count = count or min(LEAST, iterations)
    samples_s = timed(count)
    elements = prepared.due.values_RC.numel() * (warmup + count)
    failure = f"{int(wrong)} of {elements} elements are wrong" if wrong else ""
    group.require(f"{collective} of {size_name(size_bytes)} in {dtype}", failure)
    return Timed(nominal_bytes=size_bytes, size_bytes=prepared.size_bytes, by_rank=group.gather(samples_s))


def iterations_within(left_s: float, each_s: float, most: int, sizes: int = 1) -> int:
    """How many of `each_s` this size may have of the time for `sizes` of them, from `LEAST` to `most`.

    0 where `left_s` does not suffice for `LEAST` (or for `most`, if that is less).
    """
    least = min(LEAST, most)
    if least * each_s > left_s:
        return 0
    share_s = left_s / sizes
    return most if most * each_s <= share_s else max(least, int(share_s / each_s))
