"""A chain of y = a·y + b over an array, step by step through memory, and fused: once through memory.

k steps are 2·k FLOPs an element. Unfused, each multiplication and each addition reads and writes the array: 4·k·w bytes
an element, an intensity that no length of chain changes. Fused it is 2·w bytes, whatever k is. On a GPU torch compiles
the chain into one kernel; on a CPU the chain runs piece by piece in the cache, which moves the same bytes. There
Python hands out the pieces to threads, which feeds a few cores, not dozens.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from workloads.command import CheckFailed
from workloads.device import Device, cache_bytes

FACTOR, TERM = 0.96875, 0.03125
"""a and b, exact in binary: after k steps y is aᵏ·x + (1 − aᵏ), and each of 64 steps still shows."""
PIECE = 2**15
"""Elements of a piece on a CPU: it stays in a core's own cache from one operation to the next, and torch gives an
operation of this size to one thread, so that no thread waits for another between two of them."""
LIMIT_BYTES = 2**27
"""On a CPU no array is larger, whatever cache it claims to have."""
STRETCH = 2**21
"""Elements that are compared in float64 at a time."""
SIZE = 4
"""Bytes of an element: chains run in fp32."""


class Chain:
    """k steps over N elements that do not fit in the cache."""

    def __init__(self, device: Device, seed: int, count: int = 0) -> None:
        """`count` is N; 0 takes twice the cache on a CPU, and a GiB or sixteen times the L2 on a GPU."""
        cache = cache_bytes(device)
        size = max(2**30, 16 * cache) if device.cuda else min(2 * cache, LIMIT_BYTES)
        generator = torch.Generator(device.torch).manual_seed(seed)
        self.count = count or size // SIZE // PIECE * PIECE
        self.x = torch.empty(self.count, device=device.torch).uniform_(-1, 1, generator=generator)
        self.y = torch.full_like(self.x, torch.nan)
        self._device = device

    def flops(self, steps: int) -> int:
        """Of a chain of `steps`."""
        return 2 * steps * self.count

    def moved_bytes(self, steps: int, fused: bool) -> int:
        """Bytes that a chain must move as it is run."""
        return 2 * SIZE * self.count * (1 if fused else 2 * steps)

    def unfused(self, steps: int) -> Callable[[], object]:
        """One operation after the other over the whole array."""
        return lambda: _walk(self.x, self.y, steps)

    def fused(self, steps: int) -> Callable[[], object]:
        """All operations on an element before the next is read."""
        if self._device.cuda:
            compiled: Any = torch.compile(_formula, dynamic=False)
            return lambda: self._keep(compiled(self.x, steps))
        pieces = list(zip(self.x.split(PIECE), self.y.split(PIECE), strict=True))
        workers = torch.get_num_threads()

        def share(first: int) -> None:
            for x, y in pieces[first::workers]:
                _walk(x, y, steps)

        def run() -> None:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(share, range(workers)))

        return run

    def _keep(self, result: torch.Tensor) -> None:
        self.y = result

    def check(self, steps: int) -> str:
        """Compare every element of y with float64, and say how near it is.

        Raises:
            CheckFailed: one is further off than rounding explains, or not a number.
        """
        allowed = (2 * steps + 1) * 2**-23
        power = FACTOR**steps
        worst = max(
            float((y.double() - (power * x.double() + (1 - power))).abs().nan_to_num(torch.inf).max())
            for x, y in zip(self.x.split(STRETCH), self.y.split(STRETCH), strict=True)
        )
        if worst > allowed:
            raise CheckFailed(f"chain of {steps}: |error| {worst:.2g} against float64, allowed {allowed:.2g}")
        return f"max |error| {worst:.1e} against float64, allowed {allowed:.1e}"


def _walk(x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
    torch.mul(x, FACTOR, out=y)
    y.add_(TERM)
    for _ in range(steps - 1):
        y.mul_(FACTOR)
        y.add_(TERM)


def _formula(x: torch.Tensor, steps: int) -> torch.Tensor:
    for _ in range(steps):
        x = x * FACTOR + TERM
    return x
