"""What generations came to, as rows of a record and lines of a log."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Protocol

from labs.results import Measurement, Roof
from labs.roofs import inverse, usd_per_million
from workloads.nvml import Gauge
from workloads.request import Request


class Made(Protocol):
    """One timed generation."""

    @property
    def first_s(self) -> float:
        """Seconds to the first token."""

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Seconds of each later token."""


def summarise(request: Request, made: Sequence[Made], checked: str, price: float | None) -> Iterator[Measurement]:
    """Latency and throughput of prefill and of decode, and the whole request, each beside its roof."""
    first, gap = request.first(request.prompt), request.token
    first_s = tuple(generation.first_s for generation in made)
    gaps_s = tuple(gap_s for generation in made for gap_s in generation.gaps_s)
    row = {"model": request.shape.name, "dtype": request.dtype, "batch": request.batch}
    prefill, decode = {**row, "prompt": request.prompt}, {**row, "context": request.middle, "bytes": request.step_bytes}
    for latency, throughput, samples_s, bound, expected, other, tokens, config in (
        ("time to first token", "prefill", first_s, first, request.first_expected(request.prompt),
         request.first_measured(request.prompt), request.batch * request.prompt, prefill),
        ("time per output token", "decode", gaps_s, gap, request.token_expected, request.token_measured,
         request.batch, decode),
    ):  # fmt: skip
        median_s = statistics.median(samples_s)
        rate = inverse(bound, tokens)
        yield Measurement(
            name=latency, value=median_s, unit="s", estimator=f"median of {len(samples_s)}", config=config,
            samples_s=samples_s, roof=bound.roof, no_roof_because=bound.no_roof_because, expected=expected,
            others=(other,), spans=request.token_spans(median_s) if config is decode else (), checked=checked,
        )  # fmt: skip
        yield Measurement(
            name=throughput, value=tokens / median_s, unit="token/s", estimator=f"from the median of {len(samples_s)}",
            config=config, samples_s=samples_s, roof=rate.roof, no_roof_because=rate.no_roof_because,
            others=(Roof(value=tokens / other.value, source=other.source),),
            usd_per_unit=None if price is None else usd_per_million(price, tokens / median_s),
            work_unit="million tokens", checked=checked,
        )  # fmt: skip
    whole_s = tuple(generation.first_s + sum(generation.gaps_s) for generation in made)
    parts = None
    if first.roof and gap.roof:
        parts = Roof(value=first.roof.value + (request.new_tokens - 1) * gap.roof.value,
                     source=f"prefill and {request.new_tokens - 1} steps, {gap.roof.source}")  # fmt: skip
    yield Measurement(
        name="one request", value=statistics.median(whole_s), unit="s", estimator=f"median of {len(whole_s)}",
        config={**prefill, "new_tokens": request.new_tokens}, samples_s=whole_s, roof=parts,
        no_roof_because="" if parts else gap.no_roof_because or first.no_roof_because,
        spans=request.whole_spans(statistics.median(first_s), statistics.median(whole_s)), checked=checked,
    )  # fmt: skip


def energy_row(joules: float, tokens: int) -> Measurement:
    """Energy of one output token, its share of the prompt included."""
    return Measurement(
        name="energy per output token", value=joules / tokens, unit="J", config={"tokens": tokens, "joules": joules},
        estimator=f"the device's energy counter over {tokens} tokens, prompts included",
        no_roof_because="no least energy of a token is known", checked="tokens as counted",
    )  # fmt: skip


def roof_lines(request: Request) -> Iterator[str]:
    """Floors and what is expected, for a reader who has not seen a number yet."""
    several = (
        ("first token", request.first(request.prompt), request.first_measured(request.prompt),
         request.first_expected(request.prompt)),
        ("output token", request.token, request.token_measured, request.token_expected),
    )  # fmt: skip
    for name, bound, measured, expected in several:
        sheet = f"none, {bound.no_roof_because}"
        if bound.roof:
            sheet = f"at least {bound.roof.value * 1e3:.3f} ms ({bound.roof.source})"
        yield f"roof {name}: {sheet}"
        yield f"  by what the device showed at least {measured.value * 1e3:.3f} ms ({measured.source})"
        yield f"  expected {expected.value * 1e3:.3f} ms, {request.overhead_s * 1e3:.3f} of them a narrow twin's step"
    yield f"attention takes as many FLOPs as the weights from a prompt of {request.bend:,.0f} tokens on"


def row_line(row: Measurement) -> str:
    """One row, for the log."""
    value = f"{row.value:.3f} {row.unit}" if row.unit == "J" else f"{row.value * 1e3:.2f} ms"
    value = f"{row.value:.1f} {row.unit}" if row.unit == "token/s" else value
    share = "" if row.fraction is None else f"  {row.fraction:.1%} of roof"
    other = f"  {row.share_of(row.others[0]):.1%} of what the device showed" if row.others else ""
    price = "" if row.usd_per_unit is None else f"  ${row.usd_per_unit:.4f} per {row.work_unit}"
    return f"{row.name:36} {value:>16}{share}{other}{price}"


def notes(request: Request, gauge: Gauge, energy_j: float | None) -> Iterator[str]:
    """What a reader of the numbers must know."""
    yield (f"a step of {request.shape.name}'s narrow twin, as many layers with next to nothing in them, takes "
           f"{request.overhead_s * 1e3:.2f} ms: the overhead that spans and expectations are made with")  # fmt: skip
    yield (f"attention takes as many FLOPs as the weights from a prompt of {request.bend:,.0f} tokens on: below, the "
           "time to the first token grows with the prompt, far above with its square")  # fmt: skip
    if energy_j is None:
        yield f"no energy per token: {gauge.why}"
