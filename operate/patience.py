"""How long a job may be silent, and what happens to its lab when it hung: --hang-s and --on-hang."""

from dataclasses import dataclass

from labs.catalog import Lab
from operate.account import Account
from operate.farewell import leftover, part_with
from operate.hang import DEFAULT_S, HUNG, LEAST_S
from operate.problem import Problem
from operate.runs import Run
from operate.screen import Screen
from operate.verb import number
from operate.verdict import verdict

_CHOICES = ("stop", "teardown")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """What the two flags say."""

    hang_s: int
    """As in `operate.launch.Plan`."""
    teardown: bool
    """Whether the lab ends with the run that hung."""


def read_patience(hang_s: str, on_hang: str, *, deployed: bool) -> Patience:
    """The flags, where the run goes to a lab that is `deployed`, or to machines that no verb can end.

    Raises:
        ValueError: one of them is not allowed.
    """
    bound_s = int(number("hang-s", hang_s) or 0) if hang_s else DEFAULT_S
    if 0 < bound_s < LEAST_S:
        raise ValueError(f"hang_s={hang_s} is too short to tell: write at least {LEAST_S}, or 0 to let a job be silent")
    if on_hang not in _CHOICES:
        raise ValueError(f"on_hang={on_hang!r} is not allowed: write one of {', '.join(_CHOICES)}")
    if on_hang == "teardown" and not deployed:
        raise ValueError("on_hang='teardown' is not allowed here: only a deployed lab can be torn down; write stop")
    if on_hang == "teardown" and not bound_s:
        raise ValueError("on_hang='teardown' is not allowed with hang_s=0: nothing would be found to hang")
    return Patience(hang_s=bound_s, teardown=on_hang == "teardown")


def hung(run: Run) -> list[str]:
    """The run's jobs that were ended because they hung."""
    return [item["name"] for item in run.document["workloads"] if HUNG in item["exit"].values()]


def stop_paying(patience: Patience, run: Run, lab: Lab | None, screen: Screen) -> None:
    """End the lab if its run hung and that was asked for; all results are home by then, and lie where they lay.

    Raises:
        Problem: something of the lab is left.
    """
    names = hung(run)
    if not names or not patience.teardown or lab is None:
        return
    screen.note(f"{', '.join(names)} hung: ending {lab.stack}, as --on-hang teardown says")
    try:
        receipt, path = part_with(Account(), lab, screen)
        leftover(receipt.sweep, lab.stack)
    except Problem as problem:
        told = verdict(run)
        assert told is not None, "a job that hung is no success"
        raise Problem(f"{told.cause}; and {problem.cause}", problem.remedy, exit_code=problem.exit_code) from None
    screen.note(f"{lab.stack} is torn down, nothing of it is left: {path}")
