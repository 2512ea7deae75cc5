"""Who is to blame for a set of failed links: a graph's smallest explanation. Pure, whatever its vertices are.

A vertex all of whose links fail is itself what is bad, and its links need no other explanation; any other failed link
is bad by itself. Where no link holds, nothing tells one vertex from another: the cause is common to all.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Link(NamedTuple):
    """Two vertices that were tried together, the lower name first."""

    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Blame:
    """What explains the failures."""

    everyone: bool = False
    """No link held, and there are more vertices than two: none can be told from the others."""
    vertices: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    """Bad ones beside those of bad vertices."""


def link(one: str, other: str) -> Link:
    """The link between two vertices, whichever began."""
    return Link(*sorted((one, other)))


def blame(tried: Mapping[Link, bool]) -> Blame:
    """The smallest explanation of what failed; `tried` says of each link whether it held.

    A vertex is blamed for two failures or more, or for one where the other end is fit elsewhere and it was tried with
    nobody else. Otherwise either end may be at fault, and the link is named.
    """
    left = {link for link, held in tried.items() if not held}
    vertices = sorted({vertex for link in tried for vertex in link})
    bad: list[str] = []
    while left:
        counts = {
            vertex: sum(vertex in link for link in left)
            for vertex in vertices
            if vertex not in bad and _none_held(vertex, tried, bad)
        }
        worst = max(counts, key=lambda vertex: counts[vertex], default="")
        if counts.get(worst, 0) < 2:
            break
        bad.append(worst)
        left = {link for link in left if worst not in link}
    for one in sorted(left):
        fit = [end for end in one if any(held for link, held in tried.items() if end in link)]
        if len(fit) == 1:  # the other end was tried with nobody else, or failed with all
            bad += [end for end in one if end not in fit and end not in bad]
            left.discard(one)
    if tried and not any(tried.values()) and len(vertices) > 2 and len(bad) + len(left) > 1:
        return Blame(everyone=True)
    return Blame(vertices=tuple(sorted(bad)), links=tuple(sorted(left)))


def _none_held(vertex: str, tried: Mapping[Link, bool], bad: Collection[str]) -> bool:
    """Whether none of a vertex's links held, those to bad vertices aside."""
    return not any(held for link, held in tried.items() if vertex in link and not set(link) & set(bad))
