"""collectives: all-reduce over sizes, from latency to bandwidth, its result checked on every rank.

An all-reduce leaves the sum of all ranks' buffers on every rank. A small one takes a latency α whatever its size; a
large one takes bytes ÷ bandwidth. Two bandwidths, as in nccl-tests (its doc/PERFORMANCE.md): algbw = buffer ÷ time;
busbw = algbw · 2(n−1)/n, what each rank must send at least, so that numbers over different n compare. Over nodes
the roof is the node's network: at least 2(k−1)/k of the buffer leaves each of k nodes, whatever the algorithm.

Method: rank r fills element i with (i mod 3) + (r mod 4), small integers, so that sums are exact in any order and
any error shows; filled anew and compared in full in every iteration, outside the timed part. On CPUs the ranks meet
at a barrier first; on GPUs the all-reduces queue back to back. Each rank times each of them; a sample is the slowest
rank's. Value: from the median.

Output: busbw, algbw, time and the spread over ranks per size; the latency of the smallest; one record.

    python -m workloads.collectives
    torchrun --standalone --nproc-per-node 4 -m workloads.collectives --largest 16MiB
"""

import argparse
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from labs.accelerators import by_instance
from labs.instances import InstanceType, instance_types
from labs.results import Measurement
from labs.roofs import DTYPE_BYTES, Bound, all_reduce_bound, bus_factor
from workloads.command import Parser, positive, start
from workloads.device import TORCH_DTYPES, Device, find_device, time_each
from workloads.group import Group, joined, place
from workloads.record import Surroundings, surroundings, write
from workloads.sensors import Sensors, describe

# Shape suffix: E elements of a buffer.

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
EXACT_RANKS = {"fp32": 1_000_000, "bf16": 64}
"""Ranks up to which every sum is an integer that the type holds: at most 2 + 3 a rank, and 8 bits in bf16."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    sizes_bytes: tuple[int, ...]
    """Of the buffer on each rank, ascending."""
    dtype: str
    iterations: int
    """Timed all-reduces per size."""
    warmup: int
    """All-reduces before that."""


def configure(flags: argparse.Namespace, device: Device, ranks: int) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    largest = flags.largest or (UNITS["GiB"] if device.cuda else 4 * UNITS["MiB"])
    if flags.smallest > largest:
        raise ValueError(f"smallest={size_name(flags.smallest)} is above largest={size_name(largest)}")
    if ranks > EXACT_RANKS[flags.dtype]:
        raise ValueError(f"dtype={flags.dtype!r} cannot hold the sums of {ranks} ranks exactly: write fp32")
    sizes = [flags.smallest]
    while sizes[-1] * flags.factor <= largest:
        sizes.append(sizes[-1] * flags.factor)
    return Config(sizes_bytes=tuple(sizes), dtype=flags.dtype,
                  iterations=flags.iterations or (50 if device.cuda else 10),
                  warmup=flags.warmup or (10 if device.cuda else 2))  # fmt: skip


def size_name(size_bytes: int) -> str:
    """For example "64 KiB"."""
    unit = next(unit for unit in reversed(UNITS) if size_bytes >= UNITS[unit] or unit == "KiB")
    return f"{size_bytes / UNITS[unit]:g} {unit}"


def contribution(rank: int, elements: int, dtype: str, device: Device) -> Tensor:
    """What one rank brings: (i mod 3) + (rank mod 4). A period of 3 fits no power of two, so that a piece which an
    algorithm puts in the wrong place does not look right there."""
    cycle = torch.arange(3, device=device.torch, dtype=TORCH_DTYPES[dtype]) + rank % 4
    return cycle.repeat(-(-elements // 3))[:elements]


def expected_sum(ranks: int, elements: int, dtype: str, device: Device) -> Tensor:
    """What every rank must hold afterwards, by arithmetic: ranks · (i mod 3) + Σ (r mod 4)."""
    cycle = torch.arange(3, device=device.torch) * ranks + sum(rank % 4 for rank in range(ranks))
    return cycle.to(TORCH_DTYPES[dtype]).repeat(-(-elements // 3))[:elements]


def measure_size(size_bytes: int, config: Config, group: Group) -> list[tuple[float, ...]]:
    """Seconds of every all-reduce of this size, by rank.

    Raises:
        CheckFailed: on every rank, if one of them got a wrong sum.
    """
    device, elements = group.device, size_bytes // DTYPE_BYTES[config.dtype]
    mine_E = contribution(group.rank, elements, config.dtype, device)
    expected_E = expected_sum(group.size, elements, config.dtype, device)
    buffer_E = torch.empty_like(mine_E)
    wrong = torch.zeros((), dtype=torch.int64, device=device.torch)

    def before() -> None:
        buffer_E.copy_(mine_E)
        if not device.cuda:  # on a GPU a barrier would empty the queue, and each all-reduce aligns the next
            dist.barrier()

    def after() -> None:
        wrong.add_(torch.count_nonzero(buffer_E != expected_E))

    def step() -> None:
        dist.all_reduce(buffer_E)

    time_each(device, step, config.warmup, before=before, after=after)
    samples_s = time_each(device, step, config.iterations, before=before, after=after)
    compared = elements * (config.warmup + config.iterations)
    failure = f"{int(wrong)} of {compared} sums are wrong" if wrong else ""
    group.require(f"all-reduce of {size_name(size_bytes)}", failure)
    return group.gather(samples_s)


def network(device: Device, name: str | None) -> InstanceType | None:
    """The type whose network this is: the one that the launcher names, if the GPU is the one that it carries.

    A rehearsed node bears a GPU type's name and runs on somebody's laptop; its network is not that type's.
    """
    if name is None or device.accelerator is None:
        return None
    kind = instance_types().get(name)
    return kind if kind is not None and by_instance(kind) is device.accelerator else None


def summarise(config: Config, group: Group, timed: Sequence[list[tuple[float, ...]]], within: Surroundings
              ) -> Iterator[Measurement]:  # fmt: skip
    """A row per size, and the latency of the smallest."""
    bound = bound_of(group, within)
    for size_bytes, by_rank in zip(config.sizes_bytes, timed, strict=True):
        yield summarise_size(size_bytes, config, group, by_rank, bound)
    samples_s = slowest(timed[0])
    yield Measurement(
        name="latency", value=statistics.median(samples_s), unit="s", estimator=f"median of {len(samples_s)}",
        config={"collective": "all-reduce", "bytes": config.sizes_bytes[0], "ranks": group.size},
        samples_s=samples_s, no_roof_because="labs/ holds no latency of links", checked="every sum exact on every rank",
    )  # fmt: skip


def bound_of(group: Group, within: Surroundings) -> Bound:
    """Most bus bandwidth over this run's nodes."""
    return all_reduce_bound(network(group.device, within.instance_type), within.nodes, group.size)


def slowest(by_rank: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """A collective is over when its last rank is: of each iteration the slowest rank's seconds."""
    return tuple(max(iteration) for iteration in zip(*by_rank, strict=True))


def summarise_size(size_bytes: int, config: Config, group: Group, by_rank: list[tuple[float, ...]], bound: Bound
                   ) -> Measurement:  # fmt: skip
    """One size: bus bandwidth beside the roof, the rest in its config. One rank alone sends nothing: 0 B/s."""
    samples_s = slowest(by_rank)
    time_s, medians_s = statistics.median(samples_s), [statistics.median(samples) for samples in by_rank]
    algbw = size_bytes / time_s
    busbw = algbw * bus_factor("all-reduce", group.size)
    return Measurement(
        name=f"all-reduce {size_name(size_bytes)}", value=busbw, unit="B/s",
        estimator=f"busbw from the median of {len(samples_s)}, slowest rank of each",
        config={"collective": "all-reduce", "bytes": size_bytes, "dtype": config.dtype, "ranks": group.size,
                "time_s": time_s, "algbw": algbw, "busbw": busbw, "rank_median_s": medians_s,
                "spread": max(medians_s) / min(medians_s)},
        samples_s=samples_s, roof=bound.roof, no_roof_because=bound.no_roof_because,
        checked="every sum exact on every rank",
    )  # fmt: skip


def row_line(row: Measurement) -> str:
    """One size, for the log."""
    if row.unit == "s":
        return f"{row.name:20} {row.value * 1e6:10.1f} µs"
    time_s, algbw = row.config["time_s"], row.config["algbw"]
    share = "" if row.fraction is None else f"  {row.fraction:.1%} of roof"
    return (f"{row.name:20} {time_s * 1e6:10.1f} µs  algbw {algbw / 1e9:8.3f} GB/s  busbw {row.value / 1e9:8.3f} GB/s"
            f"  spread {row.config['spread']:.2f}×{share}")  # fmt: skip


def run(config: Config, group: Group, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print the roof, measure, print and write what came out."""
    bound = bound_of(group, within)
    group.say(f"roof busbw: {bound.roof.value / 1e9:.2f} GB/s ({bound.roof.source})" if bound.roof
              else f"roof busbw: none, {bound.no_roof_because}")  # fmt: skip
    timed = []
    with Sensors(group.device) as sensors:
        for size_bytes in config.sizes_bytes:
            timed.append(measure_size(size_bytes, config, group))
            group.say(row_line(summarise_size(size_bytes, config, group, timed[-1], bound)))
    if not group.first:
        return
    rows = tuple(summarise(config, group, timed, within))
    group.say(row_line(rows[-1]))
    machine = describe(group.device, devices=group.size, reading=sensors.reading,
                       instance_type=within.instance_type, libraries=())  # fmt: skip
    path = write(flags.out, "collectives", rows, within=within, machine=machine, config=config, cluster=True,
                 ranks=group.size)  # fmt: skip
    group.say(f"{len(timed)} sizes over {group.size} ranks, every sum exact on every rank: {path}")


def size(text: str) -> int:
    """Bytes of "64KiB", "4MiB" or "1GiB".

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    match = re.fullmatch(r"([1-9]\d{0,5}) ?(KiB|MiB|GiB)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write for example 64KiB, 4MiB or 1GiB")
    return int(match[1]) * UNITS[match[2]]


def factor(text: str) -> int:
    """A growth factor of at least 2.

    Raises:
        argparse.ArgumentTypeError: it is less, or not a number.
    """
    value = positive(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"{text!r} does not grow: write at least 2")
    return value


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a sum is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("collectives", __doc__)
    parser.add_argument("--smallest", type=size, default=UNITS["KiB"], help="first size, for example 1KiB")
    parser.add_argument("--largest", type=size, help="last size; default: 4MiB on a CPU, 1GiB on a GPU")
    parser.add_argument("--factor", type=factor, default=4, help="from one size to the next")
    parser.add_argument("--dtype", choices=tuple(EXACT_RANKS), default="fp32", help="of the elements")
    parser.add_argument("--iterations", type=positive, help="timed all-reduces per size")
    parser.add_argument("--warmup", type=positive, help="all-reduces before that")
    flags = parser.parse_args(arguments)
    try:
        here, within = place(), surroundings()
        device = find_device(flags.device, here.local_rank)
        config = configure(flags, device, here.size)
    except ValueError as error:
        parser.error(str(error))
    with joined(here, device) as group:
        run(config, group, flags, within)


if __name__ == "__main__":
    start("collectives", main)
