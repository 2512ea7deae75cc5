"""Fixed batches: prompts filled up to the longest on their left, and steps until the longest answer has ended."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import MistralForCausalLM

from workloads.batches.requests import Request, groups

# Shape suffixes: B batch, S tokens so far.


@dataclass(frozen=True, kw_only=True)
class Served:
    """What came of all requests, once."""

    answers: tuple[tuple[int, ...], ...]
    """Tokens, in the order of the requests."""
    seconds: float
    """From the first request taken up to the last answer."""
    prefill_s: float
    """Of that, reading prompts; 0 where it happens in between."""
    gaps_s: tuple[float, ...]
    """Time of each token after the first, as its user waits for it."""


def serve(model: MistralForCausalLM, requests: Sequence[Request], size: int) -> Served:
    """All requests, so many at a time."""
    answers: list[tuple[int, ...]] = []
    gaps: list[float] = []
    prefill_s, began = 0.0, time.perf_counter()
    with torch.inference_mode():
        for batch in groups(requests, size):
            made, first_s, steps = _batch(model, batch)
            answers += made
            prefill_s += first_s
            gaps += [step for index, step in enumerate(steps) for one in batch if index + 1 < one.answer]
    return Served(answers=tuple(answers), seconds=time.perf_counter() - began, prefill_s=prefill_s, gaps_s=tuple(gaps))


def _batch(model: MistralForCausalLM, batch: Sequence[Request]) -> tuple[list[tuple[int, ...]], float, list[float]]:
    where = model.device
    width = max(len(one.prompt) for one in batch)
    tokens_BS = torch.tensor([[0] * (width - len(one.prompt)) + list(one.prompt) for one in batch], device=where)
    mask_BS = torch.tensor([[0] * (width - len(one.prompt)) + [1] * len(one.prompt) for one in batch], device=where)
    at_BS = (mask_BS.cumsum(1) - 1).clamp(min=0)
    cache, times, made = None, [time.perf_counter()], []
    for _ in range(max(one.answer for one in batch)):
        output = model(tokens_BS, attention_mask=mask_BS, position_ids=at_BS, past_key_values=cache, use_cache=True,
                       logits_to_keep=1)  # fmt: skip
        cache = output.past_key_values
        tokens_BS = output.logits[:, -1].argmax(-1, keepdim=True)
        made.append(tokens_BS[:, 0].tolist())  # a token counts when the host has it
        times.append(time.perf_counter())
        mask_BS = torch.cat([mask_BS, torch.ones_like(tokens_BS)], 1)
        at_BS = _next(at_BS)
    first_s, *steps = (after - before for before, after in pairwise(times))
    answers = [tuple(row[column] for row in made[: one.answer]) for column, one in enumerate(batch)]
    return answers, first_s, steps


def _next(at_BS: Tensor) -> Tensor:
    return at_BS[:, -1:] + 1
