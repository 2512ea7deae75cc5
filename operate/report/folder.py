"""One run as it lies in results/<run>/: what was planned, what came back, what is missing and why."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labs.catalog import EXTRA, LABS
from labs.results import Measurement, Record, read
from operate import crowd
from operate.problem import Problem
from operate.verdict import went_on

_LOG_BYTES = 64 * 1024
_LOG_LINES = 24
_LINE_CHARACTERS = 400
_TERMINAL_CODES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
_RUN = re.compile(r"\d{8}-\d{6}-(lab(?P<lab>\d+)|own)")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One workload of a run: what it left behind on every node."""

    name: str
    scope: str
    """"node" or "cluster"."""
    exits: dict[str, int | None]
    """Exit code by node; None where the node never told one."""
    seconds: float | None
    """Wall time."""
    records: tuple[Record, ...]
    missing: tuple[str, ...]
    """File names of the records that should be there and are not."""
    unreadable: tuple[str, ...]
    """One line for each record that is there and cannot be read."""
    log_ends: dict[str, str]
    """Last lines of the log, by node; filled only for what failed."""
    pending: bool = False
    """The run has not ended, and nothing of this workload has come back."""

    @property
    def ok(self) -> bool:
        """Nothing went wrong: no exit code but 0, no record missing or unreadable."""
        return not (self.missing or self.unreadable) and all(code == 0 for code in self.exits.values())

    @property
    def anchor(self) -> str:
        """The name as an id on the page."""
        return re.sub(r"[^\w.-]+", "-", self.name)

    @property
    def suspects(self) -> tuple[tuple[Record, Measurement], ...]:
        """Measurements over 100 % of their roof."""
        return tuple((record, row) for record in self.records for row in record.measurements if row.suspect)

    @property
    def faults(self) -> tuple[str, ...]:
        """What went wrong, a line each."""
        ended = crowd.lines(
            {
                node: "did not end" if code is None else f"exit code {code}"
                for node, code in self.exits.items()
                if code != 0
            }
        )
        missing = crowd.cut([f"no record: {name}" for name in self.missing])
        return (*ended, *missing, *crowd.cut(self.unreadable))


@dataclass(frozen=True, kw_only=True)
class Run:
    """All of results/<run>/ that a report needs."""

    folder: Path
    facts: dict[str, Any]
    """run.json, or {} where there is none."""
    parts: tuple[Part, ...]
    receipt: dict[str, Any] | None
    complaints: tuple[str, ...]
    """What is wrong with the folder itself."""

    @property
    def name(self) -> str:
        """The run's id."""
        return str(self.facts.get("run") or self.folder.resolve().name)

    @property
    def lab(self) -> int | None:
        """The lab's number, from run.json or else from a record."""
        if isinstance(self.facts.get("lab"), int):
            return int(self.facts["lab"])
        return next((record.lab for record in self.records if record.lab is not None), None)

    @property
    def records(self) -> tuple[Record, ...]:
        """Every record that came back, in the order of the lab's list."""
        return tuple(record for part in self.parts for record in part.records)

    @property
    def verdict(self) -> tuple[str, str]:
        """How it went, as ("good" | "warning" | "bad", one line)."""
        failed = [part.name for part in self.parts if not part.ok]
        suspects = sum(len(part.suspects) for part in self.parts)
        if self.facts and self.facts.get("ended") is None:
            return "warning", f"Not ended yet: `fab attach --run {self.name}` comes back to it"
        if failed:
            return "bad", f"{len(failed)} of {len(self.parts)} workloads failed: {', '.join(failed)}"
        if not self.parts:
            return "bad", "Nothing was measured"
        if self.complaints or self.facts.get("ok") is False:
            return "bad", self.complaints[0] if self.complaints else "The run ended before all was done"
        if suspects:
            return "warning", f"Measuring error: {suspects} value{'s' * (suspects > 1)} over 100 % of the roof"
        count = len(self.parts)
        which = {1: "The workload", 2: "Both workloads"}.get(count, f"All {count} workloads")
        return "good", f"{which} passed"


def load(folder: Path) -> Run:
    """Read a run's folder. What is missing or broken in it is said in the result, not raised.

    Raises:
        Problem: the folder is no run's at all.
    """
    facts, complaint = _document(folder / "run.json")
    receipt, receipt_complaint = _document(folder / "receipt.json")
    found = sorted((folder / "records").glob("*.json"))
    if complaint is None and facts is None and not found:
        raise Problem(f"{folder} holds neither run.json nor records", "give a folder that `fab run-lab` wrote")
    facts = facts or {}
    return Run(
        folder=folder,
        facts=facts,
        parts=tuple(_parts(folder, facts, found)),
        receipt=receipt,
        complaints=tuple(line for line in (complaint, receipt_complaint, *_told(facts)) if line),
    )


def newest_run(results: Path, lab: int | None = None) -> Path:
    """Folder of the newest run under `results`, of one lab or of any; run ids sort by time.

    Raises:
        Problem: there is none.
    """
    runs = [path for path in results.glob("*-*-*") if _is_run(path, lab)]
    if not runs:
        of = "" if lab is None else f" of lab {lab}"
        number = 1 if lab is None else lab
        raise Problem(f"{results} holds no run{of}", f"run one first, for example `fab run-lab --lab {number}`")
    return max(runs, key=lambda path: path.name)


def _is_run(path: Path, lab: int | None) -> bool:
    match = _RUN.fullmatch(path.name)
    return match is not None and path.is_dir() and lab in (None, int(match["lab"]) if match["lab"] else None)


def _told(facts: dict[str, Any]) -> list[str]:
    """Which nodes were lost, and what went on without them."""
    lost = facts.get("lost") or {}
    without = [line for row in facts.get("workloads") or [] if (line := went_on(row, lost))]
    return [*crowd.lines({node: f"{node} was lost: {why}" for node, why in lost.items()}), *without]


def _document(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """A JSON object and what is wrong with it; both None where there is no such file."""
    if not path.exists():
        return None, None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        return None, f"{path.name} cannot be read: {error}"
    return (found, None) if isinstance(found, dict) else (None, f"{path.name} is not a JSON object")


def _parts(folder: Path, facts: dict[str, Any], found: list[Path]) -> Iterable[Part]:
    planned = {str(row["name"]): row for row in facts.get("workloads") or []}
    for name in dict.fromkeys([*planned, *(path.name.split(".")[0] for path in found)]):
        row = planned.get(name, {})
        mine = [path for path in found if path.name.split(".")[0] == name]
        nodes = [str(node["name"]) for node in facts.get("nodes") or []]
        scope = str(row.get("scope") or ("node" if any(path.name.count(".") == 2 for path in mine) else "cluster"))
        exits = {str(node): code for node, code in (row.get("exit") or {}).items()}
        if name in planned and facts.get("ended"):
            exits = {node: exits.get(node) for node in nodes} | exits
        if went_on(row, lost := facts.get("lost") or {}):
            exits = {node: code for node, code in exits.items() if node not in lost}
        records, unreadable = _read(mine)
        due = _due(name, scope, exits) if facts.get("ended") else []
        missing = tuple(file for file in due if not (folder / "records" / file).exists())
        guilty = {node for node, code in exits.items() if code != 0}
        logs = sorted(folder.glob(f"logs/*/{name}.log")) if guilty or missing or unreadable else []
        yield Part(
            name=name,
            scope=scope,
            exits=exits,
            seconds=row.get("seconds"),
            records=records,
            missing=missing,
            unreadable=unreadable,
            log_ends={path.parent.name: _end(path) for path in logs if not guilty or path.parent.name in guilty},
            pending=bool(row) and not facts.get("ended") and not mine,
        )


def _due(name: str, scope: str, nodes: Iterable[str]) -> list[str]:
    """Files that a workload of the catalogue must leave; the user's own script need not write a record."""
    catalogue = (*EXTRA, *(workload for lab in LABS.values() for workload in lab.workloads))
    if name not in {workload.name for workload in catalogue}:
        return []
    return [f"{name}.{node}.json" for node in nodes] if scope == "node" else [f"{name}.json"]


def _read(paths: Iterable[Path]) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    records, unreadable = [], []
    for path in paths:
        try:
            records.append(read(path))
        except (ValueError, TypeError, KeyError) as error:
            unreadable.append(f"{path.name} cannot be read: {str(error).removeprefix(str(path)).strip(' :')}")
    return tuple(records), tuple(unreadable)


def _end(path: Path) -> str:
    """The last lines of a log, as a terminal would have left them."""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - _LOG_BYTES))
        text = log.read().decode("utf-8", errors="replace")
    text = _TERMINAL_CODES.sub("", text).replace("\r\n", "\n")
    lines = [line.rsplit("\r", 1)[-1] for line in text.rstrip("\n").split("\n")[-_LOG_LINES:]]
    return "\n".join(line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]} …" for line in lines)
