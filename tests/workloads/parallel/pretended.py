"""Four ranks that are one process: collectives of the "fake" backend move nothing, and count like real ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from workloads.device import find_device
from workloads.group import Group


@contextmanager
def pretended(ranks: int) -> Iterator[Group]:
    """The first of so many ranks, the others pretended."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield Group(rank=0, size=ranks, device=find_device("cpu"))
    finally:
        dist.destroy_process_group()


@contextmanager
def single() -> Iterator[Group]:
    """A real group of one rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield Group(rank=0, size=1, device=find_device("cpu"))
    finally:
        dist.destroy_process_group()
