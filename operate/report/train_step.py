"""Training on one device: tokens per second over the batch, and what a token's time is made of."""

from collections.abc import Sequence
from statistics import median
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record, Roof
from operate.report.canvas import INK, MEASURED, PAPER, ROOF, SERIES, Sheet, linear_axis, picture
from operate.report.quantity import quantity, share

_PARTS = ("forward", "backward", "optimiser")


def train_step(records: Sequence[Record]) -> list[Element]:
    """The sweep of the first node, or nothing where no row is of a batch."""
    rows = [
        row for row in records[0].measurements if row.unit == "token/s" and isinstance(row.config.get("batch"), int)
    ]
    if not rows:
        return []

    def draw(sheet: Sheet) -> None:
        _rates(sheet, rows)
        _parts(sheet, rows)

    best = max(rows, key=lambda row: row.value)
    limit = _limit(best)
    caption = f"Left: tokens per second over the sequences of a batch; the best is {quantity(best.value, best.unit)}"
    caption += f", {share(best.share_of(limit))} of {limit.source}. " if limit else ". "
    caption += "Right: the same as time per token, part by part: what the optimiser takes is shared by all of a batch."
    if best.roof is None:
        caption += f" No roof of a datasheet is drawn: {best.no_roof_because}."
    return [picture("train-step", draw, alt=_alt(rows), caption=[caption], panels=2, height=380)]


def _limit(row: Measurement) -> Roof | None:
    """The roof, or where there is none the ceiling that the run measured."""
    return row.roof or next(iter(row.others), None)


def _batches(rows: Sequence[Measurement]) -> list[str]:
    return [str(row.config["batch"]) for row in rows]


def _rates(sheet: Sheet, rows: Sequence[Measurement]) -> None:
    axes = sheet.panels[0]
    places = range(len(rows))
    axes.plot(places, [row.value for row in rows], color=MEASURED, marker="o", markeredgecolor=PAPER, label="measured")
    expected = [row.expected.value if row.expected else float("nan") for row in rows]
    if any(row.expected for row in rows):
        axes.plot(places, expected, color=INK, linewidth=1.5, linestyle=(0, (4, 3)), label="expected")
    limit = _limit(rows[0])
    if limit:
        name = "roof" if rows[0].roof else "ceiling"
        axes.axhline(limit.value, color=ROOF, linewidth=2.5, label=f"{name} {quantity(limit.value, 'token/s')}")
    top = max([row.value for row in rows] + [value for value in expected if value == value])
    axes.set_ylim(0, max(top, limit.value if limit else 0.0) * 1.4)
    axes.set_xticks(places, _batches(rows))
    linear_axis(axes.yaxis, "", ticks=5)
    axes.set_title("tokens per second")
    axes.set_xlabel("sequences in a batch")
    axes.legend(loc="upper left", ncols=1)


def _parts(sheet: Sheet, rows: Sequence[Measurement]) -> None:
    axes = sheet.panels[1]
    below = [0.0] * len(rows)
    for name, colour in zip(_PARTS, SERIES, strict=False):
        heights = [_per_token(row, name) for row in rows]
        axes.bar(range(len(rows)), heights, 0.62, bottom=below, color=colour, label=name, edgecolor=PAPER)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set_ylim(0, max(below) * 1.4 or 1.0)
    axes.set_xticks(range(len(rows)), _batches(rows))
    linear_axis(axes.yaxis, "s", ticks=5)
    axes.set_title("time per token")
    axes.set_xlabel("sequences in a batch")
    axes.legend(loc="upper right", ncols=1 if sheet.narrow else 3)


def _per_token(row: Measurement, part: str) -> float:
    found = sum(span.seconds for span in row.spans if span.name == part)
    tokens = row.config.get("tokens_per_step")
    return found / tokens if isinstance(tokens, int) and tokens else 0.0


def _alt(rows: Sequence[Measurement]) -> str:
    said = "; ".join(
        f"batch {row.config['batch']}: {quantity(row.value, row.unit)}, a step {quantity(median(row.samples_s), 's')}"
        for row in rows
        if row.samples_s
    )
    return f"Training throughput over the batch: {said}."
