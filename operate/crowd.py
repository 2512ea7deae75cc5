"""Many nodes in few words: names in a row as a range, and what went wrong, a line each or one for all that say it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

LINES = 8
"""Most lines about nodes at once: what is longer is not read."""
_NUMBERED = re.compile(r"node(\d+)")
_WHERE = re.compile(r"node\d+ (\([^()]*\) )?")
"""A node's name and address, where its problem begins with them: what differs between nodes that say the same."""


def names(nodes: Iterable[str]) -> str:
    """All of them, for example "node0, node1" or "node0 to node26, node28"."""
    told = []
    for _, run in groupby(enumerate(nodes), key=lambda pair: _number(pair[1]) - pair[0]):
        row = [name for _, name in run]
        told += row if len(row) < 3 else [f"{row[0]} to {row[-1]}"]
    return ", ".join(told)


def _number(name: str) -> float:
    """The number in a node's name; none for any other name, which is then in no row (nan equals nothing)."""
    match = _NUMBERED.fullmatch(name)
    return int(match[1]) if match else float("nan")


def lines(why: Mapping[str, str]) -> tuple[str, ...]:
    """By node why it failed: a line each while they are few, then one for all that say the same, at most `LINES`."""
    told = [reason if reason.startswith(f"{node} ") else f"{node}: {reason}" for node, reason in why.items()]
    if len(told) > LINES:
        same: dict[str, list[str]] = {}
        for node, reason in why.items():
            same.setdefault(_WHERE.sub("", reason, count=1), []).append(node)
        told = [f"{names(nodes)}: {reason}" for reason, nodes in same.items()]
    return cut(told)


def steps(did: Iterable[str]) -> Iterator[str]:
    """What was done, step by step as "remove instance i-…"; three and more of a kind in a row are counted."""
    for kind, row in groupby(did, key=lambda line: tuple(line.split()[:2])):
        alike = list(row)
        if len(alike) < 3 or len(kind) < 2:
            yield from alike
        else:
            yield f"{kind[0]} {len(alike)} × {kind[1]}"


def cut(told: Sequence[str]) -> tuple[str, ...]:
    """These lines, at most `LINES` of them."""
    if len(told) <= LINES:
        return tuple(told)
    return (*told[: LINES - 1], f"… and {len(told) - LINES + 1} more lines such as these")
