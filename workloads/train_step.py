"""train-step: one device trains a model, over a sweep of batches at one length of sequence.

A trained token costs 6·N_mm + 6·L·H·d·(S+1) FLOPs: two for each weight that multiplies in the forward pass and four in
the backward, and causal attention counted exactly. Peak ÷ that is the roof in tokens/s, and the share of it is the
MFU. Counting all parameters and whole attention, 6P + 12·L·D·S, prints a higher figure for the same speed; it stands
beside, as does torchtitan's. A small batch waits for memory: AdamW moves 28 bytes a parameter each step, whatever the
batch. A large one waits for arithmetic, until its activations no longer fit.

Method: fp32 weights, gradients and Adam's moments (16 bytes a parameter), arithmetic in bf16 on a GPU through FSDP2 on
a mesh of one rank, each layer compiled, AdamW in one kernel, the loss over logits a share at a time. Every step is
timed in parts. Data is deterministic, a noisy chain over 64 tokens. Tokens are counted once: labels are shifted once.
With --masters the weights themselves are bf16, fp32 masters lie with the moments, and nothing is cast as it is used.
Checks: gradients against float64 on a small model of the same code; the loss falls.

Output: tokens/s, MFU, $ per million tokens, the parts of a step and peak memory for each batch; one record.

    python -m workloads.train_step
    python -m workloads.train_step --model mistral-tiny --sequence 4096 --batches 1,2,4 --accumulate 8
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from labs.memory import Footprint, Part, Recipe, Saving, activation_parts, flight_part, head_parts, state_parts
from labs.models import Model, find_model
from labs.results import Measurement, Roof
from labs.roofs import Bound, compute_bound, per_unit, usd_per_million
from workloads.command import CheckFailed, counts, learning_rate, positive, seconds, start
from workloads.device import Device
from workloads.draft import Draft
from workloads.earlier import product_ceiling
from workloads.parity import loss_failure
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe
from workloads.training.choice import chosen, large, parser_of
from workloads.training.exactness import check_gradients
from workloads.training.laps import spans
from workloads.training.prediction import Rates, rates, step_parts
from workloads.training.sweep import Config, Sweep, Taken
from workloads.training.trainee import BYTES_PER_PARAMETER

HALF_STATES = (("weights", 2), ("gradients", 2), ("masters", 4), ("optimiser", 8))
"""Bytes a parameter with --masters."""


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    told = chosen(flags, device)
    few = large(told["model"], device)
    return Config(
        **told, batches=flags.batches or ((1, 2, 4) if few else (1, 2, 4, 8, 16)),
        accumulate=flags.accumulate or (8 if few else 1), steps=flags.steps or (10 if device.cuda else 5),
        chunk=4096 if device.cuda else 512, compiled=device.cuda and not flags.eager,
        masters=flags.masters,
        # Adam's first steps move every weight by the learning rate, and a wider layer sums more of them.
        learning_rate=flags.learning_rate or 0.75 / find_model(told["model"]).hidden,
        budget_s=(150.0 if device.cuda else 15.0) if flags.budget_s is None else flags.budget_s,
    )  # fmt: skip


def bound_of(config: Config, device: Device) -> Bound:
    """Most tokens/s, by the model's own arithmetic."""
    peak = compute_bound(device.name, device.accelerator, config.dtype)
    return per_unit(peak, find_model(config.model).train_flops(config.sequence))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a batch's numbers stand beside."""

    bound: Bound
    others: tuple[Roof, ...]
    """The same speed by other conventions, or on a device without a datasheet the measured ceiling."""
    rates: Rates | None


def limits(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> Limits:
    """The roof, what stands beside it, and what the expectation is made of."""
    shape, bound = find_model(config.model), bound_of(config, device)
    exact, palm, titan = flops_of(shape, config.sequence).values()
    others = []
    ceiling = product_ceiling(flags.out, within.node, device, config.dtype)
    if ceiling:
        others.append(Roof(value=ceiling.value / exact, source=f"{ceiling.source}, causal-exact"))
    if bound.roof:
        others.append(Roof(value=bound.roof.value * exact / palm, source="MFU by 6P + 12·L·D·S (PaLM)"))
        others.append(Roof(value=bound.roof.value * exact / titan, source="MFU as torchtitan counts"))
    return Limits(bound=bound, others=tuple(others), rates=rates(flags.out, within.node, device, config.dtype))


def flops_of(shape: Model, sequence: int) -> dict[str, int]:
    """FLOPs of a trained token by three conventions, ours first."""
    return {
        "flops_per_token": shape.train_flops(sequence),
        "flops_per_token_palm": shape.train_flops_palm(sequence),
        "flops_per_token_torchtitan": shape.train_flops_torchtitan(sequence),
    }


def expected(config: Config, batch: int, at: Rates | None) -> dict[str, float]:
    """Seconds of a step by cause, as predicted; empty where nothing tells the device's rates."""
    tokens = config.tokens(batch)
    if at is None:
        return {}
    return step_parts(find_model(config.model), config.dtype, config.sequence, tokens, config.accumulate, at,
                      masters=config.masters)  # fmt: skip


def summarise(config: Config, taken: Taken, beside: Limits, device: Device, checked: str, price: float | None
              ) -> Iterator[Measurement]:  # fmt: skip
    """Throughput and memory of one batch."""
    shape = find_model(config.model)
    tokens = config.tokens(taken.batch)
    step_s = statistics.median(taken.samples_s)
    predicted = expected(config, taken.batch, beside.rates)
    row = {
        "model": config.model, "dtype": config.dtype, "batch": taken.batch, "sequence": config.sequence,
        "tokens_per_step": tokens, "bytes_per_parameter": BYTES_PER_PARAMETER, "masters": config.masters,
        **flops_of(shape, config.sequence),
        "predicted_parts_s": predicted, "losses": list(taken.losses),
        "joules_per_token": None if taken.joules is None else taken.joules / (tokens * len(taken.parts)),
    }  # fmt: skip
    yield Measurement(
        name=f"batch {taken.batch} × {config.sequence}", value=tokens / step_s, unit="token/s",
        estimator=f"from the median of {len(taken.samples_s)} steps", config=row, samples_s=taken.samples_s,
        roof=beside.bound.roof, no_roof_because=beside.bound.no_roof_because, others=beside.others,
        expected=_expected(predicted, tokens, beside.rates),
        spans=spans(taken.parts, "events of the device" if device.cuda else "wall clock"),
        usd_per_unit=None if price is None else usd_per_million(price, tokens / step_s), work_unit="million tokens",
        checked=checked,
    )  # fmt: skip
    memory = torch.cuda.get_device_properties(device.torch).total_memory if device.cuda else None
    footprint = memory_of(config, taken.batch, device)
    yield Measurement(
        name=f"memory of batch {taken.batch} × {config.sequence}", value=taken.peak_bytes, unit="B",
        estimator="the allocator's peak" if device.cuda else "states and what a forward pass kept, counted",
        config={"model": config.model, "batch": taken.batch, "sequence": config.sequence,
                "parts_bytes": {part.name: part.bytes for part in footprint.parts}},
        roof=Roof(value=memory, source=f"{device.name}'s memory, as the driver has it") if memory else None,
        no_roof_because="" if memory else "nobody should fill a CPU's memory",
        expected=Roof(value=footprint.bytes, source=", ".join(f"{part.name}: {part.how}" for part in footprint.parts)),
    )  # fmt: skip


def memory_of(config: Config, batch: int, device: Device) -> Footprint:
    """What the device should hold at the fullest moment of a step."""
    shape, size = find_model(config.model), 4 if config.dtype == "fp32" else 2
    tokens = batch * config.sequence
    saving: Saving = "min-cut" if config.compiled else "eager" if device.cuda else "eager-cpu"
    recipe = Recipe(saving=saving, compute_size=4 if config.dtype == "fp32" else 2)
    states, kept = state_parts(shape, recipe), activation_parts(shape, saving, size, tokens)
    flight = flight_part(shape, recipe)
    if config.masters:
        states = tuple(Part(name=name, bytes=each * shape.parameters, how=f"{shape.parameters:,} parameters × {each} B")
                       for name, each in HALF_STATES)  # fmt: skip
        flight = Part(name="in flight", bytes=4 * shape.table_weights, how="one table's gradient as fp32")
    norm, _ = head_parts(shape, saving, size, tokens)
    slopes = Part(name="slopes of the loss", bytes=size * (tokens * shape.hidden + shape.table_weights),
                  how=f"({tokens:,} × {shape.hidden:,} + {shape.table_weights:,} in the output table) × {size} B"
                  )  # fmt: skip
    if not device.cuda:  # counted between the passes: no logits any more, nothing in flight
        return Footprint(parts=(*states, kept[0], norm, slopes))
    _, logits = head_parts(shape, saving, size, min(tokens, config.chunk))
    return Footprint(parts=(*states, flight, *kept, norm, slopes, logits))


def _expected(predicted: dict[str, float], tokens: int, at: Rates | None) -> Roof | None:
    if not predicted or at is None:
        return None
    return Roof(value=tokens / sum(predicted.values()), source=f"{', '.join(predicted)}; {at.products.source}; "
                f"{at.memory.source}")  # fmt: skip


def prediction_line(config: Config, batch: int, at: Rates | None) -> str:
    """What a step should take, before it runs."""
    predicted = expected(config, batch, at)
    if not predicted:
        return f"predicted batch {batch}: nothing, no ceiling was measured here: run bandwidth and gemm first"
    tokens, total = config.tokens(batch), sum(predicted.values())
    causes = ", ".join(f"{cause} {part * 1e3:.1f}" for cause, part in predicted.items())
    return f"predicted batch {batch:3} {total * 1e3:9.1f} ms a step ({causes}): {tokens / total:.0f} token/s"


def row_line(row: Measurement) -> str:
    """One batch's throughput, for the log."""
    share = "" if row.fraction is None else f"  {row.fraction:.1%} of roof (MFU, causal-exact)"
    beside = "".join(f", {row.share_of(other):.1%} {other.source}" for other in row.others)
    parts = ", ".join(f"{span.name} {span.seconds * 1e3:.1f}" for span in row.spans)
    step_ms = statistics.median(row.samples_s) * 1e3
    return (f"measured  batch {row.config['batch']:3} {step_ms:9.1f} ms a step ({parts}): "
            f"{row.value:.0f} token/s{share}{beside}")  # fmt: skip


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print roof and predictions, check, measure, print and write what came out.

    Raises:
        CheckFailed: gradients are wrong, or the loss does not fall.
    """
    shape, beside, found = find_model(config.model), limits(config, device, flags, within), Sweep()
    bound = beside.bound
    print(f"roof training: {bound.roof.value:.0f} token/s ({bound.roof.source})" if bound.roof
          else f"roof training: none, {bound.no_roof_because}", flush=True)  # fmt: skip
    states_gib = BYTES_PER_PARAMETER * shape.parameters / 2**30
    print(f"{config.model}: {shape.parameters:,} parameters × {BYTES_PER_PARAMETER} bytes = {states_gib:.2f} GiB of "
          "states, before activations", flush=True)  # fmt: skip
    for batch in config.batches:
        print(prediction_line(config, batch, beside.rates), flush=True)
    checked = check_gradients(config.dtype, device, compiled=config.compiled, seed=config.seed,
                              masters=config.masters)  # fmt: skip
    print(checked, flush=True)
    rows = Draft("train-step", config, device, within)
    with Sensors(device) as sensors:
        for taken in found.run(config, device):
            rows += summarise(config, taken, beside, device, checked, within.node_price)
            print(row_line(rows[-2]), flush=True)
    losses = found.losses
    failure = loss_failure(losses)
    if failure:
        raise CheckFailed(f"loss falls: {failure}")
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type, libraries=())
    path = write(flags.out, "train-step", tuple(rows), within=within, machine=machine, config=config,
                 notes=tuple(found.notes))  # fmt: skip
    for note in found.notes:
        print(note, flush=True)
    best = max(rows[::2], key=lambda row: row.value)
    print(f"best: {best.name}, {best.value:.0f} token/s; loss {losses[0]:.2f} to {losses[-1]:.2f}: {path}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: what was trained is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = parser_of("train_step", __doc__)
    parser.add_argument("--batches", type=counts, help="sequences at once, as in 1,2,4")
    parser.add_argument("--accumulate", type=positive, help="batches per optimiser step")
    parser.add_argument("--steps", type=positive, help="timed optimiser steps of each batch")
    parser.add_argument("--learning-rate", type=learning_rate, help="of AdamW; default: 0.75 over the model's width")
    parser.add_argument("--budget-s", type=seconds, help="no further batch is begun after this")
    parser.add_argument("--masters", action="store_true", help="weights in bf16, fp32 masters with the moments")
    parser.add_argument("--eager", action="store_true", help="do not compile, on a GPU")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("train_step", main)
