"""A batch's tokens per second under its roof, and the family of intensities that says where batching ends."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from labs.accelerators import ACCELERATORS
from labs.batching import decode_intensity, intensity_limit, longest_context
from labs.models import MODELS, Model
from labs.results import Measurement, Record
from labs.roofs import DTYPE_BYTES
from operate.report.canvas import INK, MEASURED, MUTED, PAPER, ROOF, SECOND, THIRD, Sheet, log_axis, picture
from operate.report.quantity import quantity, rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTEXTS = (128, 512, 1024, 4096, 16384)
_COLOURS = (MEASURED, SECOND, THIRD, INK, MUTED)
_SHOWN = ("L4", "H200", "A100-80")
"""Devices whose ridges are drawn beside the measured one."""
_LARGEST = 4096
_DASHES = (0, (5, 3))


def batch_sweep(records: Sequence[Record]) -> list[Element]:
    """The sweep of the first node and its model's curves; nothing without batches."""
    rows = [row for row in records[0].measurements if row.config.get("kind") == "batch" and row.expected]
    model = MODELS.get(str(rows[0].config["model"])) if rows else None
    if model is None:
        return []
    element_bytes = DTYPE_BYTES[str(rows[0].config["dtype"])]

    def draw(sheet: Sheet) -> None:
        _sweep(sheet.panels[0], rows)
        _family(sheet.panels[1], model, element_bytes, float(rows[0].config["ridge"]), sheet.narrow)

    node = f" on {records[0].node}" if len(records) > 1 else ""
    context, ridge = int(rows[0].config["context"]), float(rows[0].config["ridge"])
    reach = longest_context(model, ridge, element_bytes)
    until = "at every context" if math.isinf(reach) else f"up to {reach:,.0f} tokens of context"
    caption = (
        f"Left: tokens/s over the batch at {context} tokens of context{node}; the line is the roof of this machine's "
        f"own measured rates. Right: FLOP per byte of {model.name} over the batch, by context. Dashed: the ridge "
        f"measured here, {rounded(ridge, 3)} FLOP/B, which some batch reaches {until}; dotted: datasheets' bf16 "
        f"ridges."
    )
    return [picture("batch-sweep", draw, alt=_alt(rows, model, element_bytes), caption=[caption], panels=2, height=420)]


def _sweep(axes: "Axes", rows: Sequence[Measurement]) -> None:
    at = [int(row.config["batch"]) for row in rows]
    log_axis(axes.xaxis, 10, "", ticks=5)
    log_axis(axes.yaxis, 10, "token/s", ticks=5)
    roof = [row.expected.value for row in rows if row.expected]
    axes.plot(at, roof, color=ROOF, linewidth=2.5, label="measured roof", zorder=2)
    axes.plot(at, [row.value for row in rows], "o-", color=MEASURED, linewidth=1.2, markeredgecolor=PAPER,
              label="measured", zorder=4)  # fmt: skip
    last = rows[-1]
    axes.annotate(quantity(last.value, "token/s"), (at[-1], last.value), xytext=(0, -14), textcoords="offset points",
                  ha="center", va="top", color=INK)  # fmt: skip
    axes.set_xlabel("sequences in the batch")
    axes.set_title("tokens per second")
    axes.set_xlim(at[0] / 1.3, at[-1] * 2)
    axes.set_ylim(min(row.value for row in rows) / 2.5, max(roof) * 2)
    axes.legend(loc="upper left")


def _family(axes: "Axes", model: Model, element_bytes: int, ridge: float, narrow: bool) -> None:
    batches = [2 ** (step / 2) for step in range(2 * int(math.log2(_LARGEST)) + 1)]
    log_axis(axes.xaxis, 10, "", ticks=5)
    log_axis(axes.yaxis, 10, "", ticks=4)
    for context, colour in zip(CONTEXTS, _COLOURS, strict=True):
        curve = [_intensity(model, context, batch, element_bytes) for batch in batches]
        axes.plot(batches, curve, color=colour, linewidth=1.8, zorder=3)
        axes.annotate(f"S {context:,}", (batches[-1], curve[-1]), xytext=(4, 0), textcoords="offset points",
                      va="center", color=colour)  # fmt: skip
    axes.axhline(ridge, color=ROOF, linewidth=1.8, linestyle=_DASHES, zorder=2)
    axes.annotate(f"here {rounded(ridge, 2)}", (1, ridge), xytext=(2, 3), textcoords="offset points", color=ROOF)
    for name, sheet in _ridges().items():
        axes.axhline(sheet, color=ROOF, linewidth=1, linestyle=(0, (1, 3)), zorder=1)
        axes.annotate(f"{name} {rounded(sheet, 3)}", (1, sheet), xytext=(2, 1), textcoords="offset points", color=ROOF,
                      fontsize="small")  # fmt: skip
    axes.set_xlim(1, _LARGEST * (12 if narrow else 6))
    axes.set_xlabel("sequences in the batch")
    axes.set_title("FLOP per byte")


def _intensity(model: Model, context: int, batch: float, element_bytes: int) -> float:
    """`decode_intensity` between whole batches, so that a curve is smooth."""
    below = math.floor(batch)
    low, high = (decode_intensity(model, context, whole, element_bytes) for whole in (below, below + 1))
    return low + (high - low) * (batch - below)


def _ridges() -> dict[str, float]:
    """bf16 ridges of the datasheets that are shown, in FLOP/B."""
    found = {}
    for accelerator in ACCELERATORS:
        peak, rate = accelerator.peak_flops("bf16"), accelerator.bytes_per_s
        if accelerator.name in _SHOWN and peak and rate:
            found[accelerator.name] = peak / rate
    return found


def _alt(rows: Sequence[Measurement], model: Model, element_bytes: int) -> str:
    first, last = rows[0], rows[-1]
    text = f"Tokens per second from {quantity(first.value, 'token/s')} at batch {first.config['batch']} to "
    text += f"{quantity(last.value, 'token/s')} at batch {last.config['batch']}. Intensity tends to "
    limits = [f"{rounded(intensity_limit(model, each, element_bytes), 3)} at {each:,} tokens" for each in CONTEXTS]
    ridges = ", ".join(f"{name} {rounded(ridge, 3)}" for name, ridge in _ridges().items())
    return f"{text}{', '.join(limits)} FLOP per byte; ridges: {ridges}."
