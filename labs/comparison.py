"""Whether two sets of runs differ: the ratio of their medians, its bootstrap interval, and the machine's own noise.

A sample's spread says nothing about the next run: runs differ among each other by more than samples within one, and the
spread does not shrink with more samples. So a run counts as one value, and there must be several on both sides. They
must be taken in turn (A B A B …), or a machine that warms up looks like a change.

The interval is the bootstrap's (Efron, The Annals of Statistics 7, 1979) over runs, computed whole instead of by
drawing: how often each value is the median of a resample is a sum of binomials (Maritz and Jarrett, JASA 73, 1978).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from statistics import median
from typing import Literal

ENOUGH = 5
"""Runs that each side needs."""
LEVEL = 0.95
_SPLITS = 2000
"""At most so many ways to split runs of one kind are tried; where there are more, a seeded choice of them."""
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the runs allow to say about one number. All ratios are other ÷ base."""

    ratio: float
    """Of the medians over runs."""
    low: float | None
    """95 % interval of the ratio; None where there are not enough runs."""
    high: float | None
    floor: float | None
    """By how much two sets of runs of the same thing differ here: the 95th percentile of |ratio − 1|. None as above."""
    verdict: Literal["higher", "lower", "same", "not enough runs"]


def compare(base: Sequence[float], other: Sequence[float], more: Sequence[float] = ()) -> Comparison:
    """Compare values that are positive, one for each run.

    `more`: values of further runs of base, taken on the same machine, that only say how far runs of one thing differ.

    The verdict is "same" where the interval holds 1 or where the ratio is nearer to 1 than the noise floor.
    """
    assert base
    assert other
    assert min(*base, *other, *more, 1.0) > 0, "a ratio needs positive values"
    ratio = median(other) / median(base)
    if min(len(base), len(other)) < ENOUGH:
        return Comparison(ratio=ratio, low=None, high=None, floor=None, verdict="not enough runs")
    low, high = interval(base, other)
    floor = noise_floor((*base, *more), most=min(len(base), len(other)))
    differs = not low <= 1 <= high and _distance(ratio) >= floor
    verdict: Literal["higher", "lower", "same"] = "same" if not differs else "higher" if ratio > 1 else "lower"
    return Comparison(ratio=ratio, low=low, high=high, floor=floor, verdict=verdict)


def interval(base: Sequence[float], other: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Percentile bootstrap interval of median(other) ÷ median(base) over runs."""
    ratios = sorted(
        (above / below, chance * often)
        for below, chance in medians_of_resamples(base)
        for above, often in medians_of_resamples(other)
    )
    tail = (1 - level) / 2
    return _quantile(ratios, tail), _quantile(ratios, 1 - tail)


def _quantile(weighted: Sequence[tuple[float, float]], share: float) -> float:
    """The smallest value that at least `share` of the weight does not exceed."""
    below = 0.0
    for value, weight in weighted:
        below += weight
        if below >= share - _NEGLIGIBLE:
            return value
    return weighted[-1][0]


def medians_of_resamples(values: Sequence[float]) -> list[tuple[float, float]]:
    """Every median that a resample with replacement can have, with its probability."""
    ordered, count = sorted(values), len(values)
    if count % 2:
        middle = (count + 1) // 2
        beyond = [_at_least(middle, count, rank / count) for rank in range(count + 1)]
        found = [(value, beyond[rank + 1] - beyond[rank]) for rank, value in enumerate(ordered)]
    else:
        found = list(_even(ordered))
    return [(value, chance) for value, chance in found if chance > _NEGLIGIBLE]


def _even(ordered: Sequence[float]) -> Iterator[tuple[float, float]]:
    """As `medians_of_resamples`: the mean of the two middle values, which are drawn below and above each other."""
    count, half = len(ordered), len(ordered) // 2
    for low in range(count):
        lower = ((low + 1) / count) ** half - (low / count) ** half
        apart = 0.0
        for high in range(low + 1, count):
            upper = ((count - high) / count) ** half - ((count - high - 1) / count) ** half
            chance = comb(count, half) * lower * upper
            apart += chance
            yield (ordered[low] + ordered[high]) / 2, chance
        beyond = _at_least(half, count, (low + 1) / count) - _at_least(half, count, low / count)
        yield ordered[low], beyond - apart


def _at_least(least: int, count: int, chance: float) -> float:
    """Probability of `least` or more successes of `count`."""
    return sum(comb(count, hits) * chance**hits * (1 - chance) ** (count - hits) for hits in range(least, count + 1))


def noise_floor(values: Sequence[float], *, most: int, seed: int = 0) -> float:
    """How far apart the medians of two halves of runs of one thing lie: the 95th percentile over all ways to halve.

    Halves of at most `most` runs. With as many further runs as there are runs on a side, the halves are as large as the
    sides; with fewer they are smaller, and the floor is higher than it need be.
    """
    half = min(most, len(values) // 2)
    assert half
    distances = sorted(
        _distance(median(values[at] for at in one) / median(values[at] for at in two))
        for one, two in _splits(len(values), half, random.Random(seed))
    )
    return distances[min(len(distances) - 1, round(LEVEL * len(distances)))]


def _splits(count: int, half: int, source: random.Random) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    if comb(count, half) * comb(count - half, half) // 2 > _SPLITS:
        for _ in range(_SPLITS):
            drawn = source.sample(range(count), 2 * half)
            yield tuple(drawn[:half]), tuple(drawn[half:])
        return
    for one in combinations(range(count), half):
        rest = [at for at in range(count) if at not in one]
        for two in combinations(rest, half):
            if one < two:
                yield one, two


def _distance(ratio: float) -> float:
    """How far a ratio is from 1, the same whichever side is the base."""
    return max(ratio, 1 / ratio) - 1


def in_turn(sides: Sequence[str]) -> bool:
    """Whether runs, in the order of time, were taken in turn: no side has more than two in a row."""
    return all(len({*sides[at : at + 3]}) > 1 for at in range(len(sides) - 2))


def more_needed(base: int, other: int) -> tuple[int, int]:
    """How many more runs each side needs."""
    return max(0, ENOUGH - base), max(0, ENOUGH - other)
