"""Stretches of time as sorted, disjoint pairs (begin, end): what was busy, together and apart."""

from collections.abc import Iterable

Stretches = list[tuple[float, float]]


def union(pairs: Iterable[tuple[float, float]]) -> Stretches:
    """All time that any of them covers."""
    merged: Stretches = []
    for begin, end in sorted(pair for pair in pairs if pair[1] > pair[0]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def clip(stretches: Stretches, begin: float, end: float) -> Stretches:
    """What of them lies between `begin` and `end`."""
    return union((max(left, begin), min(right, end)) for left, right in stretches)


def both(one: Stretches, other: Stretches) -> Stretches:
    """Time that both cover."""
    found: Stretches = []
    left = right = 0
    while left < len(one) and right < len(other):
        begin, end = max(one[left][0], other[right][0]), min(one[left][1], other[right][1])
        if begin < end:
            found.append((begin, end))
        if one[left][1] < other[right][1]:
            left += 1
        else:
            right += 1
    return found


def without(one: Stretches, other: Stretches) -> Stretches:
    """Time that `one` covers and `other` does not."""
    found: Stretches = []
    for begin, end in one:
        for left, right in clip(other, begin, end):
            found.append((begin, left))
            begin = right
        found.append((begin, end))
    return union(found)


def length(stretches: Stretches) -> float:
    """Their time together."""
    return sum(end - begin for begin, end in stretches)


def coarse(stretches: Stretches, gap: float) -> Stretches:
    """The same with gaps of at most `gap` closed and what is then still as short left out, for a drawing."""
    closed: Stretches = []
    for begin, end in stretches:
        if closed and begin - closed[-1][1] <= gap:
            closed[-1] = (closed[-1][0], end)
        else:
            closed.append((begin, end))
    return [(begin, end) for begin, end in closed if end - begin > gap]
