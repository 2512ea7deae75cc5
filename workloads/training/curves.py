"""Loss curves of the same model in two arithmetics, held against the noise between seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from workloads.chain import ALPHABET, NOISE
from workloads.command import CheckFailed

SLACK = 0.03
"""Share of the loss that fp8 may differ by, however near bf16's seeds are to each other."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run."""

    dtype: str
    """Of the layers' products: bf16 or fp8."""
    seed: int
    losses: tuple[float, ...]
    """Of every step."""
    parts: tuple[dict[str, float], ...]
    """Of every timed step: seconds by part."""

    @property
    def late(self) -> float:
        """Mean loss of the last quarter of the steps."""
        return statistics.fmean(self.losses[-(len(self.losses) // 4) :])


def spread_of(curves: Sequence[Curve]) -> float:
    """Largest late loss of bf16's seeds minus the smallest: what chance alone does to it."""
    late = [curve.late for curve in curves if curve.dtype == "bf16"]
    return max(late) - min(late)


def check_parity(curves: Sequence[Curve]) -> str:
    """Compare fp8's late loss with that of bf16 from the same weights, and say how near it is.

    Raises:
        CheckFailed: it differs by more than the noise between seeds.
    """
    same, eight = curves[0], next(curve for curve in curves if curve.dtype == "fp8")
    allowed = max(spread_of(curves), SLACK * same.late)
    difference = eight.late - same.late
    said = (f"loss {eight.late:.4f} in fp8, {same.late:.4f} in bf16: {difference:+.4f}, "
            f"allowed ±{allowed:.4f}")  # fmt: skip
    if not abs(difference) <= allowed:
        raise CheckFailed(f"loss parity: {said}")
    if not eight.late < 0.9 * eight.losses[0]:
        raise CheckFailed(f"loss falls: in fp8 from {eight.losses[0]:.3f} only to {eight.late:.3f}")
    return said


def entropy() -> float:
    """Nats per token of the data itself, below which no model's loss gets: a chain with one token in ten at random."""
    stray = NOISE / ALPHABET
    follows = 1 - NOISE + stray
    return -follows * math.log(follows) - (ALPHABET - 1) * stray * math.log(stray)
