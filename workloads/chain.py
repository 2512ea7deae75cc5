"""Deterministic text to train on: a noisy chain over a few tokens, which a model learns in a few steps."""

import torch
from torch import Tensor

# Shape suffixes: G sequences of all ranks together, T tokens.

ALPHABET = 64
"""Tokens that the chain visits, the first of the vocabulary."""
NOISE = 0.1
"""Share of tokens that do not follow the chain, so that the loss has a floor above 0."""


def draw(seed: int, step: int, sequences: int, tokens: int) -> Tensor:
    """All sequences [G, T] of one step, on the CPU, the same wherever they are drawn.

    The next token is (5·t + 7) mod 64, except that one in ten is drawn at random.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    size = (sequences, tokens)
    drawn_GT = torch.randint(ALPHABET, size, generator=generator)
    strays_GT = torch.rand(size, generator=generator) < NOISE
    for t in range(1, size[1]):
        follows_G = (5 * drawn_GT[:, t - 1] + 7) % ALPHABET
        drawn_GT[:, t] = torch.where(strays_GT[:, t], drawn_GT[:, t], follows_G)
    return drawn_GT
