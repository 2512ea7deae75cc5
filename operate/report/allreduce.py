"""All-reduce over message size: bus bandwidth, and time, with the spread over ranks."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import BAD, MARKERS, MUTED, PAPER, ROOF, SERIES, Sheet, label, log_axis, picture
from operate.report.quantity import quantity, rounded, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = dict[str, list[Measurement]]
"""Rows by collective, smallest message first."""


def allreduce(records: Sequence[Record]) -> list[Element]:
    """Bus bandwidth and time beside each other, or nothing where no row has a size in bytes and samples."""
    series = _series(records)
    if not series:
        return []

    def draw(sheet: Sheet) -> None:
        _bandwidth(sheet, series)
        _time(sheet, series)

    rows = [row for rows in series.values() for row in rows]
    caption = "Bus bandwidth and median time over message size."
    if any(_ranks_s(row) for row in rows):
        widest = max(rows, key=_spread)
        caption += " The band spans the medians of the fastest and of the slowest rank; they differ most at "
        caption += f"{size(_bytes(widest))}, by a factor of {rounded(_spread(widest))}."
    if not any(row.roof for row in rows):
        caption += f" No roof is drawn: {rows[0].no_roof_because}."
    return [picture("allreduce", draw, alt=_alt(series), caption=[caption], panels=2)]


def _series(records: Sequence[Record]) -> Series:
    found: Series = {}
    for record in records:
        for row in record.measurements:
            if row.unit == "B/s" and row.samples_s and isinstance(row.config.get("bytes"), int) and _bytes(row) > 0:
                found.setdefault(label(str(row.config.get("collective", "all-reduce"))), []).append(row)
    return {name: sorted(rows, key=_bytes) for name, rows in found.items()}


def _bytes(row: Measurement) -> int:
    return int(row.config["bytes"])


def _ranks_s(row: Measurement) -> list[float]:
    """Median time on each rank; empty where the record does not tell."""
    return [float(median_s) for median_s in row.config.get("rank_median_s") or []]


def _spread(row: Measurement) -> float:
    ranks_s = _ranks_s(row)
    return max(ranks_s) / min(ranks_s) if ranks_s else 1.0


def _bandwidth(sheet: Sheet, series: Series) -> None:
    axes = sheet.panels[0]
    for index, rows in enumerate(series.values()):
        sent = [row for row in rows if row.value > 0]  # one rank alone sends nothing
        _line(axes, index, sent, [row.value for row in sent], list(series)[index])
        banded = [row for row in sent if _ranks_s(row)]
        work = [row.value * median(row.samples_s) for row in banded]
        low = [bytes_ / max(_ranks_s(row)) for bytes_, row in zip(work, banded, strict=True)]
        high = [bytes_ / min(_ranks_s(row)) for bytes_, row in zip(work, banded, strict=True)]
        _band(axes, index, banded, low, high)
        suspects = [row for row in sent if row.suspect]
        axes.plot([_bytes(row) for row in suspects], [row.value for row in suspects], "o", markersize=16,
                  markerfacecolor="none", markeredgecolor=BAD, markeredgewidth=2)  # fmt: skip
    _axes(sheet, axes, "B/s", "bus bandwidth")
    roofs = dict.fromkeys(row.roof.value for rows in series.values() for row in rows if row.roof)
    for roof in roofs:
        axes.axhline(roof, color=ROOF, linewidth=2.5, zorder=1)
        axes.annotate(f"roof {quantity(roof, 'B/s')}", (0, roof), xycoords=("axes fraction", "data"), xytext=(4, 5),
                      textcoords="offset points", color=ROOF, va="bottom")  # fmt: skip
    if not roofs:
        axes.text(0.99, 0.04, "the roof is unknown", transform=axes.transAxes, ha="right", color=MUTED)
    low_end, high_end = axes.get_ylim()
    axes.set_ylim(low_end / 1.2, high_end * 1.6)
    if len(series) > 1:
        axes.legend(loc="lower right")


def _time(sheet: Sheet, series: Series) -> None:
    axes = sheet.panels[1]
    for index, (name, rows) in enumerate(series.items()):
        _line(axes, index, rows, [median(row.samples_s) for row in rows], name)
        banded = [row for row in rows if _ranks_s(row)]
        low, high = [min(_ranks_s(row)) for row in banded], [max(_ranks_s(row)) for row in banded]
        _band(axes, index, banded, low, high)
    _axes(sheet, axes, "s", "time, median")


def _line(axes: "Axes", index: int, rows: Sequence[Measurement], values: Sequence[float], name: str) -> None:
    axes.plot([_bytes(row) for row in rows], values, marker=MARKERS[index % len(MARKERS)], label=name,
              color=SERIES[index % len(SERIES)], markeredgecolor=PAPER)  # fmt: skip


def _band(axes: "Axes", index: int, rows: Sequence[Measurement], low: Sequence[float], high: Sequence[float]) -> None:
    colour = SERIES[index % len(SERIES)]
    axes.fill_between([_bytes(row) for row in rows], low, high, color=colour, alpha=0.2, linewidth=0)


def _axes(sheet: Sheet, axes: "Axes", unit: str, title: str) -> None:
    log_axis(axes.xaxis, 2, "B", ticks=4 if sheet.narrow else 5)
    log_axis(axes.yaxis, 10, unit, ticks=5)
    axes.set_title(title)
    axes.set_xlabel("message")


def _alt(series: Series) -> str:
    parts = []
    for name, rows in series.items():
        best = max(rows, key=lambda row: row.value)
        parts.append(
            f"{name}, {size(_bytes(rows[0]))} to {size(_bytes(rows[-1]))}: bus bandwidth from "
            f"{quantity(rows[0].value, 'B/s')} to {quantity(best.value, 'B/s')} at {size(_bytes(best))}, time from "
            f"{quantity(median(rows[0].samples_s), 's')} to {quantity(median(rows[-1].samples_s), 's')}"
        )
    known = any(row.roof for rows in series.values() for row in rows)
    return f"Two plots over message size. {'; '.join(parts)}.{'' if known else ' No roof is drawn, for none is known.'}"
