"""One matrix product: operands that arrive from memory, the product in each data type, and its check.

C[M,N] = A[M,K]·W[N,K]ᵀ, both operands row-major, as a linear layer has them.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from labs.roofs import gemm_bytes
from workloads.command import CheckFailed
from workloads.device import TORCH_DTYPES, Device, cache_bytes

# Shape suffixes: M rows of A and C; N columns of C, rows of W; K the inner dimension.

POOL_LIMIT_BYTES = 256 * 2**20
"""A virtual CPU may claim a cache of hundreds of MiB that it shares: no pool grows beyond this for its sake."""
ROUNDING = {"fp32": 2**-24, "tf32": 2**-11, "fp16": 2**-11, "bf16": 2**-8, "fp8": 2**-8}
"""Unit roundoff by data type, doubled for fp16 and bf16, whose partial sums may be rounded too; fp8 writes bf16."""


def moved_bytes(dtype: str, shape: tuple[int, int, int]) -> int:
    """Bytes to read A and W once and write C once."""
    return gemm_bytes(*shape, dtype, "bf16" if dtype == "fp8" else dtype)


class Pool:
    """Random numbers of one data type, handed out as operands; the next window each time, past the cache."""

    def __init__(self, device: Device, dtype: str, largest: int, seed: int | None) -> None:
        """`largest` is the most elements that one product is expected to read; a larger one draws a larger pool.

        Without a seed every number is zero.
        """
        self._device, self._stored, self._seed = device, TORCH_DTYPES[dtype], seed
        self._draw(largest)

    def _draw(self, largest: int) -> None:
        pool_bytes = min(2 * cache_bytes(self._device), POOL_LIMIT_BYTES)
        count = pool_bytes // self._stored.itemsize + _aligned(largest)
        drawn = torch.float32 if self._stored.itemsize == 4 else torch.bfloat16
        self._values = torch.empty(0)  # the old pool's memory comes back before the new one takes its own
        self._next = 0
        if self._seed is None:
            self._values = torch.zeros(count, device=self._device.torch, dtype=drawn).to(self._stored)
            return
        generator = torch.Generator(self._device.torch).manual_seed(self._seed)
        values = torch.randn(count, generator=generator, device=self._device.torch, dtype=drawn)
        self._values = values.to(self._stored)

    def operands(self, m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
        """A and W for one product."""
        first, second = _aligned(m * k), _aligned(n * k)
        if first + second > len(self._values):
            self._draw(first + second)
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
