"""report.html: one page that stands alone. No script, no request, no clock: the same folder gives the same bytes."""

from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from labs.catalog import LABS
from operate.laptop import write
from operate.report.element import document, el
from operate.report.folder import Part, Run, load
from operate.report.quantity import dollars, duration
from operate.report.receipt import receipt_section
from operate.report.section import section

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The browser itself refuses what would make the page less than self-contained."""


def write_report(folder: Path, *, quiz: bool = False) -> Path:
    """Write report.html from what lies in a run's folder, whole or not at all, and return its path.

    With `quiz`, quiz.html: the same page, which asks for the numbers before it shows them.

    Raises:
        Problem: the folder is no run's.
    """
    path = folder / ("quiz.html" if quiz else "report.html")
    write(path, document(_page(load(folder), quiz=quiz)))
    return path


def _page(run: Run, *, quiz: bool) -> Element:
    style = el("style")
    style.text = "\n" + (files("operate.report") / "page.css").read_text(encoding="utf-8")  # our own text: as it is
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("title", f"{_title(run)} · {run.name}"),
        el("link", rel="icon", href="data:,"),
        style,
    )
    sections = (section(part, run.folder / "figures", quiz=quiz) for part in run.parts)
    main = el("main", *_complaints(run), *sections, _nothing(run), receipt_section(run))
    return el("html", head, el("body", _header(run), main, _footer(run)), lang="en")


def _title(run: Run) -> str:
    return "Rooflab" if run.lab is None else f"Lab {run.lab}"


def _header(run: Run) -> Element:
    tone, line = run.verdict
    lab = LABS.get(run.lab) if run.lab is not None else None
    mark = {"good": "✓", "warning": "!", "bad": "✕"}[tone]
    facts = el("dl", class_="facts")
    for term, value, small in _facts(run):
        detail = el("span", small, class_="small") if small else None
        facts.append(el("div", el("dt", term), el("dd", value, detail)))
    return el(
        "header",
        el("p", "Rooflab · measured beside the roof", class_="eyebrow"),
        el("h1", f"{_title(run)}. " if lab else _title(run), el("span", lab.title) if lab else None),
        el("p", el("span", mark, class_="mark", aria_hidden="true"), line, class_=f"verdict {tone}"),
        facts,
        _contents(run),
    )


def _contents(run: Run) -> Element | None:
    if len(run.parts) < 2:
        return None
    entries = [
        el("li", el("a", part.name, href=f"#{part.anchor}"), el("span", "", class_=f"dot {_tone(part)}"), _said(part))
        for part in run.parts
    ]
    return el("nav", el("ol", *entries), aria_label="Workloads")


def _tone(part: Part) -> str:
    return "bad" if not part.ok else "warning" if part.suspects or part.pending else "good"


def _said(part: Part) -> Element:
    word = {"bad": "failed", "warning": "measuring error", "good": "passed"}[_tone(part)]
    word = "not ended yet" if part.pending else word
    took = f", {duration(part.seconds)}" if part.seconds is not None else ""
    return el("span", word + took, class_="small")


def _facts(run: Run) -> list[tuple[str, str, str]]:
    """Term, value and small print of the header."""
    facts = run.facts
    nodes = facts.get("nodes") or []
    kinds = sorted({str(node.get("instance_type")) for node in nodes if node.get("instance_type")})
    kinds = kinds or sorted({r.machine.instance_type for r in run.records if r.machine.instance_type})
    devices = sorted({record.machine.device for record in run.records})
    count = len(nodes) or max((record.nodes for record in run.records), default=0)
    when, took = _when(facts)
    price, cost, endpoint = facts.get("usd_per_hour"), facts.get("usd"), facts.get("endpoint")
    billed = f"what AWS would ask: it ran on {endpoint}, and nobody billed it" if endpoint else "machines only"
    return [
        ("Run", run.name, str(facts.get("stack") or facts.get("target") or "")),
        ("When", when, took),
        ("Machine" if count < 2 else "Machines", _machines(count, kinds), "; ".join(devices)),
        ("Price", "unknown" if price is None else f"{dollars(price)} an hour", _each(price, count)),
        ("Cost of the run", "unknown" if cost is None else dollars(cost), billed if cost else ""),
        ("Commit", str(facts.get("commit") or "unknown")[:12], ""),
    ]


def _machines(count: int, kinds: list[str]) -> str:
    what = ", ".join(kinds) or "this machine"
    return f"{count} × {what}" if count and kinds else what


def _each(price: float | None, count: int) -> str:
    return "" if price is None or count < 2 else f"{count} nodes, {dollars(price / count)} each"


def _when(facts: dict[str, Any]) -> tuple[str, str]:
    started, ended = _time(facts.get("started")), _time(facts.get("ended"))
    if started is None:
        return "unknown", ""
    day = f"{started:%Y-%m-%d %H:%M} {started:%Z}".strip()
    if ended is None:
        return day, "not ended yet" if "ended" in facts else "the end is not on record"
    return day, f"took {duration(max(0.0, (ended - started).total_seconds()))}"


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _complaints(run: Run) -> list[Element]:
    return [el("div", el("p", line), class_="alert bad", role="alert") for line in run.complaints]


def _nothing(run: Run) -> Element | None:
    if run.records or run.parts:
        return None
    text = "This run left no record and names no workload: it ended before the first one began."
    return el("div", el("p", el("strong", "Nothing was measured. "), text), class_="alert bad", role="alert")


def _footer(run: Run) -> Element:
    commits = sorted({record.git_commit[:12] for record in run.records if record.git_commit})
    text = (
        "Made by fab report from run.json, the result records and the receipt. A fraction of the roof is a rate ÷ its "
    )
    text += "roof, or a roof ÷ the time. Percentiles interpolate linearly; p99 needs 100 samples."
    return el("footer", el("p", text), el("p", f"Records of commit {', '.join(commits)}.") if commits else None)
