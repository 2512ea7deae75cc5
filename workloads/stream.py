"""The kernels of the bandwidth workload: what each does, how many arrays it moves, and whether its result is right."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from workloads.command import CheckFailed
from workloads.device import TORCH_DTYPES, Device

# Shape suffixes: R rows and W columns of the matrix that array a is to the matrix-vector kernel.

SCALE = 0.75
"""s, exact in every data type. One pass of all kernels multiplies a by 2·s: a kernel that does nothing shows."""
ROUNDING = {"fp32": 2**-24, "fp16": 2**-11, "bf16": 2**-8}
"""Unit roundoff of a stored result."""
WIDTH = 4096
PIECE = 2**21
"""Elements that are compared in float64 at a time; a multiple of `WIDTH`."""


class Arrays:
    """a, b and c of N random elements each, uniform in [−1, 1), on one device, and room for what a read comes to."""

    def __init__(self, device: Device, dtype: str, count: int, seed: int) -> None:
        """`count` is N; a multiple of `WIDTH`, or below it."""
        assert count < WIDTH or count % WIDTH == 0
        generator = torch.Generator(device.torch).manual_seed(seed)
        # zero_ works with all threads: each page then lies near the core that first touched it.
        self.a, self.b, self.c = (
            torch.empty(count, dtype=TORCH_DTYPES[dtype], device=device.torch).zero_().uniform_(
                -1, 1, generator=generator)
            for _ in range(3)
        )  # fmt: skip
        self.a_RW = self.a.view(-1, min(WIDTH, count))
        self.vector_W = self.b[: self.a_RW.shape[1]].clone()
        self.number = self.a.new_full((), torch.nan)
        self.rows_R = self.a.new_full((len(self.a_RW),), torch.nan)

    @property
    def bytes(self) -> int:
        """Of one array."""
        return int(self.a.nbytes)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel. Its check compares what the last run left with float64.

    Reads are checked on arrays that no other kernel has written to: independent terms add up to a small number, whose
    error is small.
    """

    name: str
    arrays: int
    """Arrays of N elements that one run reads or writes."""
    run: Callable[[Arrays], object]
    found: Callable[[Arrays], Tensor]
    """Where the result lies."""
    expect: Callable[[Tensor, Tensor, Tensor], Tensor]
    """From a stretch of a, b and c in float64, what the result of that stretch is; of a matrix-vector product, b is
    the vector."""
    terms: int = 1
    """Elements that one entry of the result adds up; 0 stands for all, and 1 for none."""
    join: Callable[[Tensor], Tensor] | None = None
    """From the stretches' results to the whole one; None where the result has an entry per element."""

    def check(self, arrays: Arrays, dtype: str) -> str:
        """Compare every entry of the last result with float64, and say how near they are.

        Raises:
            CheckFailed: one is further off than rounding explains, or not a number.
        """
        allowed, error = tolerance(self, dtype, len(arrays.a)), 0.0
        found, stretches = self.found(arrays), []
        for begin in range(0, len(arrays.a), PIECE):
            end = begin + PIECE
            b = arrays.vector_W if self.terms == WIDTH else arrays.b[begin:end]
            expected = self.expect(arrays.a[begin:end].double(), b.double(), arrays.c[begin:end].double())
            if self.join:
                stretches.append(expected)
            else:
                entries = slice(begin // self.terms, begin // self.terms + len(expected))
                error = worse(error, float((found[entries].double() - expected).abs().max()))
        if self.join:
            error = float((found.double() - self.join(torch.stack(stretches))).abs().max())
        if not error <= allowed:
            raise CheckFailed(f"{dtype} {self.name}: |error| {error:.2g} against float64, allowed {allowed:.2g}")
        return f"max |error| {error:.1e} against float64, allowed {allowed:.1e}"


def worse(one: float, other: float) -> float:
    """The larger error; what is not a number is larger than everything."""
    return other if other != other or other > one else one


def tolerance(kernel: Kernel, dtype: str, count: int) -> float:
    """Largest allowed |error|. Elements are below 2: one rounding of a few. A sum of n random terms is below 8·√n and
    is rounded once to its type; added in fp32 by few accumulators it has an error of some n/8 roundoffs, and the worst
    of thousands of such sums one of n."""
    if kernel.name == "max":
        return 0.0
    if kernel.terms == 1:
        return 4 * ROUNDING[dtype]
    terms: int = kernel.terms or count
    added = terms if kernel.terms else terms / 8
    return float(8 * terms**0.5 * ROUNDING[dtype] + max(added, 8 * terms**0.5) * ROUNDING["fp32"])


COPY = Kernel(name="copy", arrays=2, run=lambda arrays: arrays.c.copy_(arrays.a), found=lambda arrays: arrays.c,
              expect=lambda a, _b, _c: a)  # fmt: skip
SCALED = Kernel(name="scale", arrays=2, run=lambda arrays: torch.mul(arrays.c, SCALE, out=arrays.b),
                found=lambda arrays: arrays.b, expect=lambda _a, _b, c: SCALE * c)  # fmt: skip
TRIAD = Kernel(name="triad", arrays=3, run=lambda arrays: torch.add(arrays.b, arrays.c, alpha=SCALE, out=arrays.a),
               found=lambda arrays: arrays.a, expect=lambda _a, b, c: b + SCALE * c)  # fmt: skip
SUM = Kernel(name="sum", arrays=1, run=lambda arrays: torch.sum(arrays.a, 0, out=arrays.number),
             found=lambda arrays: arrays.number, expect=lambda a, _b, _c: a.sum(), terms=0,
             join=lambda sums: sums.sum())  # fmt: skip
MAX = Kernel(name="max", arrays=1, run=lambda arrays: torch.amax(arrays.a, 0, out=arrays.number),
             found=lambda arrays: arrays.number, expect=lambda a, _b, _c: a.amax(),
             join=lambda tops: tops.amax())  # fmt: skip
DOT = Kernel(name="dot", arrays=2, run=lambda arrays: torch.dot(arrays.a, arrays.b, out=arrays.number),
             found=lambda arrays: arrays.number, expect=lambda a, b, _c: (a * b).sum(), terms=0,
             join=lambda sums: sums.sum())  # fmt: skip
MATRIX = Kernel(name="matrix × vector", arrays=1,
                run=lambda arrays: torch.mv(arrays.a_RW, arrays.vector_W, out=arrays.rows_R),
                found=lambda arrays: arrays.rows_R, expect=lambda a, b, _c: a.view(-1, len(b)) @ b,
                terms=WIDTH)  # fmt: skip

WRITES = (COPY, SCALED, TRIAD)
"""In BabelStream's order."""


def reads(device: Device, past_cache: bool) -> tuple[Kernel, ...]:
    """Kernels that read: on a GPU past the cache also a sum that torch compiles, where it has Triton for that."""
    own = (SUM, MAX, DOT, MATRIX)
    return (*own, _compiled_sum()) if device.cuda and past_cache and importlib.util.find_spec("triton") else own


@cache
def _compiled_sum() -> Kernel:
    added = torch.compile(lambda a: a.sum())
    return Kernel(name="compiled sum", arrays=1, run=lambda arrays: arrays.number.copy_(added(arrays.a)),
                  found=SUM.found, expect=SUM.expect, terms=0, join=SUM.join)  # fmt: skip


def repeated(device: Device, step: Callable[[], object], times: int) -> Callable[[], object]:
    """`step` so many times in one call: a loop on a CPU, a CUDA graph on a GPU, where launches would show."""
    if times == 1:
        return step
    if not device.cuda:

        def loop() -> None:
            for _ in range(times):
                step()

        return loop
    # https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs: warm up on a side stream, then capture.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            step()
    return lambda: graph.replay()
