"""A model split over ranks that answers: prefill and decode, timed, counted, and token by token like one process."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from labs.models import Model, find_model
from labs.results import Measurement, Roof
from labs.roofs import inverse, memory_time_bound, usd_per_million
from labs.traffic import Traffic, tensor_decode
from workloads.device import TORCH_DTYPES, Device
from workloads.group import Group
from workloads.mistral import build
from workloads.parallel.bench import PROFILED, free
from workloads.parallel.counting import counted
from workloads.parallel.links import Link
from workloads.parallel.plan import split_inference
from workloads.parallel.trace import Breakdown, breakdown_of, shares, spans

# Shape suffixes: B sequences, S tokens, N new tokens, V vocabulary.

ALLOWED = 1e-5
"""Largest difference of a logit in fp32 from one process's, in standard deviations of its row."""
_SMALL, _PROMPT, _NEW = "mistral-nano", 16, 8


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of the model."""

    model: str
    dtype: str
    batch: int
    """Sequences at once."""
    prompt: int
    """Tokens of each."""
    new_tokens: int
    """Made after it, the first included."""


class Answer:
    """One greedy generation on a model, whole or split, token by token."""

    def __init__(self, model: nn.Module, prompt_BS: Tensor) -> None:
        """Nothing has run yet."""
        self._model, self._cache, self._next_BS = model, None, prompt_BS
        self.tokens: list[Tensor] = []
        self.logits: list[Tensor] = []

    def step(self) -> None:
        """The whole prompt the first time, then one token each; done when the token is on the host."""
        with torch.inference_mode():
            output = self._model(self._next_BS, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            self._cache = output.past_key_values
            self._next_BS = output.logits[:, -1].argmax(-1, keepdim=True)
        self.logits.append(output.logits[:, -1])
        self.tokens.append(self._next_BS)
        self._next_BS.tolist()

    def timed(self, steps: int) -> tuple[float, ...]:
        """Seconds of each of so many steps."""
        samples = []
        for _ in range(steps):
            begin = time.perf_counter()
            self.step()
            samples.append(time.perf_counter() - begin)
        return tuple(samples)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one rank saw of an answer."""

    first_s: float
    gaps_s: tuple[float, ...]
    breakdown: Breakdown | None = None


def prompt_of(request: Request, device: Device, seed: int) -> Tensor:
    """Random tokens [B, S], the same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    size = (request.batch, request.prompt)
    return torch.randint(find_model(request.model).vocabulary, size, generator=generator).to(device.torch)


def check_tokens(group: Group, mesh: DeviceMesh, seed: int) -> str:
    """The smallest model in fp32 answers alike, split and whole: the same tokens, logits up to rounding.

    Raises:
        CheckFailed: on every rank, if it does not.
    """
    small = Request(model=_SMALL, dtype="fp32", batch=2, prompt=_PROMPT, new_tokens=_NEW)
    prompt_BS, shape = prompt_of(small, group.device, seed), find_model(_SMALL)
    together = Answer(split_inference(build(shape, "fp32", group.device, seed), mesh), prompt_BS)
    together.timed(_NEW)
    difference, failure = 0.0, ""
    if group.first:
        whole = Answer(build(shape, "fp32", group.device, seed), prompt_BS)
        whole.timed(_NEW)
        one_NBV, other_NBV = torch.stack(together.logits), torch.stack(whole.logits)
        difference = float(((one_NBV - other_NBV).abs().amax(-1) / other_NBV.std(-1)).max())
        if not difference <= ALLOWED:
            failure = f"logits differ from one process's by {difference:.2g} standard deviations, allowed {ALLOWED:.0e}"
        elif not torch.equal(torch.stack(together.tokens), torch.stack(whole.tokens)):
            failure = "tokens differ from one process's"
    group.require("decode of a split model", failure)
    return (f"{_SMALL} in fp32 makes one process's tokens, logits within {difference:.0e} standard deviations, "
            f"allowed {ALLOWED:.0e}")  # fmt: skip


def alone(request: Request, group: Group, seed: int) -> Told | None:
    """The first rank with the whole model, while the others wait; on every rank."""
    told = None
    if group.first:
        model = build(find_model(request.model), request.dtype, group.device, seed)
        told = _answer(model, request, group, seed)
        del model
    free(group)
    return group.gather(told)[0]


def _answer(model: nn.Module, request: Request, group: Group, seed: int) -> Told:
    prompt_BS = prompt_of(request, group.device, seed)
    Answer(model, prompt_BS).timed(3)
    first_s, *gaps_s = Answer(model, prompt_BS).timed(request.new_tokens)
    return Told(first_s=first_s, gaps_s=tuple(gaps_s))


def together(request: Request, group: Group, mesh: DeviceMesh, seed: int) -> list[Told]:
    """All ranks with their part of the model; what each saw.

    Raises:
        CheckFailed: on every rank, if the bytes counted are not those predicted.
    """
    shape = find_model(request.model)
    model = split_inference(build(shape, request.dtype, group.device, seed), mesh)
    told = _answer(model, request, group, seed)
    answer = Answer(model, prompt_of(request, group.device, seed))
    answer.step()
    group.require("bytes of a decode step", traffic_of(request, shape, group.size).unlike(counted(answer.step)))
    breakdown = breakdown_of(answer.step, PROFILED[group.device.cuda], group.device)
    return group.gather(Told(first_s=told.first_s, gaps_s=told.gaps_s, breakdown=breakdown))


def traffic_of(request: Request, shape: Model, ranks: int) -> Traffic:
    """Of one decode step."""
    size = TORCH_DTYPES[request.dtype].itemsize
    return tensor_decode(shape, ranks, request.batch, size=size, sequences=request.batch)


def decode_rows(request: Request, group: Group, every: list[Told], one: Told | None, checked: str, link: Link | None,
                price: float | None) -> Iterator[Measurement]:  # fmt: skip
    """Time to the first token, time per later one, tokens/s, and bytes, of all ranks together."""
    shape, device = find_model(request.model), group.device
    size, traffic = TORCH_DTYPES[request.dtype].itemsize, traffic_of(request, shape, group.size)
    moved = shape.decode_bytes(request.prompt + request.new_tokens // 2, batch=request.batch, weight_size=size,
                               kv_size=size) / group.size  # fmt: skip
    bound = memory_time_bound(device.name, device.accelerator, moved)
    gaps_s = tuple(max(step) for step in zip(*(told.gaps_s for told in every), strict=True))
    gap_s, alone_s = statistics.median(gaps_s), None if one is None else statistics.median(one.gaps_s)
    breakdowns = [told.breakdown for told in every if told.breakdown is not None]
    config: dict[str, Any] = {
        "model": request.model, "dtype": request.dtype, "batch": request.batch, "prompt": request.prompt,
        "ranks": group.size, "alone_s": alone_s, "predicted_bytes_per_rank": traffic.sent_bytes,
    }  # fmt: skip
    talk_s = None if link is None else link.seconds(traffic)
    expected = None
    if alone_s is not None and talk_s is not None:
        expected = Roof(value=alone_s / group.size + talk_s, source="one rank's time over the ranks, then its "
                        "all-reduces at the rate that collectives measured")  # fmt: skip
    yield Measurement(
        name="decode: time per output token", value=gap_s, unit="s", samples_s=gaps_s,
        estimator=f"median of {len(gaps_s)}, slowest rank of each", config={**config, "shares": shares(breakdowns)},
        roof=bound.roof, no_roof_because=bound.no_roof_because, expected=expected, checked=checked,
        spans=spans(breakdowns, gap_s, device.cuda),
    )  # fmt: skip
    rate = inverse(bound, request.batch)
    yield Measurement(
        name="decode", value=request.batch / gap_s, unit="token/s", samples_s=gaps_s, config=config, checked=checked,
        estimator=f"from the median of {len(gaps_s)}", roof=rate.roof, no_roof_because=rate.no_roof_because,
        usd_per_unit=None if price is None else usd_per_million(price, request.batch / gap_s),
        work_unit="million tokens",
    )  # fmt: skip
    firsts_s = tuple(told.first_s for told in every)
    yield Measurement(
        name="decode: time to first token", value=max(firsts_s), unit="s", samples_s=firsts_s, config=config,
        estimator="slowest rank, once", no_roof_because="one sample: the `generate` workload measures prefill",
        checked=checked,
    )  # fmt: skip
    yield Measurement(
        name="decode: sent", value=traffic.sent_bytes, unit="B", estimator="counted in one step, on each rank",
        config=config, no_roof_because="bytes are counted, not timed",
        expected=Roof(value=traffic.sent_bytes, source="predicted: two all-reduces a layer, and the logits"),
        checked="every collective's buffer counted as predicted, on every rank",
    )  # fmt: skip


def decode_lines(rows: list[Measurement]) -> list[str]:
    """What came out, for the log."""
    gap, rate, _, sent = rows
    alone_s = gap.config["alone_s"]
    beside = "" if alone_s is None else f"; one rank alone {alone_s * 1e3:.2f} ms, so {alone_s / gap.value:.2f} ×"
    share = "" if gap.fraction is None else f", {gap.fraction:.1%} of roof"
    told = gap.config["shares"]
    return [
        f"decode over {gap.config['ranks']} ranks: {gap.value * 1e3:.2f} ms a token, {rate.value:.1f} token/s{share}"
        f"{beside}",
        f"  of it {told['compute']:.0%} arithmetic, {told['exposed']:.0%} exposed communication, "
        f"{told['idle']:.0%} idle; {sent.value / 1e3:.1f} kB sent a rank and token, counted as predicted",
        f"  {gap.checked}",
    ]
