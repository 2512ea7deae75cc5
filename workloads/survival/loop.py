"""The steps of a training between its checkpoints, and what may end them: the last step, a notice, a rank that is gone.

Each step the ranks add up three numbers, while the backward pass runs: their parts of the loss, whether one of them was
told to end, and whether a checkpoint is due. So all know the same at the same step, whichever of them heard the signal.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from labs.survival import PEER_LOST, saved_every
from workloads.command import Ended
from workloads.group import Group, Place
from workloads.survival.history import History, Save, Step
from workloads.survival.notice import Notice
from workloads.survival.saver import SaveFailed, Saver
from workloads.survival.trainee import Trainee

_GONE = re.compile(r"gloo|nccl|peer|socket|connection|broken pipe|tcpstore|timed out", re.IGNORECASE)
"""Of what a backend says when a rank it talks to has ended."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """How much work may stand unsaved."""

    steps: int
    seconds: float | None = None
    """Where it is given, it is counted and `steps` is not."""

    def due(self, step: int, since_s: float) -> bool:
        """Whether a checkpoint is begun after this step, `since_s` after the last one was."""
        if self.seconds is not None:
            return since_s >= self.seconds / 2
        return step % saved_every(self.steps) == 0

    def full(self, step: int, whole: int, since_s: float) -> bool:
        """Whether no further step may be done before a checkpoint is whole; the newest is of step `whole`."""
        return since_s >= self.seconds if self.seconds is not None else step - whole >= self.steps


class Loop:
    """Of one rank."""

    def __init__(self, trainee: Trainee, group: Group, saver: Saver | None, notice: Notice, history: History | None,
                 interval: Interval) -> None:  # fmt: skip
        """`saver`: None where ranks share no folder. `history`: the first rank's."""
        self._trainee, self._group, self._saver, self._notice = trainee, group, saver, notice
        self._history, self._interval = history, interval
        self._control = dist.new_group(backend="gloo")
        self._whole = 0
        self._whole_at = self._begun_at = time.monotonic()
        self.failures: list[str] = []
        """Checkpoints that could not be written, and why."""

    def run(self, first: int, last: int) -> int:
        """Go on from step `first` to step `last`; the step that it ended at, which is earlier after a notice."""
        self._whole, self._whole_at = first, time.monotonic()
        self._notice.beat()
        for step in range(first + 1, last + 1):
            if self._step(step, last):
                return step
        return last

    def _step(self, step: int, last: int) -> bool:
        """One step, and the saving around it; whether all are to end."""
        begin = time.perf_counter()
        saving = self._settle(step - 1)
        loss, part = self._trainee.forward(step - 1)
        due = self._group.first and self._interval.due(step, time.monotonic() - self._begun_at)
        told = torch.tensor([part, float(self._notice.given), float(due)], dtype=torch.float64)
        sent = dist.all_reduce(told, group=self._control, async_op=True)
        self._trainee.update(loss)
        assert sent is not None
        sent.wait()
        mean, ending, due = float(told[0]), told[1] > 0, told[2] > 0
        if ending:
            self._notice.saving()
        if self._saver is not None and (due or ending or step == last):
            self._begin(step)
            saving = True
        self._notice.beat()
        if self._history is not None:
            self._history.note(Step(step=step, loss=mean, at=time.time(), taken_s=time.perf_counter() - begin,
                                    saving=saving))  # fmt: skip
        if ending or step == last:
            self._finish()
        return bool(ending)

    def _settle(self, step: int) -> bool:
        """Look after the save under way, and wait for it where too much stands unsaved; whether there is one."""
        if self._saver is None or not self._saver.busy:
            return False
        if self._saver.done or self._interval.full(step, self._whole, time.monotonic() - self._whole_at):
            self._finish()
        return True

    def _begin(self, step: int) -> None:
        assert self._saver is not None
        self._finish()
        self._begun_at = time.monotonic()
        self._saver.begin(step, self._trainee.state())

    def _finish(self) -> None:
        """Wait for the save under way, if there is one. One that failed is said; the older ones stand."""
        if self._saver is None or not self._saver.busy:
            return
        try:
            save: Save = self._saver.finish()
        except SaveFailed as failure:
            if failure.final:
                raise Ended(str(failure) if self._group.first else "", 1) from None
            self.failures.append(str(failure))
            self._group.say(f"warning: {failure}; the newest whole one is of step {self._whole}")
            return
        self._whole, self._whole_at = save.step, self._begun_at
        if self._history is not None:
            self._history.note(save)

    @property
    def whole(self) -> int:
        """Step of the newest checkpoint that this life knows to be whole."""
        return self._whole


@contextmanager
def peers(here: Place) -> Iterator[None]:
    """End in one line where another rank is gone.

    Raises:
        Ended: with `PEER_LOST`.
    """
    try:
        yield
    except RuntimeError as error:
        if here.size == 1 or not (isinstance(error, dist.DistError) or _GONE.search(str(error))):
            raise
        why = str(error).strip().splitlines()[0]
        raise Ended(f"rank {here.rank} of {here.size}: another rank is gone ({short(why)}): started again, all resume "
                    "from the newest whole checkpoint", PEER_LOST) from None  # fmt: skip


def short(text: str) -> str:
    """Without the place in the backend's sources, and not longer than a line needs."""
    plain = re.sub(r"^\[[^\]]*\]\s*|\.?\s*This (may|is) .*$", "", text)
    return plain if len(plain) <= 120 else f"{plain[:117]}…"
