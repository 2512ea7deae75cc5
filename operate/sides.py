"""One side of a comparison: runs of one thing, and what is not the same on two sides beside the numbers."""

import json as documents
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labs.comparison import in_turn
from labs.results import Measurement, Record
from operate.problem import Problem
from operate.report.folder import Run, load
from operate.runs import find_run, newest_first, read_run

_RUN = re.compile(r"\d{8}-\d{6}-[a-z0-9-]+")
_COMMIT = re.compile(r"[0-9a-f]{4,40}(-dirty)?")
Key = tuple[str, str, str, int]
"""Workload, node, the row's name, and which of the rows of that name."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Runs of one thing, oldest first."""

    name: str
    """As it was asked for."""
    runs: tuple[Run, ...]

    @property
    def workloads(self) -> set[str]:
        """Names of those that left a record."""
        return {record.workload for run in self.runs for record in run.records}

    def rows(self) -> dict[Key, list[Measurement]]:
        """What each row came to, run by run; a row that a run lacks is missing for it."""
        found: dict[Key, list[Measurement]] = {}
        for run in self.runs:
            seen: Counter[tuple[str, str, str]] = Counter()
            for record in run.records:
                for row in record.measurements:
                    name = (record.workload, record.node, row.name)
                    found.setdefault((*name, seen[name]), []).append(row)
                    seen[name] += 1
        return found


def choose_side(text: str, lab: str = "") -> Side:
    """The runs of one side: names, commits and stacks, with commas between them.

    Raises:
        Problem: one of them names no run that has ended; ValueError: it can be no name at all.
    """
    found: dict[str, Run] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        for run in _named(word, lab):
            found[run.name] = run
    if not found:
        raise ValueError(f"side={text!r} names no run: write runs of one thing with commas between them, "
                         "a commit, or a stack")  # fmt: skip
    return Side(name=text, runs=tuple(found[name] for name in sorted(found)))


def _named(word: str, lab: str) -> list[Run]:
    if _RUN.fullmatch(word):
        return [load(find_run(run=word).folder)]
    if _COMMIT.fullmatch(word):
        what, key = f"commit {word}", "commit"
    elif re.fullmatch(r"\w+Stack(-[a-z0-9-]+)?", word):
        what, key = f"stack {word}", "stack"
    else:
        raise ValueError(f"side={word!r} is neither a run, a commit nor a stack: write 20261120-093000-lab3, "
                         "01bfd96 or Lab3Stack, for example")  # fmt: skip
    runs = [read_run(folder) for folder in newest_first()]
    runs = [run for run in runs if run.document.get("ended") and lab in ("", str(run.document.get("lab")))]
    exact = key == "stack"
    mine = [run for run in runs if _fits(str(run.document.get(key) or ""), word, exact=exact)]
    if not mine:
        of = f" of Lab {lab}" if lab else ""
        raise Problem(f"no run here{of} is of {what}", "`ls results` shows the runs, and each one's run.json its own")
    return [load(run.folder) for run in mine]


def _fits(value: str, word: str, *, exact: bool) -> bool:
    """A commit may be given by its beginning; with "-dirty" it is another tree, and never meant without it."""
    if exact:
        return value == word
    commit, dirty = value.removesuffix("-dirty"), value.endswith("-dirty")
    return commit.startswith(word.removesuffix("-dirty")) and dirty == word.endswith("-dirty")


def taken_in_turn(base: Side, other: Side) -> bool:
    """Whether the runs of both sides, by the time that their names tell, were taken in turn."""
    order = sorted([(run.name, "A") for run in base.runs] + [(run.name, "B") for run in other.runs])
    return in_turn([side for _, side in order])


def differences(base: Side, other: Side) -> dict[str, tuple[str, str]]:
    """What is not the same on both sides beside the numbers: commit, machine, versions, a workload's configuration."""
    both = base.workloads & other.workloads
    before, after = _facts(base, both), _facts(other, both)
    return {
        what: (_listed(before.get(what)), _listed(after.get(what)))
        for what in dict.fromkeys([*before, *after])
        if before.get(what) != after.get(what)
    }


def _facts(side: Side, workloads: set[str]) -> dict[str, set[str]]:
    facts: dict[str, set[str]] = {}
    for record in (record for run in side.runs for record in run.records if record.workload in workloads):
        for what, value in _told(record):
            facts.setdefault(what, set()).add(str(value))
    return facts


def _told(record: Record) -> Iterator[tuple[str, Any]]:
    machine = record.machine
    yield "commit", (record.git_commit or "unknown")[:12]
    yield "instance type", machine.instance_type or "none"
    yield "device", f"{machine.devices} × {machine.device}"
    yield "machine", machine.hostname
    yield "driver", machine.driver or "none"
    yield "nodes and ranks", f"{record.nodes} and {record.ranks}"
    yield from machine.versions.items()
    for name, value in record.config.items():
        yield f"{record.workload}'s {name}", documents.dumps(value)


def _listed(values: set[str] | None) -> str:
    shown = sorted(values or {"not told"})
    return ", ".join(text if len(text) <= 60 else f"{text[:59]}…" for text in shown)
