"""What the ranks of a hung job leave behind on their node: stacks, flight recorder, environment, in the run's hang/JOB.

Runs on the node, with the standard library alone. Three ways to a rank's stack, for each may be shut: its own thread
(`workloads/startup`), py-spy where the kernel allows ptrace, faulthandler by SIGUSR1.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from operate import secret

_ASK_S = 5.0
_SPY_S = 8.0
_SIGNAL_S = 2.0
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|_KEY(_|$)|APIKEY|AUTH", re.IGNORECASE)


def question(folder: Path, ranks: Iterable[int], *, limit_s: float = _ASK_S) -> dict[int, dict[str, Any]]:
    """By rank: what it says of itself now; one that says nothing within the limit is missing."""
    since = time.time()
    asked = {rank for rank in ranks if _ask(folder / f"rank{rank}.ask")}
    told: dict[int, dict[str, Any]] = {}
    until = time.monotonic() + limit_s
    while asked - told.keys() and time.monotonic() < until:
        for rank in asked - told.keys():
            document = read(folder / f"rank{rank}.json")
            if document and document["time"] >= since - 1:  # the file's clock may be a little behind
                told[rank] = document
        time.sleep(0.05)
    return told


def read(path: Path) -> dict[str, Any] | None:
    """A rank's word; None where there is none yet."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def place(document: Mapping[str, Any]) -> str:
    """Where a rank is, as one text: the same text twice means that it has not moved."""
    return "\n".join(f"{file}:{line} {name}" for file, line, name, _ in document.get("stack") or ())


def dump(folder: Path, alive: Mapping[int, int]) -> list[str]:
    """Have all of this node's ranks (by rank: their process) leave what can be had of them; lines that sum it up."""
    told = question(folder, alive)
    with ThreadPoolExecutor(max_workers=16) as several:
        spied = dict(zip(alive, several.map(lambda rank: _spy(alive[rank], folder / f"rank{rank}.pyspy.txt"), alive),
                         strict=True))  # fmt: skip
    written = [_signal(pid, folder / f"rank{rank}.stacks") for rank, pid in alive.items()]
    lines = []
    for rank, pid in sorted(alive.items()):
        stack = (told.get(rank) or {}).get("stack") or ()
        where = f"is at {stack[-1][0]}:{stack[-1][1]} in {stack[-1][2]}" if stack else "says nothing of itself"
        lines.append(f"rank {rank} (pid {pid}) {where}{'; py-spy has its whole stack' if spied[rank] else ''}")
    kept = {f"rank{rank}": redacted(_environment(pid)) for rank, pid in sorted(alive.items())}
    (folder / "environment.json").write_text(json.dumps(kept, indent=1))
    until = time.monotonic() + _SIGNAL_S
    while any(path and not path.stat().st_size for path in written) and time.monotonic() < until:
        time.sleep(0.05)
    return lines


def redacted(environment: Mapping[str, str]) -> dict[str, str]:
    """A rank's environment without any value that may be a secret, by the names of the variables."""
    named = {*secret.FORWARDED, *environment.get("ROOFLAB_SECRETS", "").split()}
    return {
        name: "***" if name in named or (_SECRET_NAME.search(name) and name != "ROOFLAB_SECRETS") else value
        for name, value in sorted(environment.items())
    }


def _ask(pipe: Path) -> bool:
    try:
        end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        os.write(end, b"?")
        return True
    except OSError:
        return False
    finally:
        os.close(end)


def _signal(pid: int, stacks: Path) -> Path | None:
    """Where faulthandler writes that process's stacks now; None where it has none, and the signal would end it."""
    if not stacks.exists():
        return None
    try:
        os.kill(pid, signal.SIGUSR1)
    except OSError:  # it has ended meanwhile
        return None
    return stacks


def _environment(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (line.decode("utf-8", "replace").partition("=") for line in raw.split(b"\0") if line)
    return {name: value for name, _, value in pairs}


def _spy(pid: int, target: Path) -> bool:
    """Whether py-spy wrote that process's stacks; as root where only root may look into another process.

    Native frames are had as well where that is quick: to read torch's symbols takes seconds.
    """
    program = shutil.which("py-spy")
    if program is None:
        return False
    for before in ((), ("sudo", "-n")):
        spied = False
        for more in ((), ("--native",)):
            spy = [*before, program, "dump", *more, "--pid", str(pid)]
            try:
                done = subprocess.run(spy, capture_output=True, timeout=_SPY_S, stdin=subprocess.DEVNULL, check=False)
            except (OSError, subprocess.TimeoutExpired):
                break
            if done.returncode:
                break
            target.write_bytes(done.stdout)
            spied = True
        if spied:
            return True
    return False
