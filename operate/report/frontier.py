"""The frontier: what a token costs over how long its user waits for it, a point for each way to batch."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import INK, MEASURED, PAPER, SECOND, Sheet, label, linear_axis, picture
from operate.report.quantity import dollars, quantity, rounded


def frontier(records: Sequence[Record]) -> list[Element]:
    """Dollars per million tokens over time per token; where no price is known, hours of the machine for them."""
    rows = [row for row in records[0].measurements if row.config.get("tpot_s") and row.unit == "token/s"]
    if len(rows) < 2:
        return []
    priced = all(row.usd_per_unit is not None for row in rows)
    costs = [(row.usd_per_unit or 0.0) if priced else 1e6 / row.value / 3600 for row in rows]

    def draw(sheet: Sheet) -> None:
        _draw(sheet, rows, costs, priced)

    unit = "Dollars" if priced else "Hours of the machine (its price is not known)"
    caption = f"{unit} for a million tokens over the time of each token. Down and left is better; a point with none "
    caption += "below and left of it is on the frontier."
    said = [f"{row.name}: {quantity(row.config['tpot_s'], 's')} a token, {_cost(cost, priced)}"
            for row, cost in zip(rows, costs, strict=True)]  # fmt: skip
    alt = f"What a million tokens cost over the time of each: {'; '.join(said)}."
    return [picture("frontier", draw, alt=alt, caption=[caption], height=380)]


def _cost(cost: float, priced: bool) -> str:
    return dollars(cost) if priced else f"{rounded(cost)} h"


def _draw(sheet: Sheet, rows: Sequence[Measurement], costs: Sequence[float], priced: bool) -> None:
    (axes,) = sheet.panels
    points = [(float(row.config["tpot_s"]), cost, row) for row, cost in zip(rows, costs, strict=True)]
    for kind, colour, marker, name in (("static", MEASURED, "o", "fixed batches"),
                                       ("continuous", SECOND, "s", "continuous")):  # fmt: skip
        mine = [point for point in points if point[2].config["kind"] == kind]
        if mine:
            axes.plot([wait for wait, _, _ in mine], [cost for _, cost, _ in mine], marker=marker, color=colour,
                      markeredgecolor=PAPER, linestyle="--" if kind == "static" else "none", label=name)  # fmt: skip
    widest = max(wait for wait, _, _ in points)
    for wait, cost, row in points:
        right = wait > 0.6 * widest
        axes.annotate(label(f"{row.config['batch']} at once, {_cost(cost, priced)}"), (wait, cost),
                      xytext=(-8 if right else 8, 8), textcoords="offset points", ha="right" if right else "left",
                      color=INK)  # fmt: skip
    axes.set_xlim(0, widest * 1.15)
    axes.set_ylim(0, max(costs) * 1.25)
    linear_axis(axes.xaxis, "s", ticks=5)
    linear_axis(axes.yaxis, "", ticks=5)
    axes.set_title("$ per million tokens" if priced else "machine hours per million tokens")
    axes.set_xlabel("time of each token")
    axes.legend(loc="upper right")
