"""The model in training, shared by as many ranks as there are: batch, data and mean depend on the step alone.

A step takes the same sequences whatever the number of ranks; each takes its share of them, of equal size or one more.
A rank's mean counts by its sequences: it is scaled by share × ranks before the ranks' gradients are averaged, so that
what all get is the mean over the whole batch. As many ranks so repeat a step bit by bit, others up to fp32's rounding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from labs.models import Model
from workloads.chain import draw
from workloads.decoder import Decoder, loss_of
from workloads.device import Device
from workloads.group import Group
from workloads.parallel.sharding import shard
from workloads.parallel.strategy import autocast

# Shape suffixes: B sequences of one rank, G of all ranks together, T = S + 1 tokens (inputs and labels overlap).

STRATEGIES = ("fsdp", "ddp")
EPSILON = 1e-6
"""Of Adam, above the rounding of the smallest gradients: else noise near zero decides a step's direction, and other
numbers of ranks drift apart."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Batches by the number of their step."""

    seed: int
    batch: int
    """G."""
    sequence: int
    """S."""

    def whole(self, step: int) -> Tensor:
        """All sequences [G, T] of a step, counted from 0."""
        return draw(self.seed, step, self.batch, self.sequence + 1)

    def share(self, step: int, rank: int, ranks: int) -> Tensor:
        """Those [B, T] of one rank."""
        begin, end = share(self.batch, rank, ranks)
        return self.whole(step)[begin:end]


def share(batch: int, rank: int, ranks: int) -> tuple[int, int]:
    """First sequence of a rank, and the first that is no longer its own."""
    return rank * batch // ranks, (rank + 1) * batch // ranks


def demand_share(batch: int, ranks: int) -> None:
    """Check that every rank has work.

    Raises:
        ValueError: there are more ranks than sequences.
    """
    if ranks > batch:
        raise ValueError(f"batch={batch} sequences a step leave some of {ranks} ranks without any: any number of ranks "
                         f"from 1 to {batch} can share them; start so many, or write --batch {ranks} for a new "
                         "training")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """One rank's part."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    data: Data
    dtype: str
    rank: int
    ranks: int
    device: Device

    def forward(self, step: int) -> tuple[Tensor, float]:
        """This rank's loss, ready to be differentiated, and its part of the batch's mean."""
        tokens_BT = self.data.share(step, self.rank, self.ranks).to(self.device.torch)
        part = len(tokens_BT) / self.data.batch
        with autocast(self.dtype if isinstance(self.model, DistributedDataParallel) else "fp32", self.device):
            loss = loss_of(self.model, tokens_BT)
        return loss * (part * self.ranks), float(loss.detach()) * part

    def update(self, loss: Tensor) -> None:
        """Backward pass and step."""
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def state(self) -> dict[str, Any]:
        """Weights and Adam's moments by the plain model's names: the live tensors, whatever the strategy."""
        model, optimiser = get_state_dict(self.model, self.optimiser)
        return {"model": model, "optimiser": optimiser}

    def take(self, state: dict[str, Any]) -> None:
        """What `state` gave, filled with a checkpoint's values."""
        set_state_dict(self.model, self.optimiser, model_state_dict=state["model"], optim_state_dict=state["optimiser"])


def built(shape: Model, seed: int, device: Device) -> nn.Module:
    """The whole model with random weights, the same on every rank."""
    torch.manual_seed(seed)
    with device.torch:
        return Decoder(shape)


def trainee(shape: Model, data: Data, group: Group, *, strategy: str, dtype: str, rate: float) -> Trainee:
    """This rank's part of a new model."""
    device, model = group.device, built(shape, data.seed, group.device)
    if strategy == "fsdp":
        model = shard(model, init_device_mesh(device.torch.type, (group.size,)), dtype)
    else:
        model = DistributedDataParallel(model, device_ids=[device.torch] if device.cuda else None,
                                        gradient_as_bucket_view=True)  # fmt: skip
    found = Trainee(model=model, optimiser=optimiser_of(model, rate), data=data, dtype=dtype, rank=group.rank,
                    ranks=group.size, device=device)  # fmt: skip
    if strategy == "ddp":
        _settle(found)
    return found


def optimiser_of(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW in one kernel over all parameters."""
    return torch.optim.AdamW(model.parameters(), lr=rate, eps=EPSILON, fused=True)


def _settle(found: Trainee) -> None:
    """DDP orders its buckets anew after its first backward pass, and a sum over three ranks and more depends on where
    in a bucket a gradient lies: a resumed training must not begin in another order than one that went on."""
    for _ in range(2):
        found.forward(0)[0].backward()
    found.optimiser.zero_grad()


def alone(shape: Model, data: Data, device: Device, *, rate: float, steps: int) -> tuple[float, ...]:
    """The first losses by one process that takes whole batches."""
    model = built(shape, data.seed, device)
    one = Trainee(model=model, optimiser=optimiser_of(model, rate), data=data, dtype="fp32", rank=0, ranks=1,
                  device=device)  # fmt: skip
    losses = []
    for step in range(steps):
        loss, told = one.forward(step)
        losses.append(told)
        one.update(loss)
    return tuple(losses)
