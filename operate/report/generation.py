"""Text generation: the time to the first token beside the time of every further one, and how those scatter."""

from collections.abc import Sequence
from statistics import median
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record, percentile
from operate.report.canvas import (
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
from operate.report.quantity import quantity, share


def generation(records: Sequence[Record]) -> list[Element]:
    """Bars of both times, and the token times' histogram, of the first node's record."""
    timed = [row for row in records[0].measurements if row.samples_s and row.unit == "s"]
    first = next((row for row in timed if "first" in row.name.lower()), None)
    token = next((row for row in timed if "output token" in row.name.lower() and row is not first), None)
    if first is None or token is None:
        return []
    bars = [("to the first token", first), ("each further token", token)]
    node = f" on {records[0].node}" if len(records) > 1 else ""

    def draw(sheet: Sheet) -> None:
        _bars(sheet, bars)
        _histogram(sheet, token)

    caption = f"Median times{node}, and {len(token.samples_s):,} further tokens by the time that each took."
    rates = {row.name: quantity(row.value, row.unit) for row in records[0].measurements if row.unit == "token/s"}
    if "prefill" in rates and "decode" in rates:
        caption += f" The prompt passes at {rates['prefill']}, the answer at {rates['decode']}."
    beyond = sum(sample > crowded(token.samples_s) for sample in token.samples_s)
    if beyond:
        caption += f" The last bar holds the {beyond} slowest, up to {quantity(max(token.samples_s), 's')}."
    if not token.roof:
        caption += f" No floor is drawn: {token.no_roof_because}."
    drawn = [picture("generation", draw, alt=_alt(first, token), caption=[caption], panels=2, height=380)]
    swept = [row for row in records[0].measurements if row.config.get("kind") == "sweep"]
    return [*drawn, _prompts(swept)] if len(swept) > 1 else drawn


def _prompts(swept: Sequence[Measurement]) -> Element:
    """Time to the first token over the prompt's length, with its floors and what was expected."""
    at = [int(row.config["prompt"]) for row in swept]
    told = [
        ("expected", MUTED, (0, (1, 2)), [row.expected.value if row.expected else None for row in swept]),
        ("least, as measured", THIRD, (0, (5, 3)), [row.others[0].value if row.others else None for row in swept]),
        ("roof", ROOF, "solid", [row.roof.value if row.roof else None for row in swept]),
    ]
    share_of = float(swept[-1].config.get("attention_share") or 0.0)

    def draw(sheet: Sheet) -> None:
        (axes,) = sheet.panels
        log_axis(axes.xaxis, 10, "", ticks=5)
        log_axis(axes.yaxis, 10, "s", ticks=5)
        for name, colour, dashes, values in told:
            known = [value for value in values if value is not None]
            if len(known) == len(at):
                axes.plot(at, known, color=colour, linestyle=dashes, linewidth=1.6, label=name)
        axes.plot(at, [row.value for row in swept], color=MEASURED, marker="o", markeredgecolor=PAPER, label="measured")
        axes.set_xticks(at, [f"{length:,}" for length in at])
        axes.set_title("time to first token")
        axes.set_xlabel("tokens of the prompt")
        axes.legend(loc="upper left")

    said = ", ".join(f"{quantity(row.value, 's')} for {row.config['prompt']:,} tokens" for row in swept)
    caption = f"The first token after {said}. Attention takes {share(share_of)} of the FLOPs of the longest prompt."
    alt = f"Time to first token over the prompt's length: {said}."
    return picture("generation-prompts", draw, alt=alt, caption=[caption], height=340)


def _floor_s(row: Measurement) -> float | None:
    """The least time a sample can take by the roof."""
    return None if row.fraction is None else median(row.samples_s) * row.fraction


def _bars(sheet: Sheet, bars: Sequence[tuple[str, Measurement]]) -> None:
    axes = sheet.panels[0]
    places = (0.0, 1.7)  # far enough apart for the roof's label between them
    for place, (_, row), colour in zip(places, bars, (SECOND, MEASURED), strict=True):
        value = median(row.samples_s)
        axes.bar(place, value, width=0.6, color=colour)
        axes.annotate(
            quantity(value, "s"), (place, value), xytext=(0, 5), textcoords="offset points", ha="center", color=INK
        )
        floor = _floor_s(row)
        if floor is not None:
            axes.plot([place - 0.4, place + 0.4], [floor, floor], color=ROOF, linewidth=2.5)
            axes.annotate(f"roof {quantity(floor, 's')}", (place + 0.42, floor), xytext=(2, 0),
                          textcoords="offset points", va="center", color=ROOF)  # fmt: skip
    linear_axis(axes.yaxis, "s", ticks=5)
    axes.set_xticks(places, [name for name, _ in bars])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.7, 2.7)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
    axes.set_title("time, median")


def _histogram(sheet: Sheet, token: Measurement) -> None:
    axes = sheet.panels[1]
    samples = token.samples_s
    bottom, top = min(samples), crowded(samples)
    span = (bottom, max(top, bottom * 1.001))
    axes.hist(
        [min(sample, top) for sample in samples], bins=24, range=span, color=MEASURED, edgecolor=PAPER, linewidth=1
    )
    marks = [("median", median(samples), 0.97)]
    if len(samples) >= 100:
        marks.append(("p99", percentile(samples, 0.99), 0.87))
    for name, value, height in marks:
        axes.axvline(value, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        right = value < bottom + 0.6 * (top - bottom)
        axes.annotate(f"{name} {quantity(value, 's')}", (value, height), xycoords=("data", "axes fraction"),
                      xytext=(5 if right else -5, 0), textcoords="offset points", ha="left" if right else "right",
                      va="top", color=INK)  # fmt: skip
    linear_axis(axes.xaxis, "s", ticks=4)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
    axes.set_title("tokens")
    axes.set_xlabel("time of one token")


def _alt(first: Measurement, token: Measurement) -> str:
    text = (
        f"Bars: {quantity(median(first.samples_s), 's')} to the first token, {quantity(median(token.samples_s), 's')} "
    )
    text += f"for each further one, medians. Histogram of {len(token.samples_s):,} token times from "
    text += f"{quantity(min(token.samples_s), 's')} to {quantity(max(token.samples_s), 's')}"
    if len(token.samples_s) >= 100:
        text += f", p99 {quantity(percentile(token.samples_s, 0.99), 's')}"
    return text + "."
