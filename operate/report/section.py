"""One workload's part of the page: the physics, the prediction, the measurement, what stands between them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from labs.results import BUSY, Measurement, Record, Roof
from operate.report.element import Child, el
from operate.report.figures import figures
from operate.report.folder import Part
from operate.report.gap import gaps
from operate.report.headline import Row, at_s, headlines
from operate.report.lessons import LESSONS, Lesson
from operate.report.quantity import duration, quantity, rounded, share
from operate.report.quiz import questions
from operate.report.references import published
from operate.report.rows import rows_table


def section(part: Part, drawn: Path, *, quiz: bool = False) -> Element:
    """The workload's section, complete; a failed one says so first. `drawn` is the folder that keeps its figures.

    With `quiz`, what was measured is hidden on a screen until every question of the section has an answer.
    """
    lesson = LESSONS.get(part.name)
    rows = [(record, row) for record in part.records for row in record.measurements]
    title = el("h2", lesson.title if lesson else part.name, el("code", part.name) if lesson else None)
    asked = questions(part) if quiz else []
    return el(
        "section",
        title,
        _failure(part),
        el("p", "Nothing of it has come back yet.", class_="unknown") if part.pending else None,
        _suspects(part),
        _busy(part.records),
        el("p", lesson.physics, class_="physics") if lesson else None,
        *(_told(part, rows, lesson, drawn, asked) if rows else ()),
        *(_machine(record) for record in part.records),
        class_="workload asking" if asked else "workload",
        id=part.anchor,
    )


def _told(
    part: Part, rows: Sequence[Row], lesson: Lesson | None, drawn: Path, asked: Sequence[Element]
) -> Iterator[Element]:
    """Prediction and measurement with all that it tells, and between them what is asked."""
    prediction, measurement = _side("prediction", _prediction(rows)), _side("measurement", _measurement(rows))
    if not asked:
        yield el("div", prediction, measurement, class_="pair")
    else:
        yield el("div", prediction, class_="pair")
        yield from asked
        measurement = el("div", measurement, class_="pair")
    yield el("div", measurement if asked else None, *_found(part, rows, lesson, drawn), class_="answer")


def _found(part: Part, rows: Sequence[Row], lesson: Lesson | None, drawn: Path) -> Iterator[Child]:
    """What the measurement tells beside its headline."""
    yield gaps(rows)
    yield from figures(part, drawn)
    yield rows_table(part)
    yield published(part.records)
    yield _notes(part.records)
    if lesson:
        yield el("p", el("strong", "What to look for. "), lesson.look, class_="look")
        yield _next(lesson, rows)


def _next(lesson: Lesson, rows: Sequence[Row]) -> Element | None:
    """What the next step gains, and what no step can: the roof is the end of it."""
    shown = [row for _, row in headlines(rows) if row.unit != "B"]  # less memory than there is, is no loss
    bounded = [(bool(row.spans), row.fraction, row) for row in shown if row.fraction and row.fraction < 1]
    most = ""
    if bounded:
        _, fraction, row = max(bounded, key=lambda entry: entry[:2])
        most = f" At most {rounded(1 / fraction, 3)} × is left for {row.name}: its roof ends it."
    if not lesson.next and not most:
        return None
    return el("p", el("strong", "What the next step gains. "), lesson.next + most, class_="look next")


def _failure(part: Part) -> Element | None:
    if part.ok:
        return None
    logs = [
        el(
            "div",
            el("p", "End of the log of ", el("code", node)),
            el("pre", text or "(the log is empty)"),
            class_="log",
        )
        for node, text in part.log_ends.items()
    ]
    if not logs:
        logs = [el("p", "No log of it came back.", class_="small")]
    faults = el("ul", *(el("li", fault) for fault in part.faults))
    return el("div", el("p", el("strong", f"{part.name} failed")), faults, *logs, class_="alert bad", role="alert")


def _suspects(part: Part) -> Element | None:
    if not part.suspects:
        return None
    names = ", ".join(dict.fromkeys(row.name for _, row in part.suspects))
    text = (
        "Nothing runs faster than physics: the clock, the count of work or the roof is wrong. Do not use these values: "
    )
    return el("div", el("p", el("strong", "Measuring error. "), text, names, "."), class_="alert warning", role="alert")


def _busy(records: Iterable[Record]) -> Element | None:
    """That cores were short while something was measured, before any number of it."""
    said = [note for note in _said(records) if BUSY in note]
    if not said:
        return None
    lines = [el("p", note) for note in said]
    return el("div", el("p", el("strong", "Not alone on its cores.")), *lines, class_="alert warning")


def _side(which: str, lines: Sequence[Element]) -> Element:
    """What was predicted before anything ran, or what came out."""
    return el("div", el("h3", which.capitalize()), *lines, class_=which)


def _prediction(rows: Sequence[Row]) -> list[Element]:
    """What the roofs allow and what a model with overheads expects, before anything ran."""
    allowed: dict[tuple[str, str], list[tuple[Measurement, Roof]]] = {}
    unknown: dict[str, dict[str, None]] = {}
    sent: dict[float, None] = {}
    for _, row in rows:
        for roof in (row.roof,) if row.roof else row.others[:1]:
            allowed.setdefault((row.unit, roof.source), []).append((row, roof))
        if not row.roof:
            unknown.setdefault(row.no_roof_because, {})[row.name] = None
        if isinstance(row.config.get("predicted_bytes_per_rank"), int | float):
            sent[row.config["predicted_bytes_per_rank"]] = None
    lines = [_allowed(unit, source, bounded) for (unit, source), bounded in allowed.items()]
    lines += [_expects(row, row.expected) for _, row in headlines(list(rows)) if row.expected]
    lines += [el("p", "Each rank must send ", el("strong", quantity(count, "B")), " a step") for count in sent]
    for reason, names in unknown.items():
        whom = next(iter(names)) if len(names) == 1 else "the rest" if len(unknown) == 1 else f"{len(names)} rows"
        which = "" if not allowed and len(unknown) == 1 else f" for {whom}"
        lines.append(el("p", el("strong", f"No roof{which}: "), f"{reason}."))
    return lines


def _held(row: Measurement) -> float | None:
    """Share of the roof, or where there is none of the first measured ceiling."""
    if row.fraction is None and row.others:
        return row.share_of(row.others[0])
    return row.fraction


def _allowed(unit: str, source: str, rows: Sequence[tuple[Measurement, Roof]]) -> Element:
    values = [roof.value for _, roof in rows]
    low, high = min(values), max(values)
    names = list(dict.fromkeys(row.name for row, _ in rows))
    text = quantity(low, unit) if low == high else f"{quantity(low, unit)} to {quantity(high, unit)}"
    of = f" ({names[0]})" if len(names) == 1 else f" ({len(names)} rows)"
    least = at_s(*rows[0]) if len(rows) == 1 and unit != "s" else None
    of += f", a sample no less than {quantity(least, 's')}" if least else ""
    return el(
        "p", "No less than " if unit == "s" else "At most ", el("strong", text), of, el("span", source, class_="small")
    )


def _expects(row: Measurement, expected: Roof) -> Element:
    """What a model with its overheads predicted for one row, and what a sample then takes."""
    sample = at_s(row, expected) if row.unit != "s" else None
    then = f", {quantity(sample, 's')} a sample" if sample else ""
    value = el("strong", quantity(expected.value, row.unit))
    return el("p", "Expected: ", value, f" ({row.name}){then}", el("span", expected.source, class_="small"))


def _measurement(rows: Sequence[Row]) -> list[Element]:
    """The row nearest to its roof and the one farthest from it, or without roofs the largest of each unit."""
    held = [(_held(row), record, row) for record, row in rows if not row.suspect]
    bounded = [(fraction, record, row) for fraction, record, row in held if fraction and (row.roof or fraction <= 1)]
    if bounded:
        nearest = max(bounded, key=lambda entry: entry[0])
        farthest = min(bounded, key=lambda entry: entry[0])
        if nearest is farthest:
            return [_beside("", *nearest)]
        return [_beside("Nearest to its roof: ", *nearest), _beside("Farthest: ", *farthest)]
    best: dict[str, Row] = {}
    for record, row in [entry for entry in rows if entry[1].config.get("past_cache", True)] or rows:
        other = best.get(row.unit)
        if not row.suspect and (other is None or _better(row, other[1])):
            best[row.unit] = (record, row)
    return [
        el("p", el("strong", quantity(row.value, row.unit)), f" {_where(row, record)}", _alone(row, rows))
        for record, row in best.values()
    ]


def _alone(row: Measurement, rows: Sequence[Row]) -> Element:
    count = sum(other.unit == row.unit for _, other in rows)
    rank = "" if count == 1 else f"{'lowest' if row.unit == 's' else 'highest'} of {count}, "
    return el("span", f"{rank}no roof to hold it against", class_="small")


def _better(row: Measurement, than: Measurement) -> bool:
    return row.value < than.value if row.unit == "s" else row.value > than.value


def _beside(lead: str, fraction: float, record: Record, row: Measurement) -> Element:
    value: list[Child] = [
        lead,
        el("strong", f"{quantity(row.value, row.unit)}, {share(fraction)}"),
        f" {_where(row, record)}",
    ]
    return el("p", *value, el("span", _gap(row, fraction), class_="small"))


def _where(row: Measurement, record: Record) -> str:
    return f"({row.name}, {record.node})" if record.node and record.nodes > 1 else f"({row.name})"


def _gap(row: Measurement, fraction: float) -> str:
    """How much time stands between the measurement and its roof."""
    if row.unit == "s":
        return (
            f"{quantity(row.value * (1 - fraction), 's')} of it above the roof's {quantity(row.value * fraction, 's')}"
        )
    if not row.samples_s:
        return f"the roof allows {rounded(1 / fraction, 2)} times as much"
    median_s = sorted(row.samples_s)[len(row.samples_s) // 2]
    return f"at the roof a sample would take {quantity(median_s * fraction, 's')} instead of {quantity(median_s, 's')}"


def _notes(records: Iterable[Record]) -> Element | None:
    notes = [note for note in _said(records) if BUSY not in note]
    return el("ul", *(el("li", note) for note in notes), class_="notes") if notes else None


def _said(records: Iterable[Record]) -> Iterable[str]:
    """Every note once, with the node that it is of."""
    return dict.fromkeys(
        (f"{record.node}: {note}" if record.node else note) for record in records for note in record.notes
    )


def _machine(record: Record) -> Element:
    """What it ran on and with, folded away."""
    machine = record.machine
    told = {
        "Host": machine.hostname,
        "Device": f"{machine.devices} × {machine.device}",
        "Instance": machine.instance_type,
        "Driver": machine.driver,
        "Clock": None if machine.clock_mhz is None else quantity(machine.clock_mhz * 1e6, "Hz"),
        "Power": None if machine.power_w is None else quantity(machine.power_w, "W"),
        "Temperature": None if machine.temperature_c is None else f"{machine.temperature_c:.0f} °C",
        "Nodes and ranks": f"{record.nodes} and {record.ranks}",
        "Started": record.started or None,
        "Took": duration(record.wall_s),
        "Commit": record.git_commit,
        "Versions": ", ".join(f"{name} {version}" for name, version in sorted(machine.versions.items())) or None,
        "Configuration": ", ".join(f"{name}={value}" for name, value in record.config.items()) or None,
    }
    terms = [el("div", el("dt", name), el("dd", value or "not told")) for name, value in told.items()]
    where = f"{record.node}: " if record.node else ""
    return el("details", el("summary", f"{where}machine, versions, configuration"), el("dl", *terms, class_="facts"))
