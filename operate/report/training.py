"""Training: loss and time of every step."""

from collections.abc import Sequence
from statistics import median
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import INK, MEASURED, SECOND, Sheet, linear_axis, picture
from operate.report.quantity import quantity, rounded


def training(records: Sequence[Record]) -> list[Element]:
    """Step times, and the loss curve where the record has one."""
    record = records[0]
    steps = next((row for row in record.measurements if "step" in row.name.lower() and row.samples_s), None)
    steps = steps or max(record.measurements, key=lambda row: len(row.samples_s), default=None)
    losses = _losses(record)
    if steps is None or len(steps.samples_s) < 2:
        return []

    def draw(sheet: Sheet) -> None:
        _steps(sheet, steps, 0)
        if losses:
            _curve(sheet, losses, 1)

    caption = "Time of every step, in order, over the median (dashed)"
    caption += "; right, the loss of every step." if losses else ". The record holds no loss curve."
    panels = 2 if losses else 1
    return [picture("training", draw, alt=_alt(steps, losses), caption=[caption], panels=panels, height=340)]


def _losses(record: Record) -> list[float]:
    for config in (record.config, *(row.config for row in record.measurements)):
        for name in ("losses", "loss"):
            found = config.get(name)
            if isinstance(found, list) and len(found) > 1 and all(isinstance(loss, int | float) for loss in found):
                return [float(loss) for loss in found]
    return []


def _steps(sheet: Sheet, steps: Measurement, panel: int) -> None:
    axes = sheet.panels[panel]
    middle = median(steps.samples_s)
    axes.plot(
        range(1, len(steps.samples_s) + 1), steps.samples_s, color=MEASURED, marker="o", markersize=4, linewidth=1.2
    )
    axes.axhline(middle, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    linear_axis(axes.yaxis, "s", ticks=5)
    axes.set_ylim(0, max(steps.samples_s) * 1.15)
    axes.set_title(f"time of a step, median {quantity(middle, 's')}")
    axes.set_xlabel("step")


def _curve(sheet: Sheet, losses: Sequence[float], panel: int) -> None:
    axes = sheet.panels[panel]
    axes.plot(range(1, len(losses) + 1), losses, color=SECOND)
    axes.annotate(
        rounded(losses[-1]), (len(losses), losses[-1]), xytext=(0, 6), textcoords="offset points", ha="right", color=INK
    )
    axes.set_title("loss, nats per token")
    axes.set_xlabel("step")


def _alt(steps: Measurement, losses: Sequence[float]) -> str:
    times = steps.samples_s
    text = f"Times of {len(times)} steps, median {quantity(median(times), 's')}, "
    text += f"from {quantity(min(times), 's')} to {quantity(max(times), 's')}."
    if losses:
        text += f" Loss from {rounded(losses[0])} to {rounded(losses[-1])} over {len(losses)} steps."
    return text
