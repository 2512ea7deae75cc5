"""Memory: what each way to train or serve a model takes of one device, part on part, against what the device has."""

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import BAD, INK, MEASURED, MUTED, PAPER, ROOF, SECOND, THIRD, Sheet, label, picture
from operate.report.quantity import quantity

_GIB = 2**30
_KINDS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("weights", ("weights",), MEASURED, ""),
    ("gradients, moments", ("gradients", "optimiser"), SECOND, ""),
    ("KV cache", ("KV cache",), SECOND, "//"),
    ("activations", ("activations", "one layer made again", "one layer of the prompt"), THIRD, ""),
    ("logits, in flight", ("logits", "last norm", "in flight"), MUTED, ""),
)
"""Name, the parts of labs/memory.py that it sums, colour, hatch."""


def memory(records: Sequence[Record]) -> list[Element]:
    """A bar for each verdict of the first record, cut where it would run off far beyond the device."""
    rows = [row for row in records[0].measurements if isinstance(row.config.get("parts"), dict)]
    if not rows:
        return []

    def draw(sheet: Sheet) -> None:
        _draw(sheet, rows)

    first = rows[0].config
    whole = f"{first['capacity_bytes'] / _GIB:.1f} GiB"
    caption = f"{first['model']}, {first['batch']} × {first['context']:,} tokens a device, on {first['place']}: "
    caption += f"predicted bytes of one device; the line is what it has, {whole}."
    beyond = [row for row in rows if row.value > _end(rows)]
    if beyond:
        caption += " A bar that is cut goes on to the number beside it."
    measured = [row for row in records[0].measurements if row.expected and row.config.get("part") == "peak"]
    for row in measured:
        caption += f" {row.name} here was {quantity(row.value, 'B')}, {row.config['error']:+.1%} beside the prediction."
    height = 120 + 44 * len(rows)
    return [picture("memory", draw, alt=_alt(rows), caption=[caption], height=height)]


def _end(rows: Sequence[Measurement]) -> float:
    """Where the axis ends, in bytes: half as much again as a device has, or the longest bar if that is shorter."""
    capacity = max(float(row.config["capacity_bytes"]) for row in rows)
    return min(1.5 * capacity, max(capacity, *(row.value for row in rows)) * 1.02)


def _draw(sheet: Sheet, rows: Sequence[Measurement]) -> None:
    (axes,) = sheet.panels
    end = _end(rows)
    used: set[str] = set()
    for place, row in enumerate(rows):
        left = 0.0
        for name, parts, colour, hatch in _KINDS:
            width = sum(float(row.config["parts"].get(part, 0)) for part in parts)
            shown = min(width, max(0.0, end - left))
            if shown:
                axes.barh(place, shown / _GIB, left=left / _GIB, height=0.5, color=colour, hatch=hatch,
                          edgecolor=PAPER, linewidth=1, label=None if name in used else name)  # fmt: skip
                used.add(name)
            left += width
        _name(axes, place, row, sheet.narrow)
    capacity = rows[0].config["capacity_bytes"] / _GIB
    axes.axvline(capacity, color=ROOF, linewidth=2.5)
    axes.annotate("a device's memory", (capacity, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -2),
                  textcoords="offset points", color=ROOF, va="top")  # fmt: skip
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.4, -1.1)
    axes.set_xlim(0, end / _GIB * (1.12 if sheet.narrow else 1.08))
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("GiB of one device")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16 if len(rows) > 4 else -0.3),
                ncols=2 if sheet.narrow else len(used))  # fmt: skip


def _name(axes: Any, place: int, row: Measurement, narrow: bool) -> None:
    """Above each bar what it is, with the total in red where it does not fit."""
    refused = row.config["answer"] == "no"
    way = str(row.config["way"])
    words = f"{row.config['purpose']}: {label(way) if narrow else way}"
    axes.annotate(words, (0, place - 0.28), xytext=(0, 3), textcoords="offset points", color=INK, va="bottom")
    axes.annotate(f"{row.value / _GIB:.1f}", (1.0, place), xycoords=("axes fraction", "data"), ha="right", va="center",
                  color=BAD if refused else INK)  # fmt: skip


def _alt(rows: Sequence[Measurement]) -> str:
    capacity = f"{rows[0].config['capacity_bytes'] / _GIB:.1f} GiB"
    words = {"fits": "fits", "tight": "is tight", "no": "does not fit"}
    said = "; ".join(
        f"{row.config['purpose']}, {row.config['way']}: {row.value / _GIB:.1f} GiB, {words[row.config['answer']]}"
        for row in rows
    )
    return f"Memory of one device by way of training and serving, of {capacity} that it has: {said}."
