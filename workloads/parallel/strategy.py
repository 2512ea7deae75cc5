"""How ranks share one model's training: what a strategy is, and the steps that it takes."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from labs.models import Model
from labs.traffic import Traffic
from workloads.decoder import Decoder, loss_of
from workloads.device import Device
from workloads.parallel.settings import Settings

# Shape suffixes: B sequences of one rank, G of all ranks together, T = S + 1 tokens (inputs and labels overlap).

EXACT = 1e-5
"""Where nothing but the order of additions differs from one process: what may come of that, relatively."""
Build = Callable[[], nn.Module]
"""Makes the model with random weights, the same on every rank, in fp32 on the rank's device."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way to share the work."""

    name: str
    """For example "buckets of 25 MB": what tells it from the others of its workload."""
    wrap: Callable[[nn.Module], nn.Module]
    """Makes a model of this rank's part; every rank calls it together."""
    traffic: Callable[[Model, int], Traffic]
    """What a step of so many tokens of all ranks together must send."""
    share: tuple[int, int] = (0, 1)
    """This rank's place among those that see different data, and their number; ranks of equal place see the same."""
    config: dict[str, Any] = field(default_factory=dict)
    """What distinguishes its rows."""
    equal: bool = False
    """Whether all ranks hold the same parameters, bit by bit."""
    optimiser: Callable[[list[dict[str, Any]], float], torch.optim.Optimizer] | None = None
    """Another than AdamW, from parameter groups and a learning rate."""
    autocast: bool = True
    """Whether the arithmetic's type is set around the forward pass; False: the model brings it along."""
    build: Build | None = None
    """Another way to make the model, for one that fits no single rank."""
    allowed: float = EXACT
    """Largest relative difference of a loss or of a parameter's gradient to one process's, in fp32."""

    def share_of(self, tokens_GT: Tensor, device: Device) -> Tensor:
        """This rank's sequences [B, T] on its device."""
        place, places = self.share
        each = tokens_GT.shape[0] // places
        return tokens_GT[place * each : (place + 1) * each].to(device.torch)

    def arithmetic(self, dtype: str, device: Device) -> AbstractContextManager[object]:
        """The context of the forward pass."""
        return autocast(dtype, device) if self.autocast else nullcontext()

    def optimiser_of(self, model: nn.Module, rate: float, device: Device) -> torch.optim.Optimizer:
        """AdamW unless the strategy has its own."""
        groups = groups_of(model)
        if self.optimiser is not None:
            return self.optimiser(groups, rate)
        return torch.optim.AdamW(groups, lr=rate, fused=device.cuda)


def autocast(dtype: str, device: Device) -> AbstractContextManager[object]:
    """The context in which a forward pass of fp32 parameters computes in `dtype`."""
    if dtype == "fp32":
        return nullcontext()
    context: AbstractContextManager[object] = torch.autocast(device.torch.type, dtype=torch.bfloat16)
    return context


def groups_of(model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups by mesh: AdamW works on all of a group at once, and cannot mix differently sharded tensors."""
    found: dict[Any, list[nn.Parameter]] = {}
    for weights in model.parameters():
        found.setdefault(getattr(weights, "device_mesh", None), []).append(weights)
    return [{"params": weights} for weights in found.values()]


def settle(model: nn.Module) -> None:
    """Add up gradients that are still one summand a rank, as sequence parallelism leaves those of the norms: the
    optimiser would take each rank's summand for the whole, and the ranks' norms drift apart."""
    for weights in model.parameters():
        if isinstance(weights.grad, DTensor) and any(place.is_partial() for place in weights.grad.placements):
            whole = [Replicate() if place.is_partial() else place for place in weights.grad.placements]
            weights.grad = weights.grad.redistribute(placements=whole)


def builder(shape: Model, seed: int, device: Device) -> Build:
    """Makes that shape's model, the same each time."""

    def build() -> nn.Module:
        torch.manual_seed(seed)
        with device.torch:
            return Decoder(shape)

    return build


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What one rank saw."""

    samples_s: tuple[float, ...]
    """Seconds of each step."""
    losses: tuple[float, ...]
    """Of this rank's share, every step."""

    def after(self, warmup: int) -> "Steps":
        """With the samples of the first `warmup` steps left out; losses are kept."""
        return Steps(samples_s=self.samples_s[warmup:], losses=self.losses)


@dataclass(frozen=True, kw_only=True)
class Together:
    """What ranks saw that took the same steps."""

    every: tuple[Steps, ...]
    """Of each rank that took part, timed steps only."""

    @property
    def samples_s(self) -> tuple[float, ...]:
        """Of each step the slowest rank's seconds."""
        return tuple(max(step) for step in zip(*(steps.samples_s for steps in self.every), strict=True))

    @property
    def median_s(self) -> float:
        """Of those."""
        return statistics.median(self.samples_s)

    @property
    def losses(self) -> list[float]:
        """Of the global batch, each step: shares are of one size, so it is the mean over ranks."""
        return [statistics.fmean(step) for step in zip(*(steps.losses for steps in self.every), strict=True)]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A model and its optimiser on one rank."""

    strategy: Strategy
    model: nn.Module
    optimiser: torch.optim.Optimizer
    dtype: str
    device: Device

    def backward(self, tokens_BT: Tensor) -> Tensor:
        """Forward and backward: the loss, and fresh gradients."""
        self.optimiser.zero_grad()
        with self.strategy.arithmetic(self.dtype, self.device):
            loss = loss_of(self.model, tokens_BT)
        loss.backward()
        settle(self.model)
        return loss.detach()

    def step(self, tokens_BT: Tensor) -> Tensor:
        """Forward, backward, update; the loss."""
        loss = self.backward(tokens_BT)
        self.optimiser.step()
        return loss

    def train(self, batches: Sequence[Tensor]) -> Steps:
        """A step on this rank's share of each global batch, each of them timed until the device is done."""
        samples, losses = [], []
        for tokens_GT in batches:
            tokens_BT = self.strategy.share_of(tokens_GT, self.device)
            self.device.synchronize()
            begin = time.perf_counter()
            loss = self.step(tokens_BT)
            self.device.synchronize()
            samples.append(time.perf_counter() - begin)
            losses.append(float(loss))
        return Steps(samples_s=tuple(samples), losses=tuple(losses))


def trainer_of(strategy: Strategy, settings: Settings, build: Build, device: Device) -> Trainer:
    """The strategy's part of a model on this rank, ready to train."""
    model = strategy.wrap((strategy.build or build)())
    optimiser = strategy.optimiser_of(model, settings.learning_rate, device)
    return Trainer(strategy=strategy, model=model, optimiser=optimiser, dtype=settings.dtype, device=device)


def alone() -> Strategy:
    """One rank by itself, on the whole of what it is given."""
    return Strategy(name="one rank alone", wrap=lambda model: model, traffic=lambda _shape, _tokens: Traffic(calls=()))
