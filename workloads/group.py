"""The ranks of a workload that runs over several devices: gloo on CPUs, NCCL on GPUs, one process without torchrun."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from workloads.command import CheckFailed
from workloads.device import Device, find_device

_T = TypeVar("_T")
_PATIENCE = timedelta(minutes=5)
"""After this a collective that a peer never joined fails; the launcher's own time limit is longer."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """This rank among its peers."""

    rank: int
    size: int
    device: Device

    @property
    def first(self) -> bool:
        """Whether this rank prints and writes the record."""
        return self.rank == 0

    def say(self, line: str) -> None:
        """Print on the first rank only."""
        if self.first:
            print(line, flush=True)

    def gather(self, mine: _T) -> list[_T]:
        """Every rank's value, in order of rank, on every rank."""
        every: list[_T] = [mine] * self.size
        dist.all_gather_object(every, mine)
        return every

    def require(self, check: str, failure: str) -> None:
        """Fail on all ranks together if one rank reports a `failure` (empty: the check held).

        Raises:
            CheckFailed: naming the check, the first rank that failed, and what it found.
        """
        for rank, found in enumerate(self.gather(failure)):
            if found:
                raise CheckFailed(f"{check}: rank {rank}: {found}")


@contextmanager
def joined(choice: str, environment: Mapping[str, str] = os.environ) -> Iterator[Group]:
    """The group that torchrun's environment describes, or a group of one without it.

    Raises:
        ValueError: the device that `choice` asks for is not there.
    """
    rank, size = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    device = find_device(choice, int(environment.get("LOCAL_RANK", 0)))
    dist.init_process_group(
        "nccl" if device.cuda else "gloo", timeout=_PATIENCE, device_id=device.torch if device.cuda else None,
        rank=rank, world_size=size, store=None if size > 1 else dist.HashStore(),
    )  # fmt: skip
    try:
        yield Group(rank=rank, size=size, device=device)
    except CheckFailed:
        dist.destroy_process_group()
        raise
    # After any other exception the peers may be anywhere: destroying the group could wait for them for ever.
    dist.destroy_process_group()
