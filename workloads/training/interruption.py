"""One training run that is interrupted by a save: how long the steps took, and what the save cost them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from workloads.command import CheckFailed
from workloads.device import Device
from workloads.training.savers import Saver, Saving, State, fingerprint
from workloads.training.trainee import Trainee, step

# Shape suffixes: B sequences, T tokens.

PATIENCE = 400
"""Steps after which a save that is still being written is waited for; the waiting then counts as blocked."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model in training."""

    model: Trainee
    optimiser: torch.optim.Optimizer
    batches: Sequence[Tensor]
    """Data [B, T], taken in turn."""
    device: Device
    steps: int
    """Of each stretch, at least."""

    def stretch(self, saver: Saver | None = None, state: State | None = None, folder: Path | None = None) -> "Stretch":
        """Train for `steps` steps; with a saver, save `state` first, and go on until it is on the disk."""
        self.device.synchronize()
        begin = time.perf_counter()
        saving = Saving()
        if saver is not None:
            assert state is not None
            assert folder is not None
            saving = saver.save(state, folder)
        called_s = time.perf_counter() - begin
        written: list[float] = []
        if saving.written is not None:
            saving.written.add_done_callback(lambda _: written.append(time.perf_counter() - begin))
        waited_s = 0.0
        ends: list[float] = []
        while len(ends) < self.steps or not (saving.done or len(ends) >= PATIENCE):
            waited_s += self._step(len(ends), saving)
            ends.append(time.perf_counter() - begin)
        before = time.perf_counter()
        saving.finish()
        waited_s += time.perf_counter() - before
        wall_s = time.perf_counter() - begin
        if saving.written is None:
            written = [called_s]
        # The writer's thread wakes us before it calls back.
        return Stretch(called_s=called_s, waited_s=waited_s, wall_s=wall_s, ends_s=tuple(ends),
                       written_s=written[0] if written else wall_s)  # fmt: skip

    def _step(self, index: int, saving: Saving) -> float:
        """One optimiser step; seconds that it waited for the copy of the state."""
        waited_s = 0.0

        def wait() -> None:
            nonlocal waited_s
            if index == 0 and saving.staged is not None:
                begin = time.perf_counter()
                saving.staged.result()
                waited_s = time.perf_counter() - begin

        step(self.model, self.optimiser, (self.batches[index % len(self.batches)],), self.device, wait)
        return waited_s


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Steps in a row, seconds counted from when they (or the save before them) began."""

    called_s: float
    """Until the call to save returned."""
    waited_s: float
    """That a step waited for the state to be copied, and at the end for the writer."""
    wall_s: float
    ends_s: tuple[float, ...]
    """When each step ended."""
    written_s: float
    """When the files were on the disk."""

    @property
    def step_s(self) -> float:
        """Mean of a step."""
        return self.wall_s / len(self.ends_s)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One save, between two stretches of steps alone: a machine's pace drifts."""

    before: Stretch
    saving: Stretch
    after: Stretch

    @property
    def blocked_s(self) -> float:
        """Wall time beyond that of as many steps alone; below 0 where noise is more than the cost."""
        return self.saving.wall_s - len(self.saving.ends_s) * (self.before.step_s + self.after.step_s) / 2

    @property
    def noise_s(self) -> float:
        """How far as many steps alone differ from one neighbour to the other."""
        return len(self.saving.ends_s) * abs(self.before.step_s - self.after.step_s) / 2


@dataclass(frozen=True, kw_only=True)
class Saves:
    """One way of saving, several times over."""

    name: str
    costs: tuple[Cost, ...]
    """The first makes the buffers that the others find."""
    checked: str


def save_several(bench: Bench, saver: Saver, state: State, under: Path, times: int, until: float) -> Saves:
    """Save `times` times, or until that moment of the clock, each in a folder of its own; read the last one back.

    Raises:
        CheckFailed: what was read differs from what the state was when it was saved.
    """
    costs: list[Cost] = []
    before = bench.stretch()
    while len(costs) < times and not (costs and time.perf_counter() > until):
        expected = fingerprint(state)
        with TemporaryDirectory(dir=under) as folder:
            saving = bench.stretch(saver, state, Path(folder))
            after = bench.stretch()
            costs.append(Cost(before=before, saving=saving, after=after))
            before = after
            _verify(saver, Path(folder), state, expected)
    return Saves(name=saver.name, costs=tuple(costs),
                 checked=f"all {len(state)} tensors read back as they were when they were saved")  # fmt: skip


def _verify(saver: Saver, folder: Path, state: State, expected: dict[str, tuple[int, int]]) -> None:
    into = {name: torch.zeros_like(tensor, device="cpu") for name, tensor in state.items()}
    saver.load(folder, into)
    found = fingerprint(into)
    wrong = [name for name in expected if found[name] != expected[name]]
    if wrong:
        raise CheckFailed(f"{saver.name}: {wrong[0]} and {len(wrong) - 1} more of {len(expected)} tensors are not what "
                          "they were when they were saved")  # fmt: skip
