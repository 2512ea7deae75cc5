"""Collectives over message size: bus bandwidth, and time, with the spread over ranks and the line α + s/β."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import BAD, MARKERS, MUTED, PAPER, ROOF, SERIES, Sheet, label, log_axis, picture
from operate.report.quantity import quantity, rounded, share, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = dict[str, list[Measurement]]
"""Rows by collective, smallest message first."""
Lines = dict[str, Measurement]
"""By collective the row whose configuration holds α and β; none for times that do not grow with the size."""


def collectives(records: Sequence[Record]) -> list[Element]:
    """Bus bandwidth and time beside each other, or nothing where no row has a size in bytes and samples."""
    dtypes = list(dict.fromkeys(_dtype(row) for record in records for row in _timed(record)))
    if not dtypes:
        return []
    series, lines = _series(records, dtypes[0]), _lines(records, dtypes[0])

    def draw(sheet: Sheet) -> None:
        _bandwidth(sheet, series)
        _time(sheet, series, lines)

    caption = "Bus bandwidth and median time over message size."
    if len(dtypes) > 1:
        caption = f"Bus bandwidth and median time over message size in {dtypes[0]}; the table has {dtypes[1]} as well."
    first = next(iter(series.values()))
    if any(_ranks_s(row) for row in first):
        widest = max(first, key=_spread)
        of = f" of {next(iter(series))}" if len(series) > 1 else ""
        caption += f" The band spans the medians{of} of the fastest and of the slowest rank; they differ most at "
        caption += f"{size(_bytes(widest))}, by a factor of {rounded(_spread(widest))}."
    if (name := next(iter(series))) in lines:
        caption += f" Dashed is α + s/β: {_fitted(name, lines[name])}."
    if not any(row.roof for row in first):
        caption += f" No roof is drawn: {first[0].no_roof_because}."
    return [picture("collectives", draw, alt=_alt(series, lines), caption=[caption], panels=2)]


def _timed(record: Record) -> list[Measurement]:
    return [
        row
        for row in record.measurements
        if row.unit == "B/s" and row.samples_s and isinstance(row.config.get("bytes"), int) and _bytes(row) > 0
    ]


def _dtype(row: Measurement) -> str:
    return str(row.config.get("dtype", "fp32"))


def _name(row: Measurement) -> str:
    return label(str(row.config.get("collective", "all-reduce")))


def _series(records: Sequence[Record], dtype: str) -> Series:
    found: Series = {}
    for record in records:
        for row in _timed(record):
            if _dtype(row) == dtype:
                found.setdefault(_name(row), []).append(row)
    return {name: sorted(rows, key=_bytes) for name, rows in found.items()}


def _lines(records: Sequence[Record], dtype: str) -> Lines:
    return {
        _name(row): row
        for record in records
        for row in record.measurements
        if row.config.get("beta") and "alpha_s" in row.config and _dtype(row) == dtype
    }


def _fitted(name: str, row: Measurement) -> str:
    """α, β and n½ of one collective, and how far a time lies from its line."""
    config = row.config
    return (f"{name} {quantity(config['alpha_s'], 's')} + s ÷ {quantity(config['beta'], 'B/s')}, half of that rate at "
            f"{quantity(config['half_bytes'], 'B')}, times within {share(config['worst_residual'])}")  # fmt: skip


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
    for index, (name, rows) in enumerate(series.items()):
        sent = [row for row in rows if row.value > 0]  # one rank alone sends nothing
        _line(axes, index, sent, [row.value for row in sent], name)
        banded = [row for row in sent if _ranks_s(row)]
        work = [row.value * median(row.samples_s) for row in banded]
        low = [bytes_ / max(_ranks_s(row)) for bytes_, row in zip(work, banded, strict=True)]
        high = [bytes_ / min(_ranks_s(row)) for bytes_, row in zip(work, banded, strict=True)]
        _band(axes, index, banded, low, high)
        suspects = [row for row in sent if row.suspect]
        axes.plot([_bytes(row) for row in suspects], [row.value for row in suspects], "o", markersize=16,
                  markerfacecolor="none", markeredgecolor=BAD, markeredgewidth=2)  # fmt: skip
    _axes(sheet, axes, "B/s", "bus bandwidth")
    first = next(iter(series))
    of = f" of {first}" if len(series) > 1 else ""
    roof = next((row.roof.value for row in series[first] if row.roof), None)
    if roof is None:
        axes.text(0.99, 0.04, "the roof is unknown", transform=axes.transAxes, ha="right", color=MUTED)
    else:
        axes.axhline(roof, color=ROOF, linewidth=2.5, zorder=1)
        axes.annotate(f"roof{of} {quantity(roof, 'B/s')}", (0, roof), xycoords=("axes fraction", "data"),
                      xytext=(4, 5), textcoords="offset points", color=ROOF, va="bottom")  # fmt: skip
    low_end, high_end = axes.get_ylim()
    axes.set_ylim(low_end / 1.2, high_end * 1.6)


def _time(sheet: Sheet, series: Series, lines: Lines) -> None:
    axes = sheet.panels[1]
    for index, (name, rows) in enumerate(series.items()):
        _line(axes, index, rows, [median(row.samples_s) for row in rows], name)
        banded = [row for row in rows if _ranks_s(row)]
        low, high = [min(_ranks_s(row)) for row in banded], [max(_ranks_s(row)) for row in banded]
        _band(axes, index, banded, low, high)
        if not index and name in lines:
            config = lines[name].config
            fitted_s = [config["alpha_s"] + _bytes(row) / config["beta"] for row in rows]
            axes.plot([_bytes(row) for row in rows], fitted_s, "--", linewidth=1, color=SERIES[index % len(SERIES)])
    _axes(sheet, axes, "s", "time, median")
    if len(series) > 1:
        handles, names = axes.get_legend_handles_labels()
        sheet.figure.legend(handles, names, loc="outside lower center", ncols=2 if sheet.narrow else len(names))


def _line(axes: "Axes", index: int, rows: Sequence[Measurement], values: Sequence[float], name: str) -> None:
    axes.plot([_bytes(row) for row in rows], values, marker=MARKERS[index % len(MARKERS)], label=name,
              color=SERIES[index % len(SERIES)], markeredgecolor=PAPER)  # fmt: skip


def _band(axes: "Axes", index: int, rows: Sequence[Measurement], low: Sequence[float], high: Sequence[float]) -> None:
    """Of the first series; six bands over each other show nothing."""
    if index:
        return
    colour = SERIES[index % len(SERIES)]
    axes.fill_between([_bytes(row) for row in rows], low, high, color=colour, alpha=0.2, linewidth=0)


def _axes(sheet: Sheet, axes: "Axes", unit: str, title: str) -> None:
    log_axis(axes.xaxis, 2, "B", ticks=4 if sheet.narrow else 5)
    log_axis(axes.yaxis, 10, unit, ticks=5)
    axes.set_title(title)
    axes.set_xlabel("message")


def _alt(series: Series, lines: Lines) -> str:
    parts = []
    for name, rows in series.items():
        best = max(rows, key=lambda row: row.value)
        parts.append(
            f"{name}, {size(_bytes(rows[0]))} to {size(_bytes(rows[-1]))}: bus bandwidth from "
            f"{quantity(rows[0].value, 'B/s')} to {quantity(best.value, 'B/s')} at {size(_bytes(best))}, time from "
            f"{quantity(median(rows[0].samples_s), 's')} to {quantity(median(rows[-1].samples_s), 's')}"
        )
    dashed = " A dashed line is α + s/β." if next(iter(series)) in lines else ""
    known = any(row.roof for rows in series.values() for row in rows)
    roof = "" if known else " No roof is drawn, for none is known."
    return f"Two plots over message size. {'; '.join(parts)}.{dashed}{roof}"
