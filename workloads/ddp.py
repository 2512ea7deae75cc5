"""ddp: a small language model trained by all ranks together, each with its share of the batch.

Every rank holds the whole model. After the backward pass the ranks average their gradients with an all-reduce,
for which each must send 2(n−1)/n of the gradients' bytes; then all take the same step. Adding ranks adds tokens
per step (weak scaling), so what a step takes longer than on one rank is the price of the network and of sharing the
machine. Tokens are counted once: ranks × batch × sequence. A trained token costs 6·N_mm + 6·L·H·d·(S+1) FLOPs
(causal attention counted exactly); the roof is the ranks' peak FLOP/s over that.

Method: deterministic data, a noisy chain over 64 tokens that a model learns in a few steps. Every step is timed on
every rank; a sample is the slowest rank's. Baseline: the first rank alone, with as many threads, same batch.
Checks: gradients of the first step equal one process's over the same global batch; parameters are bitwise the same
on all ranks at the end; the loss falls.

Output: seconds per step, tokens/s, bytes per step predicted, speed-up over one rank; one record.

    python -m workloads.ddp
    torchrun --standalone --nproc-per-node 2 -m workloads.ddp --steps 20
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from labs.models import Model, find_model
from labs.results import Measurement
from labs.roofs import Bound, all_reduce_bytes, compute_bound, inverse, per_unit, usd_per_million
from workloads.chain import draw
from workloads.command import Parser, positive, start
from workloads.decoder import Decoder, loss_of
from workloads.device import Device, find_device
from workloads.group import Group, joined, place
from workloads.parity import TOLERANCE, digest, digest_failure, gradient_failure, gradients_of, loss_failure
from workloads.record import Surroundings, surroundings, write
from workloads.sensors import Sensors, describe

# Shape suffixes: B sequences, T = S + 1 tokens (inputs and labels overlap), G sequences of all ranks together.


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is trained."""

    model: str
    """A name in labs/models.py."""
    dtype: str
    """Of the arithmetic (autocast); parameters, gradients and Adam's states are fp32."""
    batch: int
    """Sequences per rank and step."""
    sequence: int
    """Tokens per sequence."""
    steps: int
    """Optimiser steps; the first quarter warms up and is not timed."""
    learning_rate: float
    seed: int
    threads: int
    """CPU threads per rank."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.dtype not in TOLERANCE:
            raise ValueError(f"dtype={self.dtype!r} is not one that training runs in: write {', '.join(TOLERANCE)}")
        if self.steps < 8:
            raise ValueError(f"steps={self.steps} cannot show a falling loss: write at least 8")

    @property
    def warmup(self) -> int:
        """Steps before the timed ones."""
        return self.steps // 4


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    return Config(
        model=flags.model or ("mistral-mini" if device.cuda else "mistral-nano"),
        dtype=flags.dtype or ("bf16" if device.half == "bf16" else "fp32"),
        batch=flags.batch or (8 if device.cuda else 2), sequence=flags.sequence or (1024 if device.cuda else 32),
        steps=flags.steps or (40 if device.cuda else 12), learning_rate=flags.learning_rate,
        seed=flags.seed, threads=torch.get_num_threads(),
    )  # fmt: skip


def share_of(tokens_GT: Tensor, rank: int, config: Config, device: Device) -> Tensor:
    """One rank's sequences [B, T] on its device."""
    return tokens_GT[rank * config.batch : (rank + 1) * config.batch].to(device.torch)


def arithmetic(config: Config, device: Device) -> AbstractContextManager[object]:
    """The context in which the forward pass computes in the configured type."""
    if config.dtype == "fp32":
        return nullcontext()
    autocast: AbstractContextManager[object] = torch.autocast(device.torch.type, dtype=torch.bfloat16)
    return autocast


def optimiser_of(model: nn.Module, config: Config, device: Device) -> torch.optim.Optimizer:
    """AdamW over all parameters."""
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=device.cuda)


def reference_gradients(model: nn.Module, tokens_GT: Tensor, config: Config, group: Group) -> dict[str, Tensor]:
    """Gradients of the mean loss over the global batch, by one process; share by share, to fit one rank's memory."""
    model.zero_grad()
    for rank in range(group.size):
        with arithmetic(config, group.device):
            loss = loss_of(model, share_of(tokens_GT, rank, config, group.device)) / group.size
        loss.backward()
    return gradients_of(model)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one rank saw."""

    samples_s: tuple[float, ...]
    """Seconds of each step after warming up."""
    losses: tuple[float, ...]
    """Of this rank's share, every step."""


def train(model: nn.Module, config: Config, group: Group, batches: Sequence[Tensor]) -> Training:
    """Take a step on this rank's share of each global batch, timing each of them."""
    optimiser = optimiser_of(model, config, group.device)
    samples, losses = [], []
    for tokens_GT in batches:
        tokens_BT = share_of(tokens_GT, group.rank, config, group.device)
        group.device.synchronize()
        begin = time.perf_counter()
        optimiser.zero_grad()
        with arithmetic(config, group.device):
            loss = loss_of(model, tokens_BT)
        loss.backward()
        optimiser.step()
        group.device.synchronize()
        samples.append(time.perf_counter() - begin)
        losses.append(float(loss.detach()))
    return Training(samples_s=tuple(samples[config.warmup :]), losses=tuple(losses))


def check_gradients(model: nn.Module, alone: nn.Module, tokens_GT: Tensor, config: Config, group: Group) -> str:
    """Compare the averaged gradients with one process's on rank 0, and say how near they are.

    Raises:
        CheckFailed: on every rank.
    """
    model.zero_grad()
    with arithmetic(config, group.device):
        loss = loss_of(model, share_of(tokens_GT, group.rank, config, group.device))
    loss.backward()
    allowed, difference, failure = TOLERANCE[config.dtype], 0.0, ""
    if group.first:
        expected = reference_gradients(alone, tokens_GT, config, group)
        difference, failure = gradient_failure(gradients_of(model), expected, allowed)
    group.require("gradients of the first step", failure)
    return f"gradients within {difference:.1e} of one process's, allowed {allowed:.0e}"


def measure(config: Config, group: Group) -> tuple[list[Training], Training, str]:
    """Check, train alone, train together; every rank's training, the baseline, and what was checked.

    Raises:
        CheckFailed: gradients, parameters or losses are not what they must be.
    """
    torch.manual_seed(config.seed)
    alone = Decoder(find_model(config.model)).to(group.device.torch)
    devices = [group.device.torch] if group.device.cuda else None
    together = DistributedDataParallel(deepcopy(alone), device_ids=devices, gradient_as_bucket_view=True)
    size = (group.size * config.batch, config.sequence + 1)
    batches = [draw(config.seed, step, *size) for step in range(config.steps)]
    checked = check_gradients(together, alone, batches[0], config, group)
    group.say(checked)
    baseline = group.gather(train(alone, config, group, batches[: config.steps // 2]) if group.first else None)[0]
    assert baseline is not None
    every = group.gather(train(together, config, group, batches))
    group.require("parameters equal on all ranks", digest_failure(group.gather(digest(together))))
    losses = mean_losses(every)
    group.require("loss falls", loss_failure(losses))
    return every, baseline, f"{checked}; parameters bitwise equal; loss {losses[0]:.2f} to {losses[-1]:.2f}"


def mean_losses(every: Sequence[Training]) -> list[float]:
    """Loss of the global batch, each step: shares are of one size, so it is the mean over ranks."""
    return [statistics.fmean(step) for step in zip(*(training.losses for training in every), strict=True)]


def bound_of(config: Config, group: Group) -> Bound:
    """Most tokens/s of all ranks together, by the model's own arithmetic."""
    device = group.device
    peak = compute_bound(device.name, device.accelerator, config.dtype, group.size)
    return per_unit(peak, find_model(config.model).train_flops(config.sequence))


def gradient_bytes(shape: Model) -> int:
    """Bytes of all gradients, which are fp32 as their parameters are."""
    return 4 * shape.parameters


def summarise(config: Config, group: Group, every: Sequence[Training], baseline: Training, checked: str,
              price: float | None) -> Iterator[Measurement]:  # fmt: skip
    """Step time, tokens/s, speed-up over one rank."""
    samples_s = tuple(max(step) for step in zip(*(training.samples_s for training in every), strict=True))
    step_s, alone_s = statistics.median(samples_s), statistics.median(baseline.samples_s)
    shape, tokens = find_model(config.model), group.size * config.batch * config.sequence
    row = {
        "model": config.model, "dtype": config.dtype, "ranks": group.size, "tokens_per_step": tokens,
        "flops_per_token": shape.train_flops(config.sequence), "gradient_bytes": gradient_bytes(shape),
        "predicted_bytes_per_rank": all_reduce_bytes(gradient_bytes(shape), group.size),
    }  # fmt: skip
    rate = bound_of(config, group)
    yield Measurement(
        name="training", value=tokens / step_s, unit="token/s", estimator=f"from the median of {len(samples_s)} steps",
        config=row, samples_s=samples_s, roof=rate.roof, no_roof_because=rate.no_roof_because, checked=checked,
        usd_per_unit=None if price is None else usd_per_million(price, tokens / step_s), work_unit="million tokens",
    )  # fmt: skip
    step = inverse(rate, tokens)
    yield Measurement(
        name="step", value=step_s, unit="s", estimator=f"median of {len(samples_s)}, slowest rank of each",
        config={**row, "alone_s": alone_s, "losses": mean_losses(every)}, samples_s=samples_s,
        roof=step.roof, no_roof_because=step.no_roof_because, checked=checked,
    )  # fmt: skip
    speedup = group.size * alone_s / step_s
    yield Measurement(
        name="weak scaling", value=speedup, unit="× one rank", estimator="from medians of both",
        config={**row, "ideal": group.size, "efficiency": speedup / group.size, "alone_s": alone_s},
        samples_s=baseline.samples_s, no_roof_because="its ideal is measured, not physical: one rank times the ranks",
        checked=checked,
    )  # fmt: skip


def run(config: Config, group: Group, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print the roof, measure, print and write what came out."""
    shape, bound = find_model(config.model), bound_of(config, group)
    sent = all_reduce_bytes(gradient_bytes(shape), group.size)
    group.say(f"roof training: {bound.roof.value:.0f} token/s ({bound.roof.source})" if bound.roof
              else f"roof training: none, {bound.no_roof_because}")  # fmt: skip
    group.say(f"predicted: each of {group.size} ranks sends {sent / 1e6:.2f} MB a step, "
              f"2(n−1)/n of {gradient_bytes(shape) / 1e6:.2f} MB of gradients")  # fmt: skip
    with Sensors(group.device) as sensors:
        every, baseline, checked = measure(config, group)
    if not group.first:
        return
    rows = tuple(summarise(config, group, every, baseline, checked, within.price))
    training, step, scaling = rows
    share = "" if training.fraction is None else f", {training.fraction:.1%} of roof (MFU, causal)"
    group.say(
        f"step {step.value * 1e3:.1f} ms on {group.size} ranks, {step.config['alone_s'] * 1e3:.1f} ms on one alone"
    )
    group.say(f"training {training.value:.0f} token/s{share}")
    group.say(f"scaling {scaling.value:.2f} × one rank of {group.size}, efficiency {scaling.config['efficiency']:.0%}")
    machine = describe(group.device, devices=group.size, reading=sensors.reading,
                       instance_type=within.instance_type, libraries=())  # fmt: skip
    path = write(flags.out, "ddp", rows, within=within, machine=machine, config=config, cluster=True, ranks=group.size)
    group.say(f"{checked}: {path}")


def rate_flag(text: str) -> float:
    """A learning rate above 0.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a learning rate between 0 and 1")
    return value


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: what was trained is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("ddp", __doc__)
    parser.add_argument("--model", help="a shape of labs/models.py")
    parser.add_argument("--dtype", help="fp32 or bf16; default: bf16 on a GPU that has it")
    parser.add_argument("--batch", type=positive, help="sequences per rank and step")
    parser.add_argument("--sequence", type=positive, help="tokens per sequence")
    parser.add_argument("--steps", type=positive, help="optimiser steps")
    parser.add_argument("--learning-rate", type=rate_flag, default=3e-3, help="of AdamW")
    flags = parser.parse_args(arguments)
    try:
        here, within = place(), surroundings()
        device = find_device(flags.device, here.local_rank)
        config = configure(flags, device)
    except ValueError as error:
        parser.error(str(error))
    with joined(here, device) as group:
        run(config, group, flags, within)


if __name__ == "__main__":
    start("ddp", main)
