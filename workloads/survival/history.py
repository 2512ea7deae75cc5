"""What became of a training over all its lives, kept beside the checkpoints: a line an event, written as it happens.

A killed process takes its memory along; the lines stay. So the record at the end tells the whole story, what was lost
is known to the step, and steps that are done twice are held against each other.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SAME = 1e-5
"""Largest relative difference of a loss that another number of ranks computes."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A life begins. Moments are seconds since the epoch."""

    at: float
    """When its ranks had met, read the checkpoint and were ready to step."""
    began: float
    """When the first rank's program began."""
    ranks: int
    threads: int
    """CPU threads of each: sums are taken in another order by other numbers of them, too."""
    nodes: int
    resumed: int
    """Steps that stood in the checkpoint; 0: from the beginning."""
    load_s: float
    """That looking for, checking and reading the checkpoint took."""
    skipped: tuple[str, ...] = ()
    """Checkpoints that were not whole, and why."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One is done."""

    step: int
    """Counted from 1."""
    loss: float
    at: float
    taken_s: float
    """Of it, saves that it waited for included."""
    saving: bool
    """Whether a checkpoint was copied or written meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Save:
    """A checkpoint is whole."""

    step: int
    blocked_s: float
    """That the training stood still: the copy, and waiting for the files where that was needed."""
    written_s: float
    """From the call until it was whole."""
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Told:
    """A life was told to end, and has saved."""

    at: float
    step: int
    why: str
    notice_s: float
    """From the signal to the whole checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Life:
    """From one start to the next."""

    start: Start
    steps: tuple[Step, ...] = ()
    saves: tuple[Save, ...] = ()
    told: Told | None = None

    @property
    def reached(self) -> int:
        """Steps that stood when it ended."""
        return max((one.step for one in self.steps), default=self.start.resumed)

    @property
    def last(self) -> float:
        """Moment of its last sign."""
        return max([self.start.at, *(one.at for one in self.steps), *([self.told.at] if self.told else [])])


@dataclass(frozen=True, kw_only=True)
class Resume:
    """A life after another."""

    life: int
    """Counted from 1; the first life is no resume."""
    at: float
    ranks: int
    step: int
    """That it went on from."""
    lost: int
    """Steps that earlier lives had done and this one did again."""
    down_s: float | None
    """From the last sign of the life before to this one's first step; None where it had none."""
    load_s: float
    told: bool
    """Whether the life before it was told to end, and not lost."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """All lives."""

    lives: tuple[Life, ...] = ()
    finished: bool = False
    alone: tuple[float, ...] = field(default=())
    """Losses of the first steps by one process."""

    @property
    def reached(self) -> int:
        """Most steps that any life stood at."""
        return max((life.reached for life in self.lives), default=0)

    @property
    def losses(self) -> dict[int, float]:
        """By step, as the last life that did it saw it."""
        return {one.step: one.loss for life in self.lives for one in life.steps}

    @property
    def resumes(self) -> tuple[Resume, ...]:
        """Every start after the first."""
        found = []
        for number, (earlier, life) in enumerate(zip(self.lives, self.lives[1:], strict=False), start=1):
            down_s = life.steps[0].at - earlier.last if life.steps else None
            found.append(Resume(
                life=number, at=life.start.at, ranks=life.start.ranks, step=life.start.resumed,
                lost=max(0, earlier.reached - life.start.resumed), down_s=down_s, load_s=life.start.load_s,
                told=earlier.told is not None,
            ))  # fmt: skip
        return tuple(found)

    @property
    def parity(self) -> float | None:
        """Largest relative difference of the first losses from one process's; None where none were taken."""
        both = [(self.lives[0].steps, self.alone)] if self.lives and self.alone else []
        return max((abs(one.loss - other) / abs(other) for steps, alone in both
                    for one, other in zip(steps, alone, strict=False)), default=None)  # fmt: skip

    def twice(self) -> tuple[int, int, str]:
        """Steps done more than once by as many ranks, by another number, and what differs more than it may ("": none).

        As many ranks must find the same loss bit by bit, once all lives before were of as many.
        """
        seen: dict[int, tuple[float, set[tuple[int, int]]]] = {}
        same = other = 0
        for number, life in enumerate(self.lives):
            by = {(one.start.ranks, one.start.threads) for one in self.lives[: number + 1]}
            for one in life.steps:
                if (earlier := seen.get(one.step)) is not None:
                    loss, before = earlier
                    alike = len(by | before) == 1
                    same, other = same + alike, other + (not alike)
                    if not abs(one.loss - loss) <= (0 if alike else SAME * abs(loss)):
                        allowed = "must be the same bit by bit" if alike else f"may differ by {SAME:.0e} of it"
                        found = f"step {one.step} had loss {loss!r}, and {one.loss!r} in life {number}"
                        return same, other, f"{found}: {allowed}"
                seen[one.step] = (one.loss, by)
        return same, other, ""


@dataclass(frozen=True, kw_only=True)
class History:
    """The file."""

    path: Path
    pending: list[str] = field(default_factory=list)
    """Lines that a full disk refused; they go with the next."""

    def note(self, event: Start | Step | Save | Told) -> None:
        """Add one line."""
        self._add({"kind": type(event).__name__.lower(), **asdict(event)})

    def alone(self, losses: tuple[float, ...]) -> None:
        """What one process found on the first batches."""
        self._add({"kind": "alone", "losses": losses})

    def finish(self) -> None:
        """All steps are done."""
        self._add({"kind": "finished"})

    def _add(self, document: dict[str, Any]) -> None:
        # One write of a whole line; a line that a death has torn before it is closed by the break in front.
        self.pending.append(json.dumps(document))
        with contextlib.suppress(OSError), self.path.open("a") as file:  # a save that fails is told; this one waits
            file.write("".join(f"\n{line}\n" for line in self.pending))
            file.flush()
            self.pending.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)

    def read(self) -> Story:
        """All that is known; lines that a death has torn are left out."""
        lives: list[dict[str, list[Any]]] = []
        finished, alone = False, ()
        for document in self._lines():
            kind = document.pop("kind", None)
            if kind == "alone":
                alone = tuple(document["losses"])
            elif kind == "finished":
                finished = True
            elif kind == "start":
                finished = False
                lives.append({"start": [_made(Start, document)], "step": [], "save": [], "told": []})
            elif lives and kind in _EVENTS:
                lives[-1][kind].append(_made(_EVENTS[kind], document))
        return Story(finished=finished, alone=alone, lives=tuple(
            Life(start=life["start"][0], steps=tuple(life["step"]), saves=tuple(life["save"]),
                 told=life["told"][-1] if life["told"] else None) for life in lives
        ))  # fmt: skip

    def _lines(self) -> Iterator[dict[str, Any]]:
        text = self.path.read_text(errors="replace") if self.path.exists() else ""
        for line in (*text.splitlines(), *self.pending):
            try:
                found = json.loads(line) if line else None
            except ValueError:
                continue
            if isinstance(found, dict):
                yield found


_EVENTS: dict[str, type[Step | Save | Told]] = {"step": Step, "save": Save, "told": Told}


def _made(kind: Callable[..., Any], document: dict[str, Any]) -> Any:
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in document.items()})
