"""Which ranks share a node. Within one they have its memory or its NVLink, between nodes its network."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from workloads.group import Group


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The ranks of a run by node, nodes in order of their first rank."""

    ranks: tuple[tuple[int, ...], ...]

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self.ranks)

    @property
    def within(self) -> int:
        """Ranks of each node; 0 where nodes differ, or where one's ranks do not follow one another."""
        size = len(self.ranks[0])
        even = tuple(tuple(range(first, first + size)) for first in range(0, size * self.nodes, size))
        return size if self.ranks == even else 0

    def mates(self, rank: int) -> tuple[int, ...]:
        """The ranks of that rank's node, itself among them."""
        return next(ranks for ranks in self.ranks if rank in ranks)


def layout(group: Group, nodes_as: int | None = None, environment: Mapping[str, str] = os.environ) -> Layout:
    """Where all ranks are; all call it. `nodes_as`: take them as spread over that many nodes, in order."""
    if nodes_as:
        each = group.size // nodes_as
        return Layout(ranks=tuple(tuple(range(node * each, (node + 1) * each)) for node in range(nodes_as)))
    found: dict[str, list[int]] = {}
    for rank, node in enumerate(group.gather(environment.get("ROOFLAB_NODE") or socket.gethostname())):
        found.setdefault(node, []).append(rank)
    return Layout(ranks=tuple(tuple(ranks) for ranks in found.values()))


def refuse_nodes(nodes_as: int | None, ranks: int) -> None:
    """Check that ranks can be taken as so many nodes.

    Raises:
        ValueError: they do not divide.
    """
    if nodes_as and ranks % nodes_as:
        allowed = ", ".join(str(nodes) for nodes in range(1, ranks + 1) if ranks % nodes == 0)
        raise ValueError(f"nodes-as={nodes_as} does not divide {ranks} ranks: write {allowed}")
