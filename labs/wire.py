"""What a collective sends between nodes, and the rates that follow from its time.

n ranks on k nodes, g = n/k on each; S is the larger of a rank's two buffers, as nccl-tests counts it. Two bandwidths by
its definitions (its doc/PERFORMANCE.md), so that numbers over different n compare:

    algbw = S/t        busbw = algbw × factor        (`labs.roofs.bus_factor`)

Neither is the rate on the wire. What leaves each node, in bytes, is the algorithm's:

                      ring            tree, NVLSTree
    all-reduce        2(n−1)/n · S    2(k−1)/k · S
    all-gather        (n−1)/n · S     (k−1)/k · S      reduce-scatter as well
    broadcast         S               S                the node that sends most
    send-recv         S               S                each rank to the next: one of them crosses
    all-to-all        g(k−1)/k · S    g(k−1)/k · S

So of one busbw a GPU's share of the wire is busbw/g in a ring and busbw·(k−1)/(n−1) in a tree: with two nodes of four,
1.75 times apart. With two nodes a tree's busbw can stand above the network's rate: never judge a network by two nodes
and busbw alone.
"""

from typing import Literal

from labs.instances import InstanceType
from labs.results import Roof
from labs.roofs import Bound, bus_factor

Family = Literal["ring", "tree"]
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "broadcast", "send-recv")
_FAMILIES: dict[str, Family] = {"RING": "ring", "PAT": "ring", "TREE": "tree", "NVLS_TREE": "tree"}
"""NCCL's names of its algorithms over nodes. PAT sends a rank's piece no more often than a ring does."""


def algbw(size_bytes: float, time_s: float) -> float:
    """Algorithm bandwidth in B/s."""
    return size_bytes / time_s


def busbw(collective: str, size_bytes: float, ranks: int, time_s: float) -> float:
    """Bus bandwidth in B/s. Raises: ValueError for a collective that is not listed."""
    return algbw(size_bytes, time_s) * bus_factor(collective, ranks)


def family(algorithm: str) -> Family | None:
    """How an algorithm that NCCL names sends between nodes; None where that is not known."""
    return _FAMILIES.get(algorithm.upper().replace("NVLSTREE", "NVLS_TREE"))


def node_bytes(collective: str, size_bytes: float, ranks: int, nodes: int, kind: Family) -> float:
    """Bytes that leave each node (in a broadcast: the one that sends most) for one operation; 0 where there is but
    one node or one rank.

    Raises:
        ValueError: a collective that is not listed.
    """
    if min(nodes, ranks) < 2:
        return 0.0
    share = (nodes - 1) / nodes
    if collective == "all-to-all":
        return ranks / nodes * share * size_bytes
    factor = bus_factor(collective, ranks)
    if kind == "ring" or collective in ("broadcast", "send-recv"):
        return factor * size_bytes
    return factor * size_bytes * share / ((ranks - 1) / ranks)


def node_bounds(collective: str, size_bytes: float, ranks: int, nodes: int, algorithm: str = "") -> tuple[float, float]:
    """Fewest and most of those bytes: the same where it is known how `algorithm` sends, else a tree's and a ring's."""
    known = family(algorithm)
    kinds: tuple[Family, ...] = (known,) if known else ("tree", "ring")
    low, *rest = sorted(node_bytes(collective, size_bytes, ranks, nodes, kind) for kind in kinds)
    return low, rest[0] if rest else low


def wire_rates(collective: str, size_bytes: float, ranks: int, nodes: int, time_s: float, algorithm: str = ""
               ) -> tuple[float, float]:  # fmt: skip
    """B/s that each GPU puts on its node's network, lowest and highest by what is known of the algorithm."""
    low, high = node_bounds(collective, size_bytes, ranks, nodes, algorithm)
    each = ranks / nodes * time_s
    return low / each, high / each


def bus_bound(collective: str, kind: InstanceType | None, nodes: int, ranks: int) -> Bound:
    """Most bus bandwidth over `nodes`, by the rate of each node's network and the fewest bytes that must leave it."""
    if kind is None:
        return Bound(None, "the network between the devices is not known")
    if nodes < 2:
        return Bound(None, "the links within a node are not in labs/")
    fewest, _ = node_bounds(collective, 1.0, ranks, nodes)
    most = kind.gbps * 1e9 / 8 * bus_factor(collective, ranks) / fewest
    return Bound(Roof(value=most, source=f"{kind.name}: {kind.gbps:g} Gbit/s a node, fewest bytes on the wire"))
