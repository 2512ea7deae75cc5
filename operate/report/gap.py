"""What stands between a measurement and its roof, in named milliseconds: a bar that is a sample's time, and a list."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record, Span
from operate.report.element import Child, el
from operate.report.headline import Row, at_s, headlines, sample_s
from operate.report.quantity import quantity, share

_UNTOLD = 0.02
"""Parts may miss the whole by this share before it is said."""
_COLOURS = 6


def gaps(rows: Sequence[Row]) -> Element | None:
    """The headline rows whose time the record takes apart, the further ones folded; None where there is none."""
    apart = [entry for entry in rows if entry[1].spans and sample_s(entry[1])]
    if not apart:
        return None
    first = [entry for entry in headlines(apart) if entry in apart] or apart[:1]
    rest = [entry for entry in apart if entry not in first]
    folded = None
    if rest:
        told = f"{len(rest)} more row{'s' * (len(rest) > 1)}"
        folded = el("details", el("summary", told), *(_gap(*entry) for entry in rest), class_="fold")
    return el("div", el("h3", "Where the time goes"), *(_gap(*entry) for entry in first), folded, class_="gaps")


def parts(row: Measurement) -> tuple[Span, ...]:
    """The row's spans; what they leave of the median sample, where that is not little, as one more."""
    taken, told = sample_s(row), sum(span.seconds for span in row.spans)
    if taken is None or taken - told <= _UNTOLD * taken:
        return row.spans
    return (*row.spans, Span(name="not told", seconds=taken - told, how="the median sample less all parts"))


def _gap(record: Record, row: Measurement) -> Element:
    taken = sample_s(row)
    assert taken
    shown = parts(row)
    whole = max(taken, sum(span.seconds for span in shown))
    floor = at_s(row, row.roof) if row.roof else None
    node = el("span", record.node, class_="chip") if record.node and record.nodes > 1 else None
    said: list[Child] = [el("strong", row.name), " " if node else None, node, f": {quantity(taken, 's')} a sample"]
    said += [f", of which the roof allows {quantity(floor, 's')}"] if floor and row.roof else []
    items = (_item(number, span, taken) for number, span in enumerate(shown))
    return el(
        "div",
        el("p", *said),
        _bar(shown, whole, floor),
        el("ol", *items, class_="parts"),
        _over(shown, taken),
        class_="gap",
    )


def _bar(shown: Sequence[Span], whole: float, floor: float | None) -> Element:
    bar = el("div", class_="makeup", aria_hidden="true")
    for number, span in enumerate(shown):
        width = 100 * max(0.0, span.seconds) / whole
        bar.append(el("span", class_=f"part part{number % _COLOURS}", style=f"width: {width:.2f}%"))
    if floor is not None and floor <= whole:
        bar.append(el("span", class_="floor", style=f"left: {100 * floor / whole:.2f}%"))
    return bar


def _item(number: int, span: Span, taken: float) -> Element:
    swatch = el("span", class_=f"swatch part{number % _COLOURS}", aria_hidden="true")
    size = el("span", quantity(span.seconds, "s"), class_="size")
    of = el("span", share(max(0.0, span.seconds / taken)), class_="of")
    return el("li", swatch, el("span", span.name, class_="name"), size, of, el("span", span.how, class_="small"))


def _over(shown: Sequence[Span], taken: float) -> Element | None:
    """Parts that are more than the whole ran at the same time, or one of them is wrong."""
    over = sum(span.seconds for span in shown) - taken
    if over <= _UNTOLD * taken:
        return None
    return el("p", f"The parts are {quantity(over, 's')} more than the whole: they overlap.", class_="small")
