"""Processes of this user: who descends from whom, who carries a mark in its environment, and how they end."""

import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LINUX = platform.system() == "Linux"
MARK = "ROOFLAB_REHEARSAL_OWNS"
"""Environment variable that every process of a rehearsal carries; its value is the rehearsal's state folder."""
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)


@dataclass(frozen=True, kw_only=True)
class Process:
    """One live process of this user; zombies are not listed."""

    pid: int
    parent: int
    started: str
    """When it started, in the system's own form: together with the pid it names one process for good."""


def processes() -> dict[int, Process]:
    """Every live process of this user, by pid."""
    return _from_proc() if LINUX else _from_ps()


def _from_proc() -> dict[int, Process]:
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # three times faster than Path.iterdir, and called in a loop
        if name.isdigit() and (process := _read(int(name))):
            found[process.pid] = process
    return found


def _read(pid: int) -> Process | None:
    # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html; the command, in brackets, may hold anything.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = stat[stat.rindex(")") + 2 :].split()
        # The folder's owner is root where a process made itself undumpable, as sshd does: ask `status` then.
        if os.stat(f"/proc/{pid}").st_uid != os.getuid() and not _mine(pid):  # noqa: PTH116  # called in a loop
            return None
    except (OSError, ValueError):
        return None
    if fields[0] in "ZX":
        return None
    return Process(pid=pid, parent=int(fields[1]), started=fields[19])


def _mine(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1]) == os.getuid()
    return False


def _from_ps() -> dict[int, Process]:
    listing = subprocess.run(
        ["ps", "-U", str(os.getuid()), "-o", "pid=,ppid=,stat=,lstart="], capture_output=True, text=True, check=True
    )
    found = {}
    for line in listing.stdout.splitlines():
        pid, parent, state, *started = line.split()
        if not state.startswith("Z"):
            found[int(pid)] = Process(pid=int(pid), parent=int(parent), started=" ".join(started))
    return found


def started(pid: int) -> str:
    """When the process started, or "" where there is no such live process of this user."""
    process = _read(pid) if LINUX else processes().get(pid)
    return process.started if process else ""


def descendants(roots: Iterable[int]) -> set[int]:
    """Live descendants of `roots`, the roots themselves not included."""
    children: dict[int, list[int]] = {}
    for process in processes().values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    queue = list(roots)
    while queue:
        for child in children.get(queue.pop(), []):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def ancestors(pid: int) -> set[int]:
    """Parents of `pid` up to the first, or to one that is another user's; `pid` itself not included."""
    find = _read if LINUX else processes().get
    found: set[int] = set()
    while (process := find(pid)) and process.parent not in found:
        pid = process.parent
        found.add(pid)
    return found


def holders(port: int) -> set[int]:
    """Live processes of this user that hold a TCP socket bound to this port of 127.0.0.1, this one not included."""
    if LINUX:
        # https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html: local address, …, inode in column 10
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == f"0100007F:{port:04X}"} - {"socket:[0]"}
        found = {pid for pid in processes() if sockets & _files(pid)}
    else:
        listing = subprocess.run(
            ["lsof", "-nPt", f"-iTCP@127.0.0.1:{port}"], capture_output=True, text=True, check=False
        )
        found = {int(line) for line in listing.stdout.split()}
    return found - {os.getpid()}


def _files(pid: int) -> set[str]:
    """What the descriptors of a process lead to."""
    found = set()
    with suppress(OSError):  # the process has gone
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # the descriptor has
                found.add(os.readlink(entry.path))  # noqa: PTH115  # called in a loop
    return found


def marked(state: Path) -> set[int]:
    """Live processes of this user whose environment holds `MARK` = the folder `state`."""
    return {pid for pid, value in _marks() if Path(value).resolve() == state.resolve()}


def _marks() -> list[tuple[int, str]]:
    prefix = f"{MARK}="
    if not LINUX:
        # -E appends the environment to the command line: https://ss64.com/mac/ps.html
        listing = subprocess.run(
            ["ps", "-U", str(os.getuid()), "-Eww", "-o", "pid=,command="], capture_output=True, text=True, check=True
        )
        return [
            (int(words[0]), word.removeprefix(prefix))
            for words in map(str.split, listing.stdout.splitlines())
            for word in words[1:]
            if word.startswith(prefix)
        ]
    found = []
    for pid in processes():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # gone, or undumpable: such a one is found as a descendant
            continue
        for entry in environment.split(b"\0"):
            if entry.startswith(prefix.encode()):
                found.append((pid, os.fsdecode(entry).removeprefix(prefix)))
    return found


def end(find: Callable[[], set[int]], within_s: float = 60.0) -> set[int]:
    """Kill what `find` names, again and again until it names nothing, and return all that was killed.

    A process may start another between the look and the kill; the next look sees that one.

    Raises:
        TimeoutError: something lives on after `within_s` seconds.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + within_s
    while victims := find():
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(victims)} outlive SIGKILL: see `ps -p PID`, a disk may hang")
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            ended.add(pid)
        time.sleep(0.002)
    return ended


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (Linux), so that none can slip away.

    https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html
    """
    if LINUX:
        import ctypes  # late: only Linux has this call

        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
