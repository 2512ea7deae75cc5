"""What a load came to, as rows of a record."""

import statistics
from collections.abc import Iterator, Sequence

from labs.results import Measurement, Roof, Span, percentile
from labs.roofs import Bound, usd_per_million
from workloads.serving.driving import Level
from workloads.serving.foretelling import Physics
from workloads.serving.timeline import Promise, Timeline, errors, good

NO_PROMISE = "a promise to users is no limit of physics"
TOGETHER = "pieces of text may come together: see the time per output token"


def rows(level: Level, promise: Promise, physics: Physics | None, elsewhere: str, *, foretold_rate: Roof | None,
         foretold_first: Roof | None, price: float | None, checked: str) -> Iterator[Measurement]:  # fmt: skip
    """One level's rows. `elsewhere` says why there is no roof where `physics` is not known."""
    answered = good(level.timelines)
    kept = sum(promise.kept(line) for line in level.timelines)
    config = {"kind": level.kind, "load": level.load, "level": level.name, "requests": len(level.timelines),
              "answered": len(answered), "kept": kept, "ttft_bound_s": promise.ttft_s, "tpot_bound_s": promise.tpot_s,
              "request_rate": level.request_rate, "offered": offered(level)}  # fmt: skip
    count = len(level.timelines)
    rate = _rate(level, physics, elsewhere)
    yield Measurement(
        name=f"{level.name}: throughput", value=level.token_rate, unit="token/s",
        estimator=f"tokens of {len(answered)} answers ÷ {level.wall_s:.3g} s", config={**config, "what": "throughput"},
        roof=rate.roof, no_roof_because=rate.no_roof_because, expected=foretold_rate, checked=checked,
        others=_most(level, physics),
        usd_per_unit=None if price is None or not level.token_rate else usd_per_million(price, level.token_rate),
        work_unit="million tokens",
    )  # fmt: skip
    yield Measurement(
        name=f"{level.name}: goodput", value=kept / level.wall_s if level.wall_s else 0.0, unit="request/s",
        estimator=f"{kept} of {count} within {promise.ttft_s:g} s to the first and {promise.tpot_s:g} s per token",
        config={**config, "what": "goodput"}, no_roof_because=NO_PROMISE, checked=checked,
        others=(Roof(value=offered(level), source="requests that came"),) if level.kind == "open" else (),
    )  # fmt: skip
    if answered:
        yield from _times(level, answered, physics, elsewhere, foretold_first, config, checked)


def _times(level: Level, answered: Sequence[Timeline], physics: Physics | None, elsewhere: str, foretold: Roof | None,
           config: dict, checked: str) -> Iterator[Measurement]:  # fmt: skip
    none = Bound(None, elsewhere)
    first_s = tuple(line.ttft_s for line in answered)
    whole_s = tuple(line.e2e_s for line in answered)
    token_s = tuple(line.tpot_s for line in answered if line.tpot_s is not None)
    gaps_s = tuple(gap for line in answered for gap in line.gaps_s)
    step = physics.measured() if physics else ()
    median_first, median_whole = statistics.median(first_s), statistics.median(whole_s)
    spans = (
        Span(name="to the first token", seconds=median_first, how="measured: median"),
        Span(name="the further tokens", seconds=median_whole - median_first, how="measured: the rest"),
    )
    several: tuple[tuple[str, str, tuple[float, ...], Bound, tuple[Roof, ...], Roof | None, tuple[Span, ...]], ...] = (
        ("first", "time to first token", first_s, physics.first if physics else none, (), foretold, ()),
        ("token", "time per output token", token_s, physics.token if physics else none, step, None, ()),
        ("gap", "inter-token latency", gaps_s, Bound(None, TOGETHER), (), None, ()),
        ("whole", "whole request", whole_s, physics.whole if physics else none, (), None, spans),
    )
    for what, name, samples_s, bound, others, expected, made_of in several:
        if samples_s:
            yield Measurement(
                name=f"{level.name}: {name}", value=statistics.median(samples_s), unit="s",
                estimator=f"median of {len(samples_s)}", config={**config, "what": what},
                samples_s=tuple(round(sample, 7) for sample in samples_s), roof=bound.roof,
                no_roof_because=bound.no_roof_because, others=others, expected=expected, spans=made_of, checked=checked,
            )  # fmt: skip


def offered(level: Level) -> float:
    """Requests that came per second of the window."""
    return len(level.timelines) / level.window_s


def _rate(level: Level, physics: Physics | None, elsewhere: str) -> Bound:
    if level.kind == "open":
        return Bound(None, "no more comes out than is asked for")
    return physics.rate(int(level.load)) if physics else Bound(None, elsewhere)


def _most(level: Level, physics: Physics | None) -> tuple[Roof, ...]:
    if level.kind == "open":
        asked = sum(line.tokens for line in level.timelines) / level.window_s
        return (Roof(value=asked, source="tokens that were asked for"),) if asked else ()
    return physics.measured_rate(int(level.load)) if physics else ()


def row_line(level: Level, found: Sequence[Measurement]) -> str:
    """A level on one line, for the log."""
    of = {row.config["what"]: row for row in found}
    kept, count = of["throughput"].config["kept"], of["throughput"].config["requests"]
    text = f"{level.name:>16}: {of['throughput'].value:9.1f} token/s"
    if "first" in of:
        text += f"  first token {_tail(of['first'].samples_s)}"
    if "token" in of:
        text += f"  per token {_tail(of['token'].samples_s)}"
    return f"{text}  kept {kept} of {count}, {of['goodput'].value:.2f} good requests/s"


def _tail(samples_s: Sequence[float]) -> str:
    text = f"{statistics.median(samples_s) * 1e3:.1f}"
    return f"{text} ms" if len(samples_s) < 100 else f"{text} (p99 {percentile(samples_s, 0.99) * 1e3:.1f}) ms"


def level_notes(level: Level, new_tokens: int) -> Iterator[str]:
    """What a reader of this level must know."""
    wrong = errors(level.timelines)
    if wrong:
        which = "; ".join(f"{reason} (×{count})" for reason, count in wrong.items())
        yield f"{level.name}: {sum(wrong.values())} of {len(level.timelines)} requests failed, counted apart: {which}"
    pieces = sum(len(line.texts_s) for line in good(level.timelines))
    counted = sum(line.tokens for line in good(level.timelines))
    if pieces and abs(counted / pieces - 1) > 0.05:
        yield f"{level.name}: {counted / pieces:.2f} tokens in a piece of text, by usage"
    if level.late_s > 0.01:
        yield f"{level.name}: the client sent up to {level.late_s * 1e3:.0f} ms late; latencies count from when due"
    answered = good(level.timelines)
    short = sum(line.tokens < new_tokens for line in answered)
    if short:
        yield f"{level.name}: {short} of {len(answered)} answers ended before {new_tokens} tokens"
