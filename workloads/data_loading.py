"""data-loading: a training step fed from memory, one file, many files and text, by 0 to several workers.

A step cannot begin before its batch is there. Without workers fetching and training take turns, so that a step takes
compute + load; with w workers they run side by side, max(compute, load ÷ w), as long as there are cores for both. A
device that waits for data costs as much an hour as one that works. What must be done while the training waits is what
counts: tokens that were made beforehand and lie in one file cost next to nothing, text that is tokenised on the way
costs a worker or more.

Method: the same samples in four forms, the files dropped from the page cache before each run; torch's DataLoader.
Waiting is from asking for a batch until it is on the device, by the wall clock. Rate: all tokens ÷ all time, for
workers deliver in bursts that a median would hide.
Check: every batch is, token for token, what was written.

Output: tokens/s, the starved share and its milliseconds for each form and number of workers; one record.

    python -m workloads.data_loading
    python -m workloads.data_loading --workers 0,2,4,8 --path /fsx
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from labs.models import find_model
from labs.results import Measurement, Roof
from labs.roofs import Bound, compute_bound, per_unit, usd_per_million
from workloads.chain import draw
from workloads.checkpoint import default_path
from workloads.command import Parser, positive, start
from workloads.device import Device
from workloads.disk.scratch import scratch
from workloads.processor import cores
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe
from workloads.training.feeding import WARMUP, Bench, Taken, expected_s, forking
from workloads.training.laps import spans
from workloads.training.samples import in_memory, one_file, small_files, text
from workloads.training.trainee import optimiser_of, trainable

# Shape suffixes: N samples of a run, T = S + 1 tokens.


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is trained, from where."""

    model: str
    """A name in labs/models.py."""
    dtype: str
    """Of the arithmetic."""
    path: str
    """Folder on the file system that is read from."""
    batch: int
    sequence: int
    """Tokens per sequence."""
    steps: int
    """Timed steps of each run."""
    workers: tuple[int, ...]
    """Processes that fetch, one run after another; 0 fetches in the training's own."""
    seed: int
    threads: int
    """CPU threads that torch may use."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.steps < 2:
            raise ValueError(f"steps={self.steps} shows no pace: write at least 2")

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * self.sequence


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    some = tuple(count for count in (0, 1, 2, 4, 8) if count <= max(2, cores() if device.cuda else 2))
    return Config(
        model=flags.model or ("mistral-mini" if device.cuda else "mistral-nano"),
        dtype="bf16" if device.half == "bf16" else "fp32", path=str(flags.path or default_path()),
        batch=flags.batch or (8 if device.cuda else 4), sequence=flags.sequence or (1024 if device.cuda else 64),
        steps=flags.steps or (30 if device.cuda else 8), workers=flags.workers or some, seed=flags.seed,
        threads=torch.get_num_threads(),
    )  # fmt: skip


def measure(config: Config, device: Device, folder: Path) -> Iterator[Taken]:
    """From memory, then each form by each number of workers.

    Raises:
        CheckFailed: a batch is not what was written.
    """
    count = config.batch * (config.steps + WARMUP)
    tokens_NT = draw(config.seed, 0, count, config.sequence + 1)
    with trainable(find_model(config.model), config.dtype, device, chunk=4096, compiled=False,
                   seed=config.seed) as model, forking():  # fmt: skip
        bench = Bench(batch=config.batch, device=device, model=model, optimiser=optimiser_of(model, 1e-3),
                      tokens_NT=tokens_NT)  # fmt: skip
        memory = in_memory(tokens_NT)
        bench.run(memory, 0)  # warms up
        yield bench.run(memory, 0)
        for samples in (one_file(tokens_NT, folder), small_files(tokens_NT, folder), text(tokens_NT, folder)):
            for workers in config.workers:
                yield bench.run(samples, workers)


def bound_of(config: Config, device: Device) -> Bound:
    """Most tokens/s, by the model's own arithmetic."""
    peak = compute_bound(device.name, device.accelerator, config.dtype)
    return per_unit(peak, find_model(config.model).train_flops(config.sequence))


def summarise(config: Config, device: Device, taken: Taken, fed: Taken, price: float | None) -> Measurement:
    """One run's throughput beside that of a training `fed` from memory."""
    bound, speed = bound_of(config, device), config.tokens / taken.step_s
    predicted_s = expected_s(fed.step_s, taken.load_s, taken.workers)
    alone = taken is fed
    return Measurement(
        name=name_of(taken), value=speed, unit="token/s", samples_s=taken.samples_s,
        estimator=f"all tokens ÷ all time of {len(taken.samples_s)} steps",
        config={"form": taken.form, "workers": taken.workers, "tokens_per_step": config.tokens,
                "starved_share": taken.waited_s / taken.step_s, "waited_s": taken.waited_s, "load_s": taken.load_s},
        roof=bound.roof, no_roof_because=bound.no_roof_because,
        others=() if alone else (Roof(value=config.tokens / fed.step_s, source="measured here, fed from memory"),),
        expected=None if alone else Roof(value=config.tokens / predicted_s, source="compute and one batch's load, "
                                         + ("side by side" if taken.workers else "in turn")),
        spans=spans(taken.parts, "wall clock"), checked="every batch is, token for token, what was written",
        usd_per_unit=None if price is None else usd_per_million(price, speed), work_unit="million tokens",
    )  # fmt: skip


def name_of(taken: Taken) -> str:
    """For tables."""
    if taken.form == "memory":
        return "memory"
    return f"{taken.form}, {taken.workers} worker{'' if taken.workers == 1 else 's'}"


def line_of(row: Measurement) -> str:
    """One run, for the log."""
    waited_ms, share = row.config["waited_s"] * 1e3, row.config["starved_share"]
    predicted = f", predicted {row.expected.value:.0f}" if row.expected else ""
    return (f"measured  {row.name:24} {row.value:10.0f} token/s{predicted}; starved {share:6.1%}, {waited_ms:.2f} ms a "
            "step")  # fmt: skip


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print roof and prediction, measure, print and write what came out.

    Raises:
        CheckFailed: a batch is not what was written.
    """
    bound = bound_of(config, device)
    print(f"roof training: {bound.roof.value:.0f} token/s ({bound.roof.source})" if bound.roof
          else f"roof training: none, {bound.no_roof_because}", flush=True)  # fmt: skip
    print("predicted: compute + load without workers, max(compute, load ÷ workers) with them; from memory comes first, "
          "for compute alone", flush=True)  # fmt: skip
    rows: list[Measurement] = []
    fed: Taken | None = None
    with scratch(Path(config.path)) as folder, Sensors(device) as sensors:
        for taken in measure(config, device, folder):
            fed = fed or taken
            rows.append(summarise(config, device, taken, fed, within.node_price))
            print(line_of(rows[-1]), flush=True)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type, libraries=())
    path = write(flags.out, "data-loading", tuple(rows), within=within, machine=machine, config=config,
                 notes=tuple(notes(device)))  # fmt: skip
    worst = max(rows, key=lambda row: row.config["starved_share"])
    share = worst.config["starved_share"]
    print(f"most starved: {worst.name}, {share:.0%} of a step; {worst.checked}: {path}", flush=True)


def notes(device: Device) -> Sequence[str]:
    """What a reader of the numbers must know."""
    if device.cuda:
        return ()
    return ("workers take their cores from the training, which is on this CPU as well: side by side is slower than "
            "predicted",)  # fmt: skip


def workers(given: str) -> tuple[int, ...]:
    """Read "0,1,2", where 0 is a count too.

    Raises:
        argparse.ArgumentTypeError: a part is no count.
    """
    return tuple(0 if part == "0" else positive(part) for part in given.split(","))


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a batch is not what was written.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("data_loading", __doc__)
    parser.add_argument("--model", help="a shape of labs/models.py")
    parser.add_argument("--path", type=Path, help="folder to read from; default: /fsx, else the node's own disk")
    parser.add_argument("--batch", type=positive, help="sequences of a step")
    parser.add_argument("--sequence", type=positive, help="tokens per sequence")
    parser.add_argument("--steps", type=positive, help="timed steps of each run")
    parser.add_argument("--workers", type=workers, help="processes that fetch, as in 0,1,2,4")
    flags, device, config, within = parser.read(arguments, configure)
    with parser.refusing():  # the folder cannot be written
        run(config, device, flags, within)


if __name__ == "__main__":
    start("data_loading", main)
