"""What the time of one request is made of, said before it is measured: floors by datasheet and by what the device just
showed, what every step costs however small the model is, and the parts that add up to the time that was taken.

Overhead is measured on a narrow twin: a model of as many layers whose matrices are next to nothing. Its step is what
launches, Python and small kernels take. On a CPU they come on top of moving the bytes; a GPU is handed its work ahead
of time, so that there the longer of the two counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labs.models import Model
from labs.results import Roof, Span
from labs.roofs import Bound, measured_roof, memory_time_bound, time_bound
from workloads import bandwidth, gemm
from workloads.device import TORCH_DTYPES, Device
from workloads.earlier import memory_ceiling, product_ceiling
from workloads.nvml import Gauge
from workloads.stream import Arrays

_SAMPLES = 5
_ROWS = 512
"""Rows of the product that stands for prefill's arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What the device showed that it can do."""

    memory: Roof
    """Reading, in B/s."""
    peak: Roof
    """Products in the model's data type, in FLOP/s."""


def ceilings(folder: Path, node: str, device: Device, shape: Model, dtype: str, seed: int) -> Ceilings:
    """As this run measured them before, among the records in `folder`; else measured now, in about a second.

    Raises:
        CheckFailed: a kernel's result is wrong.
    """
    return Ceilings(
        memory=memory_ceiling(folder, node, device) or _read_now(device, seed),
        peak=product_ceiling(folder, node, device, dtype) or _multiply_now(device, shape, dtype, seed),
    )


def _read_now(device: Device, seed: int) -> Roof:
    size = bandwidth.past_bytes(device)
    bench = bandwidth.Bench(device=device, dtype="fp32", arrays=Arrays(device, "fp32", size // 4, seed),
                            past_cache=True)  # fmt: skip
    kernel = bench.choose_read()
    settings = bandwidth.Config(dtypes=("fp32",), sizes_bytes=(size,), iterations=_SAMPLES, warmup=1, seed=seed,
                                threads=0)  # fmt: skip
    row = bench.measure(kernel, settings, "read")
    return Roof(value=row.config["bytes"] / min(row.samples_s), source=f"measured here, memory by {kernel.name}")


def _multiply_now(device: Device, shape: Model, dtype: str, seed: int) -> Roof:
    m, n, k = product = (_ROWS, shape.feed_forward, shape.hidden)
    settings = gemm.Config(shapes=(product,), dtypes=(dtype,), iterations=_SAMPLES, warmup=2, search_s=0.0,
                           sustain_s=0.0, seed=seed, threads=0)  # fmt: skip
    with gemm.opened(device, dtype, Gauge(device), settings) as bench:
        row = bench.measure(settings, product, "burst")
    return Roof(value=2 * m * n * k / min(row.samples_s), source=f"measured here, {dtype} {m}x{n}x{k}")


def twin(shape: Model) -> Model:
    """As many layers, and next to nothing in them."""
    return Model(name=f"{shape.name}'s narrow twin", hidden=64, layers=shape.layers, heads=4, kv_heads=1, head_size=16,
                 feed_forward=128, vocabulary=256)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and an answer of one model on one device, in numbers that need no measurement of it."""

    shape: Model
    dtype: str
    batch: int
    prompt: int
    new_tokens: int
    device: Device
    ceilings: Ceilings
    overhead_s: float
    """Of one step, by the narrow twin."""

    @property
    def middle(self) -> int:
        """Mean context of the decode steps, in tokens with the current one, rounded down."""
        return self.prompt + self.new_tokens // 2

    @property
    def weight_bytes(self) -> int:
        """Bytes of a decode step that do not grow with the context."""
        return self._step_bytes(0)

    @property
    def step_bytes(self) -> int:
        """Bytes of a decode step at `middle`."""
        return self._step_bytes(self.middle)

    def prefill_flops(self, prompt: int) -> int:
        """Of all prompts of the batch."""
        return self.batch * self.shape.prefill_flops(prompt)

    def first(self, prompt: int) -> Bound:
        """Fewest seconds to the first token, by the datasheet."""
        return time_bound(self.device.name, self.device.accelerator, self.dtype, self.prefill_flops(prompt),
                          self._prefill_bytes(prompt))  # fmt: skip

    def first_measured(self, prompt: int) -> Roof:
        """Fewest seconds to the first token, by the measured ceilings."""
        flops = self.prefill_flops(prompt)
        roof = measured_roof(self.ceilings.peak, self.ceilings.memory, flops, self._prefill_bytes(prompt))
        return Roof(value=flops / roof.value, source=roof.source)

    def first_expected(self, prompt: int) -> Roof:
        """Time to the first token with overhead."""
        return self._with_overhead(self.first_measured(prompt))

    @property
    def token(self) -> Bound:
        """Fewest seconds per further token, by the datasheet."""
        return memory_time_bound(self.device.name, self.device.accelerator, self.step_bytes)

    @property
    def token_measured(self) -> Roof:
        """Fewest seconds per further token, by the measured ceiling."""
        return Roof(value=self.step_bytes / self.ceilings.memory.value, source=self.ceilings.memory.source)

    @property
    def token_expected(self) -> Roof:
        """Time per further token with overhead."""
        return self._with_overhead(self.token_measured)

    @property
    def bend(self) -> float:
        """Tokens of a prompt from which on attention takes more FLOPs than the weights: there the time to the first
        token has turned from linear to quadratic."""
        body = self.shape.multiplying_weights - self.shape.table_weights
        return body / (self.shape.layers * self.shape.heads * self.shape.head_size)

    def token_spans(self, median_s: float) -> tuple[Span, ...]:
        """What a step of `median_s` is made of."""
        return self._spans(1, median_s)

    def whole_spans(self, first_s: float, whole_s: float) -> tuple[Span, ...]:
        """What a request of `whole_s`, `first_s` of it to the first token, is made of."""
        floor = self.first_measured(self.prompt)
        parts = [(f"prefill at {_short(floor.source)}", floor.value, _by(floor.source)),
                 ("prefill: overhead of a step", self.overhead_s, _TWIN)]  # fmt: skip
        prefill = _fill(first_s, parts, "prefill: the rest")
        return (*prefill, *self._spans(self.new_tokens - 1, whole_s - first_s, "decode: "))

    def _spans(self, steps: int, taken_s: float, lead: str = "") -> tuple[Span, ...]:
        rate, source = self.ceilings.memory.value, _by(self.ceilings.memory.source)
        moved_s = self.step_bytes / rate
        hidden = max(0.0, self.overhead_s - moved_s) if self.device.cuda else self.overhead_s
        parts = [
            (f"{lead}weights at the measured bandwidth", steps * self.weight_bytes / rate, source),
            (f"{lead}KV cache at the measured bandwidth", steps * (self.step_bytes - self.weight_bytes) / rate, source),
            (f"{lead}{'launches beyond it' if self.device.cuda else 'overhead of a step'}", steps * hidden, _TWIN),
        ]
        return _fill(taken_s, parts, f"{lead}the rest")

    def _with_overhead(self, floor: Roof) -> Roof:
        if self.device.cuda:
            return Roof(value=max(floor.value, self.overhead_s), source=f"the longer of {floor.source} and {_NARROW}")
        return Roof(value=floor.value + self.overhead_s, source=f"{floor.source}, and {_NARROW}")

    def _step_bytes(self, context: int) -> int:
        size = TORCH_DTYPES[self.dtype].itemsize
        return self.shape.decode_bytes(context, batch=self.batch, weight_size=size, kv_size=size)

    def _prefill_bytes(self, prompt: int) -> int:
        size = TORCH_DTYPES[self.dtype].itemsize
        return self.shape.prefill_bytes(prompt, batch=self.batch, weight_size=size, kv_size=size)


_NARROW = "a narrow twin's step"
_TWIN = f"measured: {_NARROW}"


def _by(source: str) -> str:
    return f"predicted: {source}"


def _short(source: str) -> str:
    return "the measured peak" if "memory" not in source else "the measured bandwidth"


def _fill(taken_s: float, parts: Sequence[tuple[str, float, str]], rest: str) -> tuple[Span, ...]:
    """The parts as far as the time holds them, in that order, and what is left over: they add up to `taken_s`."""
    spans, left_s = [], taken_s
    for name, seconds, how in parts:
        held_s = min(seconds, left_s)
        if held_s > 0:
            spans.append(Span(name=name, seconds=held_s, how=how))
            left_s -= held_s
    if left_s > 0:
        spans.append(Span(name=rest, seconds=left_s, how="measured: what is left over"))
    return tuple(spans)
