"""Two regimes in which a device computes: a burst at its boost clock, and what it sustains at its power cap.

A GPU that has idled runs its first milliseconds at the top clock; kept busy it reaches its power cap within a second,
and the clock sinks until the power fits. One number for both is neither. A burst is timed in short groups, on a GPU
after an idle gap, and where the device tells its clock, a group counts only if it was at boost while it ran.
Sustained is back to back for seconds, of which the first half is thrown away.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from workloads.device import Device, time_each
from workloads.nvml import Gauge

Regime = Literal["burst", "sustained"]
Reading = tuple[float, float | None, float | None]
"""Seconds since the first, MHz and W at one moment."""

GROUP = 5
"""Products timed after each idle gap, at most."""
LEAD = 2
"""Products before them that are not timed: a device that wakes up shows in the first."""
GAP_S = 0.02
"""Idle gap of a GPU before a group: long enough for the power average to sink. A CPU gets none: its clock is not
told, and the library's threads would fall asleep and be waked at the measurement's cost."""
BOOST = 0.98
"""Share of the top clock that counts as boost."""
PATIENCE = 3
"""Groups that are tried for each one wanted, where the clock is not at boost."""
CHUNK_S = 0.05
"""Sustained: products are queued this many seconds' worth at a time."""
SETTLED = 1.01
"""Sustained: the last samples may be this much slower than those before."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The samples of one shape in one regime, and what the device told meanwhile."""

    regime: Regime
    samples_s: tuple[float, ...]
    clock_mhz: float | None = None
    """Median SM clock of the samples kept."""
    top_mhz: float | None = None
    """The highest clock that the device may take."""
    discarded: int = 0
    """Burst samples thrown away because the clock was not at boost."""
    joules: float | None = None
    """Energy of one product, sustained only."""
    settled: bool = True
    """Sustained: the pace held until the end."""
    held_by: tuple[str, ...] = ()
    """What kept the clock down at the end of a sustained stretch."""
    trace: tuple[Reading, ...] = ()
    """Sustained: what the device told from the first product on, the half that was thrown away included."""
    cap_w: float | None = None
    """The power that the driver holds the device to."""

    @property
    def median_s(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples_s)

    @property
    def verified(self) -> str:
        """Whether the clock was at boost: "yes", "no" or "not told"."""
        if self.clock_mhz is None or self.top_mhz is None:
            return "not told"
        return "yes" if self.clock_mhz >= BOOST * self.top_mhz else "no"

    @property
    def told(self) -> dict[str, Any]:
        """For a record's row: the regime by name, and what the device told."""
        told: dict[str, Any] = {"regime": self.regime, "clock_mhz": self.clock_mhz, "boost_verified": self.verified}
        if self.regime == "burst":
            return {**told, "discarded": self.discarded}
        watts = None if self.joules is None else self.joules / self.median_s
        told |= {"joules": self.joules, "power_w": watts, "settled": self.settled, "held_by": self.held_by}
        return {**told, "trace": self.trace, "top_mhz": self.top_mhz, "cap_w": self.cap_w} if self.trace else told


def burst(device: Device, gauge: Gauge, step: Callable[[], object], count: int) -> Taken:
    """At least `count` samples at boost clock; where the device never reaches it, those it gave, and `verified` no."""
    kept: list[tuple[float, tuple[float, ...]]] = []
    other: list[tuple[float, tuple[float, ...]]] = []
    top_mhz = gauge.top_mhz
    size = min(count, GROUP)
    groups = -(-count // size)
    for _ in range(PATIENCE * groups):
        if len(kept) == groups:
            break
        clock_mhz, samples_s = _group(device, gauge, step, size)
        boosted = clock_mhz is None or top_mhz is None or clock_mhz >= BOOST * top_mhz
        (kept if boosted else other).append((clock_mhz or 0.0, samples_s))
    used = kept or other
    clock = statistics.median(clock_mhz for clock_mhz, _ in used)
    return Taken(
        regime="burst", samples_s=tuple(sample for _, samples_s in used for sample in samples_s),
        clock_mhz=clock or None, top_mhz=top_mhz, discarded=size * len(other) if kept else 0,
    )  # fmt: skip


def _group(device: Device, gauge: Gauge, step: Callable[[], object], size: int
           ) -> tuple[float | None, tuple[float, ...]]:  # fmt: skip
    """The clock while a group of samples ran, after an idle gap, and the samples."""
    clocks: list[float | None] = []
    device.synchronize()
    if device.cuda:
        time.sleep(GAP_S)
    samples_s = time_each(device, step, size, lead=LEAD, meanwhile=lambda: clocks.append(gauge.clock_mhz))
    return clocks[0], samples_s


def sustained(device: Device, gauge: Gauge, step: Callable[[], object], seconds: float) -> Taken:
    """`seconds` of products back to back, the second half of them kept; at least two samples, however slow."""
    chunk = max(1, int(CHUNK_S / max(time_each(device, step, 1, lead=1)[0], 1e-6)))
    begin = time.perf_counter()
    _, early = _stretch(device, gauge, step, chunk, begin + seconds / 2)
    before_j = gauge.energy_j
    samples, late = _stretch(device, gauge, step, chunk, begin + seconds)
    after_j = gauge.energy_j
    half = len(samples) // 2
    told = [clock_mhz for _, clock_mhz, _ in late if clock_mhz is not None]
    begun = early[0][0]
    trace = [(round(at - begun, 4), mhz, watts) for at, mhz, watts in (*early, *late) if mhz or watts]
    return Taken(
        regime="sustained", samples_s=tuple(samples), clock_mhz=statistics.median(told) if told else None,
        top_mhz=gauge.top_mhz, held_by=gauge.held_by,
        joules=None if before_j is None or after_j is None else (after_j - before_j) / len(samples),
        settled=statistics.median(samples[half:]) <= SETTLED * statistics.median(samples[:half]),
        trace=tuple(trace), cap_w=gauge.cap_w,
    )  # fmt: skip


def _stretch(device: Device, gauge: Gauge, step: Callable[[], object], chunk: int, until: float
             ) -> tuple[list[float], list[Reading]]:  # fmt: skip
    """Products until that moment of the clock, and at least two, with a reading of clock and power for every chunk."""
    samples: list[float] = []
    told: list[Reading] = []

    def look() -> None:
        told.append((time.perf_counter(), gauge.clock_mhz, gauge.power_w))

    while len(samples) < 2 or time.perf_counter() < until:
        samples += time_each(device, step, chunk, meanwhile=look)
    return samples, told
