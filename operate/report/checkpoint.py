"""Checkpoints: the steps of a training run in time, with a save by each way at its beginning."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import BAD, INK, MEASURED, MUTED, PAPER, SECOND, Sheet, label, linear_axis, picture
from operate.report.quantity import quantity


def checkpoint(records: Sequence[Record]) -> list[Element]:
    """A strip for each way of saving, by the later saves where there are any; nothing without steps."""
    strips = _strips(records[0])
    if not strips:
        return []

    def draw(sheet: Sheet) -> None:
        _strips_of(sheet, strips)
        _blocked(sheet, strips)

    least = min(strips, key=lambda row: row.value)
    caption = (
        "Left: every step of a run that begins with a save. The call and the wait for the copy stand in the way of "
    )
    caption += "the steps; the line above them is the writing in the background. Right: wall time that a save cost, "
    caption += f"least by {least.config['way']}, {quantity(least.value, 's')}; the whisker is the noise of steps alone."
    return [picture("checkpoint", draw, alt=_alt(strips), caption=[caption], panels=2, height=400)]


def _strips(record: Record) -> list[Measurement]:
    rows = [row for row in record.measurements if row.config.get("kind") == "blocked" and row.config.get("ends_s")]
    later = {row.config["way"]: row for row in rows if not row.config.get("first")}
    return [*{**{row.config["way"]: row for row in rows}, **later}.values()]


def _span(row: Measurement, name: str) -> float:
    return sum(span.seconds for span in row.spans if span.name == name)


def _strips_of(sheet: Sheet, strips: Sequence[Measurement]) -> None:
    axes = sheet.panels[0]
    for place, row in enumerate(reversed(strips)):
        ends, called = [float(end) for end in row.config["ends_s"]], _span(row, "the call")
        waited = _span(row, "waiting for the copy")
        begins = [called, *ends[:-1]]
        steps = [(begin, max(0.0, end - begin)) for begin, end in zip(begins, ends, strict=True)]
        axes.broken_barh(steps, (place - 0.2, 0.4), facecolor=MEASURED, edgecolor=PAPER, linewidth=0.6)
        axes.broken_barh([(0, called)], (place - 0.2, 0.4), facecolor=BAD, edgecolor=PAPER, linewidth=0.6)
        if waited > 0:
            axes.broken_barh([(called, waited)], (place - 0.2, 0.2), facecolor=BAD, edgecolor="none")
        written = max(called, min(float(value) for value in row.config["written_s"]))
        axes.plot([0, written], [place + 0.32] * 2, color=SECOND, linewidth=3, solid_capstyle="butt")
    axes.set_yticks(range(len(strips)), [label(str(row.config["way"])) for row in reversed(strips)])
    axes.set_ylim(-0.6, len(strips) - 0.2)
    axes.grid(visible=False)
    linear_axis(axes.xaxis, "s", ticks=4)
    axes.set_title("steps (blue), in the way (red), writing (line)")
    axes.set_xlabel("time since the call")


def _blocked(sheet: Sheet, strips: Sequence[Measurement]) -> None:
    axes = sheet.panels[1]
    for place, row in enumerate(reversed(strips)):
        noise = float(row.config.get("noise_s", 0.0))
        axes.barh(place, row.value, 0.5, color=MEASURED if row.value >= 0 else MUTED, xerr=noise, ecolor=MUTED)
        axes.annotate(quantity(row.value, "s"), (max(row.value, 0.0) + noise, place), xytext=(5, 0),
                      textcoords="offset points", color=INK, va="center")  # fmt: skip
    axes.set_yticks(range(len(strips)), [""] * len(strips))
    axes.set_ylim(-0.6, len(strips) - 0.2)
    most = max(row.value + float(row.config.get("noise_s", 0.0)) for row in strips)
    axes.set_xlim(min(0.0, *(row.value for row in strips)), most * 1.35 if most > 0 else 1.0)
    axes.grid(visible=False)
    linear_axis(axes.xaxis, "s", ticks=4)
    axes.set_title("wall time that a save cost")
    axes.set_xlabel("blocked")


def _alt(strips: Sequence[Measurement]) -> str:
    said = "; ".join(f"{row.config['way']}: blocked {quantity(row.value, 's')}" for row in strips)
    return f"What a save costs the training, by the way it is saved: {said}."
