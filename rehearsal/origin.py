"""Where a connection to a node comes from: another node of this rehearsal, or this machine.

All are on loopback, so that no address tells: the process at the other end does, by the node's init that it descends
from. Where that process cannot be seen, the connection is taken to come from this machine: a group that admits its own
members alone does not let it in.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from rehearsal import processes

_TABLE = Path("/proc/net/tcp")
RECORD = "processes"
"""File in a rehearsal's state folder: pid, start and name of each process that was started, by tabs."""


def node_behind(connection: socket.socket, state: Path) -> str:
    """Instance id of the node that opened `connection`, or "" where none of the rehearsal in `state` did."""
    owner = _owner(connection.getpeername()[:2], connection.getsockname()[:2])
    if owner is None:
        return ""
    inits = _inits(state)
    return next((inits[pid] for pid in (owner, *processes.ancestors(owner)) if pid in inits), "")


def _owner(here: tuple[str, int], there: tuple[str, int]) -> int | None:
    return _owner_by_proc(here, there) if processes.LINUX else _owner_by_lsof(here, there)


def _owner_by_proc(here: tuple[str, int], there: tuple[str, int]) -> int | None:
    # https://docs.kernel.org/networking/proc_net_tcp.html
    ends = [_hexadecimal(*here), _hexadecimal(*there)]
    rows = (line.split() for line in _TABLE.read_text().splitlines())
    inode = next((row[9] for row in rows if row[1:3] == ends), "0")
    if inode == "0":  # it has been closed already
        return None
    wanted = f"socket:[{inode}]"
    # newest first: whoever connects was mostly started to do so
    for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True):  # noqa: PTH208  # fast
        if wanted in _open_by(pid):
            return pid
    return None


def _hexadecimal(address: str, port: int) -> str:
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"


def _open_by(pid: int) -> Iterable[str]:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208  # three times faster than Path.iterdir, and called in a loop
    except OSError:  # gone, or another user's
        return
    for name in names:
        try:
            yield os.readlink(f"{folder}/{name}")  # noqa: PTH115
        except OSError:  # closed meanwhile
            continue


def _owner_by_lsof(here: tuple[str, int], there: tuple[str, int]) -> int | None:
    listing = subprocess.run(
        ["lsof", "-nP", f"-iTCP:{here[1]}", "-Fpn"], capture_output=True, text=True, check=False
    ).stdout.splitlines()  # fmt: skip
    pid = None
    for line in listing:
        if line.startswith("p"):
            pid = int(line[1:])
        elif line == f"n{here[0]}:{here[1]}->{there[0]}:{there[1]}":
            return pid
    return None


def _inits(state: Path) -> dict[int, str]:
    """The nodes' inits that live, by pid."""
    rows = (line.split("\t") for line in (state / RECORD).read_text().splitlines())
    return {int(pid): what for pid, started, what in rows
            if what.startswith("i-") and processes.started(int(pid)) == started}  # fmt: skip
