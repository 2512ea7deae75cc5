"""The table of a workload's measurements. What all rows share is said once, above; sources stand below, by letter."""

from string import ascii_lowercase
from xml.etree.ElementTree import Element

from labs.results import Measurement, percentiles
from operate.report.element import Child, add, el
from operate.report.folder import Part
from operate.report.headline import FOLD, Row, headlines
from operate.report.quantity import dollars, quantity, share

_HEADS = ("What", "Measured", "Roof", "Of roof", "Samples: n · median · p99")


class _Sources:
    """Numbers the sources of the roofs (or the reasons for none) in the order they come up."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def letter(self, text: str) -> str:
        """The letter of this text."""
        known = len(self._letters)
        return self._letters.setdefault(text, ascii_lowercase[known] if known < 26 else str(known + 1))

    def listing(self) -> Element:
        """The list under the table."""
        rows = [el("li", el("sup", letter), " ", text) for text, letter in self._letters.items()]
        return el("ol", *rows, class_="sources")


def rows_table(part: Part) -> Element:
    """Value, roof, fraction, samples, estimator and check of every measurement, node beside node."""
    rows = [(record, row) for record in part.records for row in record.measurements]
    order = {row.name: index for index, (_, row) in reversed(list(enumerate(rows)))}
    rows.sort(key=lambda entry: order[entry[1].name])
    shared = _shared([row for _, row in rows])
    sources = _Sources()
    several = len(part.records) > 1
    first, rest = folded(rows)

    def table(some: list[Row], caption: Element | None) -> Element:
        head = el("thead", el("tr", *(el("th", text, scope="col") for text in _HEADS)))
        body = el("tbody", *(_row(record.node if several else "", row, shared, sources) for record, row in some))
        return el("div", el("table", caption, head, body), class_="scroll")

    tables: list[Child] = [table(first, _caption(shared))]
    if rest:
        tables.append(el("details", el("summary", f"{len(rest)} more rows"), table(rest, None), class_="fold"))
    return el("div", *tables, sources.listing(), class_="rows")


def folded(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """The rows that are shown, and those that are folded away; of each name, all nodes' or none."""
    if len({row.name for _, row in rows}) <= FOLD:
        return rows, []
    names = {row.name for _, row in headlines(rows)} | {row.name for _, row in rows if row.suspect}
    return [entry for entry in rows if entry[1].name in names], [entry for entry in rows if entry[1].name not in names]


def _shared(rows: list[Measurement]) -> dict[str, str]:
    """Estimator and check, where all rows (more than one) have the same."""
    found = {"estimator": {row.estimator for row in rows}, "checked": {row.checked for row in rows}}
    return {name: texts.pop() for name, texts in found.items() if len(rows) > 1 and len(texts) == 1 and all(texts)}


def _caption(shared: dict[str, str]) -> Element | None:
    said = {"estimator": "Every value: ", "checked": "Every result checked: "}
    text = " ".join(f"{said[name]}{text.rstrip('.')}." for name, text in shared.items())
    return el("caption", text) if text else None


def _row(node: str, row: Measurement, shared: dict[str, str], sources: _Sources) -> Element:
    name = el("th", row.name, scope="row")
    if node:
        add(name, " ", el("span", node, class_="chip"))
    if "checked" not in shared:
        add(name, el("span", f"checked: {row.checked}" if row.checked else "result not checked", class_="small"))
    value = el("td", el("strong", quantity(row.value, row.unit)), data_label="Measured")
    if "estimator" not in shared:
        add(value, el("span", row.estimator, class_="small"))
    if row.usd_per_unit is not None:
        add(value, el("span", f"{dollars(row.usd_per_unit)} per {row.work_unit or 'unit'}", class_="small"))
    cells = [name, value, _roof(row, sources), _of_roof(row), _samples(row)]
    return el("tr", *cells, class_="suspect") if row.suspect else el("tr", *cells)


def _roof(row: Measurement, sources: _Sources) -> Element:
    text, source = (
        (quantity(row.roof.value, row.unit), row.roof.source) if row.roof else ("unknown", row.no_roof_because)
    )
    kind = "" if row.roof else "unknown"
    cell = el("td", el("span", text, el("sup", sources.letter(source)), class_=kind), data_label="Roof")
    further = [(share(row.share_of(other)), other) for other in row.others]
    plain = [("expected", row.expected), ("at most", row.limit)]
    further += [(said, other) for said, other in plain if other]
    for said, other in further:
        words = f"{said} {quantity(other.value, row.unit)}" if said in ("expected", "at most") else (
            f"{said} of {quantity(other.value, row.unit)}")  # fmt: skip
        add(cell, el("span", words, el("sup", sources.letter(other.source)), class_="small"))
    return cell


def _of_roof(row: Measurement) -> Element:
    if row.fraction is None:
        return el("td", el("span", "–", class_="unknown"), data_label="Of roof")
    width = f"width: {min(100.0, 100 * row.fraction):.1f}%"
    bar = el("span", el("span", style=width), class_="bar", aria_hidden="true")
    flag = el("span", "measuring error", class_="flag") if row.suspect else None
    return el("td", el("span", share(row.fraction), class_="share"), bar, flag, data_label="Of roof")


def _samples(row: Measurement) -> Element:
    if not row.samples_s:
        return el("td", el("span", "none kept", class_="unknown"), data_label="Samples")
    found = percentiles(row.samples_s)
    texts: list[Child] = [f"{len(row.samples_s):,}"]
    for key in ("median_s", "p99_s"):
        value = found[key]
        texts.append(" · " + ("–" if value is None else quantity(value, "s")))
    return el("td", *texts, data_label="Samples")
