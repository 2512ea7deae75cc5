"""train: a training that survives the loss of a rank, a node, or all of them, and goes on as if nothing had been.

A checkpoint of P parameters is 12·P bytes: weight and two moments in fp32. It is copied into memory, then written by
each rank beside the steps that follow, summed by SHA-256, and made whole by one rename when all ranks have written. So
at any moment there is one that is whole. What may stand unsaved is bounded: --every steps, or --every-s seconds; a
checkpoint is begun after half of it, and the training waits rather than let more stand. A node that is told to end
(SIGTERM: a spot notice leaves 120 s) makes all ranks save at the same step. Data follow the step alone: as many ranks
resume bit by bit, another number within 1e-5.

Checks: the first losses are one process's within 1e-5; every step that is done twice finds its loss again; losses fall.

Output: what each resume lost and took, what saving cost, losses against wall time over all lives; one record.
Exit codes beside the usual: 75 told to end, saved, resumes where it is started again; 76 another rank is gone.

    python -m workloads.train
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # else restarted ranks look for those that are gone: pytorch#135712
    torchrun --standalone --max-restarts 3 --nproc-per-node 2 -m workloads.train --steps 40 --every 10
"""

import argparse
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labs.models import find_model
from labs.roofs import Bound, compute_bound, per_unit
from labs.survival import INTERRUPTED, STATE_BYTES
from workloads.command import Ended, Parser, learning_rate, positive, seconds, start
from workloads.device import Device, find_device
from workloads.group import Group, Place, joined, place
from workloads.parallel.settings import sequence_of
from workloads.parity import loss_failure
from workloads.record import Surroundings, surroundings, write
from workloads.sensors import Sensors, describe
from workloads.survival.history import SAME, History, Start, Story, Told
from workloads.survival.loop import Interval, Loop, peers
from workloads.survival.notice import Notice, reason
from workloads.survival.resuming import HISTORY, Found, Ground, resume, survey
from workloads.survival.rows import extra_s, rows
from workloads.survival.saver import Saver
from workloads.survival.store import Store
from workloads.survival.trainee import STRATEGIES, Data, alone, demand_share, trainee

PARITY_STEPS = 3
"""First steps that one process does as well."""
_RATE_TIMES_WIDTH = 0.25
"""As in workloads/parallel/settings.py, and a third of it: many steps more must not blow rounding up."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is trained, and what may be lost of it."""

    model: str
    """A name in labs/models.py."""
    dtype: str
    """Of the arithmetic; weights, moments and sums are fp32."""
    strategy: str
    """"fsdp" or "ddp"."""
    batch: int
    """Sequences of a step, over all ranks together."""
    sequence: int
    """Tokens per sequence."""
    steps: int
    """Of the whole training, over all lives."""
    every: int
    """Most steps that may be lost."""
    every_s: float | None
    """Most seconds of work that may be lost, in place of `every`."""
    learning_rate: float
    seed: int
    threads: int
    """CPU threads per rank."""
    checkpoints: str
    """Folder that all ranks see."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.steps < 8:
            raise ValueError(f"steps={self.steps} cannot show a falling loss: write at least 8")
        if self.every_s is not None and self.every_s <= 0:
            raise ValueError(f"every_s={self.every_s:g} leaves no time for a step: write for example 30")

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint must have been made with, to be gone on from."""
        names = ("model", "dtype", "strategy", "batch", "sequence", "learning_rate", "seed")
        return {name: getattr(self, name) for name in names}


def configure(flags: argparse.Namespace, device: Device, here: Place) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    model = flags.model or ("mistral-mini" if device.cuda else "mistral-nano")
    config = Config(
        model=model, dtype=flags.dtype or "fp32", strategy=flags.strategy, batch=flags.batch,
        sequence=sequence_of(flags, device), steps=flags.steps or (200 if device.cuda else 20), every=flags.every,
        every_s=flags.every_s, learning_rate=flags.learning_rate or _RATE_TIMES_WIDTH / find_model(model).hidden,
        seed=flags.seed, threads=torch.get_num_threads(), checkpoints=str(flags.checkpoints or folder_of(flags.out)),
    )  # fmt: skip
    demand_share(config.batch, here.size)
    return config


def folder_of(out: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where checkpoints lie: beside the nodes if they share a place, else in the run's folder, else by the records."""
    shared, run, folder = (environment.get(f"ROOFLAB_{name}") for name in ("SHARED", "RUN", "RUN_DIR"))
    if shared and run:
        return Path(shared) / "checkpoints" / run / "train"
    return Path(folder) / "checkpoints" if folder else out / "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Training:
    """One life of it, on one rank."""

    config: Config
    group: Group
    flags: argparse.Namespace
    within: Surroundings

    @property
    def store(self) -> Store:
        """Its checkpoints."""
        return Store(folder=Path(self.config.checkpoints))

    def bound(self) -> Bound:
        """Most tokens/s of all ranks together, by the model's own arithmetic."""
        device, config = self.group.device, self.config
        peak = compute_bound(device.name, device.accelerator, config.dtype, self.group.size)
        return per_unit(peak, find_model(config.model).train_flops(config.sequence))

    def run(self, notice: Notice) -> None:
        """Find where to go on, go on, and tell.

        Raises:
            CheckFailed: a loss is not what it must be.
            Ended: told to end, or another rank is gone.
        """
        config, group = self.config, self.group
        bytes_ = STATE_BYTES * find_model(config.model).parameters
        lost = f"{config.every_s:g} s" if config.every_s is not None else f"{config.every} steps"
        group.say(f"{config.model} by {config.strategy} on {group.size} ranks, {config.steps} steps of "
                  f"{config.batch} × {config.sequence} tokens; checkpoints of {bytes_ / 1e6:.0f} MB in "
                  f"{config.checkpoints}, at most {lost} lost")  # fmt: skip
        ground = survey(group, self.store, anew=not self.within.run)
        history = History(path=self.store.folder / HISTORY) if group.first else None
        losses = self._alone(ground)
        part = trainee(find_model(config.model), Data(seed=config.seed, batch=config.batch, sequence=config.sequence),
                       group, strategy=config.strategy, dtype=config.dtype, rate=config.learning_rate)  # fmt: skip
        saver = Saver(self.store, ground.life, group.device, config.facts) if ground.shared else None
        found = resume(group, self.store, saver, part, config.facts) if saver else Found(step=0)
        story = _Story(self, ground, history)
        story.begin(found, losses)
        interval = Interval(steps=config.every, seconds=config.every_s)
        loop = Loop(part, group, saver, notice, story.history, interval)
        with Sensors(group.device) as sensors:
            reached = loop.run(found.step, config.steps)
        if saver is not None:
            saver.close()
        story.end(loop, reached, notice, sensors)

    def _alone(self, ground: Ground) -> tuple[float, ...]:
        """What one process makes of the first batches; on the first rank, in the first life, where there are others."""
        config, group = self.config, self.group
        if not group.first or ground.life or group.size == 1 or config.dtype != "fp32":
            return ()
        data = Data(seed=config.seed, batch=config.batch, sequence=config.sequence)
        return alone(find_model(config.model), data, group.device, rate=config.learning_rate, steps=PARITY_STEPS)


class _Story:
    """What is told of a life, to the log, the history and the record."""

    def __init__(self, training: Training, ground: Ground, history: History | None) -> None:
        self._training, self._ground, self.history = training, ground, history

    def begin(self, found: Found, alone: tuple[float, ...]) -> None:
        """Say and note where this life begins."""
        training, before = self._training, self._ground.story
        config, group = training.config, training.group
        if self.history is None:
            return
        if before.lives:
            last = before.lives[-1]
            lost = max(0, last.reached - found.step)
            ended = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(last.last))
            where = (
                f"from {training.store.path(found.step)}" if found.step else "with no whole checkpoint to go on from"
            )
            group.say(
                f"resumed at step {found.step} of {config.steps} {where} in {found.load_s:.1f} s on {group.size} "
                f"ranks, lost {lost} steps; the life before it ended {ended} UTC on {last.start.ranks}"
            )
        self.history.note(Start(
            at=time.time(), began=training.within.started, ranks=group.size, threads=config.threads,
            nodes=training.within.nodes, resumed=found.step, load_s=found.load_s, skipped=found.skipped,
        ))  # fmt: skip
        if alone:
            self.history.alone(alone)

    def end(self, loop: Loop, reached: int, notice: Notice, sensors: Sensors) -> None:
        """Check, write the record, say what came of it.

        Raises:
            CheckFailed: a loss is not what it must be.
            Ended: it was told to end before the last step.
        """
        training = self._training
        config, group = training.config, training.group
        told = reached < config.steps
        heard = [why for why in group.gather((reason() or "SIGTERM") if notice.given else "") if why] if told else []
        fault, line = "", ""
        if self.history is not None:
            if told:
                self.history.note(Told(at=time.time(), step=loop.whole, why=heard[0], notice_s=notice.age_s))
            else:
                self.history.finish()
                training.store.thin()
            fault, line = self._write(self.history.read(), loop, sensors, told)
        group.require("losses", fault)
        group.say(line)
        if told:
            saved = f"step {loop.whole} of {config.steps} is saved" if loop.whole else "nothing could be saved"
            raise Ended(f"told to end ({heard[0]}): {saved}; started again it resumes" if group.first else "",
                        INTERRUPTED)  # fmt: skip

    def _write(self, story: Story, loop: Loop, sensors: Sensors, told: bool) -> tuple[str, str]:
        """What is wrong with the story, or the record's last line."""
        training = self._training
        config, group = training.config, training.group
        fault = _fault(story, told)
        if fault:
            return fault, ""
        checked = _checked(story)
        every = tuple(rows(story, tokens=config.batch * config.sequence, bound=training.bound(),
                           price=training.within.price, checked=checked,
                           most_lost=None if config.every_s is not None else config.every))  # fmt: skip
        notes = [f"life {number}: {one}" for number, life in enumerate(story.lives) for one in life.start.skipped]
        if told:
            notes.append(f"interrupted at step {loop.whole} of {config.steps}, saved: started again it resumes")
        machine = describe(group.device, devices=group.size, reading=sensors.reading,
                           instance_type=training.within.instance_type, libraries=())  # fmt: skip
        path = write(training.flags.out, "train", every, within=training.within, machine=machine, config=config,
                     cluster=True, ranks=group.size, notes=(*notes, *loop.failures))  # fmt: skip
        for text in _lines(story):
            group.say(text)
        return "", f"{checked}: {path}"


def _fault(story: Story, told: bool) -> str:
    """What is wrong with the losses (empty: nothing)."""
    if story.parity is not None and not story.parity <= SAME:
        return (f"the first {len(story.alone)} are not one process's: they differ by {story.parity:.1e}, allowed "
                f"{SAME:.0e}")  # fmt: skip
    if wrong := story.twice()[2]:
        return wrong
    losses = [loss for _, loss in sorted(story.losses.items())]
    return "" if told else loss_failure(losses)


def _checked(story: Story) -> str:
    """What held."""
    same, other, _ = story.twice()
    losses = [loss for _, loss in sorted(story.losses.items())]
    told = [f"loss {losses[0]:.3f} to {losses[-1]:.3f} over {len(losses)} steps"] if losses else []
    if story.parity is not None:
        told.append(f"the first {len(story.alone)} like one process's within {story.parity:.0e}, allowed {SAME:.0e}")
    if same:
        told.append(f"{same} steps done twice had the same loss bit by bit")
    if other:
        told.append(f"{other} steps done by another number of ranks had the same loss within {SAME:.0e}")
    return "; ".join(told) or "no step was done"


def _lines(story: Story) -> Sequence[str]:
    """What became of it, for the log."""
    lines = [f"resume {one.life}: at step {one.step} on {one.ranks} ranks, {one.lost} steps done again, "
             f"{one.down_s:.1f} s from the last sign before to its first step ({one.load_s:.1f} s of them reading)"
             for one in story.resumes if one.down_s is not None]  # fmt: skip
    saves = [save for life in story.lives for save in life.saves]
    if saves:
        extra = extra_s(story)
        each = "" if extra is None else f", extra time {extra / len(saves):.3f} s each"
        lines.append(f"{len(saves)} checkpoints of {saves[-1].bytes / 1e6:.1f} MB: blocked "
                     f"{statistics.median(save.blocked_s for save in saves):.3f} s{each}, whole after "
                     f"{statistics.median(save.written_s for save in saves):.3f} s")  # fmt: skip
    return lines


def parser() -> Parser:
    """The flags."""
    found = Parser("train", __doc__)
    found.add_argument("--model", help="a shape of labs/models.py")
    found.add_argument("--dtype", choices=("fp32", "bf16"), help="of the arithmetic; default: fp32")
    found.add_argument("--strategy", choices=STRATEGIES, default="fsdp", help="how ranks share the model")
    found.add_argument("--batch", type=positive, default=8, help="sequences of a step, over all ranks together")
    found.add_argument("--sequence", type=positive, help="tokens per sequence")
    found.add_argument("--steps", type=positive, help="of the whole training")
    found.add_argument("--every", type=positive, default=10, help="most steps that may be lost")
    found.add_argument("--every-s", type=seconds, help="most seconds of work that may be lost, in place of --every")
    found.add_argument("--learning-rate", type=learning_rate, help="of AdamW; default: 0.25 ÷ the model's width")
    found.add_argument("--checkpoints", type=Path, help="folder that all nodes share; default: /fsx or the run's own")
    return found


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: what was trained is wrong.
        Ended: told to end, or another rank is gone; with the exit code that says so.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    if why := reason():
        raise Ended(f"not begun, this node ends: {why}", INTERRUPTED)
    flags = (found := parser()).parse_args(arguments)
    try:
        here, within = place(), surroundings()
        device = find_device(flags.device, here.local_rank)
        config = configure(flags, device, here)
    except ValueError as error:
        found.error(str(error))
    if device.cuda:
        _settle_sums()
    with peers(here), joined(here, device) as group, Notice("train") as notice:
        Training(config=config, group=group, flags=flags, within=within).run(notice)


def _settle_sums() -> None:
    """Ask for kernels whose sums have an order; cuBLAS must know before it is first used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


if __name__ == "__main__":
    start("train", main)
