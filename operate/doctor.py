"""What `fab doctor` does: every node's doctor runs, its findings come home, one table shows them.

Between several nodes the doctor of connections runs first. What each of its nodes told is judged here, where all of it
is known: a culprit is named once, under `CLUSTER`, and not by every node that noticed.
"""

import json as documents
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from labs.catalog import Lab, Workload
from labs.findings import LEVELS, Finding, Level, read_finding
from labs.results import Record, read
from operate import connections, execution
from operate.cluster import Cluster
from operate.launch import job
from operate.problem import Problem
from operate.runs import Run
from operate.screen import Screen

Found = Mapping[str, Sequence[Finding]]
"""Findings by node."""
DOCTOR = Workload(name="doctor", module="workloads.doctor", timeout_s=300)
CONNECTIVITY = Workload(name=connections.JOB, module="workloads.connectivity", timeout_s=600)
CLUSTER = "cluster"
"""Stands among the nodes for what lies between them."""
_STYLE: dict[Level, str] = {"ok": "green", "note": "cyan", "warn": "yellow", "fail": "bold red"}


def checks(lab: Lab | None, nodes: int = 1) -> tuple[Workload, ...]:
    """What a doctor runs on the machines of `lab`, or on any `nodes` of them."""
    return (CONNECTIVITY, DOCTOR) if max(nodes, lab.nodes if lab else 1) > 1 else (DOCTOR,)


def examine(cluster: Cluster, lab: Lab | None, screen: Screen, *, wait_s: float | None, json: bool) -> None:
    """Look at every node and show what was found (with `json`: one document).

    Raises:
        Problem: a node is not well, or could not be looked at; raised last, when all is shown.
    """
    jobs = tuple(map(job, checks(lab, len(cluster.nodes))))
    order = execution.Order(jobs=jobs, lab=lab, usd_per_hour=execution.price(cluster), wait_s=wait_s)
    run = execution.execute(cluster, order, screen)
    found = findings(run)
    if json:
        print(documents.dumps(as_json(run, found), indent=1))
    else:
        screen.console.print(table(found))
        screen.note(line(found))
    if problem := verdict(run, found):
        raise problem


def findings(run: Run) -> Found:
    """What the records of that run hold, by node, after what lies between them; a node without a readable record has
    none."""
    found: dict[str, list[Finding]] = {str(node["name"]): [] for node in run.document["nodes"]}
    for path in sorted((run.folder / "records").glob("*.json")):
        record = _read(path)
        if record is not None and record.workload != connections.JOB:
            found.setdefault(record.node, []).extend(one for note in record.notes if (one := read_finding(note)))
    between = connections.judged(run.folder, tuple(found))
    return {CLUSTER: between, **found} if between else found


def _read(path: Path) -> Record | None:
    try:
        return read(path)
    except ValueError:
        return None  # the run's own report names it


def table(found: Found) -> Table:
    """A row for each finding, the worst of each node first."""
    shown = Table("node", "", "what", "seen", "means", "do")
    for node, several in found.items():
        for one in sorted(several, key=lambda finding: -LEVELS.index(finding.level)):
            level = Text(one.level, style=_STYLE[one.level])
            shown.add_row(node, level, one.subject, one.seen, one.means, one.do)
    return shown


def line(found: Found) -> str:
    """How many of each level on how many nodes."""
    levels = [finding.level for several in found.values() for finding in several]
    counts = ", ".join(f"{levels.count(level)} {level}" for level in LEVELS)
    nodes = len(set(found) - {CLUSTER})
    return f"{nodes} {'node' if nodes == 1 else 'nodes'} looked at: {counts}"


def as_json(run: Run, found: Found) -> dict[str, object]:
    """For `--json`."""
    return {
        "run": run.name, "ok": verdict(run, found) is None,
        "nodes": {node: [asdict(finding) for finding in several] for node, several in found.items()},
    }  # fmt: skip


def verdict(run: Run, found: Found) -> Problem | None:
    """What is wrong, or None: a node that is not well, or that told nothing."""
    for node, several in found.items():
        bad = [finding for finding in several if finding.level == "fail"]
        if bad:
            who = bad[0].subject if node == CLUSTER else f"{node} is not well"
            what = bad[0].seen if node == CLUSTER else f"{bad[0].subject}, {bad[0].seen}"
            return Problem(f"{who}: {what}", bad[0].do)
    silent = [node for node, several in found.items() if not several]
    if silent:
        return Problem(f"nothing was found out about {', '.join(silent)}", f"fab logs --run {run.name} shows why")
    return None
