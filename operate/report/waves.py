"""The sawtooth: a product's rate while N grows past full waves, and the model that foretells where it falls."""

from collections.abc import Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record
from operate.report.canvas import MEASURED, MUTED, PAPER, ROOF, Sheet, label, linear_axis, picture
from operate.report.quantity import quantity, share


def waves(records: Sequence[Record]) -> list[Element]:
    """The first node's sweep over N; nothing on a device that has no waves."""
    rows = sorted((row for row in records[0].measurements if row.config.get("kind") == "wave"), key=_columns)
    pair = _fall(rows)
    if pair is None:
        return []
    full, past = pair

    def draw(sheet: Sheet) -> None:
        _draw(sheet, rows, full)

    told = full.config
    node = f" on {records[0].node}" if len(records) > 1 else ""
    caption = (
        f"FLOP/s over N, {told['dtype']}, M = {told['m']:,}, K = {told['k']:,}{node}. The line is the model: time = "
        f"waves × that of a full one, {told['units']} tiles at once. From N = {_columns(full):,} to {_columns(past):,} "
        f"it falls to {share(float(past.config['model_flops']) / float(told['model_flops']))}, the measurement to "
        f"{share(past.value / full.value)}: what lies above the line the library saved by other tiles."
    )
    alt = (
        f"Rate of {len(rows)} products over N: {quantity(full.value, 'FLOP/s')} at {_columns(full):,} columns, "
        f"{told['tiles']} tiles; {quantity(past.value, 'FLOP/s')} at {_columns(past):,}, {past.config['tiles']} tiles. "
        f"The model says {quantity(float(past.config['model_flops']), 'FLOP/s')} there."
    )
    return [picture("waves", draw, alt=alt, caption=[caption], height=380)]


def _columns(row: Measurement) -> int:
    return int(row.config["n"])


def _fall(rows: Sequence[Measurement]) -> tuple[Measurement, Measurement] | None:
    """The last shape of one wave, and the first that takes a second."""
    full = [row for row in rows if row.config["waves"] == 1]
    past = [row for row in rows if row.config["waves"] > 1]
    return (full[-1], past[0]) if full and past else None


def _draw(sheet: Sheet, rows: Sequence[Measurement], full: Measurement) -> None:
    (axes,) = sheet.panels
    at = [_columns(row) for row in rows]
    model = [float(row.config["model_flops"]) for row in rows]
    axes.plot(at, model, color=ROOF, label="wave model")
    axes.plot(at, [row.value for row in rows], marker="o", markersize=6, color=MEASURED, markeredgecolor=PAPER,
              label="measured")  # fmt: skip
    ends = [before for before, after in pairwise(rows)
            if before.config["waves"] < after.config["waves"]]  # fmt: skip
    for row in ends:
        axes.axvline(_columns(row), color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        said = label(f"{row.config['tiles']} tiles") if sheet.narrow else label(
            f"{row.config['tiles']} tiles, {row.config['waves']} full")  # fmt: skip
        axes.annotate(said, (_columns(row), 0.03), xycoords=("data", "axes fraction"), xytext=(5, 0),
                      textcoords="offset points", color=MUTED)  # fmt: skip
    axes.set_ylim(0, 1.25 * max(*model, *(row.value for row in rows)))
    linear_axis(axes.xaxis, "", ticks=4 if sheet.narrow else 8)
    linear_axis(axes.yaxis, "FLOP/s", ticks=5)
    axes.set_title("FLOP/s")
    axes.set_xlabel("N, columns")
    axes.legend(loc="upper right", ncols=2)
