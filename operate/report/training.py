"""Training: loss and time of every step."""

from collections.abc import Sequence
from statistics import median
from typing import Any
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import INK, MEASURED, ROOF, SECOND, THIRD, Sheet, linear_axis, picture
from operate.report.quantity import quantity, rounded


def training(records: Sequence[Record]) -> list[Element]:
    """Step times beside one rank's alone, and the loss curve where the record has one."""
    steps = next((row for row in records[0].measurements if row.name == "step" and len(row.samples_s) > 1), None)
    if steps is None:
        return []
    losses = _losses(steps)

    def draw(sheet: Sheet) -> None:
        _steps(sheet, steps)
        if losses:
            _curve(sheet, losses)

    caption = "Time of every timed step, in order"
    caption += ", and the loss of every step." if losses else ". The record holds no loss curve."
    if steps.roof is None:
        caption += f" No floor is drawn: {steps.no_roof_because}."
    panels = 2 if losses else 1
    return [picture("training", draw, alt=_alt(steps, losses), caption=[caption], panels=panels, height=360)]


def _losses(steps: Measurement) -> list[float]:
    found = steps.config.get("losses")
    if not isinstance(found, list | tuple) or len(found) < 2:
        return []
    return [float(loss) for loss in found]


def _alone_s(steps: Measurement) -> float | None:
    """Median time of a step on one rank alone, with the same share of the batch."""
    found = steps.config.get("alone_s")
    return float(found) if isinstance(found, int | float) else None


def _steps(sheet: Sheet, steps: Measurement) -> None:
    axes = sheet.panels[0]
    times = steps.samples_s
    axes.plot(range(1, len(times) + 1), times, color=MEASURED, marker="o", markersize=4, linewidth=1.2)
    middle, alone_s = median(times), _alone_s(steps)
    lines: list[tuple[float, str, str, Any]] = [(middle, INK, "median", (0, (4, 3)))]
    if alone_s is not None:
        lines.append((alone_s, THIRD, "one rank alone", (0, (1, 2))))
    if steps.roof:
        lines.append((steps.roof.value, ROOF, "roof", "solid"))
    for value, colour, name, dashes in lines:
        label = f"{name} {quantity(value, 's')}"
        axes.axhline(value, color=colour, linewidth=2.5 if name == "roof" else 1.5, linestyle=dashes, label=label)
    linear_axis(axes.yaxis, "s", ticks=5)
    linear_axis(axes.xaxis, "", whole=True)
    axes.set_ylim(0, max(*times, *(value for value, *_ in lines)) * (1.45 if sheet.narrow else 1.35))
    axes.set_title("time of a step")
    axes.set_xlabel("timed step")
    axes.legend(loc="upper left", ncols=1)


def _curve(sheet: Sheet, losses: Sequence[float]) -> None:
    axes = sheet.panels[1]
    count = len(losses)
    axes.plot(range(1, count + 1), losses, color=SECOND)
    axes.annotate(rounded(losses[-1]), (count, losses[-1]), xytext=(0, 7), textcoords="offset points", ha="right",
                  color=INK)  # fmt: skip
    linear_axis(axes.yaxis, "", ticks=5)
    linear_axis(axes.xaxis, "", whole=True)
    axes.set_title("loss")
    axes.set_xlabel("step")


def _alt(steps: Measurement, losses: Sequence[float]) -> str:
    times, alone_s = steps.samples_s, _alone_s(steps)
    text = f"Times of {len(times)} steps, median {quantity(median(times), 's')}, "
    text += f"from {quantity(min(times), 's')} to {quantity(max(times), 's')}"
    text += "." if alone_s is None else f"; one rank alone takes {quantity(alone_s, 's')}."
    if losses:
        text += f" Loss from {rounded(losses[0])} to {rounded(losses[-1])} over {len(losses)} steps."
    return text
