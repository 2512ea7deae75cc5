"""Sums over the ranks of one node through memory that all of them see: no socket carries a gradient.

Each rank writes its summand into a slot of its own, adds up its part of all slots, and reads the parts of the others:
every byte is written twice and read three times or more, at the memory's pace. The memory has no name, so that nothing
is left of it when the ranks are gone, however they went.
"""

import mmap
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from workloads.group import Group

# Shape suffixes: E elements of a buffer, N ranks of a node.


def impossible() -> str:
    """Why this system has no such memory ("": it has)."""
    return "" if hasattr(os, "memfd_create") else "it takes memory that has no name, which is Linux's"


class SharedMemory:
    """Of the ranks of one node."""

    def __init__(self, group: Group, mates: tuple[int, ...], peers: Any, elements: int) -> None:
        """Every rank of every node calls it. `mates`: ranks of this node, `peers`: their process group; `elements`:
        most of a buffer, fp32."""
        self._peers = peers
        self._place, self._count = mates.index(group.rank), len(mates)
        self._memory = _mapped(group, mates, 4 * elements * (self._count + 1))
        whole = torch.frombuffer(self._memory, dtype=torch.float32)
        self._slots_NE = whole[: self._count * elements].view(self._count, elements)
        self._sum_E = whole[self._count * elements :]

    def add(self, buffer_E: Tensor) -> None:
        """Make `buffer_E`, fp32, the sum over the node's ranks; all call it with as many elements.

        Two barriers suffice: whoever has passed the second writes its slot anew only after all have read their parts,
        and the sums are overwritten after the next first one, when all have read them.
        """
        size = buffer_E.numel()
        self._slots_NE[self._place, :size].copy_(buffer_E)
        dist.barrier(self._peers)
        first, last = (size * place // self._count for place in (self._place, self._place + 1))
        torch.sum(self._slots_NE[:, first:last], 0, out=self._sum_E[first:last])
        dist.barrier(self._peers)
        buffer_E.copy_(self._sum_E[:size])


def _mapped(group: Group, mates: tuple[int, ...], size: int) -> mmap.mmap:
    """The first rank of the node makes the memory; the others find it among that process's descriptors."""
    made = None
    if group.rank == mates[0]:
        made = os.memfd_create("rooflab")
        os.ftruncate(made, size)
    where = group.gather((os.getpid(), made))[mates[0]]
    descriptor = made if made is not None else os.open(Path(f"/proc/{where[0]}/fd/{where[1]}"), os.O_RDWR)
    mapped = mmap.mmap(descriptor, size)
    group.gather(None)  # all have found it
    os.close(descriptor)
    return mapped
