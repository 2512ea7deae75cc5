"""The operations that stand under the roof: rows times a weight, chains, and a model's own products."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from labs.models import Model
from labs.operations import Operation, decode_operations, prefill_operations
from labs.roofs import DTYPE_BYTES
from workloads import gemm
from workloads.attention import Attention
from workloads.device import time_each
from workloads.elementwise import Chain
from workloads.product import moved_bytes
from workloads.regimes import Taken, burst

CHAIN_SAMPLES = {True: 20, False: 3}
"""Samples of a chain, by whether the device is a GPU; on a CPU one takes a noticeable part of a second."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One operation that is to be measured: what it is, its work, and the roof it is predicted by."""

    name: str
    kind: str
    """"rows", "unfused", "fused", "decode" or "prefill"."""
    dtype: str
    flops: float
    moved: float
    shape: tuple[int, int, int] | None = None
    """Of a product."""
    steps: int = 0
    """Of a chain."""
    operation: Operation | None = None
    """Of the model."""


def row_dots(model: Model, dtype: str, rows_of: tuple[int, ...]) -> Iterator[Dot]:
    """So many rows times the model's gate-up weight."""
    columns, inner = 2 * model.feed_forward, model.hidden
    for rows in rows_of:
        shape = (rows, columns, inner)
        yield Dot(name=f"{rows} × gate-up", kind="rows", dtype=dtype, flops=2 * rows * columns * inner,
                  moved=moved_bytes(dtype, shape), shape=shape)  # fmt: skip


def chain_dots(chain: Chain, lengths: tuple[int, ...]) -> Iterator[Dot]:
    """Chains of those lengths, each unfused and fused."""
    for steps in lengths:
        for kind in ("unfused", "fused"):
            yield Dot(name=f"chain of {steps}, {kind}", kind=kind, dtype="fp32", flops=chain.flops(steps),
                      moved=chain.moved_bytes(steps, kind == "fused"), steps=steps)  # fmt: skip


def model_dots(model: Model, dtype: str, context: int, prompt: int) -> Iterator[Dot]:
    """Every product of a decode step that attends to `context` tokens, and of a prefill of `prompt`."""
    steps = (("decode", decode_operations(model, context)), ("prefill", prefill_operations(model, prompt)))
    for kind, parts in steps:
        for part in parts:
            shape = None if part.attention else (part.rows, part.columns, part.inner)
            yield Dot(name=f"{kind} {part.name}", kind=kind, dtype=dtype, flops=part.flops,
                      moved=part.moved_bytes(DTYPE_BYTES[dtype]), shape=shape, operation=part)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Runs a dot, whatever it is."""

    model: Model
    context: int
    prompt: int
    chain: Chain
    products: gemm.Bench
    settings: gemm.Config

    def take(self, dot: Dot) -> tuple[Taken, str]:
        """Time a dot's operation and check its result: the samples, and how near the result is.

        Raises:
            CheckFailed: the result is wrong.
        """
        if dot.shape:
            return self.products.take(self.settings, dot.shape, "burst")
        if dot.steps:
            step = self.chain.fused(dot.steps) if dot.kind == "fused" else self.chain.unfused(dot.steps)
            return self._burst(step, CHAIN_SAMPLES[self.products.device.cuda]), self.chain.check(dot.steps)
        decode = dot.kind == "decode"
        tokens = self.context if decode else self.prompt
        attention = Attention(self.model, dot.dtype, self.products.device, self.settings.seed,
                              queries=1 if decode else tokens, tokens=tokens)  # fmt: skip
        return self._burst(attention.run, self.settings.iterations), attention.check()

    def _burst(self, step: Callable[[], object], count: int) -> Taken:
        if self.products.device.cuda:
            time_each(self.products.device, step, 1)  # what is compiled is compiled now
        return burst(self.products.device, self.products.gauge, step, count)
