"""A model's operations under two roofs, the datasheet's and the measured one; then each one's time, predicted first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import INK, MEASURED, MUTED, PAPER, ROOF, SECOND, THIRD, Sheet, log_axis, picture
from operate.report.element import el
from operate.report.quantity import quantity, rounded, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = {
    "rows": ("rows × gate-up", MEASURED, "o"),
    "unfused": ("chain, unfused", MUTED, "s"),
    "fused": ("chain, fused", THIRD, "^"),
    "decode": ("decode", INK, "D"),
    "prefill": ("prefill", SECOND, "v"),
}
"""Name, colour and marker of each kind of dot."""
_CONNECTED = ("rows", "fused")
_DASHES = (0, (5, 3))


@dataclass(frozen=True, kw_only=True)
class _Roofline:
    """One roof: a slope and a flat part."""

    name: str
    peak: float
    """FLOP/s."""
    memory: float
    """B/s."""
    measured: bool

    @property
    def ridge(self) -> float:
        """FLOP/B."""
        return self.peak / self.memory


def operations(records: Sequence[Record]) -> list[Element]:
    """The figure and the table of predicted and measured times, of the first node; nothing without dots."""
    rows = [row for row in records[0].measurements if "kind" in row.config]
    dots = [row for row in rows if row.config["kind"] in _KINDS and isinstance(row.config.get("intensity"), float)]
    roofs = _rooflines(rows)
    if not dots or not roofs:
        return []

    def draw(sheet: Sheet) -> None:
        _draw(sheet, dots, roofs)

    node = f", {records[0].node}" if len(records) > 1 else ""
    ridges = "; ".join(f"{roof.name} {quantity(roof.ridge, 'FLOP/B')}" for roof in roofs)
    caption = f"FLOP/s over arithmetic intensity{node}. Solid: datasheet. Dashed: measured here. Ridges: {ridges}."
    if not any(not roof.measured for roof in roofs):
        reason = next((row.no_roof_because for row in dots if row.roof is None), "the datasheet's is not known")
        caption += f" No datasheet's roof is drawn: {reason}."
    figure = picture("operations", draw, alt=_alt(dots, roofs), caption=[caption], height=460)
    return [figure, *_tables(rows)]


def _rooflines(rows: Sequence[Measurement]) -> list[_Roofline]:
    """Both roofs of each data type, as far as they are known."""
    ceilings = [row for row in rows if row.config["kind"] == "ceiling"]
    memory = next((row for row in ceilings if row.unit == "B/s"), None)
    if memory is None:
        return []
    found = []
    for row in ceilings:
        if row.unit == "FLOP/s":
            dtype = str(row.config.get("dtype", ""))
            if row.roof and memory.roof:
                found.append(_Roofline(name=dtype, peak=row.roof.value, memory=memory.roof.value, measured=False))
            found.append(_Roofline(name=f"{dtype} measured", peak=row.value, memory=memory.value, measured=True))
    return found


def _draw(sheet: Sheet, dots: Sequence[Measurement], roofs: Sequence[_Roofline]) -> None:
    (axes,) = sheet.panels
    at = [float(row.config["intensity"]) for row in dots]
    left = min(*at, *(roof.ridge for roof in roofs)) / 2
    right = max(*at, *(roof.ridge for roof in roofs)) * 2.5
    log_axis(axes.xaxis, 10, "", ticks=4 if sheet.narrow else 7)
    log_axis(axes.yaxis, 10, "FLOP/s", ticks=6)
    axes.set_xlim(left, right)
    for roof in roofs:
        _draw_roof(axes, roof, left, right)
    for kind, (name, colour, marker) in _KINDS.items():
        mine = sorted((row for row in dots if row.config["kind"] == kind), key=lambda row: row.config["intensity"])
        if mine:
            axes.plot([row.config["intensity"] for row in mine], [row.value for row in mine], marker, color=colour,
                      linestyle="solid" if kind in _CONNECTED else "none", linewidth=1, markeredgecolor=PAPER,
                      label=name, zorder=4)  # fmt: skip
    low = min(row.value for row in dots)
    high = max(*(row.value for row in dots), *(roof.peak for roof in roofs))
    axes.set_ylim(low / 3, high * 3)
    axes.set_xlabel("arithmetic intensity, FLOP per byte")
    axes.set_title("FLOP/s")
    if sheet.narrow:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
    else:
        axes.legend(loc="lower right")


def _draw_roof(axes: "Axes", roof: _Roofline, left: float, right: float) -> None:
    edges = [left, roof.ridge, right]
    axes.plot(edges, [min(roof.peak, roof.memory * edge) for edge in edges], color=ROOF, zorder=2,
              linewidth=1.6 if roof.measured else 2.5, linestyle=_DASHES if roof.measured else "solid")  # fmt: skip
    axes.annotate(f"{roof.name} {quantity(roof.peak, 'FLOP/s')}", (right, roof.peak), xytext=(0, 4),
                  textcoords="offset points", ha="right", va="bottom", color=ROOF)  # fmt: skip
    if roof.measured:
        axes.annotate(f"ridge {rounded(roof.ridge, 2)}", (roof.ridge, roof.peak), xytext=(2, -6),
                      textcoords="offset points", ha="left", va="top", color=ROOF)  # fmt: skip
        axes.plot([roof.ridge], [roof.peak], "o", color=ROOF, markersize=6, zorder=3)


def _alt(dots: Sequence[Measurement], roofs: Sequence[_Roofline]) -> str:
    text = f"Roofline with {len(dots)} operations. "
    for roof in roofs:
        text += f"Roof {roof.name}: {quantity(roof.peak, 'FLOP/s')}, memory {quantity(roof.memory, 'B/s')}. "
    for kind, (name, _, _) in _KINDS.items():
        mine = [row for row in dots if row.config["kind"] == kind]
        if mine:
            low, high = min(mine, key=_intensity), max(mine, key=_intensity)
            text += f"{name}: {quantity(low.value, 'FLOP/s')} at {rounded(_intensity(low))} FLOP per byte"
            text += "" if low is high else f" to {quantity(high.value, 'FLOP/s')} at {rounded(_intensity(high))}"
            text += ". "
    return text.strip()


def _intensity(row: Measurement) -> float:
    return float(row.config["intensity"])


def _tables(rows: Sequence[Measurement]) -> list[Element]:
    """For decode and prefill: what each operation should take, what it took, and where the step's time went."""
    found = []
    for step in rows:
        if step.config["kind"] == "step":
            parts = [row for row in rows if row.config["kind"] == step.config.get("of") and "times" in row.config]
            found.append(_table(step, parts))
    return found


def _table(step: Measurement, parts: Sequence[Measurement]) -> Element:
    heads = ("Operation", "Times a step", "Predicted", "Measured", "Gap in the step")
    body = el("tbody")
    for row in parts:
        times, predicted_s = int(row.config["times"]), float(row.config["predicted_s"])
        taken_s = float(row.config["flops"]) / row.value
        body.append(_line(row.name, f"{times}", predicted_s, taken_s, times, str(row.config.get("bound_by", ""))))
    body.append(_line(step.name, "", float(step.config["predicted_s"]), step.value, 1, ""))
    caption = el("caption", f"{step.name}: predicted by the measured roof, then measured.")
    head = el("thead", el("tr", *(el("th", text, scope="col") for text in heads)))
    return el("div", el("div", el("table", caption, head, body), class_="scroll"), class_="rows")


def _line(name: str, times: str, predicted_s: float, taken_s: float, count: int, bound_by: str) -> Element:
    gap_s = count * (taken_s - predicted_s)
    small = el("span", f"bound by {bound_by}", class_="small") if bound_by else None
    gap = quantity(gap_s, "s") if gap_s > 0 else "none"
    return el(
        "tr",
        el("th", name, small, scope="row"),
        el("td", times or "–", data_label="Times a step"),
        el("td", quantity(predicted_s, "s"), data_label="Predicted"),
        el("td", el("strong", quantity(taken_s, "s")), el("span", share(predicted_s / taken_s), class_="small"),
           data_label="Measured"),
        el("td", gap, data_label="Gap in the step"),
    )  # fmt: skip
