"""Loss of one model in two arithmetics, step by step, over the band that chance alone makes."""

from collections.abc import Sequence
from statistics import median
from typing import Any
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import INK, MEASURED, MUTED, PAPER, SECOND, Sheet, linear_axis, picture
from operate.report.quantity import quantity, rounded


def parity(records: Sequence[Record]) -> list[Element]:
    """The overlay of the first node, with step times beside it where both ran in hardware."""
    rows = records[0].measurements
    curves = [row for row in rows if row.config.get("kind") == "loss" and len(_losses(row)) > 1]
    if not {"bf16", "fp8"} <= {str(row.config.get("dtype")) for row in curves}:
        return []
    speeds = [row for row in rows if row.config.get("kind") == "speed" and row.samples_s]
    both = len(speeds) == 2

    def draw(sheet: Sheet) -> None:
        _overlay(sheet, curves)
        if both:
            _steps(sheet, speeds)

    late = {str(row.config["dtype"]): row.value for row in reversed(curves)}
    caption = "Loss of every step. The band spans bf16's seeds; fp8 has the first seed's weights and data: "
    caption += f"{rounded(late['fp8'], 4)} in the last quarter, bf16 {rounded(late['bf16'], 4)}."
    caption += " Right: every timed step." if both else " No speed is shown: fp8 was emulated here."
    return [picture("fp8-training", draw, alt=_alt(curves), caption=[caption], panels=2 if both else 1, height=380)]


def _losses(row: Measurement) -> list[float]:
    found: Any = row.config.get("losses")
    return [float(loss) for loss in found] if isinstance(found, list | tuple) else []


def _overlay(sheet: Sheet, curves: Sequence[Measurement]) -> None:
    axes = sheet.panels[0]
    sixteen = [_losses(row) for row in curves if row.config["dtype"] == "bf16"]
    eight = next(_losses(row) for row in curves if row.config["dtype"] == "fp8")
    steps = range(1, min(map(len, (*sixteen, eight))) + 1)
    band = [[losses[step - 1] for losses in sixteen] for step in steps]
    axes.fill_between(steps, list(map(min, band)), list(map(max, band)), color=SECOND, alpha=0.3, linewidth=0,
                      label=f"bf16, {len(sixteen)} seeds")  # fmt: skip
    axes.plot(steps, sixteen[0][: len(steps)], color=SECOND, linewidth=1.5, label="bf16, first seed")
    axes.plot(steps, eight[: len(steps)], color=MEASURED, linewidth=2, linestyle=(0, (5, 2)), label="fp8, first seed")
    floor = next((other.value for row in curves for other in row.others), None)
    if floor is not None:
        axes.axhline(floor, color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)), label="entropy of the data")
    axes.set_ylim(0, max(map(max, band)) * 1.3)
    linear_axis(axes.yaxis, "", ticks=5)
    linear_axis(axes.xaxis, "", whole=True)
    axes.set_title("loss")
    axes.set_xlabel("step")
    axes.legend(loc="upper right", ncols=1)


def _steps(sheet: Sheet, speeds: Sequence[Measurement]) -> None:
    axes = sheet.panels[1]
    for place, (row, colour) in enumerate(zip(speeds, (SECOND, MEASURED), strict=True)):
        spread = [place + 0.3 * (index / max(1, len(row.samples_s) - 1) - 0.5) for index in range(len(row.samples_s))]
        axes.plot(
            spread, row.samples_s, color=colour, marker="o", markersize=5, markeredgecolor=PAPER, linestyle="none"
        )
        axes.hlines(median(row.samples_s), place - 0.3, place + 0.3, color=INK, linewidth=1.5)
        axes.annotate(
            quantity(median(row.samples_s), "s"), (place + 0.33, median(row.samples_s)), color=INK, va="center"
        )
    axes.set_xticks(range(len(speeds)), [str(row.config["dtype"]) for row in speeds])
    axes.set_xlim(-0.5, len(speeds) - 0.2)
    axes.set_ylim(0, max(max(row.samples_s) for row in speeds) * 1.2)
    linear_axis(axes.yaxis, "s", ticks=5)
    axes.set_title("time of a step")


def _alt(curves: Sequence[Measurement]) -> str:
    said = "; ".join(
        f"{row.config['dtype']} seed {row.config['seed']} from {rounded(_losses(row)[0])} to {rounded(row.value)}"
        for row in curves
    )
    return f"Loss over steps: {said}."
