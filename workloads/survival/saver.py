"""Checkpoints of a training that goes on meanwhile, by torch.distributed.checkpoint: each rank writes its own part.

The state is copied into memory, which the training waits for, and written by a thread. That thread's ranks speak over
a group of their own, and the first of them commits when all have written: see `store`.
"""

# mypy follows no imports into torch, so that FileSystemWriter is Any to it.
# mypy: allow-subclassing-any

import errno
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.storage import WriteResult

from labs.fence import superseded
from workloads.device import Device
from workloads.survival.history import Save
from workloads.survival.store import Store

State = dict[str, Any]


class Writer(dcp.FileSystemWriter):
    """Writes into a partial folder of the store, seals each rank's files, and commits on the first rank."""

    def __init__(self, store: Store, step: int, life: int, group: dist.ProcessGroup, facts: Mapping[str, Any]) -> None:
        """`facts` go into the manifest."""
        self._partial = store.partial(step, life)
        super().__init__(self._partial)
        self._store, self._step, self._facts = store, step, facts
        self._rank, self._ranks = dist.get_rank(group), dist.get_world_size(group)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Any:
        """This rank's files, on the disk and summed."""
        try:
            written = super().write_data(plan, planner)
        except RuntimeError as error:  # torch's archive writer speaks of positions where the disk was full
            raise cause(error) from None
        names = {str(result.storage_data.relative_path) for result in written.wait()}
        self._store.seal(self._partial, self._rank, names)
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the first rank, when all have written; not where the job has meanwhile begun again without us."""
        super().finish(metadata, results)
        if why := superseded(os.environ):
            raise Superseded(why)
        self._store.commit(self._partial, self._step, self._ranks, self._facts, also=(".metadata",))


class Superseded(Exception):
    """Other nodes go on with this training: what is done here no longer counts."""


class SaveFailed(Exception):
    """A checkpoint could not be written, on all ranks alike; older ones stand. The text says why, in one line."""

    def __init__(self, line: str, *, final: bool) -> None:
        """`final`: no other could be, either."""
        super().__init__(line)
        self.final = final


class _Begun:
    """A save that is under way."""

    def __init__(self, step: int, partial: Path, at: float) -> None:
        self.step, self.partial, self.at = step, partial, at
        self.blocked_s = 0.0
        self.ended = at
        self.written: Future[Any] | None = None


class Saver:
    """Of one rank; every rank calls the same at the same step."""

    def __init__(self, store: Store, life: int, device: Device, facts: Mapping[str, Any]) -> None:
        """A group of its own, for the thread that writes; all ranks make theirs together."""
        self._store, self._life, self._facts = store, life, facts
        self._group = dist.new_group(backend="gloo")
        self._stager = DefaultStager(StagingOptions(
            use_pinned_memory=device.cuda, use_shared_memory=False, use_async_staging=False,
            use_non_blocking_copy=device.cuda,
        ))  # fmt: skip
        self._begun: _Begun | None = None

    @property
    def busy(self) -> bool:
        """Whether a save was begun and its end was not looked at."""
        return self._begun is not None

    @property
    def done(self) -> bool:
        """Whether the save that was begun is over, well or not."""
        return self._begun is not None and self._begun.written is not None and self._begun.written.done()

    def begin(self, step: int, state: State) -> None:
        """Copy the state and write it beside the steps that follow. The save before it must be over."""
        assert self._begun is None
        begun = _Begun(step, self._store.partial(step, self._life), time.perf_counter())
        writer = Writer(self._store, step, self._life, self._group, self._facts)
        answer = dcp.async_save(state, storage_writer=writer, process_group=self._group, async_stager=self._stager)
        assert isinstance(answer, Future)
        answer.add_done_callback(lambda _: setattr(begun, "ended", time.perf_counter()))
        begun.written, begun.blocked_s = answer, time.perf_counter() - begun.at
        self._begun = begun

    def finish(self) -> Save:
        """Wait until it is whole.

        Raises:
            SaveFailed: it could not be written.
        """
        begun, self._begun = self._begun, None
        assert begun is not None
        assert begun.written is not None
        waiting = time.perf_counter()
        try:
            begun.written.result()
        except CheckpointException as failure:
            shutil.rmtree(begun.partial, ignore_errors=True)  # or a full disk stays full
            rank, (error, _) = min(failure.failures.items(), key=lambda item: item[0])
            raise SaveFailed(told(begun.step, self._store.folder, rank, error),
                             final=isinstance(error, Superseded)) from None  # fmt: skip
        now = time.perf_counter()
        ended = begun.ended if begun.ended > begun.at else now  # the writer's thread wakes us before it calls back
        size = sum(file["bytes"] for file in self._sizes(begun.step))
        return Save(step=begun.step, blocked_s=begun.blocked_s + now - waiting, written_s=ended - begun.at, bytes=size)

    def _sizes(self, step: int) -> list[dict[str, int]]:
        """Of the first rank's look at what it committed; others have no use for it."""
        try:
            return list(self._store.manifest(step)["files"].values())
        except ValueError:  # pruned meanwhile by a save that followed
            return []

    def load(self, step: int, state: State) -> None:
        """Fill `state` from a whole checkpoint, whatever the number of ranks that wrote it."""
        dcp.load(state, checkpoint_id=self._store.path(step), process_group=self._group)

    def close(self) -> None:
        """Give back the copy's memory."""
        self._stager.close()


def cause(error: BaseException) -> BaseException:
    """The system's own error where another one came of it; the error itself where none did."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found or error


def told(step: int, folder: Path, rank: int, error: BaseException) -> str:
    """Why a checkpoint could not be written."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        room = os.statvfs(folder)
        free = room.f_bavail * room.f_frsize / 1e6
        why = f"the disk is full ({free:.0f} MB free in {folder} without it): make room there"
    elif isinstance(error, OSError):
        why = f"{error.strerror or error} ({folder})"
    else:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"the checkpoint of step {step} could not be written on rank {rank}: {why}"
