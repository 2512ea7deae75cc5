"""What saves have cost, and what follows: the gain, the notice that they must fit into, how often to save."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from labs.models import find_model
from labs.results import Measurement, Roof, Span
from labs.roofs import Bound
from labs.survival import NOTICE_S, STATE_BYTES
from workloads.training.interruption import Cost, Saves
from workloads.training.savers import ASIDE, ASYNCHRONOUS, PLAIN, SYNCHRONOUS


@dataclass(frozen=True, kw_only=True)
class Taken:
    """All ways."""

    bytes: int
    """Of the state."""
    saves: tuple[Saves, ...]

    @property
    def noise_s(self) -> float:
        """Median over all saves of how far the steps alone beside them differ."""
        return statistics.median(cost.noise_s for saves in self.saves for cost in saves.costs)

    def later_s(self, way: str) -> float:
        """Median blocked seconds of a way after its first save; of that where there is no other."""
        saves = next(saves for saves in self.saves if saves.name == way)
        return statistics.median(cost.blocked_s for cost in saves.costs[1:] or saves.costs)


def blocked(name: str, saves: Saves, costs: Sequence[Cost], taken: Taken, row: dict[str, object], storage: Bound,
            floor: Roof | None) -> Measurement:  # fmt: skip
    """Wall time that saves by one way have cost, and what it is made of."""
    ordered = sorted(costs, key=lambda cost: cost.blocked_s)
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    lost, called, waited = (
        statistics.fmean(values)
        for values in zip(*((one.blocked_s, one.saving.called_s, one.saving.waited_s) for one in middle), strict=True)
    )
    sync = saves.name in (PLAIN, SYNCHRONOUS)
    least = Roof(value=taken.bytes / storage.roof.value, source=storage.roof.source) if storage.roof and sync else None
    return Measurement(
        name=name, value=lost, unit="s", estimator=f"median of {len(costs)}: wall time of steps with one save − of as "
        f"many without, ±{taken.noise_s:.3f} s",
        config={**row, "kind": "blocked", "way": saves.name, "first": name.startswith("first"), "called_s": called,
                "written_s": [one.saving.written_s for one in costs], "noise_s": taken.noise_s,
                "ends_s": list(middle[0].saving.ends_s)},
        samples_s=tuple(one.blocked_s for one in costs), checked=saves.checked, roof=least,
        no_roof_because="" if least else (storage.no_roof_because if sync else
                                          "a copy in memory needs no disk, and its floor here is measured"),
        others=() if sync or floor is None else (Roof(value=2 * taken.bytes / floor.value, source=floor.source),),
        spans=(Span(name="the call", seconds=called, how="measured: wall clock"),
               Span(name="waiting for the copy", seconds=waited, how="measured: wall clock"),
               Span(name="slower steps while it is written", seconds=lost - called - waited, how="measured: the rest")),
    )  # fmt: skip


def gains(taken: Taken, row: dict[str, object]) -> Iterator[Measurement]:
    """How much less each asynchronous way blocks than torch.save; noise bounds what can be claimed, and where
    torch.save itself is lost in it there is nothing to claim."""
    plain = taken.later_s(PLAIN)
    if plain <= taken.noise_s:
        return
    for way in (ASYNCHRONOUS, ASIDE):
        mine = taken.later_s(way)
        least = max(mine, taken.noise_s, 1e-6)
        at_least = "at least: blocked time is below the noise; " if mine < taken.noise_s else ""
        yield Measurement(
            name=f"gain of {way}", value=plain / least, unit=f"× less than {PLAIN}",
            estimator=f"{at_least}medians of later saves", config={**row, "kind": "gain", "way": way},
            no_roof_because="a ratio of two measurements, each beside its own floor",
        )  # fmt: skip


def notices(taken: Taken, names: Iterable[str]) -> Iterator[Measurement]:
    """Whether the states of those models can still be written when EC2 gives notice, at the fastest rate of all."""
    rate = taken.bytes / min(cost.saving.written_s for saves in taken.saves for cost in saves.costs)
    for name in dict.fromkeys(names):
        needed = STATE_BYTES * find_model(name).parameters
        yield Measurement(
            name=f"notice, {name}", value=needed / rate, unit="s", estimator="bytes ÷ the fastest rate written here",
            config={"kind": "notice", "model": name, "bytes": needed, "notice_s": NOTICE_S,
                    "fits": needed / rate <= NOTICE_S},
            no_roof_because="reckoned from the rate written here, which stands beside its own roof",
            others=(Roof(value=NOTICE_S, source="a spot instance's notice"),),
        )  # fmt: skip


def interval(taken: Taken, row: dict[str, object], mtbf_hours: float) -> Measurement:
    """How often to save, by Young (1974) and Daly (2006): as much time is then lost to saving as to work done twice."""
    cost = max(taken.later_s(ASIDE), taken.noise_s, 1e-3)
    between = 3600 * mtbf_hours
    every = math.sqrt(2 * cost * between)
    return Measurement(
        name="save every", value=every, unit="s", estimator="√(2 · blocked · time between failures)",
        config={**row, "kind": "interval", "blocked_s": cost, "mtbf_hours": mtbf_hours,
                "lost_share": cost / every + every / (2 * between)},
        no_roof_because=f"an optimum, for one interruption in {mtbf_hours:g} h, which is assumed",
    )  # fmt: skip
