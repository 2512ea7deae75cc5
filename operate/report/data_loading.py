"""Data loading: the step's time for each form of the samples and number of workers, the waiting marked."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import BAD, INK, MEASURED, MUTED, PAPER, Sheet, label, linear_axis, picture
from operate.report.quantity import quantity, share


def data_loading(records: Sequence[Record]) -> list[Element]:
    """A bar for each run of the first node, or nothing where none tells what it waited."""
    rows = [row for row in records[0].measurements if isinstance(row.config.get("waited_s"), int | float)]
    if not rows:
        return []

    def draw(sheet: Sheet) -> None:
        _draw(sheet, rows)

    worst = max(rows, key=_starved)
    caption = (
        "Mean time of a step: training in blue, waiting for data in red. The line is what compute and load predict. "
    )
    caption += f"Most starved is {worst.name}, {share(_starved(worst))} of its time."
    return [picture("data-loading", draw, alt=_alt(rows), caption=[caption], height=90 + 34 * len(rows))]


def _starved(row: Measurement) -> float:
    return float(row.config["starved_share"])


def _draw(sheet: Sheet, rows: Sequence[Measurement]) -> None:
    (axes,) = sheet.panels
    longest = 0.0
    for place, row in enumerate(reversed(rows)):
        step_s, waited_s = float(row.config["tokens_per_step"]) / row.value, float(row.config["waited_s"])
        longest = max(longest, step_s)
        axes.barh(place, step_s - waited_s, 0.6, color=MEASURED, edgecolor=PAPER)
        axes.barh(place, waited_s, 0.6, left=step_s - waited_s, color=BAD, edgecolor=PAPER)
        axes.annotate(f"{quantity(waited_s, 's')} waiting", (step_s, place), xytext=(6, 0), textcoords="offset points",
                      color=MUTED, va="center", fontsize="small")  # fmt: skip
        if row.expected:
            predicted = float(row.config["tokens_per_step"]) / row.expected.value
            longest = max(longest, predicted)
            axes.plot([predicted] * 2, [place - 0.36, place + 0.36], color=INK, linewidth=2)
    axes.set_yticks(range(len(rows)), [label(row.name) for row in reversed(rows)])
    axes.set_xlim(0, longest * (1.5 if sheet.narrow else 1.25))
    axes.grid(visible=False)
    linear_axis(axes.xaxis, "s", ticks=3 if sheet.narrow else 6)
    axes.set_xlabel("mean time of a step")


def _alt(rows: Sequence[Measurement]) -> str:
    said = "; ".join(f"{row.name}: {quantity(row.value, row.unit)}, starved {share(_starved(row))}" for row in rows)
    return f"Throughput and waiting by form of the data and number of workers: {said}."
