"""Ways to write a training state to a folder, and to read it back: torch.save, and torch.distributed.checkpoint's.

A state is one flat dict of tensors. What is saved must not change meanwhile: a saver that copies in the background
says when its copy is whole (`staged`), and until then no weight may be updated.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from workloads.device import Device

State = dict[str, Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")
PLAIN, SYNCHRONOUS, ASYNCHRONOUS, ASIDE = "torch.save", "dcp.save", "dcp.async_save", "dcp.async_save, staged aside"


def state_of(model: nn.Module, optimiser: torch.optim.Optimizer) -> State:
    """Weights and both of Adam's moments, 12 bytes a parameter; they are the live tensors, not copies."""
    named = dict(model.named_parameters())
    moments = {f"{moment}.{name}": optimiser.state[weights][moment]
               for name, weights in named.items() for moment in MOMENTS}  # fmt: skip
    return {f"weights.{name}": weights.detach() for name, weights in named.items()} | moments


def fingerprint(state: State) -> dict[str, tuple[int, int]]:
    """Two sums over the bits of each tensor, one of them by position: a changed, moved or swapped value shows."""
    found = {}
    for name, tensor in state.items():
        bits = tensor.detach().contiguous().view(torch.int32).flatten()
        places = torch.arange(len(bits), device=bits.device).remainder_(65_521).add_(1)
        found[name] = int(bits.sum(dtype=torch.int64)), int(places.mul_(bits).sum())
    return found


@dataclass(frozen=True, kw_only=True)
class Saving:
    """A save that was begun."""

    staged: Future | None = None
    """Done when the state has been copied; None: it has been, when the call returned."""
    written: Future | None = None
    """Done when the files are on the disk; None: they were, when the call returned."""

    @property
    def done(self) -> bool:
        """Whether everything is on the disk."""
        return self.written is None or bool(self.written.done())

    def finish(self) -> None:
        """Wait until it is. Raises: whatever the writer has raised."""
        if self.written is not None:
            self.written.result()


@dataclass(frozen=True, kw_only=True)
class Saver:
    """One way, ready to be used several times; copies in memory are made once and kept."""

    name: str
    save: Callable[[State, Path], Saving]
    """Into a folder that is there and empty."""
    load: Callable[[Path, State], None]
    """From that folder into tensors of the right shapes."""


@contextmanager
def savers(device: Device) -> Iterator[tuple[Saver, ...]]:
    """All ways, the plain one first; at the end their buffers are given back."""
    with warnings.catch_warnings(), ExitStack() as stagers:
        warnings.filterwarnings(
            "ignore", "torch.distributed is disabled"
        )  # as no_dist=True asks, and says so each time
        stagings = (_staging(device, aside=aside) for aside in (True, False))
        aside, blocking = (stagers.enter_context(closing(DefaultStager(staging))) for staging in stagings)
        yield (
            Saver(name=PLAIN, save=_save_plain, load=_load_plain),
            Saver(name=ASIDE, save=lambda state, folder: _save_async(state, folder, aside), load=_load),
            Saver(name=ASYNCHRONOUS, save=lambda state, folder: _save_async(state, folder, blocking), load=_load),
            Saver(name=SYNCHRONOUS, save=_save, load=_load),
        )


def _staging(device: Device, *, aside: bool) -> StagingOptions:
    """Pinned memory and copies that do not block exist only beside a GPU."""
    return StagingOptions(use_pinned_memory=device.cuda, use_shared_memory=False, use_async_staging=aside,
                          use_non_blocking_copy=device.cuda)  # fmt: skip


def _save_plain(state: State, folder: Path) -> Saving:
    with (folder / "state.pt").open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    return Saving()


def _load_plain(folder: Path, into: State) -> None:
    loaded = torch.load(folder / "state.pt", map_location="cpu", weights_only=True, mmap=True)
    for name, tensor in into.items():
        tensor.copy_(loaded[name])


def _save(state: State, folder: Path) -> Saving:
    dcp.save(dict(state), checkpoint_id=folder, no_dist=True)
    return Saving()


def _save_async(state: State, folder: Path, stager: DefaultStager) -> Saving:
    answer = dcp.async_save(dict(state), checkpoint_id=folder, async_stager=stager, no_dist=True)
    if isinstance(answer, Future):
        return Saving(written=answer)
    return Saving(staged=answer.staging_completion, written=answer.upload_completion)


def _load(folder: Path, into: State) -> None:
    dcp.load(dict(into), checkpoint_id=folder, no_dist=True)
