"""One life: a lab from its deployment to $0.00, whatever happens to it, and the verdict."""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from botocore.loaders import JSONFileLoader

from labs.names import GUARD_STACK, Output
from operate.account import Account
from operate.ship import key_prefix
from operate.stack import find_stack
from operate.sweep import sweep
from rehearsal import control
from tests.soak import client, home
from tests.soak.plan import Plan
from tests.soak.templates import TTL_HOURS, Deployable

NAME = "lives"
_PATIENCE_S = 12.0
"""After so long in real time the client is killed, as a laptop whose lid is closed."""
_TICK_S = 300.0
_LONGEST_S = 6 * 3600.0
"""So long after its deadline, on the rehearsal's clock, a lab must be gone."""
_PROBLEM = re.compile(r"^problem: (?!unexpected )[^\n]*\S: \S[^\n]*$")
_CAUSE = re.compile(r"^problem: ([^:(]{0,60})")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a life ended."""

    number: int
    plan: str
    left: tuple[str, ...]
    """What still stood, or could not be looked at."""
    lost: tuple[str, ...]
    """Records that a workload had finished and nobody has."""
    unnamed: tuple[str, ...]
    """Failures without a cause."""
    causes: tuple[str, ...]
    """What the client was told."""
    faults: tuple[str, ...]
    """What struck, and what it did."""
    killed: bool
    """Whether the client was killed."""
    records: int
    """Records that workloads had finished."""
    seconds: float

    @property
    def survived(self) -> bool:
        """Whether nothing is left, nothing lost, and every failure had a name."""
        return not (self.left or self.lost or self.unnamed)

    def as_json(self) -> dict[str, Any]:
        """For the file of finished lives."""
        return asdict(self)


class Place:
    """A rehearsed account with GuardStack in it, for one life after another."""

    def __init__(self, folder: Path, seed: int, labs: dict[str, Deployable]) -> None:
        _warm()
        self.root, self.lives, self.labs = folder / "rehearsal", folder / "lives", labs
        self.lives.mkdir(parents=True, exist_ok=True)
        control.start(NAME, seed, root=self.root)
        os.environ.update(control.environment(NAME, root=self.root))
        guard = labs["guard"]
        account = Account()
        account.client("cloudformation").create_stack(
            StackName=guard.stack, TemplateBody=guard.template, Capabilities=["CAPABILITY_IAM"]
        )
        made = account.client("cloudformation").get_waiter("stack_create_complete")
        made.wait(StackName=guard.stack, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        stack = find_stack(account, GUARD_STACK)
        assert stack is not None
        self.bucket = stack.outputs[Output.RESULTS_BUCKET]

    def close(self) -> None:
        """End the rehearsal."""
        control.stop(NAME, root=self.root)

    def live(self, plan: Plan, clone: Path) -> Verdict:
        """One life and its verdict; the place is as before only if it survived."""
        began = time.monotonic()
        folder = self.lives / str(plan.number)
        shutil.rmtree(folder, ignore_errors=True)
        home.copy(clone, folder)
        ledger = folder / "ledger"
        ledger.touch()
        for trouble in plan.troubles:
            control.fault(NAME, trouble.fault, at=trouble.at, seed=trouble.seed, root=self.root, **trouble.options)
        killed = _run(plan, self.labs[plan.kind], folder, ledger)
        struck = self._outlive()
        control.clear(NAME, root=self.root)
        account = Account()
        left = self._left(account)
        told = (folder / "client.log").read_text(errors="replace").splitlines()
        causes = tuple(match[1].strip() for line in told if (match := _CAUSE.match(line)))
        wrote, lost = self._lost(account, ledger, folder, struck)
        return Verdict(
            number=plan.number, plan=str(plan), left=left, lost=lost, unnamed=tuple(unnamed(told)), causes=causes,
            faults=tuple(f"{row['fault']}: {row['did']}" for row in struck if row["struck"]), killed=killed,
            records=wrote, seconds=round(time.monotonic() - began, 2),
        )  # fmt: skip

    def _outlive(self) -> list[dict[str, str]]:
        """Let time pass, tick by tick, until the guard sees no lab any more, or far too long; the faults so far."""
        told = control.status(NAME, root=self.root)
        ran, passed = len(told["ticks"]), 0.0
        while passed < TTL_HOURS * 3600 + _LONGEST_S:
            told = control.advance(NAME, _TICK_S, root=self.root)
            passed += _TICK_S
            new, ran = told["ticks"][ran:], len(told["ticks"])
            over = passed > TTL_HOURS * 3600 + _TICK_S
            if over and new and all(tick["value"] and not tick["value"]["labs"] for tick in new):
                break
        faults: list[dict[str, str]] = told["faults"]
        return faults

    def _left(self, account: Account) -> tuple[str, ...]:
        found = sweep(account)
        left = [f"{item.kind} {item.id} {item.state}" for item in found.left]
        left += [f"not looked at: {kind}: {why}" for kind, why in found.not_looked_at.items()]
        if not left and found.residual_usd_per_hour != 0.0:
            left.append(f"residual {found.residual_usd_per_hour}")
        return tuple(left)

    def _lost(
        self, account: Account, ledger: Path, folder: Path, faults: list[dict[str, str]]
    ) -> tuple[int, tuple[str, ...]]:
        """How many records were finished, and those of them that neither the bucket nor the laptop has.

        A node whose host dies takes along what it was just about to ship; what it began a workload after must be safe.
        """
        rows = [tuple(line.split()) for line in ledger.read_text().splitlines()]
        rows = [row for row in rows if len(row) == 5]
        died = {row["did"].split()[0] for row in faults if row["fault"].startswith("node-death") and row["struck"]}
        s3, lost, wrote = account.client("s3"), [], 0
        for index, (what, run, node, name, instance) in enumerate(rows):
            if what != "wrote":
                continue
            went_on = any(row[0] == "began" and row[4] == instance for row in rows[index + 1 :])
            wrote += 1
            file = f"{name}.{node}.json"
            listed = s3.list_objects_v2(Bucket=self.bucket, Prefix=key_prefix(run, node) + file)
            here = listed["KeyCount"] or (folder / "results" / run / "records" / file).exists()
            if not here and (instance not in died or went_on):
                lost.append(f"{run} {file} of {instance}")
        return wrote, tuple(lost)


@cache
def _warm() -> None:
    """Read once, in the worker, what each client would read anew: a client is a fork of it."""
    import_module("matplotlib.figure")
    models = cache(JSONFileLoader().load_file)
    JSONFileLoader.load_file = lambda _loader, path: models(path)


def unnamed(lines: list[str]) -> Iterator[str]:
    """Of what a client said, the failures that name no cause."""
    for line in lines:
        if line.startswith("problem: ") and not _PROBLEM.match(line):
            yield line[:300]
        if line.startswith("Traceback (most recent call last)") or line.startswith("Exception in thread"):
            yield line


def _run(plan: Plan, lab: Deployable, folder: Path, ledger: Path) -> bool:
    """The client as a process of its own; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        _become_client(plan, lab, folder, ledger)
    with _killing(pid):
        _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@contextmanager
def _killing(pid: int) -> Iterator[None]:
    def kill(_number: int, _frame: object) -> None:
        os.killpg(pid, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _become_client(plan: Plan, lab: Deployable, folder: Path, ledger: Path) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        log = os.open(folder / "client.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        for descriptor, to in ((null, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, to)
        os.chdir(folder)
        code = client.live(plan, lab, folder, ledger)
    finally:
        os._exit(code)  # no exit handlers, no flush of what the worker had buffered
