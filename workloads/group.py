"""The ranks of a workload that runs over several devices: gloo on CPUs, NCCL on GPUs, one process without torchrun."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch.distributed as dist

from workloads.command import CheckFailed, Ended
from workloads.device import Device
from workloads.heartbeat import beat

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
        beat()
        return every

    def meet(self) -> None:
        """Wait for all ranks. On GPUs nothing: a barrier would empty the queues, and collectives align the ranks."""
        beat()
        if not self.device.cuda:
            dist.barrier()

    def require(self, check: str, failure: str) -> None:
        """Fail on all ranks together if one rank reports a `failure` (empty: the check held).

        Raises:
            CheckFailed: naming the check, the first rank that failed, and what it found.
        """
        for rank, found in enumerate(self.gather(failure)):
            if found:
                raise CheckFailed(f"{check}: rank {rank}: {found}")


class Place(NamedTuple):
    """Where torchrun puts this process; a process alone is the first of one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """This process's place, from torchrun's variables."""
    if "RANK" not in environment:
        return Place()
    return Place(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextmanager
def joined(here: Place, device: Device) -> Iterator[Group]:
    """The group of all ranks, from when they have met until all is done or has ended on all of them alike."""
    dist.init_process_group(
        "nccl" if device.cuda else "gloo", timeout=_PATIENCE, device_id=device.torch if device.cuda else None,
        rank=here.rank, world_size=here.size, store=None if here.size > 1 else dist.HashStore(),
    )  # fmt: skip
    try:
        yield Group(rank=here.rank, size=here.size, device=device)
    except (CheckFailed, Ended):
        dist.destroy_process_group()
        raise
    # After any other exception the peers may be anywhere: destroying the group could wait for them for ever.
    dist.destroy_process_group()
