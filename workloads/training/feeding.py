"""A training fed by torch's DataLoader: how long each step waited for its batch, and whether the batch was right."""

import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from workloads.command import CheckFailed
from workloads.device import Device
from workloads.training.samples import Samples
from workloads.training.trainee import Trainee, step

# Shape suffixes: B sequences, T = S + 1 tokens, N samples of a run.

WAITING = "waiting for data"
WARMUP = 1
"""Steps of each run that are not timed: in the first the workers start."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One run."""

    form: str
    """Of the samples."""
    workers: int
    parts: tuple[dict[str, float], ...]
    """Of each timed step: seconds by part."""
    load_s: float
    """Seconds that this process took to fetch one batch, alone."""

    @property
    def samples_s(self) -> tuple[float, ...]:
        """Seconds of each timed step."""
        return tuple(sum(parts.values()) for parts in self.parts)

    @property
    def waited_s(self) -> float:
        """Mean seconds of a step that went by waiting for data."""
        return statistics.fmean(parts[WAITING] for parts in self.parts)

    @property
    def step_s(self) -> float:
        """Mean seconds of a step."""
        return statistics.fmean(self.samples_s)


def expected_s(compute_s: float, load_s: float, workers: int) -> float:
    """Seconds of a step, if workers and training do not hinder each other."""
    return max(compute_s, load_s / workers) if workers else compute_s + load_s


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model in training, and what its batches must be."""

    batch: int
    device: Device
    model: Trainee
    optimiser: torch.optim.Optimizer
    tokens_NT: Tensor

    def run(self, samples: Samples, workers: int) -> Taken:
        """Train on all samples in order, timing each step in parts.

        Raises:
            CheckFailed: a batch is not what was written.
        """
        samples.forget()
        load_s = self._fetch_s(samples)
        samples.forget()
        parts = []
        batches = iter(loader(samples, self.batch, workers))
        for index in range(len(samples) // self.batch):
            begin = time.perf_counter()
            tokens_BT = next(batches).to(self.device.torch)
            self.device.synchronize()
            waited_s = time.perf_counter() - begin
            self._compare(tokens_BT, index, samples.name, workers)
            taken, _ = step(self.model, self.optimiser, (tokens_BT,), self.device)
            parts.append({WAITING: waited_s, **taken})
        assert next(batches, None) is None  # which ends the workers: they hold what this process has open
        return Taken(form=samples.name, workers=workers, parts=tuple(parts[WARMUP:]), load_s=load_s)

    def _fetch_s(self, samples: Samples) -> float:
        begin = time.perf_counter()
        for index in range(self.batch):
            samples[index]
        return time.perf_counter() - begin

    def _compare(self, tokens_BT: Tensor, index: int, name: str, workers: int) -> None:
        expected_BT = self.tokens_NT[index * self.batch : (index + 1) * self.batch]
        if not torch.equal(tokens_BT.cpu(), expected_BT):
            raise CheckFailed(f"batch {index} from {name} by {workers} workers is not what was written")


def loader(samples: Samples, batch: int, workers: int) -> DataLoader:
    """In order, so that every batch can be checked; workers are forked, and so ready at once."""
    return DataLoader(samples, batch_size=batch, num_workers=workers, drop_last=True,
                      multiprocessing_context="fork" if workers else None)  # fmt: skip


@contextmanager
def forking() -> Iterator[None]:
    """Python warns of a fork beside threads; the workers touch nothing of what those threads hold."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        yield
