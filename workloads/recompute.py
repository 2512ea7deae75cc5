"""recompute: time against memory. What the forward pass leaves for the backward pass may be kept, or made again.

A trained token leaves some 94 to 139 kB in each layer of the 7B model, 3 to 4.5 MB in all: at 4,096 tokens and a few
sequences that is more than the weights. Keeping only each layer's input takes 17 times less, and costs the layers'
forward pass a second time: 8 FLOPs a weight instead of 6, a third more arithmetic at most. In between lies a curve,
and only its lower left edge is worth having.

Method: one model, one batch; forward and backward pass timed at each point, on a CPU point after point in turn so
that drift falls on all. Kept bytes: on a GPU what the allocator holds after the forward pass beyond what it held
before; on a CPU each piece of memory that autograd keeps, counted once.
Check: loss and gradients (one value in 101) are those of keeping everything.

Output: seconds of a step and bytes kept at each point, beside what FLOPs and closed forms predict; one record.

    python -m workloads.recompute
    python -m workloads.recompute --model mistral-tiny --batch 2 --sequence 4096
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from labs.memory import head_parts
from labs.models import find_model
from labs.results import Measurement, Roof
from labs.roofs import Bound, compute_bound, inverse
from workloads.chain import draw
from workloads.command import CheckFailed, positive, start
from workloads.device import Device
from workloads.earlier import product_ceiling
from workloads.parity import TOLERANCE
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe
from workloads.training.budget import Point, applied, points, predicted_bytes, predicted_slowdown
from workloads.training.choice import chosen, large, parser_of
from workloads.training.kept import kept
from workloads.training.laps import Laps, spans
from workloads.training.trainee import DTYPES, Trainee, trainable, whole

# Shape suffixes: B sequences, T = S + 1 tokens (inputs and labels overlap).

STRIDE = 101
"""One value in so many of each gradient is compared."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is trained."""

    model: str
    """A name in labs/models.py."""
    dtype: str
    """Of the arithmetic."""
    batch: int
    sequence: int
    """Tokens per sequence."""
    steps: int
    """Timed forward and backward passes of each point."""
    seed: int
    threads: int
    """CPU threads that torch may use."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} is not one that training runs in: write {' or '.join(DTYPES)}")

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * self.sequence


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    told = chosen(flags, device)
    usual = 1 if large(told["model"], device) else 8 if device.cuda else 4
    return Config(**told, batch=flags.batch or usual, steps=flags.steps or (10 if device.cuda else 7))


@dataclass(kw_only=True)
class Taken:
    """What one point showed."""

    point: Point
    kept_bytes: int = 0
    loss: float = 0.0
    gradients: list[Tensor] = field(default_factory=list)
    """One value in 101 of each, on the host."""
    parts: list[dict[str, float]] = field(default_factory=list)
    """Of each timed step: seconds by part."""

    @property
    def samples_s(self) -> tuple[float, ...]:
        """Seconds of each timed step."""
        return tuple(sum(parts.values()) for parts in self.parts)


def measure(config: Config, device: Device) -> list[Taken]:
    """Every point's memory, gradients and times."""
    shape = find_model(config.model)
    found = [Taken(point=point) for point in points(shape, device)]
    # A GPU's points are compiled, each once, and stay for all their steps.
    rounds, each = (1, config.steps) if device.cuda else (config.steps, 1)
    tokens_BT = draw(config.seed, 0, config.batch, config.sequence + 1).to(device.torch)
    with trainable(shape, config.dtype, device, chunk=4096, compiled=False, seed=config.seed) as model:
        for turn in range(rounds):
            for taken in found:
                with applied(model, taken.point, device):
                    if turn == 0:
                        warm(model, tokens_BT, device)
                        look(model, tokens_BT, device, taken)
                    taken.parts += [timed(model, tokens_BT, device) for _ in range(each)]
    return found


def warm(model: Trainee, tokens_BT: Tensor, device: Device) -> None:
    """Once untimed: what is compiled is compiled, what is allocated is there."""
    timed(model, tokens_BT, device)


def look(model: Trainee, tokens_BT: Tensor, device: Device, taken: Taken) -> None:
    """What one forward pass keeps, and the gradients that come of it."""
    if device.cuda:
        device.synchronize()
        before = torch.cuda.memory_allocated(device.torch)
        loss = model(tokens_BT)
        taken.kept_bytes = torch.cuda.memory_allocated(device.torch) - before
    else:
        with kept(model) as count:
            loss = model(tokens_BT)
        taken.kept_bytes = count.bytes
    loss.backward()
    taken.loss = float(loss.detach())
    taken.gradients = [whole(weights.grad).flatten()[::STRIDE].cpu() for weights in model.parameters()]
    model.zero_grad()


def timed(model: Trainee, tokens_BT: Tensor, device: Device) -> dict[str, float]:
    """Forward and backward once: the seconds of each."""
    device.synchronize()
    laps = Laps(device)
    loss = model(tokens_BT)
    laps.mark("forward")
    loss.backward()
    laps.mark("backward")
    found = laps.seconds()
    model.zero_grad()
    return found


def check(found: Sequence[Taken], dtype: str) -> str:
    """Compare every point's gradients with those of keeping everything, and say how near they are.

    Raises:
        CheckFailed: one is further off than rounding explains.
    """
    first, *others = found
    expected, allowed, worst = torch.cat(first.gradients).double(), TOLERANCE[dtype], 0.0
    for taken in others:
        error = float((torch.cat(taken.gradients).double() - expected).norm() / expected.norm())
        if not error <= allowed:
            raise CheckFailed(f"{taken.point.name}: gradients differ by {error:.2g} from those of keeping everything, "
                              f"allowed {allowed:.0e}")  # fmt: skip
        worst = max(worst, error)
    return f"gradients within {worst:.1e} of those of keeping everything, allowed {allowed:.0e}"


def floor_of(config: Config, device: Device) -> Bound:
    """Fewest seconds of a step, by the model's own arithmetic: what is made again is not in it."""
    peak = compute_bound(device.name, device.accelerator, config.dtype)
    return inverse(peak, config.tokens * find_model(config.model).train_flops(config.sequence))


def around_bytes(config: Config, device: Device) -> int:
    """Kept outside the layers, whatever is chosen: the last norm, and the slopes that the loss has taken."""
    shape, size = find_model(config.model), 4 if config.dtype == "fp32" else 2
    norm, _ = head_parts(shape, "min-cut" if device.cuda else "eager-cpu", size, config.tokens)
    return norm.bytes + size * (config.tokens * shape.hidden + shape.table_weights)


def summarise(config: Config, device: Device, found: Sequence[Taken], ceiling: Roof | None, checked: str
              ) -> Iterator[Measurement]:  # fmt: skip
    """Time and memory of each point."""
    shape, floor = find_model(config.model), floor_of(config, device)
    plain_s = statistics.median(found[0].samples_s)
    work = config.tokens * shape.train_flops(config.sequence)
    for taken in found:
        step_s = statistics.median(taken.samples_s)
        slower = predicted_slowdown(shape, taken.point, config.sequence)
        predicted = predicted_bytes(shape, taken.point, config.dtype, config.tokens, device)
        predicted += around_bytes(config, device)
        row = {"model": config.model, "dtype": config.dtype, "tokens": config.tokens, "share": taken.point.share,
               "kept_bytes": taken.kept_bytes, "predicted_bytes": predicted, "step_s": step_s,
               "slowdown": step_s / plain_s, "predicted_slowdown": slower, "loss": taken.loss}  # fmt: skip
        yield Measurement(
            name=f"step, {taken.point.name}", value=step_s, unit="s",
            estimator=f"median of {len(taken.samples_s)}, forward and backward", samples_s=taken.samples_s,
            config={**row, "kind": "time"}, roof=floor.roof, no_roof_because=floor.no_roof_because,
            others=(Roof(value=work / ceiling.value, source=ceiling.source),) if ceiling else (),
            expected=Roof(value=plain_s * slower, source="the first point's time × FLOPs over its FLOPs"),
            spans=spans(taken.parts, "events of the device" if device.cuda else "wall clock"), checked=checked,
        )  # fmt: skip
        yield Measurement(
            name=f"kept, {taken.point.name}", value=taken.kept_bytes, unit="B", checked=checked,
            estimator="allocated after the forward pass − before" if device.cuda else "counted once a piece",
            config={**row, "kind": "memory"}, no_roof_because="less is better, and the least is each layer's input",
            expected=Roof(value=predicted, source="labs/memory.py, all layers, last norm and the slopes of the loss"),
        )  # fmt: skip


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print what is to be expected, measure, check, print and write what came out.

    Raises:
        CheckFailed: what was made again is not what would have been kept.
    """
    shape, floor = find_model(config.model), floor_of(config, device)
    print(f"roof step: at least {floor.roof.value * 1e3:.2f} ms ({floor.roof.source})" if floor.roof
          else f"roof step: none, {floor.no_roof_because}", flush=True)  # fmt: skip
    for point in points(shape, device):
        memory = predicted_bytes(shape, point, config.dtype, config.tokens, device) + around_bytes(config, device)
        slower = predicted_slowdown(shape, point, config.sequence)
        print(f"predicted {point.name:22} {memory / 1e6:10.2f} MB kept, {slower:.2f} × the time", flush=True)
    with Sensors(device) as sensors:
        found = measure(config, device)
    checked = check(found, config.dtype)
    ceiling = product_ceiling(flags.out, within.node, device, config.dtype)
    rows = tuple(summarise(config, device, found, ceiling, checked))
    for row in rows[::2]:
        said = row.config
        print(f"measured  {row.name.removeprefix('step, '):22} {said['kept_bytes'] / 1e6:10.2f} MB kept, "
              f"{said['slowdown']:.2f} × the time, {row.value * 1e3:.1f} ms", flush=True)  # fmt: skip
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type, libraries=())
    path = write(flags.out, "recompute", rows, within=within, machine=machine, config=config)
    first, last = rows[0].config, rows[-2].config
    less = first["kept_bytes"] / max(1, last["kept_bytes"])
    print(f"{less:.1f} × less memory for {last['slowdown']:.2f} × the time; {checked}: {path}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: what was made again is not what would have been kept.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = parser_of("recompute", __doc__)
    parser.add_argument("--batch", type=positive, help="sequences at once")
    parser.add_argument("--steps", type=positive, help="timed steps of each point")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("recompute", main)
