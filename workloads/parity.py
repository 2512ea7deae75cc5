"""Is what several ranks trained what one process would have trained? Gradients, parameters, losses.

Each function says what is wrong in words, or nothing ("") where all is well: the group then fails on all ranks alike.
"""

import hashlib
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor, nn

TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
"""Largest |difference| of a parameter's gradient, relative to its norm. Measured on mistral-nano: splitting
the batch 1e-7 in fp32 and 2e-3 in bf16; one rank of two left out 1.0, one of eight 0.5."""
FALL = 0.9
"""Losses of the last quarter of the steps must average below this share of the first."""


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all gradients by parameter name, without DDP's prefix."""
    return {
        name.removeprefix("module."): weights.grad.clone()
        for name, weights in model.named_parameters()
        if weights.grad is not None
    }


def gradient_failure(found: dict[str, Tensor], expected: dict[str, Tensor], allowed: float) -> tuple[float, str]:
    """Largest relative difference over all parameters, and what is wrong with it (empty: nothing)."""
    if found.keys() != expected.keys():
        return float("inf"), f"gradients of {sorted(found.keys() ^ expected.keys())} are missing"
    differences = {name: float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected}
    # One that is not a number compares as smaller than everything: it must come out on top.
    worst = max(differences, key=lambda name: (differences[name] != differences[name], differences[name]))
    if differences[worst] <= allowed:
        return differences[worst], ""
    return differences[worst], f"{worst} differs by {differences[worst]:.2g} from one process's, allowed {allowed:.0e}"


def digest(model: nn.Module) -> str:
    """SHA-256 of all parameters, bit by bit."""
    bits = hashlib.sha256()
    for weights in model.parameters():
        bits.update(weights.detach().cpu().contiguous().view(torch.uint8).numpy())
    return bits.hexdigest()


def digest_failure(digests: Sequence[str]) -> str:
    """Which ranks hold other parameters than rank 0 (empty: none)."""
    others = [rank for rank, bits in enumerate(digests) if bits != digests[0]]
    return f"parameters of ranks {others} are not rank 0's" if others else ""


def loss_failure(losses: Sequence[float]) -> str:
    """Why the losses do not fall (empty: they do)."""
    late = statistics.fmean(losses[-(len(losses) // 4) :])
    return "" if late < FALL * losses[0] else f"from {losses[0]:.3f} only to {late:.3f}, must be below {FALL:.0%} of it"
