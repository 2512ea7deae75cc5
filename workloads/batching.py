"""batching: many requests of different lengths through one model, in fixed batches and continuously.

A decode step reads all weights, for one sequence or for many: tokens/s grow with the batch until arithmetic or memory
is full. In a fixed batch everybody waits for the longest answer, and places whose answer has ended work for nothing:
with lengths as users have them, half of them and more. Continuous batching gives a place to the next request as soon
as an answer ends (Yu et al., Orca, OSDI 2022). What it costs is scheduling between steps, which a small model feels.

Method: one seeded set of requests, all there at the start, greedy, answers of exactly the drawn length. Fixed batches
in order of arrival, prompts filled up on the left, at several sizes; continuously with as many places as the largest.
Tokens are counted once and only those that somebody asked for. Check: every way makes the tokens that one request at
a time makes; in 16 bits, where rounding turns a near tie and all after it, the first token.

Output: tokens/s and time per token by way, the share of work that was padding, $ per million tokens.

    python -m workloads.batching
    python -m workloads.batching --model mistral-tiny --requests 128 --sizes 1,8,32
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import torch

from labs.models import find_model
from labs.results import Measurement, Roof, Span
from labs.roofs import Bound, inverse, memory_time_bound, usd_per_million
from workloads.batches.continuous import NotApplicable, Serve, by_transformers, by_vllm, engine
from workloads.batches.requests import Lengths, Request, draw, wasted
from workloads.batches.static import Served, serve
from workloads.command import CheckFailed, Parser, positive, start
from workloads.device import TORCH_DTYPES, Device
from workloads.disk.held import Made
from workloads.disk.scratch import scratch
from workloads.earlier import memory_ceiling
from workloads.mistral import build
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe

LENGTHS = {True: Lengths(prompt=(32, 512), answer=(8, 256)), False: Lengths(prompt=(4, 24), answer=(2, 24))}
"""By whether the device is a GPU."""
ALIKE = 0.9
"""Share of the requests whose tokens must be those of one at a time: rounding may turn a tie."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    model: str
    dtype: str
    requests: int
    lengths: Lengths
    sizes: tuple[int, ...]
    """Of fixed batches; the largest is also how many places continuous batching has."""
    repeats: int
    """Times that all requests are served, each way."""
    engine: str
    """Whose continuous batching."""
    seed: int
    threads: int


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    model = flags.model or _default_model(device)
    find_model(model)
    sizes = flags.sizes or ((1, 8, 32) if device.cuda else (1, 4))
    requests = flags.requests or (96 if device.cuda else 12)
    if max(sizes) > requests:
        raise ValueError(f"sizes={max(sizes)} is more than {requests} requests: write smaller sizes or more --requests")
    return Config(
        model=model, dtype=device.half, requests=requests, lengths=LENGTHS[device.cuda], sizes=sizes,
        repeats=flags.repeats or 3, engine=engine(device), seed=flags.seed, threads=torch.get_num_threads(),
    )  # fmt: skip


def _default_model(device: Device) -> str:
    """mistral-tiny on a GPU, where every way of serving has room beside it; the smallest on a CPU."""
    return "mistral-tiny" if device.cuda else "mistral-nano"


def sizes(text: str) -> tuple[int, ...]:
    """A flag's value as batch sizes, each at least 1."""
    return tuple(sorted({positive(word) for word in text.split(",")}))


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to serve all requests."""

    name: str
    places: int
    """Sequences at once."""
    prompt_waste: float
    """Share of prompt positions that are filling."""
    answer_waste: float
    """Share of answer positions that nobody asked for."""
    kind: str
    """"static" or "continuous"."""


def ways(config: Config, requests: Sequence[Request]) -> list[Way]:
    """Fixed batches of every size, then continuously."""
    found = []
    for size in config.sizes:
        prompt, answer = wasted(requests, size)
        found.append(Way(name=f"fixed batches of {size}", places=size, prompt_waste=prompt, answer_waste=answer,
                         kind="static"))  # fmt: skip
    found.append(Way(name=f"continuous, {config.sizes[-1]} places, {config.engine}", places=config.sizes[-1],
                     prompt_waste=0.0, answer_waste=0.0, kind="continuous"))  # fmt: skip
    return found


def bound_of(config: Config, device: Device, way: Way, memory: Roof | None) -> tuple[Bound, tuple[Roof, ...]]:
    """Most tokens/s: all places full at every step, by bytes alone; and the same by the memory as measured here."""
    shape, size = find_model(config.model), TORCH_DTYPES[config.dtype].itemsize
    context = (sum(config.lengths.prompt) + sum(config.lengths.answer) // 2) // 2
    moved = shape.decode_bytes(context, batch=way.places, weight_size=size, kv_size=size)
    bound = inverse(memory_time_bound(device.name, device.accelerator, moved), way.places)
    others = (Roof(value=way.places * memory.value / moved, source=memory.source),) if memory else ()
    return bound, others


def expected(way: Way, bound: Bound, others: Sequence[Roof]) -> Roof | None:
    """The roof, less what is padding; continuous batching has none."""
    roof = bound.roof or next(iter(others), None)
    if roof is None:
        return None
    source = f"{roof.source}; {way.answer_waste:.0%} of the places make tokens that nobody asked for"
    return Roof(value=roof.value * (1 - way.answer_waste), source=source)


def check(name: str, served: Served, alone: Served, requests: Sequence[Request], dtype: str) -> str:
    """Hold the tokens against those of one request at a time.

    Raises:
        CheckFailed: an answer has another length, or too few are alike.
    """
    for index, (found, request) in enumerate(zip(served.answers, requests, strict=True)):
        if len(found) != request.answer:
            raise CheckFailed(f"{name}: request {index} got {len(found)} tokens, and asked for {request.answer}")
    upto = None if dtype == "fp32" else 1
    alike = statistics.fmean(
        found[:upto] == right[:upto] for found, right in zip(served.answers, alone.answers, strict=True)
    )
    what = "tokens" if upto is None else "first token"
    if alike < ALIKE:
        raise CheckFailed(f"{name}: the {what} of {alike:.0%} of the requests are those of one at a time, demanded "
                          f"{ALIKE:.0%}")  # fmt: skip
    return f"{what} of {alike:.0%} of the requests as one at a time makes them, demanded {ALIKE:.0%}"


def summarise(way: Way, runs: Sequence[Served], config: Config, bound: Bound, others: tuple[Roof, ...], checked: str,
              price: float | None) -> Measurement:  # fmt: skip
    """The row of one way: tokens that were asked for ÷ the median time of all requests."""
    seconds = tuple(run.seconds for run in runs)
    middle = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    tokens, median_s = sum(map(len, middle.answers)), statistics.median(seconds)
    gaps = [gap for run in runs for gap in run.gaps_s]
    return Measurement(
        name=way.name, value=tokens / median_s, unit="token/s", estimator=f"from the median of {len(runs)}",
        config={"model": config.model, "dtype": config.dtype, "kind": way.kind, "batch": way.places, "tokens": tokens,
                "prompt_waste": way.prompt_waste, "answer_waste": way.answer_waste,
                "tpot_s": statistics.median(gaps) if gaps else None, "engine": config.engine},
        samples_s=seconds, roof=bound.roof, no_roof_because=bound.no_roof_because, others=others,
        expected=expected(way, bound, others), spans=_spans(way, middle, median_s) if len(runs) % 2 else (),
        usd_per_unit=None if price is None else usd_per_million(price, tokens / median_s),
        work_unit="" if price is None else "million tokens", checked=checked,
    )  # fmt: skip


def _spans(way: Way, run: Served, median_s: float) -> tuple[Span, ...]:
    if way.kind != "static":
        return ()
    steps_s, how = median_s - run.prefill_s, "predicted: their share of the steps' places"
    return (
        Span(name="tokens that were asked for", seconds=steps_s * (1 - way.answer_waste), how=how),
        Span(name="places whose answer has ended", seconds=steps_s * way.answer_waste, how=how),
        Span(name="prompts", seconds=run.prefill_s, how="measured: wall clock"),
    )


def gains(rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """How many times the tokens/s of fixed batches with as many places."""
    continuous = next((row for row in rows if row.config["kind"] == "continuous"), None)
    for row in rows:
        if continuous and row.config["kind"] == "static" and row.config["batch"] == continuous.config["batch"]:
            yield Measurement(
                name=f"continuous over {row.name}", value=continuous.value / row.value, unit="×",
                estimator="of both medians", config={"kind": "gain", "batch": row.config["batch"]},
                no_roof_because="a ratio of two ways has no roof of its own: at most 1 ÷ the share that is not padding",
            )  # fmt: skip


def row_line(row: Measurement) -> str:
    """One row, for the log."""
    if row.unit == "×":
        return f"{row.name:44} {row.value:10.2f} ×"
    share = "" if row.fraction is None else f"  {row.fraction:.1%} of roof"
    each = row.config["tpot_s"]
    gap = "" if each is None else f"  {each * 1e3:.2f} ms a token"
    return f"{row.name:44} {row.value:10.1f} token/s{gap}  {row.config['answer_waste']:.0%} padding{share}"


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print what is expected, serve every way, check, print and write what came out."""
    shape = find_model(config.model)
    requests = draw(config.requests, config.lengths, shape.vocabulary, config.seed)
    memory, plan, rows, notes = memory_ceiling(flags.out, within.node, device), ways(config, requests), [], []
    for way in plan:
        bound, others = bound_of(config, device, way, memory)
        most = expected(way, bound, others)
        told = f"none, {bound.no_roof_because}" if most is None else f"at most {most.value:.0f} token/s ({most.source})"
        print(f"expected {way.name}: {told}", flush=True)
    with ExitStack() as stack, Sensors(device) as sensors:
        model = build(shape, config.dtype, device, config.seed)
        serve(model, requests[:2], 1)
        alone = serve(model, requests, 1)
        for way in plan:
            try:
                step = _step(way, config, device, model, requests, stack)
                served = [step(requests) for _ in range(config.repeats)]
            except NotApplicable as reason:
                notes.append(f"{way.name}: not applicable: {reason}")
                continue
            # vLLM has its own random weights' file, and so its own tokens.
            same = way.kind == "static" or config.engine == "transformers"
            checked = check(way.name, served[-1], alone, requests, config.dtype) if same else "lengths of all answers"
            rows.append(summarise(way, served, config, *bound_of(config, device, way, memory), checked,
                                  within.node_price))  # fmt: skip
            print(row_line(rows[-1]), flush=True)
    for row in list(gains(rows)):
        rows.append(row)
        print(row_line(row), flush=True)
    for note in notes:
        print(note, flush=True)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type,
                       libraries=("transformers",))  # fmt: skip
    path = write(flags.out, "batching", tuple(rows), within=within, machine=machine, config=config, notes=tuple(notes))
    print(f"{sum(one.answer for one in requests)} tokens of {len(requests)} requests, each way: {path}", flush=True)


def _step(way: Way, config: Config, device: Device, model: torch.nn.Module, requests: Sequence[Request],
          stack: ExitStack) -> Serve:  # fmt: skip
    if way.kind == "static":
        return lambda given: serve(model, given, way.places)
    if config.engine == "transformers":
        return by_transformers(model, requests, way.places, device)
    folder = stack.enter_context(scratch(Path(gettempdir())))
    Made(config.model, config.seed).write(folder)
    return by_vllm(folder, requests, way.places)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a way makes other tokens.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("batching", __doc__)
    parser.add_argument("--model", help="a shape of labs/models.py; default: mistral-tiny on a GPU, nano on a CPU")
    parser.add_argument("--requests", type=positive, help="requests, all there at the start")
    parser.add_argument("--sizes", type=sizes, help="of fixed batches, as in 1,8,32")
    parser.add_argument("--repeats", type=positive, help="times that all requests are served, each way")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("batching", main)
