"""What the nodes of a run found out about their connections, put side by side: one culprit, named once."""

from collections.abc import Sequence
from pathlib import Path

from labs.connections import Report, load
from labs.culprits import judge
from labs.findings import Finding
from operate.suspect import Suspicion

JOB = "connectivity"
"""The workload whose reports these are."""


def read_reports(folder: Path) -> dict[str, Report]:
    """The reports that came home to a run's folder, by node; what cannot be read is left out, as if it had not come."""
    reports = {}
    for path in sorted((folder / "out").glob(f"*/{JOB}/*.json")):
        try:
            report = load(path.read_text())
        except (OSError, ValueError):
            continue
        reports[report.node] = report
    return reports


def judged(folder: Path, nodes: Sequence[str]) -> tuple[Finding, ...]:
    """What the reports in a run's folder amount to; () where none came."""
    reports = read_reports(folder)
    return judge(nodes, reports) if reports else ()


def culprit(folder: Path, nodes: Sequence[str]) -> Suspicion | None:
    """The first that fails, as the cause why the doctor of connections failed; None where none does."""
    bad = [one for one in judged(folder, nodes) if one.level == "fail"]
    if not bad:
        return None
    more = f" (and {len(bad) - 1} more: fab doctor lists them)" if len(bad) > 1 else ""
    return Suspicion(ranks=(), cause=f"{bad[0].subject}: {bad[0].seen}{more}", remedy=bad[0].do)
