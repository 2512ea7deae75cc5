"""fp8-training: the same model trained in bf16 and in fp8. Is it faster, and does it learn the same?

An fp8 product runs at twice the rate of bf16. Only the layers' products are in fp8: the output table, attention, norms
and Adam are not, and every operand must first be scaled and rounded. So the gain is at most what the products' share
of a step lets it be (Amdahl), some 1.2 to 1.35 times for the 7B model. It counts only if the loss is the same.

Method: bf16 with seed 0, fp8 with seed 0 (same weights, same data), then bf16 with further seeds, in that order, so
that the machine's drift falls on both. Seeds differ in weights and data: the spread of their losses is the noise that
fp8 must stay within. torchao's scaling by tensor; on a device without fp8 products it is emulated, which tells about
the loss and nothing about speed.
Check: the mean loss of the last quarter lies within the spread of bf16's seeds, or within 3 % where they are nearer.

Output: loss of every step of each run, tokens/s of both, their ratio; one record.

    python -m workloads.fp8_training
    python -m workloads.fp8_training --model mistral-tiny --steps 100 --seeds 3 --recipe rowwise
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from labs.models import find_model
from labs.results import Measurement, Roof
from labs.roofs import Bound, compute_bound, per_unit, usd_per_million
from workloads.chain import draw
from workloads.command import Parser, learning_rate, positive, start
from workloads.device import Device
from workloads.earlier import product_ceiling
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe
from workloads.training.choice import default_model, large
from workloads.training.curves import Curve, check_parity, entropy, spread_of
from workloads.training.float8 import RECIPES, demand_torchao, emulated, fp8_bound, layer_flops, to_float8
from workloads.training.laps import spans
from workloads.training.prediction import Rates, rates, step_parts
from workloads.training.trainee import optimiser_of, step, trainable

WARMUP = 3
"""Steps of each run that are not timed: the first compiles."""
EXPECTED_SPEEDUP = 1.8
"""Of a product in fp8 over bf16 at an H200's power cap: 1354 over 755 TFLOP/s (stas00/ml-engineering, 2026-10)."""
SCALING_BYTES = 7
"""An operand's element: read in bf16 for the largest, read again, and written as fp8 in two layouts and read back."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is trained."""

    model: str
    """A name in labs/models.py."""
    recipe: str
    """How values are scaled before they are rounded."""
    sequence: int
    """Tokens per sequence."""
    batch: int
    """Sequences at once."""
    accumulate: int
    """Batches per optimiser step."""
    steps: int
    """Optimiser steps of each run; the first three are not timed."""
    seeds: int
    """Runs in bf16."""
    learning_rate: float
    seed: int
    """Of the first run in bf16 and of the one in fp8."""
    threads: int
    """CPU threads that torch may use."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe={self.recipe!r} is not one of torchao's: write {' or '.join(RECIPES)}")
        if self.seeds < 2:
            raise ValueError(f"seeds={self.seeds} shows no noise to hold fp8 against: write at least 2")
        if self.steps < 8:
            raise ValueError(f"steps={self.steps} cannot show a falling loss: write at least 8")

    @property
    def tokens(self) -> int:
        """Of one optimiser step, counted once."""
        return self.accumulate * self.batch * self.sequence


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed, torchao is absent, or the GPU has no bf16.
    """
    demand_torchao()
    if "bf16" not in device.dtypes:
        raise ValueError(f"{device.name} has no bf16 to compare fp8 with: take a GPU of Ampere or later")
    model = flags.model or default_model(device)
    few = large(model, device)
    return Config(
        model=model, recipe=flags.recipe,
        sequence=flags.sequence or (4096 if few else 1024 if device.cuda else 32),
        batch=flags.batch or (1 if few else 8 if device.cuda else 2), accumulate=4 if few else 1,
        steps=flags.steps or (30 if device.cuda else 24), seeds=flags.seeds,
        learning_rate=flags.learning_rate or 0.75 / find_model(model).hidden, seed=flags.seed,
        threads=torch.get_num_threads(),
    )  # fmt: skip


def measure(config: Config, device: Device) -> Iterator[Curve]:
    """bf16, fp8 on the same weights and data, then bf16 with the further seeds."""
    first, *further = range(config.seed, config.seed + config.seeds)
    for dtype, seed in (("bf16", first), ("fp8", first), *(("bf16", seed) for seed in further)):
        yield train(config, device, dtype, seed)


def train(config: Config, device: Device, dtype: str, seed: int) -> Curve:
    """One run from random weights."""

    def convert(decoder: torch.nn.Module) -> None:
        if dtype == "fp8":
            to_float8(decoder, config.recipe, device)

    size = (config.accumulate * config.batch, config.sequence + 1)
    losses, parts = [], []
    with trainable(find_model(config.model), "bf16", device, chunk=4096, seed=seed, convert=convert,
                   compiled=device.cuda and not (dtype == "fp8" and emulated(device))) as model:  # fmt: skip
        optimiser = optimiser_of(model, config.learning_rate)
        for index in range(config.steps):
            tokens_GT = draw(seed, index, *size).to(device.torch)
            taken, loss = step(model, optimiser, tokens_GT.split(config.batch), device)
            losses.append(loss)
            parts.append(taken)
    return Curve(dtype=dtype, seed=seed, losses=tuple(losses), parts=tuple(parts[WARMUP:]))


def summarise(config: Config, curves: Sequence[Curve], at: Rates | None, ceiling: Roof | None, device: Device,
              checked: str, price: float | None) -> Iterator[Measurement]:  # fmt: skip
    """Each run's loss, then throughput of bf16 and, where it is in hardware, of fp8 and their ratio."""
    row = {"model": config.model, "recipe": config.recipe, "tokens_per_step": config.tokens}
    for curve in curves:
        yield Measurement(
            name=f"loss in {curve.dtype}, seed {curve.seed}", value=curve.late, unit="nat/token",
            estimator=f"mean of the last {len(curve.losses) // 4} of {len(curve.losses)} steps",
            config={**row, "kind": "loss", "dtype": curve.dtype, "seed": curve.seed, "losses": list(curve.losses),
                    "spread": spread_of(curves)},
            no_roof_because="a loss is bounded from below, by the entropy of the data",
            others=(Roof(value=entropy(), source="entropy of the data, the least that any model's loss can be"),),
            checked=checked if curve.dtype == "fp8" else "",
        )  # fmt: skip
    taken = {dtype: [parts for curve in curves if curve.dtype == dtype for parts in curve.parts]
             for dtype in ("bf16", *(() if emulated(device) else ("fp8",)))}  # fmt: skip
    medians = {}
    for dtype, every in taken.items():
        samples_s = tuple(sum(parts.values()) for parts in every)
        medians[dtype] = statistics.median(samples_s)
        speed, bound, expected_s = config.tokens / medians[dtype], bound_of(config, device, dtype), None
        if at:
            expected_s = sum(expected(config, dtype, at).values())
        yield Measurement(
            name=f"{dtype} training", value=speed, unit="token/s", samples_s=samples_s,
            estimator=f"from the median of {len(samples_s)} steps", config={**row, "kind": "speed", "dtype": dtype},
            roof=bound.roof, no_roof_because=bound.no_roof_because,
            others=(ceiling,) if ceiling and dtype == "bf16" else (),
            expected=Roof(value=config.tokens / expected_s, source=at.products.source) if at and expected_s else None,
            spans=spans(every, "events of the device" if device.cuda else "wall clock"), checked=checked,
            usd_per_unit=None if price is None else usd_per_million(price, speed), work_unit="million tokens",
        )  # fmt: skip
    if "fp8" in medians:
        yield Measurement(
            name="gain of fp8", value=medians["bf16"] / medians["fp8"], unit="× bf16", estimator="from medians of both",
            config={**row, "kind": "gain"}, no_roof_because="both rates stand beside their own roof", checked=checked,
            expected=expected_gain(config, at),
        )  # fmt: skip


def bound_of(config: Config, device: Device, dtype: str) -> Bound:
    """Most tokens/s in that type."""
    shape = find_model(config.model)
    if dtype == "fp8":
        return fp8_bound(device, shape, config.sequence)
    return per_unit(compute_bound(device.name, device.accelerator, dtype), shape.train_flops(config.sequence))


def expected(config: Config, dtype: str, at: Rates) -> dict[str, float]:
    """Seconds of a step by cause, as predicted."""
    shape = find_model(config.model)
    parts = step_parts(shape, "bf16", config.sequence, config.tokens, config.accumulate, at)
    if dtype == "fp8":
        share = layer_flops(shape) / (6 * shape.multiplying_weights)
        parts["products"] *= 1 - share + share / EXPECTED_SPEEDUP
        operands = 6 * shape.hidden + 2 * shape.kv_heads * shape.head_size + 3 * shape.feed_forward
        parts["scaling to fp8"] = SCALING_BYTES * shape.layers * operands * config.tokens / at.memory.value
    return parts


def expected_gain(config: Config, at: Rates | None) -> Roof | None:
    """By Amdahl: only the layers' products become faster."""
    if at is None:
        return None
    slow, fast = (sum(expected(config, dtype, at).values()) for dtype in ("bf16", "fp8"))
    return Roof(
        value=slow / fast,
        source=f"the layers' products {EXPECTED_SPEEDUP} × as fast, their operands scaled, the rest as it was",
    )


def curve_line(curve: Curve) -> str:
    """One run, for the log."""
    step_ms = statistics.median(sum(parts.values()) for parts in curve.parts) * 1e3
    return (f"{curve.dtype}, seed {curve.seed}: loss {curve.losses[0]:.3f} to {curve.late:.3f} (last quarter), "
            f"{step_ms:.1f} ms a step")  # fmt: skip


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print roof and prediction, train all runs, check, print and write what came out.

    Raises:
        CheckFailed: fp8 does not learn what bf16 learns.
    """
    at = rates(flags.out, within.node, device, "bf16")
    for dtype in ("bf16", "fp8"):
        bound = bound_of(config, device, dtype)
        print(f"roof {dtype}: {bound.roof.value:.0f} token/s ({bound.roof.source})" if bound.roof
              else f"roof {dtype}: none, {bound.no_roof_because}", flush=True)  # fmt: skip
    notes = []
    if emulated(device):
        notes.append(f"speed in fp8: not applicable: {device.name} has no fp8 products, they are emulated; only the "
                     "loss tells")  # fmt: skip
    gain = None if notes else expected_gain(config, at)
    print(notes[0] if notes else f"predicted gain: {gain.value:.2f} × ({gain.source})" if gain
          else "predicted gain: nothing was measured here to predict from", flush=True)  # fmt: skip
    print(f"predicted loss: the same, and never below the data's entropy of {entropy():.3f} nat a token", flush=True)
    curves = []
    with Sensors(device) as sensors:
        for curve in measure(config, device):
            print(curve_line(curve), flush=True)
            curves.append(curve)
    checked = check_parity(curves)
    found = product_ceiling(flags.out, within.node, device, "bf16")
    flops = find_model(config.model).train_flops(config.sequence)
    ceiling = Roof(value=found.value / flops, source=found.source) if found else None
    rows = tuple(summarise(config, curves, at, ceiling, device, checked, within.node_price))
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type,
                       libraries=("torchao",))  # fmt: skip
    path = write(flags.out, "fp8-training", rows, within=within, machine=machine, config=config, notes=tuple(notes))
    if rows[-1].name == "gain of fp8":
        print(f"gain of fp8: {rows[-1].value:.2f} × bf16", flush=True)
    print(f"{checked}: {path}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: fp8 does not learn what bf16 learns.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("fp8_training", __doc__)
    parser.add_argument("--model", help="a shape of labs/models.py; default: the largest whose states fit")
    parser.add_argument("--recipe", default="tensorwise", help=f"how values are scaled: {' or '.join(RECIPES)}")
    parser.add_argument("--sequence", type=positive, help="tokens per sequence")
    parser.add_argument("--batch", type=positive, help="sequences at once")
    parser.add_argument("--steps", type=positive, help="optimiser steps of each run")
    parser.add_argument("--seeds", type=positive, default=2, help="runs in bf16")
    parser.add_argument("--learning-rate", type=learning_rate, help="of AdamW; default: 0.75 over the model's width")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("fp8_training", main)
