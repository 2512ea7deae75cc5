"""split-gemm: one matrix product shared by all ranks, each way with the collective that it costs.

C[M,N] = A[M,K]·B[K,N] on n ranks, each of which does 1/n of the FLOPs:

- by columns of B: every rank has all of A and N/n columns; the parts of C are gathered, (n−1)/n · M·N·w bytes;
- by rows of B: every rank has K/n of A's columns and of B's rows, and so a summand of C. All-reduced, every rank gets
  the sum for 2(n−1)/n · M·N·w bytes; reduce-scattered, every rank gets its rows of it for half of that; all-reduced
  in pieces of rows, one piece travels while the next is computed.

So the time is at least 2·M·N·K ÷ (n · peak), and then what of the sending nothing hides. Large K pays it off: the
FLOPs grow with K, the bytes do not.

Method: small integers first, whose sums are exact in the data type: every entry must equal float64's. Then N(0,1),
timed: the product of a rank's share alone, the collective alone, both together. A sample is the slowest rank's. The
bytes of every collective are counted and held against the prediction.

Output: for each way FLOP/s of all ranks together beside the roof, its time taken apart, bytes; one record.

    python -m workloads.split_gemm
    torchrun --standalone --nproc-per-node 4 -m workloads.split_gemm --shape 512x1024x4096
"""

import argparse
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from labs.results import Measurement, Roof, Span
from labs.roofs import Bound, compute_bound, gemm_flops
from labs.traffic import Traffic
from workloads.command import Parser, positive, start
from workloads.device import TORCH_DTYPES, Device, time_each
from workloads.group import Group, Place
from workloads.parallel.counting import counted
from workloads.parallel.links import Link, link_of
from workloads.parallel.products import EXACT, WAYS, Matrices, Way
from workloads.parallel.workload import enter, record
from workloads.record import Surroundings
from workloads.sensors import Sensors


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is multiplied."""

    m: int
    n: int
    k: int
    dtype: str
    pieces: int
    """Into how many pieces of rows the overlapped way cuts."""
    iterations: int
    """Timed products each way."""
    seed: int
    threads: int
    """CPU threads per rank."""

    @property
    def flops(self) -> int:
        """Of the whole product."""
        return gemm_flops(self.m, self.n, self.k)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Seconds of each iteration on one rank."""

    product_s: tuple[float, ...]
    collective_s: tuple[float, ...]
    both_s: tuple[float, ...]


def configure(flags: argparse.Namespace, device: Device, here: Place) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    m, n, k = flags.shape or ((8192, 8192, 8192) if device.cuda else (512, 768, 1536))
    dtype = flags.dtype or ("bf16" if device.half == "bf16" else "fp32")
    pieces = flags.pieces or 4
    for name, length, parts in (("m", m, here.size * pieces), ("n", n, here.size), ("k", k, here.size)):
        if length % parts:
            raise ValueError(f"{name}={length} does not split into {parts} parts: write a multiple of {parts}")
    if k > EXACT[dtype]:
        raise ValueError(f"k={k} has sums that {dtype} does not hold exactly: write at most {EXACT[dtype]}, or fp32")
    return Config(m=m, n=n, k=k, dtype=dtype, pieces=pieces, iterations=flags.iterations or (50 if device.cuda else 9),
                  seed=flags.seed, threads=torch.get_num_threads())  # fmt: skip


def whole(config: Config, group: Group, matrices: Matrices) -> tuple[float, ...]:
    """Seconds of the product on the first rank alone, while the others wait; on every rank."""
    samples: tuple[float, ...] = ()
    if group.first:
        time_each(group.device, matrices.alone, 2)
        samples = time_each(group.device, matrices.alone, config.iterations)
    return group.gather(samples)[0]


def measure(way: Way, config: Config, group: Group, matrices: Matrices) -> list[Timed]:
    """Check a way in integers, count its bytes, time it; every rank's samples.

    Raises:
        CheckFailed: on every rank, if an entry is not float64's or bytes are not those predicted.
    """
    matrices.fill_integers()
    found = counted(lambda: matrices.both(way))
    group.require(f"{way.name} against float64", matrices.wrong(way))
    group.require(f"bytes of {way.name}", traffic_of(way, config, group.size).unlike(found))
    matrices.fill_normal()
    device, meet = group.device, group.meet

    def timed(step: str) -> tuple[float, ...]:
        run = getattr(matrices, step)
        time_each(device, lambda: run(way), 2, before=meet)
        return time_each(device, lambda: run(way), config.iterations, before=meet)

    return group.gather(Timed(product_s=timed("product"), collective_s=timed("collective"), both_s=timed("both")))


def traffic_of(way: Way, config: Config, ranks: int) -> Traffic:
    """What it must send."""
    size = config.m * config.n * TORCH_DTYPES[config.dtype].itemsize
    return way.traffic(ranks, size, config.pieces)


def bound_of(config: Config, group: Group) -> Bound:
    """Most FLOP/s of all ranks together."""
    return compute_bound(group.device.name, group.device.accelerator, config.dtype, group.size)


def slowest(every: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Of each iteration the slowest rank's seconds."""
    return tuple(max(samples) for samples in zip(*every, strict=True))


def summarise(way: Way, config: Config, group: Group, every: list[Timed], alone_s: float, link: Link | None
              ) -> Iterator[Measurement]:  # fmt: skip
    """The way's rate with its time taken apart, and its bytes."""
    samples_s = slowest([timed.both_s for timed in every])
    median_s = statistics.median(samples_s)
    product_s = statistics.median(slowest([timed.product_s for timed in every]))
    collective_s = statistics.median(slowest([timed.collective_s for timed in every]))
    bound, traffic = bound_of(config, group), traffic_of(way, config, group.size)
    told = {
        "way": way.name, "m": config.m, "n": config.n, "k": config.k, "dtype": config.dtype, "ranks": group.size,
        "product_s": product_s, "collective_s": collective_s, "step_s": median_s, "alone_s": alone_s,
        "speedup": alone_s / median_s, "predicted_bytes_per_rank": traffic.sent_bytes,
    }  # fmt: skip
    expected_s = expectation(alone_s, group.size, traffic, link)
    yield Measurement(
        name=way.name, value=config.flops / median_s, unit="FLOP/s", config=told, samples_s=samples_s,
        estimator=f"from the median of {len(samples_s)}, slowest rank of each", roof=bound.roof,
        no_roof_because=bound.no_roof_because, spans=spans_of(median_s, product_s),
        others=(Roof(value=group.size * config.flops / alone_s, source="measured here: one rank alone × ranks"),),
        expected=None if expected_s is None else Roof(value=config.flops / expected_s, source=SOURCE),
        checked="every entry float64's, in integers",
    )  # fmt: skip
    yield Measurement(
        name=f"sent, {way.name}", value=traffic.sent_bytes, unit="B", config=told,
        estimator="counted in one product, on each rank", no_roof_because="bytes are counted, not timed",
        expected=Roof(value=traffic.sent_bytes, source="predicted: the least that its collective must send"),
        checked="every collective's buffer counted as predicted, on every rank",
    )  # fmt: skip


SOURCE = "one rank's time over the ranks, then the collective at the rate that collectives measured"


def expectation(alone_s: float, ranks: int, traffic: Traffic, link: Link | None) -> float | None:
    """Seconds with nothing hidden; None where no link was measured."""
    talk_s = None if link is None else link.seconds(traffic)
    return None if talk_s is None else alone_s / ranks + talk_s


def spans_of(median_s: float, product_s: float) -> tuple[Span, ...]:
    """The time taken apart. Where both together are no slower than the product alone, nothing was exposed."""
    product = Span(name="product of a rank's share", seconds=min(product_s, median_s), how="measured alone, all ranks")
    exposed = Span(name="exposed communication", seconds=max(0.0, median_s - product_s), how="measured: the rest")
    return tuple(sorted((product, exposed), key=lambda span: -span.seconds))


def run(config: Config, group: Group, flags: argparse.Namespace, within: Surroundings) -> None:
    """Predict, measure every way, print and write what came out."""
    bound, size = bound_of(config, group), (config.m, config.n, config.k)
    roof = f"{bound.roof.value / 1e12:.1f} TFLOP/s ({bound.roof.source})" if bound.roof else ""
    group.say(f"roof {config.dtype} {'×'.join(map(str, size))} over {group.size} ranks: "
              f"{roof or f'none, {bound.no_roof_because}'}")  # fmt: skip
    ways = [way for way in WAYS if group.size > 1 or way is WAYS[0]]
    for way in ways:
        traffic = traffic_of(way, config, group.size)
        group.say(f"predicted: {way.name}: each rank sends {traffic.sent_bytes / 1e6:.2f} MB")
    matrices = Matrices(size, config.dtype, group, config.seed, config.pieces)
    link, rows = link_of(flags.out, group.size, group.device), []
    with Sensors(group.device) as sensors:
        alone_s = statistics.median(whole(config, group, matrices))
        group.say(f"one rank alone: {alone_s * 1e3:.2f} ms, {config.flops / alone_s / 1e9:.1f} GFLOP/s")
        for way in ways:
            expected_s = expectation(alone_s, group.size, traffic_of(way, config, group.size), link)
            if expected_s is not None:
                group.say(f"expected: {way.name}: {expected_s * 1e3:.2f} ms ({SOURCE})")
            found = list(summarise(way, config, group, measure(way, config, group, matrices), alone_s, link))
            group.say(row_line(found[0]))
            rows.extend(found)
    if group.first:
        path = record("split-gemm", rows, config, group, flags, within, sensors)
        group.say(f"{len(ways)} ways over {group.size} ranks, every entry float64's, bytes as predicted: {path}")


def row_line(row: Measurement) -> str:
    """One way, for the log."""
    share = "" if row.fraction is None else f", {row.fraction:.1%} of roof"
    exposed_s = next(span.seconds for span in row.spans if span.name == "exposed communication")
    told = row.config
    return (f"{row.name:30} {told['step_s'] * 1e3:9.2f} ms = product {told['product_s'] * 1e3:.2f} + exposed "
            f"{exposed_s * 1e3:.2f} (alone {told['collective_s'] * 1e3:.2f}); {told['speedup']:.2f} × one rank"
            f"{share}")  # fmt: skip


def shape_flag(text: str) -> tuple[int, int, int]:
    """Three lengths such as 512x1024x4096.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape: write M, N and K as in 512x1024x4096")
    return int(match[1]), int(match[2]), int(match[3])


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: an entry is wrong, or bytes are not those predicted.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("split-gemm", __doc__)
    parser.add_argument("--shape", type=shape_flag, help="M, N and K, for example 512x1024x4096")
    parser.add_argument("--dtype", choices=tuple(EXACT), help="of the matrices; default: bf16 on a GPU that has it")
    parser.add_argument("--pieces", type=positive, help="pieces of rows of the overlapped way; default: 4")
    parser.add_argument("--iterations", type=positive, help="timed products each way")
    enter(parser, arguments, configure, run)


if __name__ == "__main__":
    start("split-gemm", main)
