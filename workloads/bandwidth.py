"""bandwidth: how fast memory is read, copied, scaled and combined, from the cache to far past it.

Definitions and byte counts are BabelStream's (https://github.com/UoB-HPC/BabelStream), arrays a, b, c of N elements:
copy c = a and scale b = s·c move 2·N elements, triad a = b + s·c moves 3·N. A read moves N and writes one number;
how fast that goes depends on the kernel, so several run (sum, largest, dot product, matrix times vector) and the best
is the read roof: what a decoder's time per token is held against. Where an array fits in the cache the curve lies
above memory's rate; past it, at several times the cache, it is flat, and that level is the measured ceiling.

Method: random data; every array at least four times the cache for the last sizes; on a GPU the L2 is flushed by
reading other memory before each sample past the cache, and small sizes run as a CUDA graph of many calls; events time
it there. On a CPU all threads work. Every result is checked against float64, element by element where there are
elements. The read kernel is chosen by other samples than those that are reported. Value: from the median.

Output: B/s by kernel and size, beside the datasheet's; one record, whose largest size other workloads take as
measured ceiling.

    python -m workloads.bandwidth
    python -m workloads.bandwidth --dtypes fp32,bf16 --largest-mib 4096 --iterations 50
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from labs.results import Measurement
from labs.roofs import DTYPE_BYTES, memory_bound
from workloads.command import Parser, dtypes, positive, refuse_absent, start
from workloads.device import Device, cache_bytes, time_each
from workloads.draft import Draft
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe
from workloads.stream import ROUNDING, WRITES, Arrays, Kernel, reads, repeated

CPU_LARGEST_BYTES = 256 * 2**20
"""A virtual CPU may claim a cache of hundreds of MiB that it shares: no array grows beyond this for its sake."""
GPU_LARGEST_BYTES = 4 * 2**30
PAST = 4
"""An array this many times the cache is past it: STREAM's rule (https://www.cs.virginia.edu/stream/ref.html)."""
SMALLEST_BYTES = {True: 2**20, False: 2**16}
"""First size of the curve, by whether the device is a GPU."""
GROWTH = 4
SAMPLE_BYTES = 2**25
"""A sample moves at least this much: small sizes repeat within it, so that a call's own cost shows less."""
CHOOSING_SAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    dtypes: tuple[str, ...]
    sizes_bytes: tuple[int, ...]
    """Of each array, smallest first; the last ones lie past the cache where memory allows."""
    iterations: int
    """Timed samples per kernel and size."""
    warmup: int
    seed: int
    threads: int
    """CPU threads that torch may use."""


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a data type that the device lacks, or arrays that its memory does not hold.
    """
    wanted = flags.dtypes or (("fp32", "bf16") if device.cuda and "bf16" in device.dtypes else ("fp32",))
    refuse_absent(wanted, device)
    for dtype in wanted:
        if dtype not in ROUNDING:
            raise ValueError(f"dtype={dtype!r} is not one that arrays have: write some of {','.join(ROUNDING)}")
    if flags.largest_mib:
        largest = flags.largest_mib * 2**20
    elif device.cuda:
        largest = min(GPU_LARGEST_BYTES, 2 ** ((device.memory_bytes // 5).bit_length() - 1))
    else:
        largest = min(CPU_LARGEST_BYTES, PAST * cache_bytes(device))
    if device.cuda and 4 * largest > device.memory_bytes:
        free_mib = device.memory_bytes >> 20
        raise ValueError(f"largest_mib={flags.largest_mib} does not fit three times into {free_mib} MiB and leave room "
                         f"to check: write at most {free_mib // 4}")  # fmt: skip
    return Config(
        dtypes=wanted, sizes_bytes=sizes(SMALLEST_BYTES[device.cuda], largest),
        iterations=flags.iterations or (50 if device.cuda else 10), warmup=3, seed=flags.seed,
        threads=torch.get_num_threads(),
    )  # fmt: skip


def sizes(smallest: int, largest: int) -> tuple[int, ...]:
    """Bytes of an array: from the smallest on by `GROWTH`, and the largest, rounded down to whole MiB."""
    largest = max(largest >> 20 << 20, min(largest, 2**20))
    grown = []
    while smallest < largest:
        grown.append(smallest)
        smallest *= GROWTH
    return (*grown, largest)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Arrays of one data type and size on one device."""

    device: Device
    dtype: str
    arrays: Arrays
    past_cache: bool
    """Whether every array is `PAST` times the cache: the level is memory's, and the L2 is flushed."""

    def time(self, kernel: Kernel, count: int, warmup: int) -> tuple[float, ...]:
        """Seconds of a run of `kernel`, `count` times; of a short one, the mean over as many as fill a sample."""
        times = max(1, SAMPLE_BYTES // self.moved_bytes(kernel))
        step = repeated(self.device, lambda: kernel.run(self.arrays), times)
        flush = self._flush() if self.past_cache and self.device.cuda else lambda: None
        for _ in range(warmup):
            step()
        return tuple(sample / times for sample in time_each(self.device, step, count, before=flush))

    def moved_bytes(self, kernel: Kernel) -> int:
        """Bytes that one run must move."""
        return kernel.arrays * self.arrays.bytes

    def _flush(self) -> Callable[[], object]:
        """Reads other memory than the arrays, twice the L2: nothing dirty is left to be written back meanwhile."""
        other = torch.ones(2 * cache_bytes(self.device) // 4, device=self.device.torch)
        return lambda: other.sum()

    def choose_read(self) -> Kernel:
        """The fastest of the reading kernels, by samples that are thrown away."""
        candidates = reads(self.device, self.past_cache)
        return max(candidates, key=self._pace)

    def _pace(self, kernel: Kernel) -> float:
        return self.moved_bytes(kernel) / statistics.median(self.time(kernel, CHOOSING_SAMPLES, 1))

    def measure(self, kernel: Kernel, config: Config, name: str) -> Measurement:
        """Time one kernel, check its last result, and put the median beside the device's roof.

        Raises:
            CheckFailed: the result is wrong.
        """
        samples_s = self.time(kernel, config.iterations, config.warmup)
        moved = self.moved_bytes(kernel)
        checked = kernel.check(self.arrays, self.dtype)
        bound = memory_bound(self.device.name, self.device.accelerator)
        cached = (
            "" if self.past_cache else "arrays below four times the cache are served by it, faster than by the memory"
        )
        return Measurement(
            name=f"{self.dtype} {name} {size_text(self.arrays.bytes)}", value=moved / statistics.median(samples_s),
            unit="B/s", estimator=f"from the median of {len(samples_s)}",
            config={"kernel": name, "by": kernel.name, "dtype": self.dtype, "array_bytes": self.arrays.bytes,
                    "bytes": moved, "past_cache": self.past_cache, "cache_bytes": cache_bytes(self.device)},
            samples_s=samples_s, roof=None if cached else bound.roof, no_roof_because=cached or bound.no_roof_because,
            checked=checked,
        )  # fmt: skip


def measure(config: Config, device: Device) -> Iterator[Measurement]:
    """Read, copy, scale and triad at every size; at the largest each reading kernel as well."""
    for dtype in config.dtypes:
        for size in config.sizes_bytes:
            arrays = Arrays(device, dtype, size // DTYPE_BYTES[dtype], config.seed)
            bench = Bench(device=device, dtype=dtype, arrays=arrays, past_cache=size >= past_bytes(device))
            yield bench.measure(bench.choose_read(), config, "read")
            if size == config.sizes_bytes[-1]:
                for kernel in reads(device, bench.past_cache):
                    yield bench.measure(kernel, config, f"read by {kernel.name}")
            for kernel in WRITES:
                yield bench.measure(kernel, config, kernel.name)


def past_bytes(device: Device) -> int:
    """An array of this size is past the cache; on a CPU no more than the largest that is ever made."""
    return PAST * cache_bytes(device) if device.cuda else min(PAST * cache_bytes(device), CPU_LARGEST_BYTES) >> 20 << 20


def size_text(count: int) -> str:
    """Whole KiB, MiB or GiB."""
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if count % (1 << power) == 0:
            return f"{count >> power} {unit}"
    return f"{count >> 10} KiB"


def ceilings(rows: Sequence[Measurement]) -> dict[str, Measurement]:
    """By kernel name, the row of the largest size past the cache, over all data types the fastest: the measured
    ceilings. Empty where no size was past the cache."""
    found: dict[str, Measurement] = {}
    for row in rows:
        kernel, best = str(row.config["kernel"]), found.get(str(row.config["kernel"]))
        if row.config["past_cache"] and (best is None or row.value > best.value):
            found[kernel] = row
    return found


def roof_line(device: Device) -> str:
    """The roof, for a reader who has not seen a number yet."""
    bound = memory_bound(device.name, device.accelerator)
    if bound.roof is None:
        return f"roof: none, {bound.no_roof_because}"
    return f"roof: {bound.roof.value / 1e9:.0f} GB/s ({bound.roof.source})"


def row_line(row: Measurement) -> str:
    """One row, for the log."""
    share = "" if row.fraction is None else f"  {row.fraction:6.1%} of roof"
    by = f"  by {row.config['by']}" if row.config["kernel"] == "read" else ""
    return f"{row.name:28} {row.value / 1e9:10.1f} GB/s{share}{by}"


def notes(config: Config, device: Device) -> Iterator[str]:
    """What a reader of the numbers must know."""
    cache, largest = cache_bytes(device), config.sizes_bytes[-1]
    if largest < past_bytes(device):
        yield f"no array was four times the cache of {cache >> 20} MiB: no row is the memory's rate"
    elif largest < PAST * cache:
        yield f"the largest array is {largest / cache:.1f} times the cache of {cache >> 20} MiB, which may be shared"
    if device.cuda:
        yield "sizes below the L2 ran as CUDA graphs; one call's launch is spread over all calls of a sample"


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print the roof, measure, print and write what came out."""
    print(roof_line(device), flush=True)
    rows = Draft("bandwidth", config, device, within)
    with Sensors(device) as sensors:
        for row in measure(config, device):
            print(row_line(row), flush=True)
            rows.append(row)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type, libraries=())
    path = write(flags.out, "bandwidth", tuple(rows), within=within, machine=machine, config=config,
                 notes=tuple(notes(config, device)))  # fmt: skip
    top = ceilings(rows).get("read")
    ceiling = "no size was past the cache" if top is None else f"measured read ceiling {top.value / 1e9:.1f} GB/s"
    print(f"{ceiling}; {len(rows)} rows, all checked: {path}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a result is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("bandwidth", __doc__)
    parser.add_argument("--dtypes", type=dtypes, help="some of fp32,fp16,bf16")
    parser.add_argument("--largest-mib", type=positive, help="MiB of each array at the last size")
    parser.add_argument("--iterations", type=positive, help="timed samples per kernel and size")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("bandwidth", main)
