"""One row of a benchmark's table: what ran, what it ran beside, and whether the ratio meets its goal."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Result:
    """Two medians from interleaved runs, and their ratio."""

    name: str
    """What was measured, for example "8 warm nodes, one command"."""
    samples_s: tuple[float, ...]
    """Ours, in order."""
    peer: str
    """What it ran beside, for example "Fabric's ThreadingGroup"."""
    peer_samples_s: tuple[float, ...]
    faster: bool = False
    """Whether `ratio` is peer ÷ ours (how much faster we are), not ours ÷ peer."""
    goal: float | None = None
    """The ratio wanted: at least this where `faster`, else at most. None: reported only."""
    goal_s: float | None = None
    """The most seconds that our median may take, where the goal is no ratio."""

    @property
    def ratio(self) -> float:
        """Ratio of the medians."""
        ours, peer = statistics.median(self.samples_s), statistics.median(self.peer_samples_s)
        return peer / ours if self.faster else ours / peer

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal_s is not None:
            return statistics.median(self.samples_s) <= self.goal_s
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.faster else self.ratio <= self.goal

    def as_json(self) -> dict[str, object]:
        """For the file under docs/measurements."""
        return {
            "name": self.name,
            "peer": self.peer,
            "median_s": statistics.median(self.samples_s),
            "peer_median_s": statistics.median(self.peer_samples_s),
            "ratio": self.ratio,
            "ratio_is": "peer / ours" if self.faster else "ours / peer",
            "goal": self.goal,
            "goal_s": self.goal_s,
            "met": self.met,
            "samples_s": self.samples_s,
            "peer_samples_s": self.peer_samples_s,
        }


def in_turn(
    subjects: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, tuple[float, ...]]:
    """Seconds of each subject, all of them in every round, so that what disturbs the machine disturbs them alike.

    `before` prepares a subject and is not timed.
    """
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(warmup + rounds):
        for name, subject in subjects.items():
            if before and name in before:
                before[name]()
            start = time.perf_counter()
            subject()
            elapsed_s = time.perf_counter() - start
            if number >= warmup:
                samples[name].append(elapsed_s)
    return {name: tuple(taken) for name, taken in samples.items()}
