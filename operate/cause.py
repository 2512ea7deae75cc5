"""Why a job failed, in one line: the first rank that went wrong, not what its launcher says of all that followed."""

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from operate import connections
from operate.hang import HUNG
from operate.statements import Statement, read
from operate.suspect import ALIKE, OUT_OF_MEMORY, Suspicion, at, mismatch, named, raised, suspect

_ROOT = re.compile(
    r"Root Cause \(first observed failure\):.*?time +: (?P<time>\S+).*?rank +: (?P<rank>\d+) \(.*?"
    r"exitcode +: (?P<code>-?\d+) ",
    re.DOTALL,
)
_SRUN = re.compile(r"srun: error: (?P<node>\S+): tasks? (?P<rank>\d+)\S*: (?P<how>.+)")
_HOW = {"Killed": -9, "Segmentation fault": -11, "Aborted": -6, "Bus error": -7}
_WORD = re.compile(r"^\[rank(\d+)\] (?:\[rank\d+\]: )?(.*)$", re.MULTILINE)
_CHECK = re.compile(r"^[\w-]+: (check failed: .+|out of device memory: .+)")
_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*|^ *what\(\): .+")
_GLOO = re.compile(r"\[enforce fail at \S+\] (.+)")
_OWN_END = ("SIGKILL", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")
"""Signals that end a rank by itself, never because another one has ended."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a launcher saw the first of its ranks end."""

    node: str
    rank: int
    code: int
    """Exit code; below 0 the signal that ended it."""
    time: str = ""

    @property
    def signal(self) -> str:
        """Its name; "" where it ended by itself."""
        try:
            return signal.Signals(-self.code).name if self.code < 0 else ""
        except ValueError:
            return f"signal {-self.code}"


def find_cause(folder: Path, job: str, codes: Mapping[str, int | None]) -> Suspicion | None:
    """Why `job` of the run in `folder` failed; `codes` is its exit code by node. None: nothing tells."""
    if job == connections.JOB and (found := connections.culprit(folder, tuple(codes))):
        return found
    logs = {}
    for node in codes:
        path = folder / "logs" / node / f"{job}.log"
        if path.exists():
            logs[node] = path.read_text(errors="replace")
    return cause(read(folder / "hang" / job), logs, hung=HUNG in codes.values())


def cause(told: Sequence[Statement], logs: Mapping[str, str], *, hung: bool) -> Suspicion | None:
    """Why a job failed, from its ranks' words and its logs by node; None: nothing tells."""
    if hung:
        return suspect(told, hung=True)
    ends = launchers(logs)
    own = next((end for end in ends if end.signal in _OWN_END), None)
    first = next((end for end in ends if end.signal not in ("SIGTERM", "SIGINT")), None)
    return (
        mismatch(told)
        or (_ended(told, logs, own) if own else None)
        or raised(told)
        or _checked(told, logs)
        or (_ended(told, logs, first) if first else None)
    )


def launchers(logs: Mapping[str, str]) -> list[End]:
    """The first rank that each launcher saw fail, in the order of their clocks; signals before exit codes."""
    ends = []
    for node, text in logs.items():
        for found in _ROOT.finditer(text):
            ends.append(End(node=node, rank=int(found["rank"]), code=int(found["code"]), time=found["time"]))
        for found in _SRUN.finditer(text):
            code = next((code for how, code in _HOW.items() if how in found["how"]), 1)
            ends.append(End(node=found["node"], rank=int(found["rank"]), code=code))
    return sorted(ends, key=lambda end: (end.time, end.code >= 0, end.rank))


def _checked(told: Sequence[Statement], logs: Mapping[str, str]) -> Suspicion | None:
    """A workload's own last line."""
    for node, text in logs.items():
        for rank, line in _WORD.findall(text):
            if found := _CHECK.match(line):
                who = named(told, [int(rank)]) if told else f"rank {rank} on {node}"
                return Suspicion(ranks=(int(rank),), cause=f"{who}: {found[1]}", remedy="its log tells the rest")
    return None


def _ended(told: Sequence[Statement], logs: Mapping[str, str], end: End) -> Suspicion:
    who = f"rank {end.rank} on {end.node}"
    words = [line for rank, line in _WORD.findall(logs.get(end.node, "")) if int(rank) == end.rank]
    error = next((line.strip() for line in reversed(words) if _ERROR.match(line)), "")
    if gloo := _GLOO.search(error):
        error = gloo[1]
    error = error.removeprefix("what():").strip()
    said = f"was ended by {end.signal}" if end.signal else f"ended with exit code {end.code}"
    text = f"{who} {said}{f': {error}' if error else ''}{at(told, end.rank)}"
    remedy = "its log tells the rest"
    if end.signal == "SIGKILL":
        remedy = OUT_OF_MEMORY
    elif "mismatch" in error:
        remedy = ALIKE
    return Suspicion(ranks=(end.rank,), cause=text, remedy=remedy)
