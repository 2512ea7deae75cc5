"""What the ranks of a job on this node have done so far, as Linux and the driver tell: one `Sample` a look.

Runs on the node, with the standard library alone, and asks nothing of the ranks themselves.
"""

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operate.hang import Gpu, Sample

_TICKS = os.sysconf("SC_CLK_TCK")
_SMI = ("nvidia-smi", "--query-gpu=power.draw,power.limit", "--format=csv,noheader,nounits")
_SMI_S = 10
_RANK = re.compile(r"rank(\d+)\.pid")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One line of /proc."""

    pid: int
    parent: int
    cpu_s: float
    ready: bool
    """Whether it runs or waits for a core."""
    started: int
    """In ticks since the machine's boot: a number that is given again belongs to another process."""


class Pulse:
    """Takes samples of one job."""

    def __init__(self, folder: Path, log: Path, *, wires: bool = True, proc: Path = Path("/proc")) -> None:
        """`folder` is where the ranks register; `wires`: whether the network cards are the job's alone."""
        self.folder, self._log, self._wires, self._proc = folder, log, wires, proc
        self._rest_w: list[float] = []
        self._started: dict[int, int] = {}

    def ranks(self) -> dict[int, dict[str, Any]]:
        """By rank: what it registered with; also those that are gone."""
        found = {}
        for path in self.folder.glob("rank*.pid"):
            match = _RANK.fullmatch(path.name)
            try:
                told = json.loads(path.read_text())
            except (OSError, ValueError):
                continue  # a restart writes it anew
            if match and isinstance(told, dict):
                found[int(match[1])] = told
        return found

    def alive(self) -> dict[int, Process]:
        """By rank: its process, where it lives."""
        return self._alive(processes(self._proc))

    def take(self, *, power: bool = False, stacks: Mapping[int, str] | None = None) -> Sample:
        """How things stand now; with `power`, the GPUs are asked too."""
        everything = processes(self._proc)
        alive = self._alive(everything)
        helpers = descendants(everything, {process.pid for process in alive.values()})
        pids = [process.pid for process in alive.values()] + [process.pid for process in helpers]
        return Sample(
            time_s=time.monotonic(),
            beats=self._beats(),
            cpu_s={rank: process.cpu_s for rank, process in alive.items()},
            ready=tuple(rank for rank, process in alive.items() if process.ready),
            helpers_cpu_s=sum(process.cpu_s for process in helpers),
            io_bytes=sum(_io_bytes(self._proc / str(pid) / "io") for pid in pids),
            wire_bytes=wire_bytes(self._proc) if self._wires else 0,
            log_bytes=self._log.stat().st_size if self._log.exists() else 0,
            gpus=self._gpus() if power else (),
            stacks=stacks or {},
        )

    def rest(self) -> None:
        """Learn what the GPUs draw at rest, before the ranks are there."""
        self._rest_w = [power for power, _ in gpu_power()]

    def _alive(self, everything: Mapping[int, Process]) -> dict[int, Process]:
        alive = {}
        for rank, told in self.ranks().items():
            process = everything.get(told["pid"])
            if process and self._started.setdefault(process.pid, process.started) == process.started:
                alive[rank] = process
        return alive

    def _beats(self) -> dict[int, int]:
        beats = {}
        for path in self.folder.glob("rank*.beat"):
            data = path.read_bytes()
            if len(data) == 8:
                beats[int(path.stem.removeprefix("rank"))] = struct.unpack("<Q", data)[0]
        return beats

    def _gpus(self) -> tuple[Gpu, ...]:
        now = gpu_power()
        if len(self._rest_w) != len(now):
            self._rest_w = [power for power, _ in now]
        self._rest_w = [min(rest, power) for rest, (power, _) in zip(self._rest_w, now, strict=True)]
        return tuple(
            Gpu(power_w=power, rest_w=rest, limit_w=limit)
            for rest, (power, limit) in zip(self._rest_w, now, strict=True)
        )


def processes(proc: Path) -> dict[int, Process]:
    """By number: every process that lives, without those that only wait to be buried."""
    found = {}
    for path in proc.glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue  # ended meanwhile
        fields = text.rpartition(")")[2].split()  # a program's name may hold blanks and brackets
        if fields[0] not in "ZX":
            pid = int(path.parent.name)
            cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
            found[pid] = Process(
                pid=pid, parent=int(fields[1]), cpu_s=cpu_s, ready=fields[0] == "R", started=int(fields[19])
            )
    return found


def descendants(everything: Mapping[int, Process], roots: set[int]) -> list[Process]:
    """All that `roots` started, they and what they started, without `roots`."""
    found: dict[int, Process] = {}
    edge = set(roots)
    while edge:
        edge = {pid for pid, process in everything.items() if process.parent in edge and pid not in found} - roots
        found |= {pid: everything[pid] for pid in edge}
    return list(found.values())


def wire_bytes(proc: Path, infiniband: Path = Path("/sys/class/infiniband")) -> int:
    """Bytes of all network cards and EFA devices since boot, both ways, without the loopback."""
    total = 0
    table = proc / "net" / "dev"
    for line in table.read_text().splitlines()[2:] if table.exists() else ():
        name, _, counters = line.partition(":")
        fields = counters.split()
        if name.strip() != "lo":
            total += int(fields[0]) + int(fields[8])
    for name in ("tx_bytes", "rx_bytes", "rdma_read_bytes", "rdma_write_bytes"):
        for counter in infiniband.glob(f"*/ports/*/hw_counters/{name}"):
            total += int(counter.read_text())
    return total


def gpu_power(command: Sequence[str] = _SMI) -> list[tuple[float, float]]:
    """(watts now, limit) of each GPU; empty where there is none, or one of them does not tell."""
    if not shutil.which(command[0]):
        return []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        text, _ = process.communicate(timeout=_SMI_S)
    except subprocess.TimeoutExpired:  # a GPU that is off the bus may hold it for ever: it is not waited for
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        if process.stdout is not None:
            process.stdout.close()
        return []
    cells = [line.split(",") for line in text.splitlines()]
    try:
        return [(float(power), float(limit)) for power, limit in cells]
    except ValueError:
        return []


def _io_bytes(path: Path) -> int:
    try:
        lines = dict(line.split(": ") for line in path.read_text().splitlines())
        return int(lines["rchar"]) + int(lines["wchar"])
    except (OSError, KeyError, ValueError):
        return 0
