"""ddp: a small language model trained by all ranks together, each with its share of the batch.

Every rank holds the whole model. After the backward pass the ranks average their gradients with an all-reduce,
for which each must send 2(n−1)/n of the gradients' bytes; then all take the same step. Gradients are sent in buckets
as the backward pass fills them: while one travels, the next is computed, so that most of the sending can hide. Small
buckets start early and pay a latency each; one bucket of all pays one latency and hides nothing. --compress bf16 sends
them in half the bytes besides (workloads/parallel/compression.py says at what price). Tokens are counted
once: ranks × batch × sequence. A trained token costs 6·N_mm + 6·L·H·d·(S+1) FLOPs (causal attention counted exactly);
the roof is the ranks' peak FLOP/s over that.

Method: deterministic data, a noisy chain over 64 tokens that a model learns in a few steps. Every step is timed on
every rank; a sample is the slowest rank's. Baseline: the first rank alone, with as many threads, same share.
Checks: losses and gradients of the smallest model are one process's; every collective is counted and its bytes are
those predicted; parameters are bitwise the same on all ranks at the end; the loss falls.

Output: for each bucket size seconds per step taken apart by the profiler, tokens/s, bytes; speed-up; one record.

    python -m workloads.ddp
    torchrun --standalone --nproc-per-node 2 -m workloads.ddp --steps 20 --buckets 1,25
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from labs.results import Measurement
from labs.traffic import data_parallel
from workloads.command import counts, start
from workloads.device import Device
from workloads.group import Group, Place
from workloads.parallel.bench import Outcome
from workloads.parallel.compression import allowed, in_bf16
from workloads.parallel.settings import Settings, chosen, parser_of
from workloads.parallel.strategy import EXACT, Steps, Strategy
from workloads.parallel.workload import Comparison, enter
from workloads.record import Surroundings

BUCKETS_MB = {True: (25, 5, 100, 400), False: (25, 4, 1)}
"""Of the sweep, by whether the device is a GPU; 25 is torch's own, and its first bucket is always of 1 MB."""


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """What is trained, and how its gradients travel. Parameters, gradients and Adam's states are fp32."""

    buckets_mb: tuple[int, ...]
    """Largest bucket of gradients, MiB; the first is the headline."""
    compress: str
    """Type in which gradients also travel, beside fp32: "bf16", or "" for none."""


def configure(flags: argparse.Namespace, device: Device, _here: Place) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    return Config(**chosen(flags, device), buckets_mb=flags.buckets or BUCKETS_MB[device.cuda],
                  compress=flags.compress)  # fmt: skip


def strategy(bucket_mb: int, group: Group, *, compressed: bool = False) -> Strategy:
    """Whole model on every rank, gradients averaged in buckets of that size; `compressed`: in bf16."""

    def wrap(model: nn.Module) -> nn.Module:
        devices = [group.device.torch] if group.device.cuda else None
        shared = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True,
                                         bucket_cap_mb=bucket_mb)  # fmt: skip
        if compressed:
            shared.register_comm_hook(dist.group.WORLD, in_bf16)
        return shared

    size = 2 if compressed else 4
    return Strategy(
        name=f"buckets of {bucket_mb} MB{' in bf16' if compressed else ''}", wrap=wrap, share=(group.rank, group.size),
        equal=True, traffic=lambda shape, _tokens: data_parallel(shape, group.size, size=size),
        allowed=allowed(group.size) if compressed else EXACT, config={"bucket_mb": bucket_mb, "gradient_bytes": size},
    )  # fmt: skip


def weak_scaling(group: Group, alone: Steps | None, outcome: Outcome) -> Measurement:
    """How many times one rank's tokens/s all ranks have together, each with as much work as that one."""
    assert alone is not None
    alone_s = statistics.median(alone.samples_s)
    speedup = group.size * alone_s / outcome.median_s
    return Measurement(
        name="weak scaling", value=speedup, unit="× one rank", estimator="from medians of both",
        config={"ranks": group.size, "ideal": group.size, "efficiency": speedup / group.size, "alone_s": alone_s},
        samples_s=alone.samples_s, no_roof_because="its ideal is measured, not physical: one rank times the ranks",
        checked=outcome.checked,
    )  # fmt: skip


def run(config: Config, group: Group, flags: argparse.Namespace, within: Surroundings) -> None:
    """Predict, measure every bucket size, print and write what came out."""
    strategies = [strategy(size, group) for size in config.buckets_mb]
    if config.compress:
        strategies.append(strategy(config.buckets_mb[0], group, compressed=True))

    def more(alone: Steps | None, every: Sequence[Outcome]) -> list[Measurement]:
        scaling = weak_scaling(group, alone, every[0])
        group.say(f"scaling {scaling.value:.2f} × one rank of {group.size}, "
                  f"efficiency {scaling.config['efficiency']:.0%}")  # fmt: skip
        return [scaling]

    Comparison(name="ddp", config=config, group=group, strategies=strategies, like_fp32=strategies).run(
        flags, within, more
    )


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: what was trained is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = parser_of("ddp", __doc__)
    parser.add_argument("--buckets", type=counts, help="bucket sizes in MB, for example 25,1")
    parser.add_argument("--compress", choices=("bf16",), default="", help="send gradients in this type as well")
    enter(parser, arguments, configure, run)


if __name__ == "__main__":
    start("ddp", main)
