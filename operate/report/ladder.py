"""The optimisation ladder: each rung's time per token, what it removed, and the floor that its bytes set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import BAD, GRID, INK, MEASURED, ROOF, Sheet, linear_axis, picture
from operate.report.element import el
from operate.report.quantity import quantity, rounded, share, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEFT_OUT = (": not applicable, ", ": skipped, ", ": failed, ")
_HEIGHT = 0.62


def ladder(records: Sequence[Record]) -> list[Element]:
    """The waterfall and the table of gains and quality of the first node's ladder; nothing without rungs."""
    rows = [row for row in records[0].measurements if row.config.get("kind") == "rung" and row.others]
    if not rows:
        return []

    def draw(sheet: Sheet) -> None:
        _draw(sheet, rows)

    node = f" on {records[0].node}" if len(records) > 1 else ""
    first, best = rows[0], min(rows, key=lambda row: row.value)
    caption = (
        f"Milliseconds a token on each rung{node}. Light: what it removed from the rung it stands on; red: what it "
        f"added. The upright line is the floor, its bytes ÷ the measured rate. From {quantity(first.value, 's')} to "
        f"{quantity(best.value, 's')}, {rounded(first.value / best.value, 2)} times, by {best.config['rung']}."
    )
    out = [note for note in records[0].notes if any(mark in note for mark in _LEFT_OUT)]
    caption += f" Left out: {'; '.join(out)}." if out else ""
    height = 110 + 34 * len(rows)
    return [picture("ladder", draw, alt=_alt(rows), caption=[caption], height=height), _table(rows)]


def _draw(sheet: Sheet, rows: Sequence[Measurement]) -> None:
    (axes,) = sheet.panels
    times = {str(row.config["rung"]): row.value for row in rows}
    most = max(times.values())
    for place, row in enumerate(rows):
        base = times.get(str(row.config["on"]), row.value)
        axes.barh(place, min(row.value, base), height=_HEIGHT, color=MEASURED)
        if base > row.value:
            axes.barh(place, base - row.value, left=row.value, height=_HEIGHT, color=GRID)
        elif base < row.value:
            axes.barh(place, row.value - base, left=base, height=_HEIGHT, color=BAD)
        _mark_floor(axes, place, row.others[0].value)
        axes.annotate(quantity(row.value, "s"), (max(row.value, base), place), xytext=(5, 0),
                      textcoords="offset points", va="center", color=INK)  # fmt: skip
    axes.set_yticks(range(len(rows)), [str(row.config["rung"]) for row in rows])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlim(0, most * (1.3 if sheet.narrow else 1.12))
    linear_axis(axes.xaxis, "s", ticks=4 if sheet.narrow else 7)
    axes.set_title("time per token")


def _mark_floor(axes: "Axes", place: int, floor_s: float) -> None:
    axes.plot([floor_s, floor_s], [place - _HEIGHT / 2 - 0.08, place + _HEIGHT / 2 + 0.08], color=ROOF, linewidth=3,
              solid_capstyle="butt")  # fmt: skip


def _alt(rows: Sequence[Measurement]) -> str:
    told = [
        f"{row.config['rung']} {quantity(row.value, 's')}, floor {quantity(row.others[0].value, 's')}" for row in rows
    ]
    return f"Bars of the time per token on {len(rows)} rungs: {'; '.join(told)}."


def _table(rows: Sequence[Measurement]) -> Element:
    """What each rung reads, gains and leaves of the answer."""
    trained = any(row.config.get("perplexity") for row in rows)
    heads = ["Rung", "Reads a token", "Of the read rate", "Gain", "Logit error", "KL", "Same token"]
    heads += ["Perplexity"] if trained else []
    heads += ["Peak memory"]
    body = el("tbody", *(_line(row, trained) for row in rows))
    against = str(rows[0].config["rung"])
    positions = rows[0].config["positions"]
    text = f"Quality beside {against}, on the same {positions} tokens; its own beside one pass without a cache."
    caption = el("caption", text)
    head = el("thead", el("tr", *(el("th", text, scope="col") for text in heads)))
    return el("div", el("div", el("table", caption, head, body), class_="scroll"), class_="rows")


def _line(row: Measurement, trained: bool) -> Element:
    told = row.config
    gain, peak = told.get("gain"), told.get("peak_bytes")
    cells = [
        ("Reads a token", quantity(float(told["bytes"]), "B")),
        ("Of the read rate", share(row.share_of(row.others[0]))),
        ("Gain", f"{rounded(float(gain), 3)} × {told['on']}" if gain else "–"),
        ("Logit error", rounded(float(told["error"]), 2)),
        ("KL", f"{rounded(float(told['kl_nats']), 2)} nat"),
        ("Same token", share(float(told["agreement"]))),
    ]
    cells += [("Perplexity", rounded(float(told["perplexity"]), 3))] if trained else []
    cells += [("Peak memory", size(int(peak)) if peak else "not told")]
    name = el("th", str(told["rung"]), el("span", str(told["does"]), class_="small"), scope="row")
    return el("tr", name, *(el("td", text, data_label=label) for label, text in cells))
