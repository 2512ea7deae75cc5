"""fits: does this model train or serve on these GPUs? Predicted before anything runs, and where run, measured.

Training keeps per parameter a weight, a gradient and AdamW's two moments: 16 bytes in fp32, so 108 GiB for
mistral-7b, more than four L4 have together (89). Beside them stand what the forward pass saves for the backward
pass (activations, per token and layer), the logits, and copies that come and go. Serving keeps the weights and, for
every token of every sequence, its keys and values. All of it follows from the model's shape: labs/memory.py.

Method: a verdict for each way to spread the model over the devices, in the order of preference; "tight" has less room
left than what no formula counts may need. The machine's own GPUs, or an instance type's. Then a model that fits here
takes two training steps and a prefill, and every tensor is counted (on a GPU the peak is the allocator's).
Check: weights, gradients, moments and KV cache are exactly what was predicted.

Output: bytes a device by way and by part, the verdicts, and predicted beside measured with the error; one record.

    python -m workloads.fits
    python -m workloads.fits --model mistral-7b --train --instance-type g6e.12xlarge --context 2048
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from labs.catalog import LABS
from labs.instances import instance_type, instance_types
from labs.memory import Footprint, serve, train
from labs.models import MODELS, find_model
from labs.placement import Place, Verdict, cheapest, choose, gib, place_of, serve_verdicts, train_verdicts
from labs.results import Measurement, Roof
from workloads.command import CheckFailed, Parser, positive, start
from workloads.device import Device
from workloads.footprint import Counted, count_serving, count_training, recipe_here, this_machine, verdict_here
from workloads.record import Surroundings, surroundings, write
from workloads.sensors import Reading, describe

EXACT = ("weights", "gradients", "optimiser", "KV cache")
"""Parts whose prediction must be right to the byte."""
_LARGEST = 2 * 10**9
"""Parameters of a model that is built only to be counted."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is asked, of which machine, and what is run."""

    model: str
    """A name in labs/models.py."""
    purposes: tuple[str, ...]
    """Of "train" and "serve"."""
    batch: int
    """Sequences at once on a device."""
    context: int
    """Tokens of each."""
    instance_type: str
    """Whose GPUs are asked about; "" for this machine's own devices."""
    nodes: int
    measured: str
    """The model that is run here and counted; "none" for no run."""
    measured_context: int
    """Tokens of the one sequence that it is run with."""
    seed: int
    threads: int
    """CPU threads that torch may use."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.instance_type:
            instance_type(self.instance_type)
        if self.measured != "none":
            find_model(self.measured)


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the defaults of the device, the launcher and the lab where none is given.

    Raises:
        ValueError: a value is not allowed, or the model to be run does not fit here.
    """
    within = surroundings()
    asked = tuple(purpose for purpose in ("train", "serve") if getattr(flags, purpose)) or ("train", "serve")
    nodes = flags.nodes or (within.nodes if not flags.instance_type else 1)
    context = 1024 if device.cuda else 128
    config = Config(
        model=flags.model, purposes=asked, batch=flags.batch, context=flags.context,
        instance_type=flags.instance_type or elsewhere(device, within), nodes=nodes,
        measured=flags.measure or default_measured(device, context), measured_context=context, seed=flags.seed,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    if config.measured != "none" and measured_verdict(config, device).answer == "no":
        raise ValueError(f"measure={config.measured!r} does not fit here ({measured_verdict(config, device).why}): "
                         f"write {default_measured(device, context)} or none")  # fmt: skip
    return config


def elsewhere(device: Device, within: Surroundings) -> str:
    """The instance type to ask about: "" where this machine has GPUs of its own, else the launcher's or the lab's."""
    if device.cuda:
        return ""
    told = (within.instance_type or "").partition(",")[0]
    if told in instance_types():
        return told
    return LABS[within.lab].instance_type if within.lab in LABS else ""


def default_measured(device: Device, context: int) -> str:
    """The largest model that is quickly built and fits one device; the smallest on a CPU."""
    if not device.cuda:
        return "mistral-nano"
    for model in MODELS.values():
        if model.parameters < _LARGEST and verdict_here(model, device, context).answer == "fits":
            return model.name
    return "none"


def measured_verdict(config: Config, device: Device) -> Verdict:
    """Whether the model that is to be run fits this machine's device."""
    return verdict_here(find_model(config.measured), device, config.measured_context)


def place(config: Config, device: Device) -> Place:
    """The devices that are asked about."""
    if config.instance_type:
        return place_of(instance_type(config.instance_type), config.nodes)
    here = this_machine(device)
    count = config.nodes * here.devices
    return here if config.nodes == 1 else replace(here, devices=count, nodes=config.nodes,
                                                  name=f"{config.nodes} machines like this")  # fmt: skip


def verdicts(config: Config, there: Place) -> Iterator[Verdict]:
    """All that is asked, training first."""
    model = find_model(config.model)
    if "train" in config.purposes:
        yield from train_verdicts(model, there, batch=config.batch, context=config.context)
    if "serve" in config.purposes:
        yield from serve_verdicts(model, there, batch=config.batch, context=config.context)


def verdict_line(verdict: Verdict) -> str:
    """One verdict, for the log."""
    return f"{verdict.purpose:6} {verdict.answer:6} {verdict.way:56} {verdict.why}"


def decision(config: Config, found: Sequence[Verdict]) -> Iterator[str]:
    """What follows from the verdicts, a line for each purpose."""
    model = find_model(config.model)
    for purpose in ("train", "serve"):
        ways = [verdict for verdict in found if verdict.purpose == purpose]
        if not ways:
            continue
        chosen = choose(ways)
        if chosen is not None:
            yield f"{config.model} {purpose}s on {chosen.place.name}: {chosen.way}, {chosen.why}"
            continue
        kind = cheapest(model, purpose, batch=config.batch, context=config.context)
        price = f", ${kind.usd_per_hour:.2f} an hour by the list" if kind else ""
        least = f"the cheapest single instance that does is a {kind.name}{price}" if kind else "nor does any one node"
        yield f"{config.model} does not {purpose} on {ways[0].place.name}; {least}"


def verdict_rows(config: Config, found: Sequence[Verdict]) -> Iterator[Measurement]:
    """A row for each way that can be at all. One that does not fit has no roof: it is above it."""
    for verdict in found:
        if verdict.impossible:
            continue
        parts = {part.name: part.bytes for part in verdict.footprint.parts if part.bytes}
        row = {"model": config.model, "purpose": verdict.purpose, "way": verdict.way, "answer": verdict.answer,
               "batch": config.batch, "context": config.context, "capacity_bytes": verdict.place.device_bytes,
               "place": verdict.place.name, "parts": parts, "host_bytes": verdict.host_bytes}  # fmt: skip
        refused = verdict.answer == "no"
        yield Measurement(
            name=f"{config.model} {verdict.purpose}: {verdict.way}", value=verdict.footprint.bytes, unit="B",
            estimator="predicted, labs/memory.py", config=row, checked="predicted, not run",
            roof=None if refused else verdict.place.roof,
            no_roof_because=f"it does not fit: {verdict.why}" if refused else "",
        )  # fmt: skip


def measured_rows(config: Config, device: Device) -> Iterator[Measurement]:
    """Run the model that fits here, and put what was counted beside what was predicted.

    Raises:
        CheckFailed: a part that must be exact is not.
    """
    model, recipe, context = find_model(config.measured), recipe_here(device), config.measured_context
    dtype, size = ("fp32", 4) if recipe.compute_size == 4 else (device.half, 2)
    roof = this_machine(device).roof
    runs = (
        ("train", count_training, train(model, recipe, batch=1, context=context)),
        ("serve", count_serving, serve(model, batch=1, context=context, weight_size=size, kv_size=size)),
    )
    for purpose, count, predicted in runs:
        counted = count(model, dtype, device, batch=1, context=context, seed=config.seed)
        row = {"model": config.measured, "purpose": purpose, "dtype": dtype, "batch": 1, "context": context}
        for name, value, expected, how in compared(counted, predicted):
            yield Measurement(
                name=f"{config.measured} {purpose}: {name}", value=value, unit="B", estimator="counted once",
                config={**row, "part": name, "error": value / expected - 1}, roof=roof if name == "peak" else None,
                no_roof_because="" if name == "peak" else "a part of the peak, which the memory bounds",
                expected=Roof(value=expected, source=f"labs/memory.py: {how}"),
                checked=f"{value / expected - 1:+.2%} beside the prediction",
            )  # fmt: skip


def compared(counted: Counted, predicted: Footprint) -> Iterator[tuple[str, int, int, str]]:
    """Each part that was counted, and the peak: name, bytes, bytes predicted, and how these come about.

    Raises:
        CheckFailed: a part that must be exact is not.
    """
    how = {part.name: part.how for part in predicted.parts}
    for name, value in counted.parts.items():
        expected = predicted.of(name)
        if name in EXACT and value != expected:
            raise CheckFailed(f"{name}: {value:,} bytes counted, {expected:,} predicted ({how[name]})")
        yield name, value, expected, how[name]
    yield "peak", counted.peak, predicted.bytes, f"the sum of all parts; measured by {counted.how}"


def measured_line(row: Measurement) -> str:
    """One part, for the log."""
    assert row.expected is not None
    return (f"measured {row.name:34} {row.value / 2**20:10.2f} MiB, predicted {row.expected.value / 2**20:10.2f} MiB "
            f"({row.config['error']:+.2%})")  # fmt: skip


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print the verdicts, count what fits here, write both."""
    there = place(config, device)
    whole = gib(there.devices * there.device_bytes)
    parameters, states = find_model(config.model).parameters, gib(find_model(config.model).adam_bytes())
    print(f"{config.model}, {config.batch} × {config.context:,} tokens a device, on {there.name}: "
          f"{gib(there.device_bytes)} each, {whole} in all", flush=True)  # fmt: skip
    print(f"AdamW in fp32 keeps 16 B × {parameters:,} parameters = {states} in all", flush=True)
    found = tuple(verdicts(config, there))
    for line in (*map(verdict_line, found), *decision(config, found)):
        print(line, flush=True)
    rows = list(verdict_rows(config, found))
    if config.measured != "none":
        for row in measured_rows(config, device):
            print(measured_line(row), flush=True)
            rows.append(row)
    machine = describe(device, devices=1, reading=Reading(), instance_type=within.instance_type,
                       libraries=("transformers",))  # fmt: skip
    impossible = tuple(f"{one.purpose}, {one.way}: not applicable, {one.why}" for one in found if one.impossible)
    path = write(flags.out, "fits", tuple(rows), within=within, machine=machine, config=config,
                 notes=(*decision(config, found), *impossible))  # fmt: skip
    counted = "nothing was run" if config.measured == "none" else f"{', '.join(EXACT)} exact to the byte"
    print(f"{len(found)} verdicts; {counted}: {path}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a prediction that must be exact is not.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("fits", __doc__)
    parser.add_argument("--model", default="mistral-7b", help="a shape of labs/models.py that is asked about")
    parser.add_argument("--train", action="store_true", help="ask about training only")
    parser.add_argument("--serve", action="store_true", help="ask about serving only")
    parser.add_argument("--batch", type=positive, default=1, help="sequences at once on a device")
    parser.add_argument("--context", type=positive, default=4096, help="tokens of each")
    parser.add_argument("--instance-type", default="", help="ask about the GPUs of this EC2 type")
    parser.add_argument("--nodes", type=positive, help="so many of them; default: the run's, or 1")
    parser.add_argument("--measure", help="a shape to run and count here, or none; default: one that fits")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("fits", main)
