"""What came of one path: its step beside what was foretold of it, as rows of a record."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from labs.latency import Fit
from labs.results import Measurement, Roof, Span
from workloads.exchange.between import Between
from workloads.exchange.paths import Path
from workloads.exchange.timing import Timed


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One path's steps beside what was foretold of them."""

    path: Path
    timed: Timed
    line: Fit | None
    """The path's own latency and rate, of buffers in fp32."""
    lines: dict[int, float]
    """Seconds by bytes that they are from."""
    talk_s: float | None
    """Predicted for the communication with nothing else going on."""
    quiet_s: float
    """Of the step with no exchange, on all ranks together."""

    @property
    def median_s(self) -> float:
        """Of the step."""
        return statistics.median(self.timed.samples_s)

    @property
    def expected(self) -> Roof | None:
        """The step with nothing hidden."""
        if self.talk_s is None or self.line is None:
            return None
        rate = f"{self.line.alpha_s * 1e6:.0f} µs and {self.line.bytes_per_s / 1e6:.1f} MB/s measured alone"
        return Roof(value=self.quiet_s + self.talk_s,
                    source=f"the step with nothing sent {self.quiet_s * 1e3:.1f} ms, then its buckets by this path, "
                           f"{self.talk_s * 1e3:.1f} ms ({rate}), nothing hidden")  # fmt: skip

    @property
    def exposed_s(self) -> float:
        """What the step takes beyond the one with no exchange."""
        return max(0.0, self.median_s - self.quiet_s)

    @property
    def hidden(self) -> float | None:
        """Share of the communication that costs nothing."""
        return None if not self.talk_s else max(0.0, 1 - self.exposed_s / self.talk_s)


def rows(outcome: Outcome, size: int, link: Between, common: dict[str, object]) -> Iterator[Measurement]:
    """The step and, where anything is sent, the bytes; `size`: of the gradients in fp32, `common`: of every row."""
    path = outcome.path
    crossing, checked = path.crosses(size), "sums exact; bytes counted as predicted; parameters bitwise equal"
    config = {
        **common, "strategy": path.name, "ranks": len(path.ranks), "quiet_s": outcome.quiet_s,
        "talk_s": outcome.talk_s, "exposed_s": outcome.exposed_s, "hidden": outcome.hidden,
        "sent_bytes": outcome.timed.traffic.sent_bytes, "crossing_bytes": crossing,
        "alpha_s": outcome.line.alpha_s if outcome.line else None,
        "bytes_per_s": outcome.line.bytes_per_s if outcome.line else None, "times_s": outcome.lines,
    }  # fmt: skip
    how = "measured: the same step with nothing sent, all ranks at once"
    parts = {"arithmetic": outcome.median_s - outcome.exposed_s, "exposed communication": outcome.exposed_s}
    spans = sorted((Span(name=name, seconds=part, how=how if name == "arithmetic" else "measured: the rest")
                    for name, part in parts.items()), key=lambda span: -span.seconds)  # fmt: skip
    roof, why = wire_roof(crossing, link)
    yield Measurement(
        name=f"step: {path.name}", value=outcome.median_s, unit="s", config=config, spans=tuple(spans),
        estimator=f"median of {len(outcome.timed.samples_s)}, slowest rank of each", checked=checked,
        samples_s=outcome.timed.samples_s, roof=roof, no_roof_because=why, expected=outcome.expected,
    )  # fmt: skip
    predicted = path.calls(size).sent_bytes
    if predicted:
        yield Measurement(
            name=f"sent: {path.name}", value=outcome.timed.traffic.sent_bytes, unit="B",
            estimator="counted in one step, on the first rank", config=config,
            no_roof_because="bytes are counted, not timed", checked="counted as predicted, on every rank",
            expected=Roof(value=predicted, source="predicted: the least that its collectives must send"),
        )  # fmt: skip


def quiet_row(name: str, timed: Timed, ranks: int, common: dict[str, object]) -> Measurement:
    """A step in which nothing is sent."""
    median_s = statistics.median(timed.samples_s)
    how = "measured: nothing is sent"
    return Measurement(
        name=f"step: {name}", value=median_s, unit="s", samples_s=timed.samples_s,
        estimator=f"median of {len(timed.samples_s)}, slowest rank of each",
        config={**common, "strategy": name, "ranks": ranks, "sent_bytes": 0},
        no_roof_because="nothing is sent: its arithmetic's roof is the train-step workload's",
        spans=(Span(name="arithmetic", seconds=median_s, how=how),),
    )  # fmt: skip


def wire_roof(crossing: float, link: Between) -> tuple[Roof | None, str]:
    """The least time of what leaves each node, or None and why."""
    if crossing == 0:
        return None, "nothing leaves the node"
    if link.bytes_per_s is None:
        return None, link.source
    return Roof(value=crossing / link.bytes_per_s,
                source=f"{crossing / 1e6:.2f} MB must leave each node over {link.name}: {link.source}"), ""  # fmt: skip


def outcome_line(outcome: Outcome) -> str:
    """What came of a path, for the log."""
    hidden = "" if outcome.hidden is None else f", {outcome.hidden:.0%} of the communication hidden"
    wanted = "" if outcome.expected is None else f" (expected {outcome.expected.value * 1e3:.1f} ms)"
    sent = f"{outcome.timed.traffic.sent_bytes / 1e6:.2f} MB sent, counted as predicted"
    return (f"{outcome.path.name}: step {outcome.median_s * 1e3:.1f} ms{wanted}, "
            f"of it {outcome.exposed_s * 1e3:.1f} ms exposed{hidden}; {sent}")  # fmt: skip
