"""One rung after the other on the same weights: built, warmed up, every step timed, its answer held to the first's."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import MistralForCausalLM

from labs.models import Model
from workloads.device import TORCH_DTYPES, Device, time_each
from workloads.ladder import quality
from workloads.ladder.attention import register
from workloads.ladder.compiler import pieces
from workloads.ladder.growing import Growing
from workloads.ladder.memory import peak_bytes, reset_peak
from workloads.ladder.overhead import Starts, start_s, starts
from workloads.ladder.rungs import Rung
from workloads.ladder.static import Static
from workloads.ladder.trained import Trained, perplexity
from workloads.ladder.weights import Weights
from workloads.nvml import Gauge

# Shape suffixes: B batch (1), S tokens, N positions, V vocabulary.

WARMUP = 2
ROOM = 1.2
"""A model fits where this many times its weights are free."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one rung showed."""

    samples_s: tuple[float, ...]
    """Of each token."""
    told: dict[str, Any]
    """Quality, memory, energy and the time to compile."""
    checked: str


class Climb:
    """The state that the rungs share: weights, prompt, the first rung's tokens and logits."""

    def __init__(self, shape: Model, device: Device, make: Callable[[str], MistralForCausalLM], prompt: int,
                 tokens: int, seed: int, trained: Trained | None = None) -> None:  # fmt: skip
        """`make` builds the model in a data type; `trained` brings the text that its weights were trained for."""
        self._shape, self._device, self._tokens, self._trained = shape, device, tokens, trained
        self._free = device.memory_bytes
        half = "bf16" if "bf16" in device.dtypes else "fp16"
        self._weights = Weights(make, "fp32" if self._fits("fp32") else half)
        self._gauge, self._each_s = Gauge(device), start_s(device)
        if trained:
            text_1S = trained.text[None, : prompt + tokens].to(device.torch)
            self._prompt_1S, self._read_N = text_1S[:, :prompt], text_1S[0, prompt:]
        else:
            generator = torch.Generator(device.torch).manual_seed(seed)
            self._prompt_1S = torch.randint(shape.vocabulary, (1, prompt), generator=generator, device=device.torch)
            self._read_N = None
        self._engine: Growing | Static | None = None
        self._logits: dict[str, Tensor] = {}
        self._first, self._ready_s = "", 0.0

    def too_large(self, rung: Rung) -> str:
        """Why the device's memory does not hold the rung's weights; "" where it does."""
        if self._fits(rung.dtype):
            return ""
        return f"its {rung.dtype} weights do not fit into the {self._free / 2**30:.1f} GiB that were free"

    def _fits(self, dtype: str) -> bool:
        needed = ROOM * self._shape.weight_bytes(TORCH_DTYPES[dtype].itemsize)
        return not self._device.cuda or needed < self._free

    def prepare(self, rung: Rung, context: int) -> tuple[int, Starts | None]:
        """Build the rung and run a few steps: the bytes that a token reads, and what starting its work should cost."""
        self._engine = None  # the last one's cache and graph are freed first
        reset_peak(self._device)
        begun = time.perf_counter()
        self._engine = self._built(rung)
        self._engine.start(self._prompt_1S)
        for _ in range(WARMUP):
            self._engine.step()
        self._device.synchronize()
        self._ready_s = time.perf_counter() - begun
        started = starts(rung, self._shape, self._device, self._engine.step, self._each_s)
        size = TORCH_DTYPES[rung.dtype].itemsize
        return self._weights.read_bytes() + context * self._shape.kv_bytes(size), started

    def _built(self, rung: Rung) -> Growing | Static:
        model = self._weights.at(rung.dtype, rung.weights)
        if not rung.static:
            return Growing(model, register() if rung.grouped else "eager")
        if rung.fused:
            self._weights.fuse()
        fused = self._weights.fused if rung.fused else []
        length = self._prompt_1S.shape[1] + self._tokens + WARMUP + 1
        compile_piece = pieces(self._device, rung.early) if rung.compiled else None
        return Static(model, fused, self._shape, batch=1, length=length, compile_piece=compile_piece, graph=rung.graph)

    def take(self, rung: Rung) -> Taken:
        """Time every token of the prepared rung, and hold its logits to the first rung's.

        Raises:
            CheckFailed: they are further off than the format of its weights explains.
        """
        engine = self._engine
        assert engine is not None
        logits: list[Tensor] = []
        read: list[Tensor] = []

        def before() -> None:
            if self._read_N is not None:
                engine.read(self._read_N[len(read)].view(1, 1))
            read.append(engine.token_B1.clone())

        def step() -> None:
            logits.append(engine.step())

        def after() -> None:
            logits[-1] = logits[-1][0].float().clone()

        engine.start(self._prompt_1S)
        joules = self._gauge.energy_j
        samples_s = time_each(self._device, step, self._tokens, before=before, after=after)
        spent = self._gauge.energy_j
        found_NV = torch.stack(logits)
        told = {
            "ready_s": self._ready_s, "cache_bytes": engine.cache_bytes, "peak_bytes": peak_bytes(self._device),
            "joules_per_token": None if joules is None or spent is None else (spent - joules) / self._tokens,
        }  # fmt: skip
        checked, judged = self._judge(rung, found_NV, torch.cat(read).flatten())
        return Taken(samples_s=samples_s, told=told | judged, checked=checked)

    def _judge(self, rung: Rung, found_NV: Tensor, read_N: Tensor) -> tuple[str, dict[str, Any]]:
        """How near the logits are: to the first rung's; the first's own to one pass over all tokens without a cache."""
        if not self._first:
            self._first, self._read_N = rung.name, read_N
            against, reference_NV = "one pass without a cache", self._at_once(rung, read_N)
            self._logits[rung.name] = found_NV
        else:
            against, reference_NV = self._first, self._logits[self._first]
        judged = quality.compare(found_NV, reference_NV)
        checked = quality.check(rung.name, rung.weights or rung.dtype, judged, against)
        if rung.exact and rung.on in self._logits:
            checked += "; " + quality.same_tokens(rung.name, found_NV, self._logits[rung.on], rung.on)
        if rung.compiled and not rung.weights:
            self._logits[rung.name] = found_NV
        told = asdict(judged) | {"against": against}
        if self._trained:
            told["perplexity"] = perplexity(found_NV[:-1], read_N[1:])
        return checked, told

    def _at_once(self, rung: Rung, read_N: Tensor) -> Tensor:
        whole_1S = torch.cat([self._prompt_1S, read_N.view(1, -1)], 1)
        model = self._weights.at(rung.dtype)
        with torch.inference_mode():
            logits_NV: Tensor = model(whole_1S, use_cache=False, logits_to_keep=len(read_N)).logits[0].float()
        return logits_NV
