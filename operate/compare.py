"""Two sides of runs, row beside row: which is faster, by how much, and whether the runs suffice to say so.

A side is one run or several of the same thing, named one by one, by the commit they ran or by the stack they ran on.
A row is matched by workload, node, name and configuration; what else differs between the sides is said first.
"""

import json as documents
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.table import Table
from rich.text import Text

from labs.comparison import ENOUGH, Comparison, compare, more_needed
from labs.results import Measurement
from operate.problem import Problem
from operate.report.quantity import quantity, rounded
from operate.screen import Screen
from operate.sides import Key, Side, choose_side, differences, taken_in_turn

_SHOWN = 24
_COLOURS = {"faster": "green", "slower": "red", "more": "yellow", "less": "yellow", "same": ""}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of both sides."""

    workload: str
    node: str
    name: str
    unit: str
    base: tuple[float, ...]
    """Value of each run."""
    other: tuple[float, ...]
    speed: bool
    """Whether `ratio` is of speeds (a time counts inversely), so that above 1 is faster; else of the values."""
    found: Comparison | None
    """None where there is no ratio; `verdict` says why."""
    verdict: str
    """"faster", "slower", "more", "less", "same", or why nothing can be said."""

    @property
    def told(self) -> bool:
        """Whether the runs sufficed for a verdict."""
        return self.verdict in _COLOURS

    @property
    def said(self) -> str:
        """The verdict with its size: "12 % faster"."""
        if self.found is None or not self.told or self.verdict == "same":
            return self.verdict
        return f"{rounded(100 * abs(self.found.ratio - 1), 2)} % {self.verdict}"


def show_comparison(base: str, other: str, screen: Screen, *, lab: str, floor: str, json: bool) -> None:
    """Print what differs between both sides, row by row (with `json`: all of it, on stdout).

    Raises:
        Problem: a side names no run; ValueError: a name that is none.
    """
    sides = choose_side(base, lab), choose_side(other, lab)
    more = choose_side(floor, lab) if floor else None
    if shared := {run.name for run in sides[0].runs} & {run.name for run in sides[1].runs}:
        raise Problem(f"{min(shared)} stands on both sides", "name each run once")
    unlike, turns = differences(*sides), taken_in_turn(*sides)
    lines = list(compare_rows(*sides, more, turns=turns))
    if json:
        print(documents.dumps(as_json(sides, unlike, turns, lines), indent=1))
        return
    for letter, side in zip("AB", sides, strict=True):
        names = [run.name for run in side.runs]
        screen.note(f"{letter}: {names[0] if len(names) == 1 else f'{len(names)} runs, {names[0]} to {names[-1]}'}")
    for what, (before, after) in unlike.items():
        screen.console.print(Text(f"differs: {what}: {before} → {after}", style="yellow"), soft_wrap=True)
    screen.console.print(_table(lines))
    for text in _conclusions(sides, lines, turns):
        screen.note(text)


def compare_rows(base: Side, other: Side, more: Side | None, *, turns: bool) -> Iterator[Line]:
    """Every row that either side has, in the order of the records."""
    before, after = base.rows(), other.rows()
    further = more.rows() if more else {}
    for key in dict.fromkeys([*before, *after]):
        yield _line(key, before.get(key, []), after.get(key, []), further.get(key, []), turns=turns)


def _line(
    key: Key, base: Sequence[Measurement], other: Sequence[Measurement], more: Sequence[Measurement], *, turns: bool
) -> Line:
    workload, node, name, _ = key
    unit = (base or other)[0].unit
    speed = unit == "s" or unit.endswith("/s")
    sides = tuple(tuple(row.value for row in rows) for rows in (base, other))
    found, verdict = None, _why_not(base, other)
    if not verdict:
        turn: Callable[[float], float] = (lambda value: 1 / value) if unit == "s" else (lambda value: value)
        found = compare(*([turn(row.value) for row in rows] for rows in (base, other, more)))
        words = {"higher": "faster", "lower": "slower"} if speed else {"higher": "more", "lower": "less"}
        verdict = words.get(found.verdict, found.verdict)
        verdict = "not taken in turn" if found.floor is not None and not turns else verdict
    return Line(workload=workload, node=node, name=name, unit=unit, base=sides[0], other=sides[1], speed=speed,
                found=found, verdict=verdict)  # fmt: skip


def _why_not(base: Sequence[Measurement], other: Sequence[Measurement]) -> str:
    """Why two sides of a row have no ratio; "" where they have one."""
    if not base or not other:
        return "only in B" if other else "only in A"
    if any(row.suspect for row in (*base, *other)):
        return "measuring error"
    if any(row.unit != base[0].unit or row.value <= 0 for row in (*base, *other)):
        return "no ratio"
    for name in dict.fromkeys([*base[0].config, *other[0].config]):
        before, after = ({documents.dumps(row.config.get(name)) for row in rows} for rows in (base, other))
        # A float was measured, and so was what differs among the runs of one side: neither is configuration.
        floats = any(isinstance(row.config.get(name), float | list) for row in (*base, *other))
        if before != after and len(before) == len(after) == 1 and not floats:
            return f"other configuration: {name} {min(before)} → {min(after)}"
    return ""


def _table(lines: Sequence[Line]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("what", overflow="fold")
    for head in ("A", "B", "B ÷ A", "95 % of it", "noise"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    for line in _worth_showing(lines):
        name = f"{line.workload} · {line.name}" + (f" · {line.node}" if line.node and _several(lines) else "")
        found = line.found
        interval = f"{found.low:.3f} to {found.high:.3f}" if found and found.low and found.high else "–"
        floor = f"{rounded(100 * found.floor, 2)} %" if found and found.floor is not None else "–"
        cells = [_middle(line.base, line.unit), _middle(line.other, line.unit), f"{found.ratio:.3f}" if found else "–"]
        table.add_row(name, *cells, interval, floor, Text(line.said, style=_COLOURS.get(line.verdict, "dim")))
    return table


def _several(lines: Iterable[Line]) -> bool:
    return len({line.node for line in lines if line.node}) > 1


def _middle(values: Sequence[float], unit: str) -> str:
    return quantity(median(values), unit) if values else "–"


def _worth_showing(lines: Sequence[Line]) -> list[Line]:
    """Rows of both sides, in the records' order; where there are too many, those that differ most."""
    both = [line for line in lines if line.base and line.other]
    order = sorted(range(len(both)), key=lambda at: _rank(both[at]))[:_SHOWN]
    return [both[at] for at in sorted(order)]


def _rank(line: Line) -> tuple[bool, bool, float]:
    distance = abs(line.found.ratio - 1) if line.found else 0.0
    return line.verdict == "same" or not line.told, line.found is None, -distance


def _conclusions(sides: tuple[Side, Side], lines: Sequence[Line], turns: bool) -> Iterator[str]:
    hidden = sum(bool(line.base and line.other) for line in lines) - _SHOWN
    if hidden > 0:
        yield f"… {hidden} more rows, none with a larger difference of its kind: --json has them all"
    if any(line.speed for line in lines):
        yield "B ÷ A is of speeds: a time counts inversely, above 1 B is the faster one"
    for which in ("only in A", "only in B"):
        alone = Counter(line.workload for line in lines if line.verdict == which)
        if alone:
            yield f"{which}: {', '.join(f'{count} rows of {name}' for name, count in alone.items())}"
    counted = Counter(line.verdict.partition(":")[0] for line in lines)
    yield f"{len(lines)} rows: {', '.join(f'{count} {verdict}' for verdict, count in counted.most_common())}"
    missing = _missing(sides, lines)
    if any(missing):
        wanted = " and ".join(f"{count} more of {letter}" for letter, count in zip("AB", missing, strict=True) if count)
        yield f"not enough runs to tell: {ENOUGH} a side, so {wanted}, taken in turn (A B A B …)"
    elif not turns:
        yield "the runs were not taken in turn: a machine that drifts looks like a difference; run A B A B …"


def _missing(sides: tuple[Side, Side], lines: Sequence[Line]) -> tuple[int, int]:
    """How many more runs each side needs for every row that both have; a run may have left some of them out."""
    both = [line for line in lines if line.found]
    base = min((len(line.base) for line in both), default=len(sides[0].runs))
    other = min((len(line.other) for line in both), default=len(sides[1].runs))
    return more_needed(base, other)


def as_json(
    sides: tuple[Side, Side], unlike: dict[str, tuple[str, str]], turns: bool, lines: Sequence[Line]
) -> dict[str, Any]:
    """What `fab compare --json` prints."""
    return {
        "sides": [{"asked": side.name, "runs": [run.name for run in side.runs]} for side in sides],
        "differences": {what: list(values) for what, values in unlike.items()},
        "in_turn": turns,
        "more_runs_needed": list(_missing(sides, lines)),
        "rows": [{**asdict(line), "said": line.said} for line in lines],
    }
