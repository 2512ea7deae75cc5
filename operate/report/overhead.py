"""What the network costs a step: its time over each link that a run kept here has measured, and what was foretold."""

from collections.abc import Sequence
from dataclasses import replace
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.sharing import bars

_SHORT = {"link without a limit": "no limit", "all ranks, in bf16": "in bf16", "within the node": "within nodes"}


def overhead(records: Sequence[Record]) -> list[Element]:
    """Stacked bars by link and path: the first record's link, and those that other runs kept of the same steps."""
    rows = [row for record in _by_link(records) for row in _rows(record)]
    caption = (
        "The median step by link and path, of this run and of the newest other runs here of the same model, ranks and "
        "nodes. Arithmetic is the step with nothing sent; what a step takes beyond it is exposed communication. The "
        "stroke is what was foretold with nothing hidden: a bar that ends before it has hidden the rest."
    )
    return [bars("overhead", rows, caption)] if rows else []


def _by_link(records: Sequence[Record]) -> list[Record]:
    """The newest record of each link that can stand beside the first one, which counts for its own; fastest first."""
    able = [record for record in records if _rows(record)]
    found = {_link(own): own for own in able[:1]}
    for other in sorted(able[1:], key=lambda record: record.started, reverse=True):
        if _same(other) == _same(able[0]):
            found.setdefault(_link(other), other)
    return sorted(found.values(), key=lambda record: (-_rate(record), _link(record)))


def _same(record: Record) -> tuple[object, ...]:
    settings = tuple(record.config.get(name) for name in ("model", "batch", "sequence", "bucket_mb"))
    return record.machine.device, record.ranks, record.nodes, *settings


def _link(record: Record) -> str:
    return str(_rows(record)[0].config["link"])


def _rate(record: Record) -> float:
    """Of the link, bytes per second; that of one without a limit is above all."""
    return float(_rows(record)[0].config.get("link_bytes_per_s") or float("inf"))


def _rows(record: Record) -> list[Measurement]:
    return [_labelled(row) for row in record.measurements if row.unit == "s" and row.spans and "link" in row.config]


def _labelled(row: Measurement) -> Measurement:
    """With what the figure calls it, the link and the path, in as few letters as it has room for."""
    link, path = str(row.config["link"]).removeprefix("link of "), str(row.config["strategy"])
    return replace(row, config={**row.config, "strategy": f"{_SHORT.get(link, link)}: {_SHORT.get(path, path)}"})
