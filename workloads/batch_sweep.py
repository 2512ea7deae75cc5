"""batch-sweep: one decode step of 1, 2, 4 … sequences at a short context; what a further sequence costs.

A step reads the weights once, whatever the batch, and each sequence's KV cache once: tokens/s grow with the batch
while the step is memory-bound, and stop growing where it turns compute-bound, at the ridge. Whether it ever does
depends on the context. Intensity tends to 2·N_mm/(S·KV) + H/K FLOP/B as the batch grows; mistral-7b in bf16 comes to
an H200's ridge only up to S = 537 tokens, an L4's up to 271. So the sweep is at S = 128, and the report draws the
family of curves over S.

Method: random weights and random cache, the same for all sequences; every sequence must come to the logits of a batch
of one. On a GPU a step is one CUDA graph, so that launches do not count. Expected: max(bytes ÷ measured read rate,
FLOPs ÷ measured products), and each measured ceiling is the run's own earlier one, or is measured first.

Output: tokens/s over the batch beside the roof and the expectation; $ per million tokens; one record.

    python -m workloads.batch_sweep
    python -m workloads.batch_sweep --model mistral-7b --largest 1024
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from labs.batching import batch_at_ridge, decode_intensity, intensity_limit
from labs.models import find_model
from labs.results import Measurement, Roof, Span
from labs.roofs import DTYPE_BYTES, inverse, measured_roof, time_bound, usd_per_million
from workloads import gemm
from workloads.ceilings import Ceilings, fold, measure_ceilings
from workloads.command import CheckFailed, Parser, positive, refuse_absent, seconds, start
from workloads.device import Device, time_each
from workloads.earlier import memory_ceiling, product_ceiling
from workloads.ladder.static import Static
from workloads.ladder.weights import Weights
from workloads.mistral import build
from workloads.nvml import Gauge
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe

# Shape suffixes: B batch, V vocabulary.

TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1}
"""Largest root mean square difference of a sequence's logits from those of a batch of one, in standard deviations;
another number of rows is another kernel, which rounds otherwise."""
SEARCH_S = {True: 10.0, False: 0.5}
"""Budget for the fastest product where no earlier record tells it, by whether the device is a GPU."""
WARMUP = 2
SPARE = 0.8
"""Share of the free memory that the largest batch may take."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    model: str
    """A name in labs/models.py."""
    dtype: str
    """Of weights and KV cache."""
    context: int
    """Tokens that each sequence attends to at the first timed step, the current one included."""
    batches: tuple[int, ...]
    """Sequences at once, ascending."""
    iterations: int
    """Timed steps of each batch."""
    budget_s: float
    """When this is spent no larger batch is begun."""
    seed: int
    threads: int
    """CPU threads that torch may use."""


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    dtype = flags.dtype or device.half
    if dtype not in TOLERANCE:
        raise ValueError(f"dtype={dtype!r} is not one that models run in: write {', '.join(TOLERANCE)}")
    refuse_absent((dtype,), device)
    model = flags.model or ("mistral-tiny" if device.cuda else "mistral-mini")
    find_model(model)
    largest = flags.largest or (2048 if device.cuda else 64)
    return Config(
        model=model, dtype=dtype, context=flags.context or 128,
        batches=(*(2**power for power in range(largest.bit_length()) if 2**power < largest), largest),
        iterations=flags.iterations or (20 if device.cuda else 3),
        budget_s=(120.0 if device.cuda else 25.0) if flags.budget_s is None else flags.budget_s, seed=flags.seed,
        threads=torch.get_num_threads(),
    )  # fmt: skip


def ceilings(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> Ceilings:
    """The run's own earlier ceilings; where it has none they are measured first."""
    memory = memory_ceiling(flags.out, within.node, device)
    product = product_ceiling(flags.out, within.node, device, config.dtype)
    if memory and product:
        return Ceilings(memory=memory, peaks={config.dtype: product})
    shape = find_model(config.model)
    settings = gemm.Config(shapes=((1, shape.vocabulary, shape.hidden),), dtypes=(config.dtype,), warmup=2,
                           iterations=5, search_s=SEARCH_S[device.cuda], sustain_s=0.0, seed=config.seed,
                           threads=config.threads)  # fmt: skip
    return fold(tuple(measure_ceilings(device, Gauge(device), settings)))


def fits(config: Config, device: Device, batch: int) -> str:
    """Why the device's memory does not hold a batch; "" where it does."""
    if not device.cuda:
        return ""
    shape, size = find_model(config.model), DTYPE_BYTES[config.dtype]
    # The logits are there twice, and once more in fp32 for the check.
    needed = batch * (_room(config) * shape.kv_bytes(size) + shape.vocabulary * (2 * size + 4))
    if needed < SPARE * device.memory_bytes:
        return ""
    return f"its cache takes {needed / 2**30:.1f} GiB, and {device.memory_bytes / 2**30:.1f} are free"


def _room(config: Config) -> int:
    """Tokens that a sequence's cache has room for, as the step on a GPU rounds it."""
    return config.context + config.iterations + WARMUP + 128


def measure(config: Config, device: Device, tops: Ceilings, within: Surroundings, notes: list[str]
            ) -> Iterator[Measurement]:  # fmt: skip
    """One batch after the other, smallest first; what is left out goes to `notes`."""
    shape, begun = find_model(config.model), time.perf_counter()
    weights = Weights(lambda dtype: build(shape, dtype, device, config.seed), config.dtype)
    model = weights.at(config.dtype)
    weights.fuse()
    alone_V: Tensor | None = None
    for batch in config.batches:
        reason = fits(config, device, batch)
        if time.perf_counter() - begun > config.budget_s:
            reason = f"the budget of {config.budget_s:g} s was spent"
        if reason:
            notes.append(f"batch {batch} and more: skipped, {reason}")
            return
        length = config.context + config.iterations + WARMUP + 1
        engine = Static(model, weights.fused, shape, batch=batch, length=length, graph=device.cuda)
        row, logits_BV = take(config, device, engine, batch, tops, within)
        alone_V = logits_BV[0] if alone_V is None else alone_V
        yield check(config, row, logits_BV, alone_V)
        del engine, logits_BV


def take(config: Config, device: Device, engine: Static, batch: int, tops: Ceilings, within: Surroundings
         ) -> tuple[Measurement, Tensor]:  # fmt: skip
    """Time one batch; its row, and the logits of its first step."""
    generator = torch.Generator(device.torch)
    first = config.context - 1

    def begin() -> None:
        engine.read(torch.full((batch, 1), 1, dtype=torch.long, device=device.torch))
        engine.pretend(first, generator.manual_seed(config.seed))

    begin()
    logits_BV = engine.step().float().clone()
    for _ in range(WARMUP):
        engine.step()
    begin()
    samples_s = time_each(device, engine.step, config.iterations)
    shape, size = find_model(config.model), DTYPE_BYTES[config.dtype]
    context = config.context + (config.iterations - 1) // 2
    flops = batch * shape.decode_flops(context)
    moved = shape.decode_bytes(context, batch=batch, weight_size=size, kv_size=size)
    rate = batch / statistics.median(samples_s)
    bound = inverse(time_bound(device.name, device.accelerator, config.dtype, flops, moved), batch)
    over = measured_roof(tops.peaks[config.dtype], tops.memory, flops, moved)
    weights_s = shape.decode_bytes(0, weight_size=size) / tops.memory.value
    expected_s = flops / over.value
    told = {
        "kind": "batch", "model": config.model, "dtype": config.dtype, "batch": batch, "context": context,
        "flops": flops, "bytes": moved, "intensity": decode_intensity(shape, context, batch, size),
        "ridge": tops.ridge(config.dtype), "peak_flops": tops.peaks[config.dtype].value,
        "memory_bytes_per_s": tops.memory.value, "cache_bytes": engine.cache_bytes,
        "bound_by": "memory" if moved / tops.memory.value >= expected_s * 0.999 else "arithmetic",
    }  # fmt: skip
    measured = Roof(value=batch / expected_s, source=over.source)
    row = Measurement(
        name=f"{config.model} decode, batch {batch}", value=rate, unit="token/s",
        estimator=f"from the median of {len(samples_s)}", config=told, samples_s=samples_s, roof=bound.roof,
        no_roof_because=bound.no_roof_because, others=(measured,), expected=measured,
        spans=spans(statistics.median(samples_s), weights_s, moved / tops.memory.value, expected_s),
        usd_per_unit=None if within.node_price is None else usd_per_million(within.node_price, rate),
        work_unit="million tokens",
    )  # fmt: skip
    return row, logits_BV


def spans(taken_s: float, weights_s: float, read_s: float, expected_s: float) -> tuple[Span, ...]:
    """What a step's time is made of, largest first; never more than it took."""
    rate = "predicted: bytes ÷ measured read rate"
    left_s, found = taken_s, []
    for name, wanted_s, how in (
        ("weights", weights_s, rate),
        ("KV cache", read_s - weights_s, rate),
        ("arithmetic beyond the reading", expected_s - read_s, "predicted: FLOPs ÷ measured products"),
        ("the rest", taken_s, "measured: kernels below both ceilings, starting them"),
    ):
        share_s = min(max(wanted_s, 0.0), left_s)
        left_s -= share_s
        if share_s > 0:
            found.append(Span(name=name, seconds=share_s, how=how))
    return tuple(sorted(found, key=lambda span: -span.seconds))


def check(config: Config, row: Measurement, logits_BV: Tensor, alone_V: Tensor) -> Measurement:
    """The row with what its check found.

    Raises:
        CheckFailed: a sequence's logits are not those of a batch of one.
    """
    error = float((logits_BV - alone_V).square().mean(-1).sqrt().max() / alone_V.std())
    allowed = TOLERANCE[config.dtype]
    if not error <= allowed:
        raise CheckFailed(f"{row.name}: a sequence's logits are {error:.2g} standard deviations from a batch of one's, "
                          f"allowed {allowed:g}")  # fmt: skip
    return replace(row, checked=f"logits of every sequence within {error:.1e} standard deviations of a batch of one's")


def roof_lines(config: Config, tops: Ceilings) -> Iterator[str]:
    """Where the ridge is, and whether a batch reaches it, before anything is timed."""
    shape, size, ridge = find_model(config.model), DTYPE_BYTES[config.dtype], tops.ridge(config.dtype)
    yield (f"{config.dtype}: memory {tops.memory.value / 1e9:.1f} GB/s, products "
           f"{tops.peaks[config.dtype].value / 1e12:.3f} TFLOP/s, ridge at {ridge:.1f} FLOP/B")  # fmt: skip
    for context in dict.fromkeys((config.context, 1024, 4096)):
        limit = intensity_limit(shape, context, size)
        batch = batch_at_ridge(shape, context, ridge, size)
        when = f"compute-bound from batch {batch:.0f} on" if batch < 1e9 else "memory-bound at any batch"
        yield f"context {context}: intensity tends to {limit:.1f} FLOP/B, {when}"


def prediction_line(config: Config, tops: Ceilings, batch: int) -> str:
    """What is expected of a batch."""
    shape, size = find_model(config.model), DTYPE_BYTES[config.dtype]
    flops = batch * shape.decode_flops(config.context)
    moved = shape.decode_bytes(config.context, batch=batch, weight_size=size, kv_size=size)
    over = tops.over(config.dtype, flops, moved)
    return (f"predicted batch {batch:5} {flops / moved:8.1f} FLOP/B  at least {flops / over.value * 1e3:9.3f} ms  "
            f"at most {batch * over.value / flops:10.1f} token/s")  # fmt: skip


def row_line(row: Measurement) -> str:
    """One batch, for the log."""
    step_s = row.config["batch"] / row.value
    price = "" if row.usd_per_unit is None else f"  ${row.usd_per_unit:.4f} per {row.work_unit}"
    return (f"measured  batch {row.config['batch']:5} {row.config['intensity']:8.1f} FLOP/B  {step_s * 1e3:18.3f} ms  "
            f"{row.value:18.1f} token/s  {row.share_of(row.others[0]):6.1%} of the measured roof{price}")  # fmt: skip


def summary(rows: Sequence[Measurement]) -> str:
    """What the batch bought, in one line."""
    first, best = rows[0], max(rows, key=lambda row: row.value)
    batch = best.config["batch"]
    return (f"batch {batch}: {best.value / first.value:.1f} × the tokens of batch {first.config['batch']}, each step "
            f"{batch / best.value / first.config['batch'] * first.value:.1f} × as long")  # fmt: skip


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print ceilings and predictions, sweep, print and write what came out."""
    tops = ceilings(config, device, flags, within)
    for line in (*roof_lines(config, tops), *(prediction_line(config, tops, batch) for batch in config.batches)):
        print(line, flush=True)
    rows: list[Measurement] = []
    notes: list[str] = []
    with Sensors(device) as sensors:
        for row in measure(config, device, tops, within, notes):
            print(row_line(row), flush=True)
            rows.append(row)
    for note in notes:
        print(note, flush=True)
    if not rows:
        raise CheckFailed("no batch ran: raise --budget-s, or choose a smaller --model")
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type,
                       libraries=("transformers",))  # fmt: skip
    path = write(flags.out, "batch-sweep", tuple(rows), within=within, machine=machine, config=config,
                 notes=tuple(notes))  # fmt: skip
    print(f"{summary(rows)}; all checked: {path}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a batch is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("batch_sweep", __doc__)
    parser.add_argument("--model", help="a shape of labs/models.py; default: mistral-tiny, on a CPU mistral-mini")
    parser.add_argument("--dtype", help="fp32, fp16 or bf16; default: bf16 on a GPU that has it, fp32 on a CPU")
    parser.add_argument("--context", type=positive, help="tokens that each sequence attends to")
    parser.add_argument("--largest", type=positive, help="sequences of the largest batch")
    parser.add_argument("--iterations", type=positive, help="timed steps of each batch")
    parser.add_argument("--budget-s", type=seconds, help="seconds after which no larger batch is begun")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("batch_sweep", main)
