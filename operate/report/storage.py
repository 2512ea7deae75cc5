"""Storage: bars of every operation beside what is documented, a panel for rates and one for counts; and loads of
weights beside the slowest link on their way."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import INK, MEASURED, MUTED, ROOF, SECOND, Sheet, label, linear_axis, picture
from operate.report.quantity import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"rooflab": MEASURED, "fio": SECOND}


def storage(records: Sequence[Record]) -> list[Element]:
    """One figure for each place of the first node."""
    rows = [row for row in records[0].measurements if row.config.get("place")]
    return [_place(index, [row for row in rows if row.config["place"] == name])
            for index, name in enumerate(dict.fromkeys(str(row.config["place"]) for row in rows))]  # fmt: skip


def _place(index: int, rows: list[Measurement]) -> Element:
    rates = [row for row in rows if row.unit == "B/s"]
    counts = [row for row in rows if row.unit != "B/s"]
    place = str(rows[0].config["place"])

    def draw(sheet: Sheet) -> None:
        for axes, shown, unit, title in zip(
            sheet.panels, (rates, counts), ("B/s", ""), ("large files", "4 KiB reads and small files, a second"),
            strict=False,
        ):  # fmt: skip
            _bars(axes, [(_short(row), row, str(row.config["by"])) for row in shown], unit)
            axes.set_title(title)

    caption = f"{place}: cold is past the page cache, warm through it; the mark is what AWS documents."
    caption += " A grey bar is longer than drawn."
    reasons = dict.fromkeys(row.no_roof_because for row in rates if row.roof is None and row.config["cache"] != "warm")
    caption += f" No mark: {next(iter(reasons))}." if reasons else ""
    return picture(f"storage-{index}", draw, alt=_alt(place, rows), caption=[caption], panels=2, height=330)


def _short(row: Measurement) -> str:
    op, cache = str(row.config["op"]), str(row.config["cache"])
    return f"{op.replace(' small', ' files')}, {cache}" + (" (fio)" if row.config["by"] == "fio" else "")


def _bars(axes: "Axes", bars: Sequence[tuple[str, Measurement, str]], unit: str) -> None:
    """Horizontal bars, the first on top, each with its value and its roof as a mark. What memory did would leave no
    room for the disk: its bar ends where the others do, in another colour."""
    disk = [row for _, row, _ in bars if row.config["cache"] != "warm"] or [row for _, row, _ in bars]
    top = max(max(row.value, row.roof.value if row.roof else 0.0) for row in disk)
    for place, (_, row, by) in enumerate(bars):
        shown = min(row.value, 1.05 * top)
        axes.barh(-place, shown, height=0.6, color=_COLOURS.get(by, MEASURED) if shown == row.value else MUTED)
        beside = max(shown, row.roof.value) if row.roof and row.roof.value < 1.25 * shown else shown
        text = quantity(row.value, unit) if unit else f"{row.value:,.0f}"
        axes.annotate(text, (beside, -place), xytext=(6, 0), textcoords="offset points", va="center", color=INK)
        if row.roof:
            axes.plot([row.roof.value] * 2, [-place - 0.42, -place + 0.42], color=ROOF, linewidth=3)
    axes.set_yticks([-place for place in range(len(bars))], [label(name) for name, _, _ in bars])
    axes.grid(visible=False)
    axes.xaxis.grid(visible=True)
    linear_axis(axes.xaxis, unit, ticks=3)
    axes.set_xlim(0, top * 1.35)


def _alt(place: str, rows: Sequence[Measurement]) -> str:
    parts = [f"{_short(row)} {quantity(row.value, row.unit)}" for row in rows]
    return f"Bars of what {place} does: {'; '.join(parts)}."


def weights(records: Sequence[Record]) -> list[Element]:
    """Loads by way, cold and warm, each beside the slowest link, of the first node."""
    loads = [row for row in records[0].measurements if row.config.get("way") and row.others]
    caches = [cache for cache in ("cold", "warm") if any(row.config["cache"] == cache for row in loads)]
    if not caches:
        return []

    def draw(sheet: Sheet) -> None:
        for axes, cache in zip(sheet.panels, caches, strict=True):
            shown = [row for row in loads if row.config["cache"] == cache]
            _bars(axes, [(str(row.config["way"]), row, "rooflab" if place == 0 else "") for place, row in
                         enumerate(shown)], "B/s")  # fmt: skip
            link = shown[0].others[0]
            axes.axvline(link.value, color=MUTED, linewidth=1.5, linestyle=(0, (4, 3)))
            axes.set_xlim(0, max(axes.get_xlim()[1], link.value * 1.25))
            axes.set_title(f"{cache}: at most {quantity(link.value, 'B/s')}")

    parts = [f"{row.name} {quantity(row.value, 'B/s')}" for row in loads]
    caption = "Weights from file to device. The dashed line is the slowest link on the way, measured with nothing else."
    alt = f"Bars of the rate at which weights load: {'; '.join(parts)}."
    return [picture("weights", draw, alt=alt, caption=[caption], panels=len(caches), height=300)]
