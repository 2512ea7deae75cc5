"""What others have published for the same device, beside the best of our rows that measured the same."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from labs.published import Reference, references
from labs.results import Record
from operate.report.element import el
from operate.report.quantity import quantity, share

_HEADS = ("Published", "By others", "Here", "Here ÷ theirs", "Source")


def published(records: Sequence[Record]) -> Element | None:
    """A table of the first record's references; None where there is none, as for every device that is not listed."""
    found = references(records[0]) if records else ()
    if not found:
        return None
    head = el("thead", el("tr", *(el("th", text, scope="col") for text in _HEADS)))
    body = el("tbody", *(_row(reference, records[0]) for reference in found))
    method = "Others measured by their own method and with the versions of their day: to see where one stands."
    table = el("table", el("caption", f"The same device elsewhere. {method}"), head, body)
    return el("div", el("div", table, class_="scroll"), class_="rows published")


def _row(reference: Reference, record: Record) -> Element:
    ours = reference.beside(record)
    here = "–" if ours is None else quantity(ours.value, ours.unit)
    ratio = None if ours is None else ours.value / reference.value
    of = "–" if ratio is None else share(1 / ratio if reference.unit == "s" else ratio)
    note = el("span", reference.note, class_="small") if reference.note else None
    name = el("span", ours.name, class_="small") if ours else None
    return el(
        "tr",
        el("th", reference.what, note, scope="row"),
        el("td", quantity(reference.value, reference.unit), data_label="By others"),
        el("td", el("strong", here) if ours else here, name, data_label="Here"),
        el("td", of, data_label="Here ÷ theirs"),
        el("td", reference.source, el("span", reference.date, class_="small"), data_label="Source"),
    )
