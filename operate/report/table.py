"""The report on a terminal: one table for a run, and the same as plain data for programs."""

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from labs.results import Measurement, Record, percentiles
from operate.report.folder import Part, Run, load
from operate.report.quantity import dollars, duration, quantity, share
from operate.report.rows import folded

_COLOURS = {"good": "green", "warning": "yellow", "bad": "red"}


def summary(folder: Path) -> RenderableType:
    """What `fab report` prints.

    Raises:
        Problem: the folder is no run's.
    """
    run = load(folder)
    return Group(*_heading(run), *(_part(part) for part in run.parts), Text(_money(run)))


def outcome(folder: Path) -> RenderableType:
    """What `fab run-lab` ends with, after the workloads have said their numbers live: the verdict, faults, the cost.

    Raises:
        Problem: the folder is no run's.
    """
    run = load(folder)
    faults = (Text(f"  ✕ {part.name}: {fault}", style="red") for part in run.parts for fault in part.faults)
    return Group(*_heading(run), *faults, Text(_money(run)))


def _heading(run: Run) -> list[Text]:
    tone, line = run.verdict
    heading = Text.assemble((run.name, "bold"), "  ", (line, f"bold {_COLOURS[tone]}"))
    return [heading, *(Text(complaint, style="red") for complaint in run.complaints)]


def _part(part: Part) -> RenderableType:
    took = "" if part.seconds is None else f" · {duration(part.seconds)}"
    title = Text.assemble((part.name, "bold"), took, style="" if part.ok else "red")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("what", overflow="fold")
    for head in ("measured", "roof", "of roof", "median", "p99"):
        table.add_column(head, justify="right", no_wrap=True)
    shown, rest = folded([(record, row) for record in part.records for row in record.measurements])
    for record, row in shown:
        table.add_row(*_cells(record, row))
    more = [Text(f"  … {len(rest)} more rows in report.html", style="dim")] if rest else []
    faults = [Text(f"  ✕ {fault}", style="red") for fault in part.faults]
    unknown = dict.fromkeys(
        row.no_roof_because for record in part.records for row in record.measurements if not row.roof
    )
    reasons = [Text(f"  no roof: {reason}", style="dim") for reason in unknown]
    return Group("", *([table] if part.records else [title]), *more, *reasons, *faults)


def _cells(record: Record, row: Measurement) -> list[Text]:
    found = percentiles(row.samples_s)
    name = f"{row.name} · {record.node}" if record.node and record.nodes > 1 else row.name
    fraction = Text("–", style="dim") if row.fraction is None else Text(share(row.fraction))
    if row.suspect:
        fraction = Text(f"{fraction.plain} measuring error", style="bold red")
    return [
        Text(f"  {name}"),
        Text(quantity(row.value, row.unit), style="bold"),
        Text(quantity(row.roof.value, row.unit) if row.roof else "unknown", style="" if row.roof else "dim"),
        fraction,
        *(Text("–" if found[key] is None else quantity(found[key] or 0.0, "s")) for key in ("median_s", "p99_s")),
    ]


def _money(run: Run) -> str:
    price, cost = run.facts.get("usd_per_hour"), run.facts.get("usd")
    words = [] if price is None else [f"{dollars(price)}/h"]
    words += [] if cost is None else [f"{dollars(cost)} for this run"]
    if run.receipt is not None:
        residual = run.receipt.get("residual_usd_per_hour")
        known = (
            f"{dollars(residual)}/h still billing" if isinstance(residual, int | float) else "unknown what still bills"
        )
        words.append(f"receipt: {known}")
    return "\n" + " · ".join(words) if words else ""


def as_json(folder: Path) -> dict[str, Any]:
    """What `fab report --json` prints: run.json, the verdict, every workload with its faults and records, the receipt.

    Raises:
        Problem: the folder is no run's.
    """
    run = load(folder)
    tone, line = run.verdict
    return {
        "run": run.name,
        "lab": run.lab,
        "folder": str(run.folder),
        "ok": tone != "bad",
        "verdict": line,
        "complaints": list(run.complaints),
        "facts": run.facts,
        "workloads": [
            {
                "name": part.name,
                "ok": part.ok,
                "seconds": part.seconds,
                "faults": list(part.faults),
                "suspect": [row.name for _, row in part.suspects],
                "records": [record.as_json() for record in part.records],
            }
            for part in run.parts
        ],
        "receipt": run.receipt,
    }
