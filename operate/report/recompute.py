"""Time against memory of a training step: measured points, and the line that FLOPs and closed forms predict."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import INK, MEASURED, MUTED, PAPER, ROOF, Sheet, linear_axis, picture
from operate.report.quantity import quantity, rounded


def recompute(records: Sequence[Record]) -> list[Element]:
    """The curve of the first node, or nothing where it has no two points."""
    rows = [row for row in records[0].measurements if row.config.get("kind") == "time" and row.unit == "s"]
    if len(rows) < 2:
        return []
    rows.sort(key=_kept, reverse=True)
    most, least = rows[0], rows[-1]

    def draw(sheet: Sheet) -> None:
        _draw(sheet, rows)

    caption = f"Each point keeps less than the one to its right: {quantity(_kept(most), 'B')} down to "
    caption += f"{quantity(_kept(least), 'B')}, {rounded(_kept(most) / max(1.0, _kept(least)), 2)} times less, for "
    caption += f"{rounded(least.value / most.value, 3)} times the time. The dashed line is what FLOPs and closed forms "
    caption += "predict, from the time of keeping everything."
    return [picture("recompute", draw, alt=_alt(rows), caption=[caption], height=400)]


def _kept(row: Measurement) -> float:
    return float(row.config["kept_bytes"])


def _draw(sheet: Sheet, rows: Sequence[Measurement]) -> None:
    (axes,) = sheet.panels
    predicted = [(float(row.config["predicted_bytes"]), row.expected.value) for row in rows if row.expected]
    axes.plot(*zip(*predicted, strict=True), color=INK, linewidth=1.5, linestyle=(0, (4, 3)), label="predicted")
    axes.plot([_kept(row) for row in rows], [row.value for row in rows], color=MEASURED, marker="o",
              markeredgecolor=PAPER, linewidth=1.2, label="measured")  # fmt: skip
    for row in rows:
        axes.annotate(row.name.removeprefix("step, "), (_kept(row), row.value), xytext=(6, 8),
                      textcoords="offset points", color=MUTED, fontsize="small")  # fmt: skip
    if rows[0].roof:
        axes.axhline(rows[0].roof.value, color=ROOF, linewidth=2.5, label=f"roof {quantity(rows[0].roof.value, 's')}")
    axes.set_xlim(0, max(map(_kept, rows)) * (1.4 if sheet.narrow else 1.2))
    axes.set_ylim(0, max(row.value for row in rows) * 1.35)
    linear_axis(axes.xaxis, "B", ticks=4 if sheet.narrow else 7)
    linear_axis(axes.yaxis, "s", ticks=5)
    axes.set_title("time of forward and backward")
    axes.set_xlabel("kept for the backward pass")
    axes.legend(loc="lower left")


def _alt(rows: Sequence[Measurement]) -> str:
    said = "; ".join(
        f"{row.name.removeprefix('step, ')}: {quantity(_kept(row), 'B')} kept, {quantity(row.value, 's')}"
        for row in rows
    )
    return f"Time of a training step against what it keeps: {said}."
