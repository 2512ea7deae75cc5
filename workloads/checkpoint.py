"""checkpoint: what saving a training state costs the training, by four ways, and whether it fits into a spot notice.

A state is 12 bytes a parameter: fp32 weights and both of Adam's moments. torch.save stops the training until all of it
is on the disk, bytes ÷ the disk's rate. torch.distributed.checkpoint can copy the state into memory and write in the
background: the training then waits only for the copy, bytes ÷ the memory's rate (or the link to the host). Copied
aside, it waits even less, for the copy runs beside the next forward and backward pass and must be whole only before
the weights change. Nothing is free: the writer takes cores and memory traffic from the steps beside it.

Method: blocked time = wall time of N steps with one save − the same steps without, N reaching past the end of the
writing; the time of the call alone would flatter. All ways write the same tensors to the same disk, and are done when
the disk has them (fsync). The first save makes its buffers and stands apart. Steps without a save are timed before and
after each; their difference is the noise, below which nothing is claimed.
Check: every save is read back and is bit for bit the state as it was when the call was made.

Output: blocked seconds, call and total time, rate, the gain over torch.save, the spot notice's verdict, how often to
save (Young and Daly: √(2·blocked·time between failures)); one record.

    python -m workloads.checkpoint
    python -m workloads.checkpoint --model mistral-mini --path /fsx --mtbf-hours 6
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from labs.models import MODELS, find_model
from labs.results import Measurement, Roof
from labs.roofs import Bound
from labs.survival import NOTICE_S, STATE_BYTES
from workloads.chain import draw
from workloads.command import Parser, positive, seconds, start
from workloads.device import Device
from workloads.disk.mounts import Mount, mount_of, mounts
from workloads.disk.scratch import demand_room, scratch
from workloads.earlier import memory_ceiling
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe
from workloads.storage import limits_of
from workloads.training.cost import Taken, blocked, gains, interval, notices
from workloads.training.interruption import Bench, Saves, save_several
from workloads.training.savers import ASYNCHRONOUS, PLAIN, savers, state_of
from workloads.training.trainee import optimiser_of, trainable

HOST_COPIES = 4
"""A model is chosen whose state fits so many times into the host's free memory: staged twice, read back, and room."""
SMALL_S = 0.1
"""A state that torch.save writes in less says little about the ways that avoid waiting."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is saved, and where."""

    model: str
    """A name in labs/models.py."""
    path: str
    """Folder on the file system that is written to."""
    batch: int
    """Sequences of a step."""
    sequence: int
    """Tokens per sequence."""
    steps: int
    """Of a stretch, at least; it lasts until the save is on the disk."""
    saves: int
    """By each way, the first included; at least 2."""
    mtbf_hours: float
    """Mean time between interruptions that the interval is reckoned with: an assumption."""
    budget_s: float
    """After this each way saves only once."""
    seed: int
    threads: int
    """CPU threads that torch may use."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.saves < 2:
            raise ValueError(f"saves={self.saves} leaves none after the first: write at least 2")
        if self.mtbf_hours <= 0:
            raise ValueError(f"mtbf_hours={self.mtbf_hours:g} is no time between failures: write for example 24")

    @property
    def bytes(self) -> int:
        """Of the state."""
        return STATE_BYTES * find_model(self.model).parameters


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    return Config(
        model=flags.model or default_model(device), path=str(flags.path or default_path()),
        batch=1 if device.cuda else 2, sequence=512 if device.cuda else 32,
        steps=flags.steps or (10 if device.cuda else 5), saves=flags.saves, mtbf_hours=flags.mtbf_hours,
        budget_s=(240.0 if device.cuda else 15.0) if flags.budget_s is None else flags.budget_s,
        seed=flags.seed, threads=torch.get_num_threads(),
    )  # fmt: skip


def default_path() -> Path:
    """The file system beside the nodes if there is one, else the node's own disk."""
    named = (os.environ.get("ROOFLAB_SHARED"), os.environ.get("ROOFLAB_SCRATCH"), tempfile.gettempdir())
    return next(Path(path) for path in named if path and os.access(path, os.W_OK))


def default_model(device: Device) -> str:
    """The billion where GPU and host hold it, else smaller; the smallest on a CPU."""
    if not device.cuda:
        return "mistral-nano"
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("mistral-tiny", "mistral-mini"):
        states = find_model(name).adam_bytes()
        if device.memory_bytes > 1.2 * states and free > HOST_COPIES * STATE_BYTES * find_model(name).parameters:
            return name
    return "mistral-nano"


def measure(config: Config, device: Device, under: Path) -> Taken:
    """Train without, with saves by each way, and without again.

    Raises:
        CheckFailed: what was read back is not what was saved.
    """
    with trainable(find_model(config.model), "fp32", device, chunk=512, compiled=False, seed=config.seed) as model:
        optimiser = optimiser_of(model, 1e-4)
        size = (config.batch, config.sequence + 1)
        batches = [draw(config.seed, index, *size).to(device.torch) for index in range(8)]
        bench = Bench(model=model, optimiser=optimiser, batches=batches, device=device, steps=config.steps)
        bench.stretch()  # warms up, and makes Adam's moments
        state = state_of(model, optimiser)
        assert sum(tensor.nbytes for tensor in state.values()) == config.bytes
        saves, until = [], time.perf_counter() + config.budget_s
        with savers(device) as ways:
            for way in ways:
                saves.append(save_several(bench, way, state, under, config.saves, until))
                print(line_of(saves[-1]), flush=True)
    return Taken(bytes=config.bytes, saves=tuple(saves))


def line_of(saves: Saves) -> str:
    """One way, for the log."""
    costs = ", ".join(f"{cost.blocked_s:.3f}" for cost in saves.costs)
    last = saves.costs[-1].saving
    return (f"measured  {saves.name:30} blocked {costs} s (first save, then later ones); the call took "
            f"{last.called_s:.3f} s, all of it {last.written_s:.3f} s")  # fmt: skip


def summarise(config: Config, taken: Taken, floor: Roof | None, storage: Bound) -> Iterator[Measurement]:
    """Blocked time and rate of each way, the gain, the notice, the interval."""
    row = {"model": config.model, "bytes": config.bytes}
    for saves in taken.saves:
        first, *later = saves.costs
        for name, costs in (("first save", (first,)), ("blocked", tuple(later))):
            if costs:
                yield blocked(f"{name}, {saves.name}", saves, costs, taken, row, storage, floor)
        total_s = statistics.median(cost.saving.written_s for cost in later or (first,))
        yield Measurement(
            name=f"written, {saves.name}", value=config.bytes / total_s, unit="B/s",
            estimator=f"from the median of {len(later) or 1}, call to disk", config={**row, "way": saves.name,
            "kind": "rate"}, samples_s=tuple(cost.saving.written_s for cost in later or (first,)), roof=storage.roof,
            no_roof_because=storage.no_roof_because, checked=saves.checked,
        )  # fmt: skip
    yield from gains(taken, row)
    yield from notices(taken, (config.model, *reversed(MODELS)))
    yield interval(taken, row, config.mtbf_hours)


def notes(config: Config, taken: Taken, mount: Mount) -> Iterator[str]:
    """What a reader of the numbers must know."""
    yield f"written to {config.path}: {mount.kind}, {mount.type} mounted at {mount.point}"
    if taken.later_s(PLAIN) < SMALL_S:
        yield (f"a state of {config.bytes / 1e6:.0f} MB is on the disk within {SMALL_S:g} s by any way: that copying "
               "aside pays shows with --model mistral-mini and larger")  # fmt: skip
    if taken.later_s(PLAIN) <= taken.noise_s:
        yield (f"gain over {PLAIN}: not told, for it blocks less than steps alone differ here, {taken.noise_s:.3f} s")
    short = [saves.name for saves in taken.saves if len(saves.costs) < config.saves]
    if short:
        yield f"fewer saves than {config.saves}, the budget of {config.budget_s:g} s was used up: {', '.join(short)}"


def verdict_line(row: Measurement) -> str:
    """Whether a model's state can still be written when the notice comes."""
    said = "fits into" if row.config["fits"] else "does NOT fit into"
    return (f"{row.config['model']}: {row.config['bytes'] / 1e9:.2f} GB take {row.value:.1f} s at this rate and {said} "
            f"the notice of {NOTICE_S:.0f} s")  # fmt: skip


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print what is to be expected, measure, print and write what came out.

    Raises:
        CheckFailed: what was read back is not what was saved.
    """
    path = Path(config.path)
    mount = mount_of(path, mounts())
    storage, memory = limits_of(mount, within).write, memory_ceiling(flags.out, within.node, device)
    floor = None if device.cuda else memory
    print(f"state: {STATE_BYTES} bytes × {find_model(config.model).parameters:,} parameters = "
          f"{config.bytes / 1e9:.3f} GB, to {path} ({mount.kind})", flush=True)  # fmt: skip
    print(f"roof {PLAIN}: at least {config.bytes / storage.roof.value:.2f} s ({storage.roof.source})" if storage.roof
          else f"roof {PLAIN}: none, {storage.no_roof_because}", flush=True)  # fmt: skip
    print(f"predicted {ASYNCHRONOUS}: {2 * config.bytes / floor.value * 1e3:.1f} ms, read and written once at "
          f"{floor.value / 1e9:.1f} GB/s ({floor.source})" if floor
          else f"predicted {ASYNCHRONOUS}: bytes ÷ the rate to the host's memory", flush=True)  # fmt: skip
    with scratch(path) as folder, Sensors(device) as sensors:
        try:
            demand_room(folder, 2 * config.bytes)
        except ValueError as error:
            raise ValueError(str(error).replace("fewer MiB", "a smaller --model")) from None
        taken = measure(config, device, folder)
    rows = tuple(summarise(config, taken, floor, storage))
    for row in rows:
        if row.config["kind"] == "gain":
            print(f"{row.name}: {row.value:.1f} {row.unit} ({row.estimator})", flush=True)
        elif row.config["kind"] == "notice":
            print(verdict_line(row), flush=True)
    lost = rows[-1].config["lost_share"]
    print(
        f"{rows[-1].name} {rows[-1].value:.0f} s ({rows[-1].no_roof_because}): {lost:.2%} of the time lost", flush=True
    )
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type, libraries=())
    record = write(flags.out, "checkpoint", rows, within=within, machine=machine, config=config,
                   notes=tuple(notes(config, taken, mount)))  # fmt: skip
    print(f"{taken.saves[0].checked}, by every way: {record}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: what was read back is not what was saved.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("checkpoint", __doc__)
    parser.add_argument("--model", help="a shape of labs/models.py; default: the billion where GPU and host hold it")
    parser.add_argument("--path", type=Path, help="folder to write to; default: /fsx, else the node's own disk")
    parser.add_argument("--steps", type=positive, help="of a stretch, at least")
    parser.add_argument("--saves", type=positive, default=3, help="by each way, the first included")
    parser.add_argument("--mtbf-hours", type=seconds, default=24.0, help="mean time between interruptions")
    parser.add_argument("--budget-s", type=seconds, help="after this each way saves only once")
    flags, device, config, within = parser.read(arguments, configure)
    with parser.refusing():  # the folder cannot be written, or has no room
        run(config, device, flags, within)


if __name__ == "__main__":
    start("checkpoint", main)
