"""How far a rung's logits are from the reference's, on the same tokens.

Random weights can be judged by this alone: their perplexity is about the vocabulary whatever one breaks. Trained ones
have a perplexity as well (ladder/trained.py).
"""

from dataclasses import dataclass

from torch import Tensor

from workloads.command import CheckFailed

# Shape suffixes: N positions, V vocabulary.

TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1, "int8": 0.2, "fp8": 0.4, "int4": 0.8}
"""Largest relative error of the logits, over all positions. A wrong cache, position or weight gives 1 and more:
two unrelated logits differ by √2."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A rung's logits beside the reference's."""

    error: float
    """Root mean square difference in units of the reference's standard deviation, over all positions."""
    kl_nats: float
    """Mean Kullback-Leibler divergence of the rung's distribution from the reference's."""
    agreement: float
    """Share of positions where both choose the same token."""
    positions: int


def compare(found_NV: Tensor, reference_NV: Tensor) -> Quality:
    """The rung's logits against the reference's, both fp32."""
    found, reference = found_NV.double(), reference_NV.double()
    spread = (reference - reference.mean(-1, keepdim=True)).square().mean()
    expected, log_expected = reference.softmax(-1), reference.log_softmax(-1)
    return Quality(
        error=float(((found - reference).square().mean() / spread).sqrt()),
        kl_nats=float((expected * (log_expected - found.log_softmax(-1))).sum(-1).mean()),
        agreement=float((found.argmax(-1) == reference.argmax(-1)).double().mean()),
        positions=len(reference),
    )


def check(name: str, kind: str, quality: Quality, against: str) -> str:
    """Say how near the logits are.

    Raises:
        CheckFailed: they differ by more than the weights' format explains.
    """
    allowed = TOLERANCE[kind]
    if not quality.error <= allowed:
        raise CheckFailed(f"{name}: logits are {quality.error:.2g} standard deviations from {against}, allowed "
                          f"{allowed:g} for {kind}")  # fmt: skip
    return f"logits {quality.error:.1e} standard deviations from {against}, allowed {allowed:g}"


def same_tokens(name: str, found_NV: Tensor, other_NV: Tensor, other: str) -> str:
    """Say that two rungs choose the same tokens.

    Raises:
        CheckFailed: they do not, though they run the same kernels.
    """
    differ = int((found_NV.argmax(-1) != other_NV.argmax(-1)).sum())
    if differ:
        raise CheckFailed(f"{name}: {differ} of {len(found_NV)} tokens are not those of {other}, whose kernels it runs")
    return f"all {len(found_NV)} tokens those of {other}"
