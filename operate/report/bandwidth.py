"""Memory's rate over the size of the arrays, one line for each kernel, the cache and the roof drawn in."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import MARKERS, MUTED, PAPER, ROOF, SERIES, Sheet, linear_axis, log_axis, picture
from operate.report.quantity import quantity, size

_KERNELS = ("read", "copy", "scale", "triad")
Series = dict[str, list[Measurement]]
"""Rows by kernel, smallest array first."""


def bandwidth(records: Sequence[Record]) -> list[Element]:
    """The curve of the first node's first data type, or nothing where no row has an array's size."""
    series = _series(records[0])
    if not series:
        return []

    def draw(sheet: Sheet) -> None:
        _draw(sheet, series)

    dtype = next(iter(series.values()))[0].config["dtype"]
    node = f" on {records[0].node}" if len(records) > 1 else ""
    caption = f"B/s over the size of each array, {dtype}{node}."
    past = [row for rows in series.values() for row in rows if row.config.get("past_cache")]
    if past:
        best = max(past, key=lambda row: row.value)
        caption += f" Past the cache the fastest is {best.config['kernel']}, {quantity(best.value, 'B/s')}."
    else:
        caption += " No array was past the cache: none of this is the memory's rate."
    reason = next((row.no_roof_because for row in past if row.roof is None), "")
    caption += f" No roof is drawn: {reason}." if reason else ""
    return [picture("bandwidth", draw, alt=_alt(series), caption=[caption], height=400)]


def _series(record: Record) -> Series:
    rows = [row for row in record.measurements if isinstance(row.config.get("array_bytes"), int)]
    dtype = rows[0].config.get("dtype") if rows else None
    found: Series = {}
    for kernel in _KERNELS:
        mine = [row for row in rows if (row.config.get("kernel"), row.config.get("dtype")) == (kernel, dtype)]
        if mine:
            found[kernel] = sorted(mine, key=_bytes)
    return found


def _bytes(row: Measurement) -> int:
    return int(row.config["array_bytes"])


def _draw(sheet: Sheet, series: Series) -> None:
    (axes,) = sheet.panels
    for index, (kernel, rows) in enumerate(series.items()):
        axes.plot([_bytes(row) for row in rows], [row.value for row in rows], marker=MARKERS[index], label=kernel,
                  color=SERIES[index], markeredgecolor=PAPER)  # fmt: skip
    log_axis(axes.xaxis, 2, "B", ticks=4 if sheet.narrow else 7)
    linear_axis(axes.yaxis, "B/s", ticks=5)
    rows = [row for kernel_rows in series.values() for row in kernel_rows]
    top = max(row.value for row in rows)
    for roof in dict.fromkeys(row.roof.value for row in rows if row.roof):
        top = max(top, roof)
        axes.axhline(roof, color=ROOF, linewidth=2.5, zorder=1)
        axes.annotate(f"roof {quantity(roof, 'B/s')}", (1, roof), xycoords=("axes fraction", "data"), xytext=(0, 5),
                      textcoords="offset points", color=ROOF, ha="right", va="bottom")  # fmt: skip
    axes.set_ylim(0, top * 1.25)
    cache = rows[0].config.get("cache_bytes")
    if isinstance(cache, int) and _bytes(rows[0]) < cache < max(map(_bytes, rows)):
        axes.axvline(cache, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate("cache", (cache, 0.03), xycoords=("data", "axes fraction"), xytext=(5, 0),
                      textcoords="offset points", color=MUTED)  # fmt: skip
    axes.set_title("rate")
    axes.set_xlabel("size of each array")
    axes.legend(loc="upper right", ncols=2 if sheet.narrow else 4)


def _alt(series: Series) -> str:
    parts = [
        f"{kernel} from {quantity(rows[0].value, 'B/s')} at {size(_bytes(rows[0]))} to "
        f"{quantity(rows[-1].value, 'B/s')} at {size(_bytes(rows[-1]))}"
        for kernel, rows in series.items()
    ]
    return f"Rate of memory over the size of each array: {'; '.join(parts)}."
