"""The same training on so many ranks, the work kept or grown: what is measured there, and what must be equal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from labs.models import find_model
from labs.traffic import data_parallel
from workloads.chain import draw
from workloads.group import Group
from workloads.parallel.bench import PROFILED, free
from workloads.parallel.settings import Settings
from workloads.parallel.strategy import Strategy, Together, alone, builder, trainer_of
from workloads.parallel.trace import Breakdown, breakdown_of, shares
from workloads.parity import digest, digest_failure
from workloads.processor import cores

Kind = Literal["strong", "weak"]
ALLOWED = {"fp32": 1e-5, "bf16": 2e-2}
"""Largest relative difference of a step's loss between numbers of ranks; sums are made in another order."""


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """What is trained, on how many ranks. `batch` is a rank's at the most ranks, and with weak scaling at any."""

    sizes: tuple[int, ...]
    """Numbers of ranks, ascending from 1."""
    sequences: int
    """Of the whole batch of strong scaling: a multiple of every size."""

    def each(self, kind: Kind, ranks: int) -> int:
        """Sequences of one rank in a step."""
        return self.sequences // ranks if kind == "strong" else self.sequences // self.sizes[-1]

    def tokens(self, kind: Kind, ranks: int) -> int:
        """Of a step, over all ranks, each counted once."""
        return ranks * self.each(kind, ranks) * self.sequence


@dataclass(frozen=True, kw_only=True)
class Point(Together):
    """One number of ranks, one way."""

    kind: Kind
    ranks: int
    breakdowns: tuple[Breakdown, ...]


def strategy(ranks: int, group: Group, members: dist.ProcessGroup | None) -> Strategy:
    """The first `ranks` ranks, data parallel; one alone needs nobody."""
    if ranks == 1:
        return alone()

    def wrap(model: nn.Module) -> nn.Module:
        devices = [group.device.torch] if group.device.cuda else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True, process_group=members)

    return Strategy(name=f"{ranks} ranks", wrap=wrap, share=(group.rank, ranks), equal=True,
                    traffic=lambda shape, _tokens: data_parallel(shape, ranks))  # fmt: skip


def measure(kind: Kind, ranks: int, config: Config, group: Group, members: dist.ProcessGroup | None) -> Point:
    """One point; ranks that take no part wait.

    Raises:
        CheckFailed: on every rank, if the ranks that took part hold different parameters.
    """
    told, bits = None, None
    if group.rank < ranks:
        shape = find_model(config.model)
        build = builder(shape, config.seed, group.device)
        trainer = trainer_of(strategy(ranks, group, members), config, build, group.device)
        size = (ranks * config.each(kind, ranks), config.sequence + 1)
        steps = trainer.train([draw(config.seed, step, *size) for step in range(config.steps)])
        tokens_BT = trainer.strategy.share_of(draw(config.seed, config.steps, *size), group.device)
        breakdown = breakdown_of(lambda: trainer.step(tokens_BT), PROFILED[group.device.cuda], group.device)
        told, bits = (steps.after(config.warmup), breakdown), digest(trainer.model)
    found = [one for one in group.gather(told) if one is not None]
    digests = [one for one in group.gather(bits) if one is not None]
    group.require(f"{kind} scaling on {ranks} ranks: parameters equal", digest_failure(digests))
    free(group)
    return Point(kind=kind, ranks=ranks, every=tuple(steps for steps, _ in found),
                 breakdowns=tuple(breakdown for _, breakdown in found))  # fmt: skip


def measure_all(config: Config, group: Group) -> list[Point]:
    """Every point. At the most ranks strong and weak are one: the same batch, measured once.

    Raises:
        CheckFailed: on every rank, if losses depend on the number of ranks.
    """
    found: list[Point] = []
    for ranks in config.sizes:
        members = dist.new_group(list(range(ranks))) if ranks > 1 else None
        for kind in ("weak", "strong"):
            if kind == "weak" and ranks == config.sizes[-1] and ranks > 1:
                continue
            point = measure(kind, ranks, config, group, members)
            group.say(point_line(point, config))
            found.append(point)
    last = found[-1]
    if last.ranks > 1:
        found.append(replace(last, kind="weak"))
    group.require(
        "losses of strong scaling", loss_failure([point for point in found if point.kind == "strong"], config)
    )
    return found


def loss_failure(points: Sequence[Point], config: Config) -> str:
    """Where the losses of the same batches differ between numbers of ranks (empty: nowhere)."""
    first = points[0]
    for point in points[1:]:
        for step, (loss, other) in enumerate(zip(point.losses, first.losses, strict=True)):
            if not abs(loss - other) <= ALLOWED[config.dtype] * abs(other):
                return (f"step {step + 1} on {point.ranks} ranks has {loss:.6f}, on one {other:.6f}, allowed "
                        f"{ALLOWED[config.dtype]:.0e} apart")  # fmt: skip
    return ""


def all_cores(config: Config, group: Group) -> Point | None:
    """The strong batch on one rank that takes all cores, as a process outside torchrun does; None where it has them
    already, or the device is a GPU. On every rank."""
    every = cores()
    if group.device.cuda or every <= config.threads or group.size == 1:
        return None
    if group.first:
        torch.set_num_threads(every)
    point = measure("strong", 1, config, group, None)
    torch.set_num_threads(config.threads)
    return point


def speedups(points: Sequence[Point], kind: Kind) -> dict[int, float]:
    """Of all numbers of ranks over one, by tokens per second."""
    chosen_points = [point for point in points if point.kind == kind]
    one = next(point for point in chosen_points if point.ranks == 1)
    grown = {point.ranks: point.ranks if kind == "weak" else 1 for point in chosen_points}
    return {point.ranks: grown[point.ranks] * one.median_s / point.median_s for point in chosen_points}


def point_line(point: Point, config: Config) -> str:
    """One point, for the log."""
    tokens, told = config.tokens(point.kind, point.ranks), shares(point.breakdowns)
    return (f"{point.kind:6} {point.ranks} ranks × {config.each(point.kind, point.ranks)} sequences: step "
            f"{point.median_s * 1e3:.1f} ms, {tokens / point.median_s:.0f} token/s; {told['compute']:.0%} arithmetic, "
            f"{told['exposed']:.0%} exposed communication, {told['idle']:.0%} idle")  # fmt: skip
