"""A training over all its lives: its loss against wall time, and where it was lost."""

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from labs.results import Record
from operate.report.canvas import BAD, GRID, INK, MARKERS, MUTED, SERIES, Sheet, linear_axis, picture
from operate.report.quantity import quantity, rounded


def survival(records: Sequence[Record]) -> list[Element]:
    """Loss against wall time, a line a life, and the steps that stood; nothing without steps."""
    lives = _lives(records[0])
    if not any(life["steps"] for life in lives):
        return []

    def draw(sheet: Sheet) -> None:
        _lines(sheet, lives, "losses", "loss")
        _lines(sheet, lives, "steps", "step", panel=1)

    caption = "Left: the loss, at the moment its step was done. Right: the steps that stood then."
    if len(lives) > 1:
        caption += (
            " A red line is the last sign of a life that was lost, a grey one of a life that was told to end and "
        )
        caption += (
            "saved; the band is until the next one's first step. Where a line on the right begins below the end of "
        )
        caption += "the one before, steps were done again; their losses are the same."
    return [picture("survival", draw, alt=_alt(lives), caption=[caption], panels=2, height=380)]


def _lives(record: Record) -> list[dict[str, Any]]:
    rows = (row.config.get("curve") for row in record.measurements if row.config.get("kind") == "training")
    return list(next((curve for curve in rows if curve), []))


def _lines(sheet: Sheet, lives: Sequence[dict[str, Any]], name: str, title: str, panel: int = 0) -> None:
    axes = sheet.panels[panel]
    for number, life in enumerate(lives):
        mark = MARKERS[number % len(MARKERS)]
        label = f"{life['ranks']} ranks" if len(lives) > 1 else None
        axes.plot(life["at_s"], life[name], color=SERIES[number % len(SERIES)], marker=mark, markersize=3.5,
                  linewidth=1.4, label=label)  # fmt: skip
        if number + 1 < len(lives):
            after = lives[number + 1]
            end = max([life["ready_s"], *life["at_s"]])
            again = min([*after["at_s"][:1], after["ready_s"]]) if after["at_s"] else after["ready_s"]
            axes.axvspan(end, max(end, again), color=GRID, linewidth=0)
            axes.axvline(end, color=MUTED if life["told"] else BAD, linewidth=2)
    last = next(life for life in reversed(lives) if life["steps"])
    said = rounded(float(last[name][-1])) if name == "losses" else str(last[name][-1])
    axes.annotate(said, (last["at_s"][-1], last[name][-1]), xytext=(0, 7),
                  textcoords="offset points", ha="right", color=INK)  # fmt: skip
    linear_axis(axes.xaxis, "s", ticks=4)
    linear_axis(axes.yaxis, "", ticks=5, whole=name == "steps")
    axes.set_title(title)
    axes.set_xlabel("time since the first start")
    if len(lives) > 1 and panel == 0:
        axes.legend(loc="upper right")


def _alt(lives: Sequence[dict[str, Any]]) -> str:
    losses = [loss for life in lives for loss in life["losses"]]
    end = max(at for life in lives for at in life["at_s"])
    text = f"Loss from {rounded(losses[0])} to {rounded(losses[-1])} in {quantity(end, 's')}"
    if len(lives) == 1:
        return f"{text}, in one life."
    begins = "; ".join(f"from step {life['resumed']} on {life['ranks']} ranks" for life in lives[1:])
    return f"{text}, in {len(lives)} lives: the later ones went on {begins}."
