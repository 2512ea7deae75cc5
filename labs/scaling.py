"""How much faster n ranks are: two laws, each with one unknown, fitted to measured times by least squares.

Amdahl (strong scaling, the work stays): T(n) = T(1)·(s + (1 − s)/n). The serial share s never shrinks, so that no
number of ranks gets past 1/s. Gustafson (weak scaling, the work grows with n): with n times the work in T(n) the
speed-up is n·T(1)/T(n) = n − s·(n − 1), which has no limit. Sources: G. Amdahl, AFIPS 30 (1967) 483; J. Gustafson,
CACM 31(5) (1988) 532. Neither knows of networks or caches: what they leave over, the residuals, is the part worth
reading.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One law fitted to speed-ups."""

    law: str
    """"Amdahl" or "Gustafson"."""
    serial: float
    """s: share of the work that does not spread over ranks; below 0 where ranks gain more than their number."""
    residuals: dict[int, float]
    """Measured speed-up minus the law's, by ranks; 1 rank is the unit and has none."""

    def speedup(self, ranks: float) -> float:
        """What the law says."""
        return law_speedup(self.law, self.serial, ranks)

    @property
    def limit(self) -> float | None:
        """Most that Amdahl's law allows with any number of ranks; None for Gustafson's, or where nothing limits it."""
        return 1 / self.serial if self.law == "Amdahl" and self.serial > 0 else None

    @property
    def exact(self) -> bool:
        """One point and one unknown: the law passes through it whatever it is, and the residual says nothing."""
        return len(self.residuals) < 2


def law_speedup(law: str, serial: float, ranks: float) -> float:
    """Speed-up over one rank by Amdahl's or Gustafson's law."""
    assert law in ("Amdahl", "Gustafson")
    return 1 / (serial + (1 - serial) / ranks) if law == "Amdahl" else ranks - serial * (ranks - 1)


def fit_amdahl(speedups: Mapping[int, float]) -> Fit:
    """Least squares in time: T(n)/T(1) − 1/n = s·(1 − 1/n), as `speedups` by ranks give it; 1 rank says nothing."""
    points = [(1 - 1 / ranks, 1 / speedup - 1 / ranks) for ranks, speedup in speedups.items() if ranks > 1]
    return _fit("Amdahl", points, speedups)


def fit_gustafson(speedups: Mapping[int, float]) -> Fit:
    """Least squares in speed-up: n − S(n) = s·(n − 1)."""
    points = [(ranks - 1.0, ranks - speedup) for ranks, speedup in speedups.items() if ranks > 1]
    return _fit("Gustafson", points, speedups)


def _fit(law: str, points: list[tuple[float, float]], speedups: Mapping[int, float]) -> Fit:
    assert points, "a law needs a measurement on more than one rank"
    serial = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    residuals = {n: speedup - law_speedup(law, serial, n) for n, speedup in sorted(speedups.items()) if n > 1}
    return Fit(law=law, serial=serial, residuals=residuals)
