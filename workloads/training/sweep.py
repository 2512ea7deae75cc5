"""One model trained at several batches in turn, each step timed in parts, until memory or the budget is used up."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from labs.models import find_model
from workloads.chain import draw
from workloads.device import Device
from workloads.nvml import Gauge
from workloads.training.kept import kept
from workloads.training.masters import Masters
from workloads.training.trainee import BYTES_PER_PARAMETER, DTYPES, Trainee, optimiser_of, step, trainable

WARMUP = 2
"""Steps of each batch before the timed ones; the first of all compiles."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is trained."""

    model: str
    """A name in labs/models.py."""
    dtype: str
    """Of the arithmetic; weights, gradients and Adam's moments are fp32, unless there are masters."""
    masters: bool = False
    """Whether weights and gradients are bf16 too, and the optimiser keeps fp32 masters."""
    sequence: int
    """Tokens per sequence."""
    batches: tuple[int, ...]
    """Sequences at once, one after another in a sweep."""
    accumulate: int
    """Forward and backward passes per optimiser step, each over one batch."""
    steps: int
    """Timed optimiser steps of each batch; two more warm up."""
    chunk: int
    """Tokens whose logits are in memory at once."""
    compiled: bool
    """Whether layers are compiled."""
    learning_rate: float
    budget_s: float
    """No further batch is begun after this."""
    seed: int
    threads: int
    """CPU threads that torch may use."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} is not one that training runs in: write {' or '.join(DTYPES)}")
        if self.masters and self.dtype != "bf16":
            raise ValueError(f"dtype={self.dtype!r} needs no masters: write --dtype bf16, or leave --masters out")
        if self.steps < 4:
            raise ValueError(f"steps={self.steps} cannot show a falling loss: write at least 4")

    def tokens(self, batch: int) -> int:
        """Tokens of one optimiser step, counted once."""
        return self.accumulate * batch * self.sequence


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one batch of the sweep showed."""

    batch: int
    parts: tuple[dict[str, float], ...]
    """Of each timed step: seconds by part."""
    losses: tuple[float, ...]
    """Of every step, the untimed ones too."""
    peak_bytes: int
    """On a GPU the allocator's peak; on a CPU the states and what a forward pass kept, counted."""
    joules: float | None
    """Of all timed steps together; None where the device does not tell."""

    @property
    def samples_s(self) -> tuple[float, ...]:
        """Seconds of each timed step."""
        return tuple(sum(parts.values()) for parts in self.parts)


@dataclass(kw_only=True)
class Sweep:
    """What has been taken so far, and why it ended before the last batch."""

    taken: list[Taken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, config: Config, device: Device) -> Iterator[Taken]:
        """Train batch after batch; one that does not fit ends the sweep, unless it is the first.

        Raises:
            torch.OutOfMemoryError: not even the first batch fits.
        """
        begin, gauge = time.perf_counter(), Gauge(device)
        with trainable(find_model(config.model), config.dtype, device, chunk=config.chunk, compiled=config.compiled,
                       seed=config.seed, masters=config.masters) as model:  # fmt: skip
            rate = config.learning_rate
            optimiser = Masters(model.parameters(), rate) if config.masters else optimiser_of(model, rate)
            for batch in config.batches:
                if self.taken and time.perf_counter() - begin > config.budget_s:
                    self.notes.append(f"batch {batch} and later were left out: the budget of {config.budget_s:g} s is "
                                      "used up, write --budget-s for more")  # fmt: skip
                    return
                try:
                    self.taken.append(train(model, optimiser, config, device, batch, gauge))
                except torch.OutOfMemoryError:
                    if not self.taken:
                        raise
                    self.notes.append(f"batch {batch} does not fit into the memory of {device.name}")
                    return
                yield self.taken[-1]

    @property
    def losses(self) -> list[float]:
        """Of every step, in order."""
        return [loss for taken in self.taken for loss in taken.losses]


def train(model: Trainee, optimiser: torch.optim.Optimizer | Masters, config: Config, device: Device, batch: int,
          gauge: Gauge) -> Taken:  # fmt: skip
    """Warm up, then time steps of one batch."""
    size = (config.accumulate * batch, config.sequence + 1)
    drawn = [draw(config.seed, batch * 1000 + index, *size) for index in range(WARMUP + config.steps)]
    micro_batches = [tokens_GT.to(device.torch).split(batch) for tokens_GT in drawn]
    losses, parts, before_j = [], [], gauge.energy_j
    if device.cuda:
        torch.cuda.reset_peak_memory_stats(device.torch)
    peak = 0 if device.cuda else counted_bytes(model, config, micro_batches[0][0])
    for index, several in enumerate(micro_batches):
        if index == WARMUP:
            before_j = gauge.energy_j
        taken, loss = step(model, optimiser, several, device)
        losses.append(loss)
        parts.append(taken)
    after_j = gauge.energy_j
    return Taken(
        batch=batch, parts=tuple(parts[WARMUP:]), losses=tuple(losses),
        peak_bytes=torch.cuda.max_memory_allocated(device.torch) if device.cuda else peak,
        joules=None if before_j is None or after_j is None else after_j - before_j,
    )  # fmt: skip


def counted_bytes(model: Trainee, config: Config, tokens_BT: Tensor) -> int:
    """States, and what one forward pass keeps for its backward."""
    with kept(model) as count:
        loss = model(tokens_BT)
    loss.backward()  # FSDP2 frees what it gathered only in a backward pass
    model.zero_grad()
    return BYTES_PER_PARAMETER * find_model(config.model).parameters + count.bytes
