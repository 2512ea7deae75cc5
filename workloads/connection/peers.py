"""Who the nodes of a run are, where their doctors listen, and which ranks meet when. Pure functions."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALL_PAIRS = 16
"""Up to so many ranks every two of them meet; of more, each meets those at distances 1, 2, 4, … around a ring."""
_FIRST_PORT, _PORTS = 30000, 2768
"""Between the ports where ranks meet (20000 to 29999) and those that Linux gives to whoever asks (from 32768)."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One node of the run."""

    name: str
    address: str
    port: int
    """Where its doctor listens: nodes may share one address, so each has its own."""


def port(run: str, index: int) -> int:
    """The port of node `index`'s doctor in `run`: the same wherever it is worked out."""
    return _FIRST_PORT + (zlib.crc32(f"{run} connectivity".encode()) + index) % _PORTS


def read_peers(environment: Mapping[str, str]) -> tuple[Peer, ...]:
    """The nodes in ROOFLAB_PEERS, in their order; without it this node alone.

    Raises:
        ValueError: the variable is not a list of NAME=ADDRESS, or this node is not in it.
    """
    name, run = environment.get("ROOFLAB_NODE") or "node0", environment.get("ROOFLAB_RUN", "")
    text = environment.get("ROOFLAB_PEERS") or f"{name}=127.0.0.1"
    pairs = [word.partition("=") for word in text.split()]
    names = [one for one, _, _ in pairs]
    if not all(one and address for one, _, address in pairs) or len(set(names)) != len(names):
        raise ValueError(f"ROOFLAB_PEERS={text!r} is not allowed: write for example 'node0=10.0.0.1 node1=10.0.0.2'")
    if name not in names:
        raise ValueError(f"ROOFLAB_NODE={name!r} is not in ROOFLAB_PEERS: write one of {', '.join(names)}")
    return tuple(Peer(name=one, address=address, port=port(run, index)) for index, (one, _, address) in
                 enumerate(pairs))  # fmt: skip


def rounds(ranks: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Which ranks meet, in rounds where each is busy at most once; of two the one that stands first begins."""
    count = len(ranks)
    if count < 2:
        return []
    if count <= ALL_PAIRS:
        return [[(ranks[a], ranks[b]) for a, b in one] for one in _tournament(count)]
    pairs = []
    distance = 1
    while distance <= count // 2:
        pairs += sorted({(min(a, b), max(a, b)) for a in range(count) for b in [(a + distance) % count]})
        distance *= 2
    found: list[list[tuple[int, int]]] = []
    for pair in pairs:
        free = next((one for one in found if not any(set(pair) & set(other) for other in one)), None)
        if free is None:
            found.append([pair])
        else:
            free.append(pair)
    return [[(ranks[a], ranks[b]) for a, b in one] for one in found]


def _tournament(count: int) -> list[list[tuple[int, int]]]:
    """Every two of `count` once, by the circle method: one stays, the others move on by a place a round."""
    places: list[int] = list(range(count + count % 2))
    found = []
    for _ in range(len(places) - 1):
        across = [(places[i], places[-1 - i]) for i in range(len(places) // 2)]
        found.append([(min(pair), max(pair)) for pair in across if max(pair) < count])
        places = [places[0], places[-1], *places[1:-1]]
    return found
