"""Time of a message by its size: t = α + s/β, and how well that describes what was measured.

α is the latency of a message of no bytes, β the rate that a long one approaches, and n½ = α·β the size at which half of
that rate is reached (Hockney, Parallel Computing 20, 1994). Small messages weigh as much as large ones: what is made
least is the sum of the squares of the relative residuals. A library that changes its protocol with the size does not
follow one line: that shows in the residuals.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The line through one series of sizes."""

    alpha_s: float
    """Seconds of a message of no bytes, at least 0."""
    bytes_per_s: float
    """β: the rate that long messages approach."""
    residuals: tuple[float, ...]
    """Of each size, in order: measured ÷ fitted time − 1."""

    @property
    def half_bytes(self) -> float:
        """n½: the message whose time is half latency, so that it travels at half of β."""
        return self.alpha_s * self.bytes_per_s

    @property
    def worst(self) -> float:
        """The largest residual, whatever its sign."""
        return max(abs(residual) for residual in self.residuals)

    def time_s(self, size_bytes: float) -> float:
        """What the line says of a size."""
        return self.alpha_s + size_bytes / self.bytes_per_s


def fit(sizes_bytes: Sequence[float], times_s: Sequence[float]) -> Fit | None:
    """The line through those times, which are positive; None where they do not grow with the size."""
    assert len(sizes_bytes) == len(times_s)
    if len(set(sizes_bytes)) < 2:
        return None
    # Weighted by 1/t², the normal equations of α and 1/β.
    ones = sum(1 / time**2 for time in times_s)
    mixed = sum(size / time**2 for size, time in zip(sizes_bytes, times_s, strict=True))
    squares = sum(size**2 / time**2 for size, time in zip(sizes_bytes, times_s, strict=True))
    left, right = sum(1 / time for time in times_s), sum(size / time for size, time in zip(sizes_bytes, times_s,
                                                                                         strict=True))  # fmt: skip
    determinant = ones * squares - mixed**2
    alpha_s = (left * squares - right * mixed) / determinant
    slope = (ones * right - mixed * left) / determinant
    if alpha_s < 0:
        alpha_s, slope = 0.0, right / squares
    if slope <= 0:
        return None
    residuals = [time / (alpha_s + slope * size) - 1 for size, time in zip(sizes_bytes, times_s, strict=True)]
    return Fit(alpha_s=alpha_s, bytes_per_s=1 / slope, residuals=tuple(residuals))
