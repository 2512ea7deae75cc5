"""optimise: one model, one sequence, a ladder of changes; each one's gain, and what it leaves of the answer.

A decode step must read every weight that multiplies and the KV cache: bytes ÷ the *measured* read rate is its floor,
and a rung can gain in two ways only. It comes nearer to the floor: fused attention, a cache that is written in place,
projections fused, torch.compile, one CUDA graph for a step. Or it lowers the floor: bf16, int8, int4, fp8 weights.
What it costs beside the bytes is starting operations: thousands of small ones, each some microseconds of the host.

Method: the same weights on every rung, brought up in place. Every rung reads the same tokens, those that the first rung
chose, and every step is timed. Quality: the logits' error in standard deviations of the first rung's, the
divergence of its distribution, how often both choose the same token; a CUDA graph must choose all tokens as what it
recorded. On random weights perplexity says nothing; `--trained` trains mistral-nano first, on this project's own
text, and adds it. Bytes: weights as stored, with scales, without the input table, of which one row is read; KV cache
at the mean position. A rung that the device cannot do is not applicable, and none stands on it.

Output: seconds per token on each rung beside floor and expectation, its quality and its memory; one record. What was
compiled is kept (`--kept`), and the next run is spared it.

    python -m workloads.optimise
    python -m workloads.optimise --model mistral-tiny --prompt 512 --tokens 256 --budget-s 180
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from labs.models import find_model
from labs.results import Measurement, Roof
from labs.roofs import memory_time_bound, usd_per_million
from workloads.command import CheckFailed, Parser, positive, seconds, start
from workloads.device import Device
from workloads.draft import Draft
from workloads.earlier import memory_ceiling
from workloads.ladder.climb import Climb, Taken
from workloads.ladder.compiler import kept, kept_at
from workloads.ladder.overhead import Starts, spans
from workloads.ladder.rungs import Rung, rungs
from workloads.ladder.trained import Trained, train
from workloads.mistral import build, locate, restore
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe

STEPS = 150
"""Of the training that `--trained` does."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    model: str
    """A name in labs/models.py."""
    weights: str
    """A folder or repository with weights; "" for random ones."""
    trained_steps: int
    """Steps that the weights were trained for on the spot; 0: they were not."""
    prompt: int
    """Tokens that are in the cache at the first timed one."""
    tokens: int
    """Tokens that are timed."""
    budget_s: float
    """When this is spent no further rung is begun."""
    seed: int
    threads: int
    """CPU threads that torch may use."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.trained_steps and (self.weights or self.model != "mistral-nano"):
            raise ValueError(f"model={self.model!r} is not trained on the spot: write --trained with mistral-nano and "
                             "without --weights")  # fmt: skip

    @property
    def context(self) -> int:
        """Mean context of the timed steps, in tokens with the current one, rounded down."""
        return self.prompt + (self.tokens + 1) // 2


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    config = Config(
        model=flags.model or _usual(flags, device), weights=flags.weights or "",
        trained_steps=STEPS if flags.trained else 0,
        prompt=flags.prompt or (512 if device.cuda else 16), tokens=flags.tokens or (128 if device.cuda else 16),
        budget_s=(180.0 if device.cuda else 60.0) if flags.budget_s is None else flags.budget_s, seed=flags.seed,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    if config.weights:
        locate(config.weights, find_model(config.model))
    return config


def _usual(flags: argparse.Namespace, device: Device) -> str:
    if flags.trained:
        return "mistral-nano"
    return "mistral-tiny" if device.cuda else "mistral-mini"


def measured_read(folder: Path, node: str, device: Device) -> Roof:
    """The rate at which this device's memory was read: by the run's earlier records, or measured now."""
    found = memory_ceiling(folder, node, device)
    if found:
        return found
    from workloads import bandwidth
    from workloads.stream import Arrays, reads

    size = bandwidth.past_bytes(device)
    bench = bandwidth.Bench(device=device, dtype="fp32", arrays=Arrays(device, "fp32", size // 4, 0), past_cache=True)
    rates = {kernel.name: bench.moved_bytes(kernel) / min(bench.time(kernel, 5, 1)) for kernel in reads(device, True)}
    best = max(rates, key=lambda name: rates[name])
    return Roof(value=rates[best], source=f"measured here, memory by {best}")


def climb(config: Config, device: Device, within: Surroundings, memory: Roof, notes: list[str], failed: list[str]
          ) -> Iterator[Measurement]:  # fmt: skip
    """Every rung in turn, its prediction printed before it is timed; what is skipped goes to `notes`."""
    shape = find_model(config.model)
    trained = _train(config, device) if config.trained_steps else None
    begun, ladder = time.perf_counter(), Climb(shape, device, _source(config, device, trained), config.prompt,
                                               config.tokens, config.seed, trained)  # fmt: skip
    done: dict[str, Measurement] = {}
    for rung in rungs(device):
        absent = rung.absent or ladder.too_large(rung)
        if absent:
            notes.append(f"{rung.name}: not applicable, {absent}")
        elif time.perf_counter() - begun > config.budget_s:
            notes.append(f"{rung.name}: skipped, the budget of {config.budget_s:g} s was spent")
        else:
            try:
                bytes_a_token, expected = ladder.prepare(rung, config.context)
                print(prediction_line(rung, bytes_a_token, memory, expected), flush=True)
                taken = ladder.take(rung)
            except CheckFailed:
                raise
            except (
                RuntimeError,
                AssertionError,
            ) as error:  # of a compiler or a kernel: the other rungs stand all the same
                failed.append(rung.name)
                reason = str(error).strip() or type(error).__name__
                notes.append(f"{rung.name}: failed, {reason.splitlines()[0][:200]}")
                continue
            done[rung.name] = row(config, device, within, rung, taken, bytes_a_token, memory, expected, done)
            yield done[rung.name]


def _train(config: Config, device: Device) -> Trained:
    print(f"training {config.model} for {config.trained_steps} steps on this project's text", flush=True)
    trained = train(find_model(config.model), device, config.seed, config.trained_steps)
    print(f"perplexity on text held out: {trained.before:.0f} before, {trained.after:.1f} after", flush=True)
    return trained


def _source(config: Config, device: Device, trained: Trained | None):
    shape = find_model(config.model)
    if trained:
        return trained.model
    if config.weights:
        path = locate(config.weights, shape)
        return lambda dtype: restore(path, shape, dtype, device)
    return lambda dtype: build(shape, dtype, device, config.seed)


def row(config: Config, device: Device, within: Surroundings, rung: Rung, taken: Taken, moved: int, memory: Roof,
        started: Starts | None, done: dict[str, Measurement]) -> Measurement:  # fmt: skip
    """One rung: its time beside the floor, the expectation and the rung it stands on."""
    value = statistics.median(taken.samples_s)
    floor_s = moved / memory.value
    base = done.get(rung.on)
    bound = memory_time_bound(device.name, device.accelerator, moved)
    told = {
        "kind": "rung", "rung": rung.name, "on": rung.on, "does": rung.does, "model": config.model,
        "dtype": rung.dtype, "weights": rung.weights or rung.dtype, "context": config.context, "bytes": moved,
        "gain": base.value / value if base else None, "removed_s": base.value - value if base else None,
        **taken.told,
    }  # fmt: skip
    return Measurement(
        name=f"{config.model} {rung.name}", value=value, unit="s", estimator=f"median of {len(taken.samples_s)}",
        config=told, samples_s=taken.samples_s, roof=bound.roof, no_roof_because=bound.no_roof_because,
        others=(Roof(value=floor_s, source=f"bytes ÷ {memory.source}"),),
        expected=started.expected(floor_s, memory.source) if started else None,
        spans=spans(value, floor_s, memory.source, started), checked=taken.checked,
        usd_per_unit=None if within.node_price is None else usd_per_million(within.node_price, 1 / value),
        work_unit="million tokens",
    )  # fmt: skip


def prediction_line(rung: Rung, moved: int, memory: Roof, started: Starts | None) -> str:
    """What the rung's bytes allow, and what is expected of it, before it is timed."""
    floor_s = moved / memory.value
    expected = f", expected {started.expected(floor_s, '').value * 1e3:.3f} ms" if started else ""
    return f"predicted {rung.name:26} {moved / 1e6:9.1f} MB  at least {floor_s * 1e3:8.3f} ms{expected}"


def row_line(row: Measurement) -> str:
    """One rung, for the log."""
    told = row.config
    gain = "" if told["gain"] is None else f"  {told['gain']:5.2f} × {told['on']}"
    perplexity = f", perplexity {told['perplexity']:.2f}" if told.get("perplexity") else ""
    return (f"measured  {told['rung']:26} {row.value * 1e3:9.3f} ms  {1 / row.value:8.1f} token/s  "
            f"{row.share_of(row.others[0]):6.1%} of the read rate{gain}  error {told['error']:.1e}, same token "
            f"{told['agreement']:.0%}{perplexity}")  # fmt: skip


def summary(rows: Sequence[Measurement]) -> str:
    """Bottom and top of the ladder in one line."""
    first, best = rows[0], min(rows, key=lambda row: row.value)
    return (f"{first.value / best.value:.2f} × by {best.config['rung']}: {first.value * 1e3:.2f} to "
            f"{best.value * 1e3:.2f} ms a token")  # fmt: skip


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Climb, print and write what came out.

    Raises:
        CheckFailed: a rung's answer is wrong, or a rung that the device can do failed; the record is written then.
    """
    memory = measured_read(flags.out, within.node, device)
    shape = find_model(config.model)
    floor_s = shape.decode_bytes(config.context, weight_size=4, kv_size=4) / memory.value
    print(f"{config.model}: {shape.parameters:,} parameters; reading them in fp32 takes at least {floor_s * 1e3:.2f} "
          f"ms a token at {memory.value / 1e9:.1f} GB/s ({memory.source})", flush=True)  # fmt: skip
    notes: list[str] = []
    failed: list[str] = []
    rows = Draft("optimise", config, device, within)
    with Sensors(device) as sensors, kept(kept_at(flags.kept.expanduser(), device)):
        for rung_row in climb(config, device, within, memory, notes, failed):
            print(row_line(rung_row), flush=True)
            rows.append(rung_row)
    for note in notes:
        print(note, flush=True)
    if not rows:
        raise CheckFailed("no rung ran: raise --budget-s, or choose a smaller --model")
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type,
                       libraries=("transformers", "torchao"))  # fmt: skip
    path = write(flags.out, "optimise", tuple(rows), within=within, machine=machine, config=config,
                 notes=tuple(notes))  # fmt: skip
    print(f"{summary(rows)}; {len(rows)} rungs, all checked: {path}", flush=True)
    if failed:
        raise CheckFailed(f"{', '.join(failed)} failed: {path} says why")


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a rung is wrong, or failed.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("optimise", __doc__)
    parser.add_argument("--model", help="a shape of labs/models.py; default: mistral-tiny, on a CPU mistral-mini")
    parser.add_argument("--weights", help="hf:ORG/NAME, or a PATH; default: random weights")
    parser.add_argument("--trained", action="store_true", help="train mistral-nano first, and tell perplexity")
    parser.add_argument("--prompt", type=positive, help="tokens before the first timed one")
    parser.add_argument("--tokens", type=positive, help="tokens that are timed on each rung")
    parser.add_argument("--budget-s", type=seconds, help="seconds after which no further rung is begun")
    parser.add_argument("--kept", type=Path, default=Path("~/.cache/rooflab"), help="folder for what is compiled")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("optimise", main)
