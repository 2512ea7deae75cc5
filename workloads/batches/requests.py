"""The requests: seeded lengths, prompts short and answers long-tailed, as users have them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request."""

    prompt: tuple[int, ...]
    """Tokens."""
    answer: int
    """Tokens to make, exactly so many."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long they are."""

    prompt: tuple[int, int]
    """Fewest and most tokens, all as likely."""
    answer: tuple[int, int]
    """Fewest and most; half of the answers are below a quarter of the range."""


def draw(count: int, lengths: Lengths, vocabulary: int, seed: int) -> tuple[Request, ...]:
    """So many requests; the same seed gives the same."""
    source = random.Random(seed)
    (short, long), (few, many) = lengths.prompt, lengths.answer
    made = []
    for _ in range(count):
        tokens = source.randint(short, long)
        answer = few + round((many - few) * source.random() ** 2)  # its median is a quarter of the range
        made.append(Request(prompt=tuple(source.randrange(vocabulary) for _ in range(tokens)), answer=answer))
    return tuple(made)


def groups(requests: Sequence[Request], size: int) -> list[Sequence[Request]]:
    """Fixed batches in order of arrival, the last one smaller."""
    return [requests[first : first + size] for first in range(0, len(requests), size)]


def wasted(requests: Sequence[Request], size: int) -> tuple[float, float]:
    """Shares of the work that fixed batches do for nothing: of prompt positions, which are filled up to the longest,
    and of answer positions, for the batch goes on until its longest answer ends."""
    batches = groups(requests, size)
    prompts = sum(len(batch) * max(len(one.prompt) for one in batch) for batch in batches)
    answers = sum(len(batch) * max(one.answer for one in batch) for batch in batches)
    return (1 - sum(len(one.prompt) for one in requests) / prompts, 1 - sum(one.answer for one in requests) / answers)
