"""Clock and power over a sustained stretch: how the power cap, and not the kernel, sets the pace."""

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import MARKERS, MUTED, PAPER, ROOF, SERIES, Sheet, label, linear_axis, picture
from operate.report.quantity import rounded

_MOST = 4
_Told = list[tuple[float, float]]
"""Seconds since the stretch began, and what was told then."""


def clock(records: Sequence[Record]) -> list[Element]:
    """Both traces of the first node's first sustained row of each data type; nothing where no device told any."""
    found: dict[str, Measurement] = {}
    for row in records[0].measurements:
        if row.config.get("trace") and row.config.get("regime") == "sustained":
            found.setdefault(label(str(row.config.get("dtype", row.name))), row)
    shown = dict(list(found.items())[:_MOST])
    traces = [(title, unit, limit, said, {name: told for name, row in shown.items() if (told := _told(row, column))})
              for title, unit, column, limit, said in (("SM clock", "MHz", 1, _limit(shown, "top_mhz"), "top clock"),
                                                       ("power", "W", 2, _limit(shown, "cap_w"), "cap"))]  # fmt: skip
    drawn = [trace for trace in traces if trace[-1]]
    if not drawn:
        return []

    def draw(sheet: Sheet) -> None:
        for axes, trace in zip(sheet.panels, drawn, strict=True):
            _draw(axes, *trace)
            axes.set_xlabel("seconds back to back")

    node = f" on {records[0].node}" if len(records) > 1 else ""
    caption = f"What the device told while products ran back to back{node}; the first half gives no samples. "
    caption += "Power is an average over up to a second on some devices, so it may lag behind the clock. "
    caption += "The clock's axis does not begin at zero."
    reasons = [
        f"{name}: {', '.join(row.config['held_by'])}" for name, row in shown.items() if row.config.get("held_by")
    ]
    caption += f" Held down at the end by: {'; '.join(reasons)}." if reasons else ""
    if len(found) > len(shown):
        caption += f" {len(found) - len(shown)} more in the record."
    said = [f"{title} of {name} from {rounded(told[0][1], 4)} to {rounded(told[-1][1], 4)} {unit}"
            for title, unit, _, _, series in drawn for name, told in series.items()]  # fmt: skip
    alt = f"Clock and power over time: {'; '.join(said)}."
    return [picture("clock", draw, alt=alt, caption=[caption], panels=len(drawn), height=360)]


def _told(row: Measurement, column: int) -> _Told:
    return [(float(moment[0]), float(moment[column])) for moment in row.config["trace"] if moment[column] is not None]


def _limit(shown: dict[str, Measurement], name: str) -> float | None:
    return next((float(row.config[name]) for row in shown.values() if row.config.get(name)), None)


def _draw(axes: Any, title: str, unit: str, limit: float | None, said: str, series: dict[str, _Told]) -> None:
    for place, (name, told) in enumerate(series.items()):
        axes.plot([at for at, _ in told], [value for _, value in told], marker=MARKERS[place], markersize=5,
                  color=SERIES[place], markeredgecolor=PAPER, label=name)  # fmt: skip
    values = [value for told in series.values() for _, value in told] + ([limit] if limit else [])
    if limit:
        axes.axhline(limit, color=ROOF, linewidth=2.5, zorder=1)
        axes.annotate(f"{said} {rounded(limit, 4)} {unit}", (1, limit), xycoords=("axes fraction", "data"),
                      xytext=(0, 5), textcoords="offset points", color=ROOF, ha="right", va="bottom")  # fmt: skip
    spread = max(values) if unit == "W" else max(max(values) - min(values), 0.02 * max(values))
    axes.set_ylim(max(0.0, min(values) - spread), max(values) + 0.3 * spread)
    axes.set_xlim(left=0)
    linear_axis(axes.xaxis, "s", ticks=5)
    linear_axis(axes.yaxis, unit, ticks=5)
    axes.set_title(title)
    if len(series) > 1:
        axes.legend(loc="lower right", labelcolor=MUTED)
