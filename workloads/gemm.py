"""gemm: matrix products from GEMV to the fastest shape there is, in two regimes, each beside its roofs.

C[M,N] = A[M,K]·W[N,K]ᵀ takes 2·M·N·K FLOPs and must move A, W and C once. Their ratio, the arithmetic intensity,
decides which roof bounds it: a single row (a decoder's batch of 1) does one multiply-add per weight that it reads
and waits for memory; from the ridge on, peak FLOP/s ÷ bytes/s, the same weights are compute-bound. No kernel of one
shape can beat min(peak, intensity × bandwidth). On the flat part the shape still matters: tiles that fill all SMs in
whole waves, and a long K. A search (workloads/search.py) finds the best within a budget of seconds.

Two regimes, never one number for both: "burst" at boost clock after an idle gap, "sustained" for seconds at the power
cap. Roofs: the datasheet's; the peak at the clock that was measured; and what the top clock allows, above which a
value is a measuring error. A data type that the device lacks is named and left out.

Method: N(0,1) data (zeros draw less power and run faster); operands come from a pool twice the cache, the next
window each time, so that they arrive from memory; every product is timed (CUDA events on a GPU); the result of
the last timed one is checked in full against float64. Value: from the median; the winner's from samples taken after
the search, none of which chose it.

Two rows beside these, of one data type: N in small steps past full waves (workloads/waves.py; a CPU has no waves), and
the sustained winner of zeros over random data (workloads/zeros.py).

Output: FLOP/s, intensity and fraction of the roof per shape, data type and regime; one record.

    python -m workloads.gemm
    python -m workloads.gemm --dtypes bf16 --shapes 4096x4096x4096,1x14336x4096 --search-s 60
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from labs.results import Measurement
from labs.roofs import clock_roof, gemm_flops, intensity, rate_bound, ridge
from workloads.command import Parser, dtypes, positive, refuse_absent, seconds, start
from workloads.device import TORCH_DTYPES, Device, cache_bytes, time_each
from workloads.draft import Draft
from workloads.nvml import Gauge
from workloads.product import POOL_LIMIT_BYTES, Pool, check, moved_bytes, multiplier
from workloads.record import Surroundings, write
from workloads.regimes import Regime, Taken, burst, sustained
from workloads.search import Shape, Space, rate, search
from workloads.sensors import Sensors, describe
from workloads.waves import sweep
from workloads.zeros import contrast

# Shape suffixes: M rows of A and C; N columns of C, rows of W; K the inner dimension.

GPU_SHAPES = (
    *((edge, edge, edge) for edge in (1024, 2048, 4096, 8192)),
    *((m, 14336, 4096) for m in (1, 16, 64, 256, 1024, 4096)),  # the feed-forward of mistral-7b
)
CPU_SHAPES = (
    *((edge, edge, edge) for edge in (64, 128, 256, 512)),
    *((m, 1024, 1024) for m in (1, 4, 16, 64, 256)),
)
CPU_TILE, CPU_INNER = (128, 128), (256, 512, 1024, 2048)
SUSTAINED_INNER = 6144
"""At its power cap a GPU prefers a shorter K than in a burst: the winner is tried with this one as well."""
LONGEST_S = {True: 0.03, False: 0.02}
"""A shape of the search takes no longer, by the pace of `PROBE`; by whether the device is a GPU."""
PROBE = {True: (4096, 4096, 4096), False: (512, 512, 512)}
LAUNCH_BOUND_S = 20e-6
"""On a GPU, below this a sample holds part of the launch as well."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    shapes: tuple[Shape, ...]
    """(M, N, K) each, in bursts."""
    dtypes: tuple[str, ...]
    iterations: int
    """Timed products per shape and data type in bursts, at least."""
    warmup: int
    """Products before that."""
    search_s: float
    """Budget of the search per data type; 0 for none."""
    sustain_s: float
    """How long the winner is run back to back."""
    seed: int
    threads: int
    """CPU threads that torch may use."""


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a data type that the device lacks.
    """
    wanted = flags.dtypes or device.dtypes
    refuse_absent(wanted, device)
    search_s = (30.0 if device.cuda else 1.5) if flags.search_s is None else flags.search_s
    sustain_s = (2.0 if device.cuda else 0.5) if flags.sustain_s is None else flags.sustain_s
    return Config(
        shapes=flags.shapes or (GPU_SHAPES if device.cuda else CPU_SHAPES), dtypes=wanted,
        iterations=flags.iterations or (100 if device.cuda else 20),
        warmup=flags.warmup or (50 if device.cuda else 3), search_s=search_s, sustain_s=sustain_s, seed=flags.seed,
        threads=torch.get_num_threads(),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Products of one data type on one device, ready to be timed."""

    device: Device
    dtype: str
    gauge: Gauge
    pool: Pool
    multiply: Callable[[Tensor, Tensor], Tensor]
    price: float | None
    """US dollars per hour."""

    def take(self, config: Config, shape: Shape, regime: Regime) -> tuple[Taken, str]:
        """Time one shape and check the last product: the samples, and how near the product is.

        Raises:
            CheckFailed: the product is wrong.
        """
        last: tuple[Tensor, ...] = ()

        def step() -> None:
            nonlocal last
            a_MK, w_NK = self.pool.operands(*shape)
            last = a_MK, w_NK, self.multiply(a_MK, w_NK)

        for _ in range(config.warmup):
            step()
        if regime == "burst":
            taken = burst(self.device, self.gauge, step, config.iterations)
        else:
            taken = sustained(self.device, self.gauge, step, config.sustain_s)
        return taken, check(self.dtype, *last)

    def measure(self, config: Config, shape: Shape, regime: Regime, **more: Any) -> Measurement:
        """`take` one shape, and put the median beside the roofs; `more` joins the row's config.

        Raises:
            CheckFailed: the product is wrong.
        """
        return self._row(shape, *self.take(config, shape, regime), more)

    def time(self, shape: Shape, count: int) -> Sequence[float]:
        """For the search: the seconds of `count` products of one shape, after one that warms up."""

        def step() -> Tensor:
            return self.multiply(*self.pool.operands(*shape))

        return time_each(self.device, step, count, lead=1)

    def _row(self, shape: Shape, taken: Taken, checked: str, more: dict[str, Any]) -> Measurement:
        m, n, k = shape
        flops, moved = gemm_flops(m, n, k), moved_bytes(self.dtype, shape)
        per_s = flops / taken.median_s
        accelerator = self.device.accelerator
        bound = rate_bound(self.device.name, accelerator, self.dtype, flops, moved)
        top_mhz = taken.top_mhz or (accelerator.top_mhz if accelerator else None)
        here, limit = (
            clock_roof(accelerator, self.dtype, flops, moved, clock_mhz, said) if clock_mhz else None
            for clock_mhz, said in ((taken.clock_mhz, "measured clock"), (top_mhz, "top clock"))
        )
        return Measurement(
            name=f"{self.dtype} {m}x{n}x{k} {taken.regime}", value=per_s, unit="FLOP/s",
            estimator=f"from the median of {len(taken.samples_s)}" + (
                f", found among {more['searched']} shapes" if "searched" in more else ""),
            config={"m": m, "n": n, "k": k, "dtype": self.dtype, "intensity": intensity(flops, moved),
                    **taken.told, **more},
            samples_s=taken.samples_s, roof=bound.roof, no_roof_because=bound.no_roof_because,
            others=(here,) if here and bound.roof else (), limit=limit if bound.roof else None,
            usd_per_unit=None if self.price is None else self.price / 3600 / per_s * 1e15,
            work_unit="PFLOP", checked=checked,
        )  # fmt: skip


@contextmanager
def opened(device: Device, dtype: str, gauge: Gauge, config: Config, price: float | None = None) -> Iterator[Bench]:
    """A bench with operands for the configured shapes; larger ones draw more."""
    largest = max(m * k + n * k for m, n, k in config.shapes)
    with multiplier(device, dtype) as multiply:
        pool = Pool(device, dtype, largest + 1024, config.seed)
        yield Bench(device=device, dtype=dtype, gauge=gauge, pool=pool, multiply=multiply, price=price)


def measure(config: Config, device: Device, price: float | None) -> Iterator[Measurement]:
    """Every shape in every data type, and the best that the search finds; fp8 leaves out shapes that its
    instructions cannot take."""
    gauge = Gauge(device)
    shown = "bf16" if "bf16" in config.dtypes else config.dtypes[0]
    for dtype in config.dtypes:
        with opened(device, dtype, gauge, config, price) as bench:
            for shape in config.shapes:
                if dtype != "fp8" or not any(edge % 16 for edge in shape):
                    yield bench.measure(config, shape, "burst")
            if config.search_s:
                for row in best(config, bench):
                    yield row
                if dtype == shown:
                    yield contrast(config, bench, (row.config["m"], row.config["n"], row.config["k"]))
                    if device.cuda:
                        yield from sweep(config, bench, Space(units=units(device)))


def best(config: Config, bench: Bench) -> Iterator[Measurement]:
    """Search, then measure the winner afresh in both regimes, and with a shorter K where it is sustained."""
    found = search(space(bench), bench.time, time.perf_counter, config.search_s)
    how = {"searched": found.tried, "search_s": round(found.spent_s, 3), "promised_flops": found.promised_flops}
    yield bench.measure(config, found.shape, "burst", **how)
    m, n, k = found.shape
    shorter = next((shape for shape in found.ranking if shape[2] <= SUSTAINED_INNER), (m, n, SUSTAINED_INNER))
    for shape in dict.fromkeys((found.shape, shorter) if k > SUSTAINED_INNER else (found.shape,)):
        yield bench.measure(config, shape, "sustained", **how)


def space(bench: Bench) -> Space:
    """Where to search on this device: no shape that takes longer than `LONGEST_S`, by the pace of one probe."""
    cuda = bench.device.cuda
    pace = rate(PROBE[cuda], bench.time(PROBE[cuda], 3))
    whole = Space(units=1, largest=max(int(pace * LONGEST_S[cuda] / 2), 256**3))
    if not cuda:
        return replace(whole, tile=CPU_TILE, inner=CPU_INNER)
    return replace(whole, units=units(bench.device))


def units(device: Device) -> int:
    """SMs of a GPU."""
    return int(torch.cuda.get_device_properties(device.torch).multi_processor_count)


def roof_line(device: Device, dtype: str) -> str:
    """The roofs of a data type, for a reader who has not seen a number yet."""
    accelerator = device.accelerator
    peak = accelerator.peak_flops(dtype) if accelerator else None
    bandwidth = accelerator.bytes_per_s if accelerator else None
    if accelerator is None or peak is None or bandwidth is None:
        return f"roof {dtype}: none, {rate_bound(device.name, accelerator, dtype, 1, 1).no_roof_because}"
    top = accelerator.flops_at(dtype, accelerator.top_mhz) if accelerator.top_mhz else None
    most = "" if top is None else f", {top / 1e12:.1f} at the top clock of {accelerator.top_mhz} MHz"
    return (f"roof {dtype}: {peak / 1e12:.1f} TFLOP/s{most}, below {ridge(peak, bandwidth):.0f} FLOP/B "
            f"intensity × {bandwidth / 1e9:.0f} GB/s")  # fmt: skip


def row_line(row: Measurement) -> str:
    """One shape, for the log."""
    if row.unit == "×":
        told = row.config
        watts = "" if told["zeros_w"] is None else f"  {told['zeros_w']:.0f} W beside {told['data_w']:.0f} W"
        return f"{row.name} {row.value:.3f} ×{watts}"
    share = "" if row.fraction is None else f"  {row.fraction:6.1%} of roof"
    clock = row.config["clock_mhz"]
    at = "" if clock is None else f"  {clock:.0f} MHz"
    found = f"  best of {row.config['searched']} in {row.config['search_s']:.1f} s" if "searched" in row.config else ""
    return (f"{row.name:28} {row.config['intensity']:8.1f} FLOP/B {row.value / 1e9:12.1f} GFLOP/s"
            f"{share}{at}{found}")  # fmt: skip


def notes(config: Config, device: Device, rows: Sequence[Measurement]) -> Iterator[str]:
    """What a reader of the numbers must know."""
    for dtype in TORCH_DTYPES:
        if dtype not in device.dtypes:
            yield f"{dtype}: not applicable, {device.name} has no instructions for it"
    if device.cuda and any(statistics.median(row.samples_s) < LAUNCH_BOUND_S for row in rows):
        yield f"shapes under {LAUNCH_BOUND_S * 1e6:.0f} µs include part of their launch"
    if 2 * cache_bytes(device) > POOL_LIMIT_BYTES:
        yield f"the cache of {cache_bytes(device) >> 20} MiB exceeds the pool: small shapes may have been served by it"
    if "fp8" in config.dtypes and any(edge % 16 for shape in config.shapes for edge in shape):
        yield "fp8: shapes with an edge that is not a multiple of 16 were left out"
    if config.search_s and not device.cuda:
        yield "waves: not applicable, a CPU does not deal its tiles out to SMs in rounds"
    if device.cuda and any(row.config.get("boost_verified") == "not told" for row in rows):
        yield "the device does not tell its clock: that bursts ran at boost clock is not verified"
    slow = [row for row in rows if row.config["regime"] == "burst" and row.config["boost_verified"] == "no"]
    names = [row.name for row in slow if row.config.get("kind") != "wave"]
    if len(slow) > len(names):
        names.append(f"{len(slow) - len(names)} shapes of the wave sweep")
    if names:
        yield f"never at boost clock: {', '.join(names)}"
    falling = [row.name for row in rows if not row.config.get("settled", True)]
    if falling:
        yield f"still slowing down when it ended, sustain longer: {', '.join(falling)}"


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print the roofs, measure, print and write what came out."""
    for dtype in config.dtypes:
        print(roof_line(device, dtype), flush=True)
    rows = Draft("gemm", config, device, within)
    with Sensors(device) as sensors:
        for row in measure(config, device, within.node_price):
            print(row_line(row), flush=True)
            rows.append(row)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type, libraries=())
    path = write(flags.out, "gemm", tuple(rows), within=within, machine=machine, config=config,
                 notes=tuple(notes(config, device, rows)))  # fmt: skip
    fastest = max((row for row in rows if row.unit == "FLOP/s"), key=lambda row: row.value)
    print(f"best: {row_line(fastest)}; {len(rows)} rows, all checked: {path}", flush=True)


def shapes(text: str) -> tuple[Shape, ...]:
    """Read "MxNxK,MxNxK"."""
    parsed = tuple(tuple(positive(edge) for edge in shape.split("x")) for shape in text.split(","))
    if any(len(shape) != 3 for shape in parsed):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form MxNxK,MxNxK")
    return parsed  # type: ignore[return-value]  # the lengths were just checked


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a product is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("gemm", __doc__)
    parser.add_argument("--shapes", type=shapes, help="MxNxK,MxNxK,…")
    parser.add_argument("--dtypes", type=dtypes, help="some of fp32,tf32,fp16,bf16,fp8")
    parser.add_argument("--iterations", type=positive, help="timed products per shape")
    parser.add_argument("--warmup", type=positive, help="products before that")
    parser.add_argument("--search-s", type=seconds, help="budget per data type for finding the best shape; 0: none")
    parser.add_argument("--sustain-s", type=seconds, help="how long the best shape is run back to back")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("gemm", main)
