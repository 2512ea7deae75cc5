"""Work shared by ranks: each way's step as arithmetic, exposed communication and idle time, one step's trace, and the
losses of all ways on the line that one process draws."""

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import (
    BAD,
    GRID,
    INK,
    MARKERS,
    MEASURED,
    MUTED,
    SECOND,
    SERIES,
    THIRD,
    Sheet,
    label,
    linear_axis,
    picture,
)
from operate.report.quantity import quantity, rounded, share

_KINDS = (("arithmetic", MEASURED), ("exposed communication", BAD), ("idle", GRID))
"""What the time is made of, in the order of the bars; a span belongs to the first of them that its name contains."""
_CAPTION = ("The median step of each way, taken apart by the profiler: communication under arithmetic costs nothing "
            "and is not drawn; what is exposed is.")  # fmt: skip
_LANES = (("compute", MEASURED, "arithmetic"), ("communication", THIRD, "communication"))


def sharing(records: Sequence[Record]) -> list[Element]:
    """Stacked bars of all ways, the trace of the first one's step, and the losses that were held against one process's;
    nothing where no row's time is taken apart."""
    rows = [row for record in records for row in record.measurements if _parts(row)]
    if not rows:
        return []
    name = records[0].workload
    figures = [bars(name, rows)]
    traced = next((row for row in rows if _strip(row)), None)
    held = [row for row in rows if len(row.config.get("parity_losses") or ()) > 1 and row.config.get("parity_alone")]
    figures += [_trace(name, traced)] if traced else []
    return [*figures, _losses(name, held)] if held else figures


def _parts(row: Measurement) -> dict[str, float]:
    """Seconds of each kind; empty for a row of another sort."""
    found = dict.fromkeys((kind for kind, _ in _KINDS), 0.0)
    for span in row.spans:
        kind = next((kind for kind, _ in _KINDS if kind in span.name), "arithmetic" if "product" in span.name else "")
        if not kind:
            return {}
        found[kind] += span.seconds
    return found if row.spans else {}


def _way(row: Measurement) -> str:
    """What tells this row from the others."""
    return label(str(row.config.get("strategy") or row.config.get("way") or row.name))


def bars(name: str, rows: Sequence[Measurement], caption: str = _CAPTION) -> Element:
    """Each row's time by what it is made of, with a stroke where it was expected; every row has spans."""
    expected = [(index, _expected_s(row)) for index, row in enumerate(rows)]

    def draw(sheet: Sheet) -> None:
        axes = sheet.panels[0]
        left = [0.0] * len(rows)
        for kind, colour in _KINDS:
            widths = [_parts(row)[kind] for row in rows]
            if any(widths):
                axes.barh(range(len(rows)), widths, left=left, color=colour, height=0.62, label=kind)
            left = [begin + width for begin, width in zip(left, widths, strict=True)]
        for index, total in enumerate(left):
            axes.annotate(quantity(total, "s"), (total, index), xytext=(5, 0), textcoords="offset points", va="center",
                          color=INK)  # fmt: skip
        marks = [(index, wanted) for index, wanted in expected if wanted is not None]
        if marks:
            axes.plot([wanted for _, wanted in marks], [index for index, _ in marks], linestyle="none", marker="|",
                      markersize=22, markeredgewidth=2.5, color=INK, label="expected, nothing hidden")  # fmt: skip
        axes.set_yticks(range(len(rows)), [_way(row) for row in rows])
        axes.invert_yaxis()
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        linear_axis(axes.xaxis, "s", ticks=4)
        axes.set_xlim(0, 1.22 * max(*left, *(wanted for _, wanted in marks), 1e-12))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2 if sheet.narrow else 4)

    height = 150 + 44 * len(rows)
    return picture(f"sharing-{name}", draw, alt=_alt(rows), caption=[caption], height=height)


def _expected_s(row: Measurement) -> float | None:
    """The expected step, where the row has one; a rate's is that share of its time."""
    if row.expected is None:
        return None
    whole = sum(span.seconds for span in row.spans)
    return row.expected.value if row.unit == "s" else whole * row.value / row.expected.value


def _alt(rows: Sequence[Measurement]) -> str:
    texts = []
    for row in rows:
        parts = _parts(row)
        whole = sum(parts.values())
        told = ", ".join(f"{share(part / whole)} {kind}" for kind, part in parts.items()) if whole else "no time"
        texts.append(f"{_way(row)}: {quantity(whole, 's')}, of it {told}.")
    return " ".join(texts)


def _strip(row: Measurement) -> dict[str, Any]:
    found = row.config.get("strip")
    return found if isinstance(found, dict) and found.get("step_s") else {}


def _trace(name: str, row: Measurement) -> Element:
    strip = _strip(row)

    def draw(sheet: Sheet) -> None:
        axes = sheet.panels[0]
        for lane, (key, colour, _) in enumerate(_LANES):
            bars = [(begin, end - begin) for begin, end in strip.get(key, [])]
            axes.broken_barh(bars, (lane - 0.36, 0.72), color=colour, linewidth=0)
        axes.set_yticks(range(len(_LANES)), [text for _, _, text in _LANES])
        axes.set_ylim(len(_LANES) - 0.5, -0.5)
        axes.set_xlim(0, strip["step_s"])
        axes.grid(visible=False)
        linear_axis(axes.xaxis, "s", ticks=5)
        axes.set_xlabel("since the step began, on rank 0")
        axes.axvline(strip["step_s"], color=MUTED, linewidth=1)
        axes.axvline(0, color=MUTED, linewidth=1)

    busy = {key: sum(end - begin for begin, end in strip.get(key, [])) for key, _, _ in _LANES}
    alt = (f"One step of {quantity(strip['step_s'], 's')} ({_way(row)}): arithmetic for "
           f"{quantity(busy['compute'], 's')}, communication for {quantity(busy['communication'], 's')}.")  # fmt: skip
    caption = (
        f"One step under the profiler, {_way(row)}. Where the lower lane runs under the upper one it costs nothing."
    )
    overlap = (row.config.get("shares") or {}).get("overlap")
    if isinstance(overlap, int | float):
        caption += f" Over all ranks {share(float(overlap)) if overlap else 'none'} of the communication is hidden."
    return picture(f"trace-{name}", draw, alt=alt, caption=[caption], height=190)


def _losses(name: str, rows: Sequence[Measurement]) -> Element:
    """One process's losses as a line, every way's as marks on it."""
    alone = [float(loss) for loss in rows[0].config["parity_alone"]]
    every = {_way(row): [float(loss) for loss in row.config["parity_losses"]] for row in rows}
    pairs = [pair for losses in every.values() for pair in zip(losses, alone, strict=True)]
    apart = max(abs(loss - one) / abs(one) for loss, one in pairs)

    def draw(sheet: Sheet) -> None:
        (axes,) = sheet.panels
        at = range(1, len(alone) + 1)
        axes.plot(at, alone, color=INK, linewidth=1.5, label="one process")
        for number, (way, losses) in enumerate(every.items()):
            axes.plot(at, losses, color=SERIES[number % len(SERIES)], marker=MARKERS[number % len(MARKERS)],
                      markersize=15 - 3 * (number % len(MARKERS)), markerfacecolor="none", linestyle="none",
                      label=way)  # fmt: skip
        linear_axis(axes.yaxis, "", ticks=5)
        linear_axis(axes.xaxis, "", whole=True)
        axes.margins(x=0.08, y=0.15)
        axes.set_title("loss of mistral-nano in fp32")
        axes.set_xlabel("step")
        axes.legend(loc="upper right")

    told = ", ".join(rounded(loss, 4) for loss in alone)
    caption = (f"The same batches on one process and on all ranks: the marks lie on the line, {apart:.0e} apart at "
               "most. Speed counts only because of this.")  # fmt: skip
    alt = f"Losses of one process: {told}. Of {len(every)} ways to share the work: at most {apart:.0e} apart from them."
    return picture(f"losses-{name}", draw, alt=alt, caption=[caption], height=300)


def speedup(records: Sequence[Record]) -> list[Element]:
    """Strong and weak scaling beside the ideal and the fitted law, and each point's step taken apart."""
    rows = [row for record in records for row in record.measurements if row.config.get("kind") in ("strong", "weak")]
    points = [row for row in rows if "speedup" in row.config and row.spans]
    kinds = [kind for kind in ("strong", "weak") if sum(row.config["kind"] == kind for row in points) > 1]
    if not kinds:
        return []

    def draw(sheet: Sheet) -> None:
        for panel, kind in enumerate(kinds):
            _law(sheet, panel, kind, [row for row in points if row.config["kind"] == kind])

    caption = "Speed-up over one rank in tokens per second. The sticks are the residuals: measured minus the law."
    for row in rows:
        if row.name.endswith("serial share"):
            caption += f" {row.config['law']}: {share(row.value) if row.value else '0 %'} does not spread."
            caption += " One point and one unknown: its residual says nothing." if row.config.get("exact") else ""
    picked = picture("scaling", draw, alt=_speedup_alt(points), caption=[caption], panels=len(kinds), height=380)
    return [picked, bars("scaling-parts", points)]


def _law(sheet: Sheet, panel: int, kind: str, points: Sequence[Measurement]) -> None:
    axes = sheet.panels[panel]
    ranks = [int(row.config["ranks"]) for row in points]
    gained = [float(row.config["speedup"]) for row in points]
    axes.plot(ranks, ranks, color=MUTED, linewidth=1.5, linestyle=(0, (4, 3)), label="ideal")
    laws = [(int(row.config["ranks"]), row.config.get("law")) for row in points]
    fitted = [(count, float(law)) for count, law in laws if isinstance(law, int | float)]
    if fitted:
        name = "Amdahl" if kind == "strong" else "Gustafson"
        axes.plot([count for count, _ in fitted], [law for _, law in fitted], color=SECOND, label=name)
        axes.vlines([count for count, _ in fitted], [law for _, law in fitted], gained, color=BAD, linewidth=2)
    axes.plot(ranks, gained, color=MEASURED, marker="o", linestyle="none", label="measured")
    for count, value in zip(ranks, gained, strict=True):
        axes.annotate(rounded(value), (count, value), xytext=(0, -16), textcoords="offset points", ha="center",
                      color=INK)  # fmt: skip
    linear_axis(axes.yaxis, "", ticks=5)
    linear_axis(axes.xaxis, "", whole=True)
    axes.set_ylim(0, 1.25 * max(*ranks, *gained))
    axes.set_title("strong: one batch divided" if kind == "strong" else "weak: a batch for each rank")
    axes.set_xlabel("ranks")
    axes.legend(loc="upper left")


def _speedup_alt(points: Sequence[Measurement]) -> str:
    return " ".join(
        f"{row.name}: {quantity(row.value, 's')} a step, {rounded(float(row.config['speedup']))} times one rank."
        for row in points
    )
