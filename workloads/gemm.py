"""gemm: matrix products from GEMV to square, each beside the roofline of its shape.

C[M,N] = A[M,K]·W[N,K]ᵀ takes 2·M·N·K FLOPs and must move A, W and C once. Their ratio, the arithmetic intensity,
decides which roof bounds it: a single row (a decoder's batch of 1) does one multiply-add per weight that it reads
and waits for memory; from the ridge on, peak FLOP/s ÷ bytes/s, the same weights are compute-bound. No kernel of one
shape can beat min(peak, intensity × bandwidth).

Method: N(0,1) data (zeros draw less power and run faster); operands come from a pool twice the cache, the next
window each time, so that they arrive from memory; every iteration is timed (CUDA events on a GPU); the result of
the last timed one is checked in full against float64. Value: from the median.

Output: FLOP/s, intensity and fraction of the roof per shape and data type; one record.

    python -m workloads.gemm
    python -m workloads.gemm --dtypes bf16 --shapes 4096x4096x4096,1x14336x4096 --iterations 200
"""

import argparse
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from labs.results import Measurement
from labs.roofs import gemm_bytes, gemm_flops, intensity, rate_bound, ridge
from workloads.command import CheckFailed, Parser, positive, start
from workloads.device import TORCH_DTYPES, Device, cache_bytes, find_device, time_each
from workloads.record import Surroundings, surroundings, write
from workloads.sensors import Sensors, describe

# Shape suffixes: M rows of A and C; N columns of C, rows of W; K the inner dimension.

GPU_SHAPES = (
    *((edge, edge, edge) for edge in (1024, 2048, 4096, 8192)),
    *((m, 14336, 4096) for m in (1, 16, 64, 256, 1024, 4096)),  # the feed-forward of mistral-7b
)
CPU_SHAPES = (
    *((edge, edge, edge) for edge in (64, 128, 256, 512)),
    *((m, 1024, 1024) for m in (1, 4, 16, 64, 256)),
)
POOL_LIMIT_BYTES = 256 * 2**20
"""A virtual CPU may claim a cache of hundreds of MiB that it shares: no pool grows beyond this for its sake."""
ROUNDING = {"fp32": 2**-24, "tf32": 2**-11, "fp16": 2**-11, "bf16": 2**-8, "fp8": 2**-8}
"""Unit roundoff by data type, doubled for fp16 and bf16, whose partial sums may be rounded too; fp8 writes bf16."""
LAUNCH_BOUND_S = 20e-6
"""On a GPU, below this a sample holds part of the launch as well."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    shapes: tuple[tuple[int, int, int], ...]
    """(M, N, K) each."""
    dtypes: tuple[str, ...]
    iterations: int
    """Timed products per shape and data type."""
    warmup: int
    """Products before that."""
    seed: int
    threads: int
    """CPU threads that torch may use."""


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a data type that the device lacks.
    """
    dtypes = flags.dtypes or device.dtypes
    for dtype in dtypes:
        if dtype not in device.dtypes:
            raise ValueError(f"dtype={dtype!r} is not in {device.name}: write some of {','.join(device.dtypes)}")
    return Config(
        shapes=flags.shapes or (GPU_SHAPES if device.cuda else CPU_SHAPES), dtypes=dtypes,
        iterations=flags.iterations or (100 if device.cuda else 20),
        warmup=flags.warmup or (50 if device.cuda else 3), seed=flags.seed, threads=torch.get_num_threads(),
    )  # fmt: skip


class Pool:
    """Random numbers of one data type, handed out as operands; the next window each time, past the cache."""

    def __init__(self, device: Device, dtype: str, largest: int, seed: int) -> None:
        """`largest` is the most elements that one product reads."""
        stored = TORCH_DTYPES[dtype]
        pool_bytes = min(2 * cache_bytes(device), POOL_LIMIT_BYTES)
        generator = torch.Generator(device.torch).manual_seed(seed)
        count = pool_bytes // stored.itemsize + _aligned(largest)
        drawn = torch.float32 if stored.itemsize == 4 else torch.bfloat16
        self._values = torch.randn(count, generator=generator, device=device.torch, dtype=drawn).to(stored)
        self._next = 0

    def operands(self, m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
        """A and W for one product."""
        first, second = _aligned(m * k), _aligned(n * k)
        if self._next + first + second > len(self._values):
            self._next = 0
        begin, middle = self._next, self._next + first
        self._next = middle + second
        return self._values[begin : begin + m * k].view(m, k), self._values[middle : middle + n * k].view(n, k)


def _aligned(elements: int) -> int:
    """Rounded up so that every operand begins where vector loads like it: 256 elements, at least 256 bytes."""
    return -(-elements // 256) * 256


@contextmanager
def multiplier(device: Device, dtype: str) -> Iterator[Callable[[Tensor, Tensor], Tensor]]:
    """A function (A, W) -> C of that data type. fp8 writes bf16, without fast accumulation."""
    if dtype == "fp8":
        one = torch.ones((), device=device.torch)
        yield lambda a_MK, w_NK: torch._scaled_mm(a_MK, w_NK.t(), one, one, out_dtype=torch.bfloat16)
        return
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    try:
        yield lambda a_MK, w_NK: torch.mm(a_MK, w_NK.t())
    finally:
        torch.set_float32_matmul_precision(precision)


def tolerance(dtype: str, k: int) -> float:
    """Largest allowed |error| of an entry. Entries are N(0, K) and none of 10⁹ exceeds 8·√K; each carries one
    rounding of its type, and an fp32 sum of K terms, whose error grows as √K."""
    root_k = math.sqrt(k)
    return 8 * root_k * (ROUNDING[dtype] + root_k * ROUNDING["fp32"])


def check(dtype: str, a_MK: Tensor, w_NK: Tensor, c_MN: Tensor) -> str:
    """Compare every entry with the float64 product of the same operands, and say how near they are.

    Raises:
        CheckFailed: an entry is further off than `tolerance`, or is not a number.
    """
    m, k = a_MK.shape
    allowed = tolerance(dtype, k)
    error = float((c_MN.double() - a_MK.double() @ w_NK.double().t()).abs().max())
    if not error <= allowed:
        raise CheckFailed(f"{dtype} {m}x{len(w_NK)}x{k}: |error| {error:.2g} against float64, allowed {allowed:.2g}")
    return f"max |error| {error:.1e} against float64, allowed {allowed:.1e}"


def measure(config: Config, device: Device, price: float | None) -> Iterator[Measurement]:
    """Every shape in every data type; fp8 leaves out shapes that its instructions cannot take."""
    largest = max(_aligned(m * k) + _aligned(n * k) for m, n, k in config.shapes)
    for dtype in config.dtypes:
        pool = Pool(device, dtype, largest, config.seed)
        with multiplier(device, dtype) as multiply:
            for m, n, k in config.shapes:
                if dtype == "fp8" and any(edge % 16 for edge in (m, n, k)):
                    continue
                yield measure_one(config, device, dtype, (m, n, k), pool, multiply, price)


def measure_one(config: Config, device: Device, dtype: str, shape: tuple[int, int, int], pool: Pool,
                multiply: Callable[[Tensor, Tensor], Tensor], price: float | None) -> Measurement:  # fmt: skip
    """Time one shape, check the last product, and put the median beside the roof."""
    m, n, k = shape
    last: tuple[Tensor, ...] = ()

    def step() -> None:
        nonlocal last
        a_MK, w_NK = pool.operands(m, n, k)
        last = a_MK, w_NK, multiply(a_MK, w_NK)

    for _ in range(config.warmup):
        step()
    samples_s = time_each(device, step, config.iterations)
    checked = check(dtype, *last)
    flops = gemm_flops(m, n, k)
    moved = gemm_bytes(m, n, k, dtype, "bf16" if dtype == "fp8" else dtype)
    rate = flops / statistics.median(samples_s)
    bound = rate_bound(device.name, device.accelerator, dtype, flops, moved)
    return Measurement(
        name=f"{dtype} {m}x{n}x{k}", value=rate, unit="FLOP/s", estimator=f"from the median of {len(samples_s)}",
        config={"m": m, "n": n, "k": k, "dtype": dtype, "flops": flops, "bytes": moved,
                "intensity": intensity(flops, moved)},
        samples_s=samples_s, roof=bound.roof, no_roof_because=bound.no_roof_because,
        usd_per_unit=None if price is None else price / 3600 / rate * 1e15, work_unit="PFLOP", checked=checked,
    )  # fmt: skip


def roof_line(device: Device, dtype: str) -> str:
    """What bounds products of this type here, for a reader who has not seen a number yet."""
    accelerator = device.accelerator
    peak = accelerator.peak_flops(dtype) if accelerator else None
    bandwidth = accelerator.bytes_per_s if accelerator else None
    if peak is None or bandwidth is None:
        return f"roof {dtype}: none, {rate_bound(device.name, accelerator, dtype, 1, 1).no_roof_because}"
    return (f"roof {dtype}: {peak / 1e12:.1f} TFLOP/s, below {ridge(peak, bandwidth):.0f} FLOP/B "
            f"intensity × {bandwidth / 1e9:.0f} GB/s")  # fmt: skip


def row_line(row: Measurement) -> str:
    """One shape, for the log."""
    share = "" if row.fraction is None else f"  {row.fraction:6.1%} of roof"
    return f"{row.name:24} {row.config['intensity']:8.1f} FLOP/B {row.value / 1e9:12.1f} GFLOP/s{share}"


def notes(config: Config, device: Device, rows: Sequence[Measurement]) -> Iterator[str]:
    """What a reader of the numbers must know."""
    if device.cuda and any(statistics.median(row.samples_s) < LAUNCH_BOUND_S for row in rows):
        yield f"shapes under {LAUNCH_BOUND_S * 1e6:.0f} µs include part of their launch"
    if 2 * cache_bytes(device) > POOL_LIMIT_BYTES:
        yield f"the cache of {cache_bytes(device) >> 20} MiB exceeds the pool: small shapes may have been served by it"
    if len(rows) < len(config.shapes) * len(config.dtypes):
        yield "fp8: shapes with an edge that is not a multiple of 16 were left out"


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print the roofs, measure, print and write what came out."""
    for dtype in config.dtypes:
        print(roof_line(device, dtype), flush=True)
    rows = []
    with Sensors(device) as sensors:
        for row in measure(config, device, within.node_price):
            print(row_line(row), flush=True)
            rows.append(row)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type, libraries=())
    path = write(flags.out, "gemm", tuple(rows), within=within, machine=machine, config=config,
                 notes=tuple(notes(config, device, rows)))  # fmt: skip
    best = max(rows, key=lambda row: row.value)
    print(f"best: {row_line(best)}; {len(rows)} shapes, all checked: {path}", flush=True)


def shapes(text: str) -> tuple[tuple[int, int, int], ...]:
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
    parser.add_argument("--dtypes", type=lambda text: tuple(text.split(",")), help="some of fp32,tf32,fp16,bf16,fp8")
    parser.add_argument("--iterations", type=positive, help="timed products per shape")
    parser.add_argument("--warmup", type=positive, help="products before that")
    flags = parser.parse_args(arguments)
    try:
        device = find_device(flags.device)
        config, within = configure(flags, device), surroundings()
    except ValueError as error:
        parser.error(str(error))
    run(config, device, flags, within)


if __name__ == "__main__":
    start("gemm", main)
