"""A served model under load: latency over throughput with the promise as a box, goodput over what was asked, and how
the gaps between pieces of text scatter."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record, percentile
from operate.report.canvas import (
    GRID,
    INK,
    MEASURED,
    MUTED,
    PAPER,
    ROOF,
    SECOND,
    THIRD,
    Sheet,
    crowded,
    linear_axis,
    log_axis,
    picture,
)
from operate.report.quantity import quantity, rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Level = dict[str, Measurement]
"""One level's rows by what they are: "throughput", "goodput", "first", "token", "gap", "whole"."""


def serving(records: Sequence[Record]) -> list[Element]:
    """The figures of the first node's record; nothing without an answered level."""
    levels = _levels(records[0])
    if not levels:
        return []
    return [_curve(levels), *_gaps(levels)]


def _levels(record: Record) -> list[Level]:
    """The levels that were answered, in the order they were measured."""
    found: dict[str, Level] = {}
    for row in record.measurements:
        if row.config.get("kind") in ("closed", "open"):
            found.setdefault(str(row.config["level"]), {})[str(row.config["what"])] = row
    return [level for level in found.values() if "first" in level]


def _of(levels: Sequence[Level], kind: str) -> list[Level]:
    return [level for level in levels if level["first"].config["kind"] == kind]


def _curve(levels: Sequence[Level]) -> Element:
    config: dict[str, Any] = levels[0]["first"].config
    bound_s = float(config["ttft_bound_s"])

    def draw(sheet: Sheet) -> None:
        _latency(sheet.panels[0], levels, bound_s, sheet.narrow)
        _goodput(sheet.panels[1], levels)

    best = max(levels, key=lambda level: level["throughput"].value)
    kept = max(levels, key=lambda level: level["goodput"].value)
    caption = (
        f"Each point is a load. The box is the promise: the first token within {quantity(bound_s, 's')} and "
        f"{quantity(float(config['tpot_bound_s']), 's')} per further one. Most tokens: "
        f"{quantity(best['throughput'].value, 'token/s')} at {_name(best)}. Most good requests: "
        f"{rounded(kept['goodput'].value)} a second at {_name(kept)}."
    )
    return picture("serving", draw, alt=_alt(levels), caption=[caption], panels=2, height=400)


def _name(level: Level) -> str:
    return str(level["first"].config["level"])


def _latency(axes: "Axes", levels: Sequence[Level], bound_s: float, narrow: bool) -> None:
    """Median time to first token over tokens per second; the bar above ends at the slowest of 20."""
    log_axis(axes.yaxis, 10, "s", ticks=5)
    values = [median(level["first"].samples_s) for level in levels]
    slow = [percentile(level["first"].samples_s, 0.95) for level in levels]
    most = max(level["throughput"].value for level in levels)
    low, high = min(*values, bound_s) / 2.5, max(*slow, bound_s) * 2.5
    axes.fill_between([0, most * 1.25], low, bound_s, color=ROOF, alpha=0.12, linewidth=0)
    axes.plot([0, most * 1.25], [bound_s, bound_s], color=ROOF, linewidth=1.5)
    axes.annotate("promised", (0, bound_s), xytext=(4, 4), textcoords="offset points", color=ROOF)
    for kind, colour, marker, style in (("closed", MEASURED, "o", "solid"), ("open", SECOND, "s", "none")):
        mine = _of(levels, kind)
        if not mine:
            continue
        x = [level["throughput"].value for level in mine]
        y = [median(level["first"].samples_s) for level in mine]
        top = [percentile(level["first"].samples_s, 0.95) for level in mine]
        axes.vlines(x, y, top, color=colour, linewidth=1.2)
        axes.plot(x, y, marker, color=colour, linestyle=style, linewidth=1, markeredgecolor=PAPER, zorder=4,
                  label="clients that wait" if kind == "closed" else "users who come")  # fmt: skip
        for level, at, value in zip(mine, x, y, strict=True):
            text = f"{float(level['first'].config['load']):.3g}{'/s' if kind == 'open' else ''}"
            axes.annotate(text, (at, value), xytext=(7, -11), textcoords="offset points", color=MUTED, fontsize="small")
    axes.set_xlim(0, most * 1.25)
    axes.set_ylim(low, high)
    linear_axis(axes.xaxis, "", ticks=4 if narrow else 6)
    axes.set_title("time to first token, median to p95")
    axes.set_xlabel("tokens per second")
    axes.legend(loc="lower right")


def _goodput(axes: "Axes", levels: Sequence[Level]) -> None:
    """Answered and good requests per second over those that came; with nothing lost both lie on the diagonal."""
    mine = sorted(_of(levels, "open"), key=lambda level: float(level["goodput"].config["offered"]))
    if not mine:
        axes.text(0.5, 0.5, "no open loop", transform=axes.transAxes, ha="center", color=MUTED)
        return
    x = [float(level["goodput"].config["offered"]) for level in mine]
    top = max(x) * 1.15
    axes.plot([0, top], [0, top], color=GRID, linewidth=1.5, linestyle=(0, (4, 3)))
    axes.annotate("all that came", (top, top), xytext=(-4, -14), textcoords="offset points", ha="right", color=MUTED)
    answered = [float(level["goodput"].config["request_rate"]) for level in mine]
    axes.plot(x, answered, color=SECOND, marker="s", linewidth=1, markeredgecolor=PAPER, label="answered")
    good = [level["goodput"].value for level in mine]
    axes.plot(x, good, color=MEASURED, marker="o", markeredgecolor=PAPER, label="within the promise")
    axes.annotate(rounded(max(good)), (x[good.index(max(good))], max(good)), xytext=(0, 8),
                  textcoords="offset points", ha="center", color=INK)  # fmt: skip
    linear_axis(axes.xaxis, "", ticks=5)
    linear_axis(axes.yaxis, "", ticks=5)
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_title("requests per second")
    axes.set_xlabel("requests that came per second")
    axes.legend(loc="upper left")


def _gaps(levels: Sequence[Level]) -> list[Element]:
    """Inter-token latency of one client and of the most: the same tokens, waited for otherwise."""
    timed = [level for level in _of(levels, "closed") if "gap" in level]
    if not timed:
        return []
    shown = [timed[0]] if len(timed) == 1 else [timed[0], timed[-1]]
    colours = (MEASURED, THIRD)

    def draw(sheet: Sheet) -> None:
        (axes,) = sheet.panels
        top = max(crowded(level["gap"].samples_s) for level in shown)
        low = min(min(level["gap"].samples_s) for level in shown)
        for level, colour in zip(shown, colours, strict=False):
            samples = level["gap"].samples_s
            axes.hist([min(sample, top) for sample in samples], bins=40, range=(low, max(top, low + 1e-6)),
                      weights=[100 / len(samples)] * len(samples), color=colour, alpha=0.75, edgecolor=PAPER,
                      linewidth=0.5, label=f"{_name(level)}: {_spread(samples)}")  # fmt: skip
        linear_axis(axes.xaxis, "s", ticks=4 if sheet.narrow else 7)
        linear_axis(axes.yaxis, "", ticks=4)
        axes.set_ylim(0, axes.get_ylim()[1] * (1.5 if sheet.narrow else 1.3))
        axes.set_title("per cent of the gaps")
        axes.set_xlabel("time between two pieces of text")
        axes.legend(loc="upper right")

    said = "; ".join(f"{_name(level)}: {_spread(level['gap'].samples_s)}" for level in shown)
    caption = f"What a reader sees: the time from one piece of text to the next. {said}."
    alt = f"Histogram of inter-token latencies. {said}."
    return [picture("serving-gaps", draw, alt=alt, caption=[caption], height=300)]


def _spread(samples: Sequence[float]) -> str:
    text = f"median {quantity(median(samples), 's')}"
    return f"{text}, p99 {quantity(percentile(samples, 0.99), 's')}" if len(samples) >= 100 else text


def _alt(levels: Sequence[Level]) -> str:
    said = [
        f"{_name(level)}: {quantity(level['throughput'].value, 'token/s')}, first token after "
        f"{quantity(median(level['first'].samples_s), 's')}, {rounded(level['goodput'].value)} good requests per second"
        for level in levels
    ]
    return f"Time to first token over throughput, and goodput over what came. {'; '.join(said)}."
