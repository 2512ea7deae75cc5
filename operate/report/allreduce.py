"""All-reduce over message size: bus bandwidth, and time."""

from collections.abc import Sequence
from statistics import median
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record, percentile
from operate.report.canvas import BAD, MARKERS, MUTED, PAPER, ROOF, SERIES, Sheet, log_axis, picture
from operate.report.quantity import quantity, size


def allreduce(records: Sequence[Record]) -> list[Element]:
    """Bus bandwidth and latency beside each other, or nothing where no row has a size in bytes."""
    series = _series(records)
    if not series:
        return []

    def draw(sheet: Sheet) -> None:
        _bandwidth(sheet, series)
        _time(sheet, series)

    spread = "The band spans the 10th to the 90th percentile of the samples."
    return [
        picture(
            "allreduce", draw, alt=_alt(series), caption=[f"{_names(series)} over message size. {spread}"], panels=2
        )
    ]


def _series(records: Sequence[Record]) -> dict[str, list[Measurement]]:
    """Rows with a size and a rate, by operation, smallest first."""
    found: dict[str, list[Measurement]] = {}
    for record in records:
        for row in record.measurements:
            if (
                isinstance(row.config.get("bytes"), int)
                and row.config["bytes"] > 0
                and row.unit == "B/s"
                and row.value > 0
            ):
                found.setdefault(str(row.config.get("op", "all-reduce")), []).append(row)
    return {name: sorted(rows, key=_bytes) for name, rows in found.items()}


def _bytes(row: Measurement) -> int:
    return int(row.config["bytes"])


def _names(series: dict[str, list[Measurement]]) -> str:
    names = ", ".join(series)
    return names[:1].upper() + names[1:]


def _bandwidth(sheet: Sheet, series: dict[str, list[Measurement]]) -> None:
    axes = sheet.panels[0]
    roofs: dict[float, None] = {}
    for index, (name, rows) in enumerate(series.items()):
        style = {"color": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)]}
        axes.plot(
            [_bytes(row) for row in rows], [row.value for row in rows], label=name, markeredgecolor=PAPER, **style
        )
        banded = [row for row in rows if len(row.samples_s) > 1]
        scale = [row.value * median(row.samples_s) for row in banded]  # value is work over time: other samples scale
        axes.fill_between(
            [_bytes(row) for row in banded],
            [work / percentile(row.samples_s, 0.9) for work, row in zip(scale, banded, strict=True)],
            [work / percentile(row.samples_s, 0.1) for work, row in zip(scale, banded, strict=True)],
            color=style["color"], alpha=0.18, linewidth=0,
        )  # fmt: skip
        roofs.update(dict.fromkeys(row.roof.value for row in rows if row.roof))
        for row in rows:
            if row.suspect:
                axes.plot(_bytes(row), row.value, "o", markersize=15, markerfacecolor="none", markeredgecolor=BAD)
    log_axis(axes.xaxis, 2, "B", ticks=4 if sheet.narrow else 5)
    log_axis(axes.yaxis, 10, "B/s", ticks=5)
    for roof in roofs:
        axes.axhline(roof, color=ROOF, linewidth=2.5, zorder=1)
        axes.annotate(f"roof {quantity(roof, 'B/s')}", (0, roof), xycoords=("axes fraction", "data"), xytext=(4, 5),
                      textcoords="offset points", color=ROOF, va="bottom")  # fmt: skip
    if not roofs:
        axes.text(0.99, 0.04, "the roof is unknown", transform=axes.transAxes, ha="right", color=MUTED)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.2, high * 1.6)
    axes.set_title("bus bandwidth")
    axes.set_xlabel("message")
    if len(series) > 1:
        axes.legend(loc="lower right")


def _time(sheet: Sheet, series: dict[str, list[Measurement]]) -> None:
    axes = sheet.panels[1]
    for index, (name, rows) in enumerate(series.items()):
        timed = [row for row in rows if row.samples_s]
        sizes = [_bytes(row) for row in timed]
        style = {"color": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)]}
        axes.plot(sizes, [median(row.samples_s) for row in timed], label=name, markeredgecolor=PAPER, **style)
        low = [percentile(row.samples_s, 0.1) for row in timed]
        high = [percentile(row.samples_s, 0.9) for row in timed]
        axes.fill_between(sizes, low, high, color=style["color"], alpha=0.18, linewidth=0)
    log_axis(axes.xaxis, 2, "B", ticks=4 if sheet.narrow else 5)
    log_axis(axes.yaxis, 10, "s", ticks=5)
    axes.set_title("time, median")
    axes.set_xlabel("message")


def _alt(series: dict[str, list[Measurement]]) -> str:
    parts = []
    for name, rows in series.items():
        best = max(rows, key=lambda row: row.value)
        parts.append(
            f"{name}, {size(_bytes(rows[0]))} to {size(_bytes(rows[-1]))}: bus bandwidth from "
            f"{quantity(rows[0].value, 'B/s')} to {quantity(best.value, 'B/s')} at {size(_bytes(best))}"
        )
    known = any(row.roof for rows in series.values() for row in rows)
    return (
        "Two plots over message size. "
        + "; ".join(parts)
        + ("." if known else ". No roof is drawn, for none is known.")
    )
