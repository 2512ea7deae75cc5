"""The output of one run as it grows, from one node: `python3 -m operate.stream RUN_FOLDER '{"gemm": 1234}'`.

Runs on the node, with the standard library alone. Writes one JSON document a line: {"log", "at", "lines"} for new
output up to byte `at`, {"codes"} when a workload has ended, {"beat"} every few seconds so that a dead connection is
told from a quiet workload, and at the end {"exit"}, or {"lost"} where there is no such run. The byte offsets let a
reader come back after it was cut off.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEAT_S = 5.0
_LOOK_S = 0.15
_MOST_BYTES = 1 << 18
_STOPPED = 143
_LATE_S = 10.0
"""How long after its Slurm job a run may still leave its exit code."""


class Reader:
    """Reads what is new in a run's folder."""

    def __init__(self, folder: Path, offsets: dict[str, int]) -> None:
        self.folder = folder
        self.offsets = offsets
        """Bytes read of each log so far, whole lines only."""
        self._codes: dict[str, list[int]] | None = None

    def new(self, *, over: bool) -> list[dict[str, Any]]:
        """What there is to tell since the last call. With `over`, a last line without an end counts too."""
        told = []
        for log in sorted((self.folder / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime):
            while event := self._lines(log, over=over):
                told.append(event)
        codes = read_codes(self.folder)
        if codes != self._codes:
            self._codes = codes
            told.append({"codes": codes})
        return told

    def _lines(self, log: Path, *, over: bool) -> dict[str, Any] | None:
        begin = self.offsets.get(log.stem, 0)
        with log.open("rb") as file:
            file.seek(begin)
            data = file.read(_MOST_BYTES)
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not over and end == 0 and len(data) < _MOST_BYTES:
            return None
        data = data[: end or len(data)]
        if not data:
            return None
        self.offsets[log.stem] = begin + len(data)
        text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
        return {"log": log.stem, "at": self.offsets[log.stem], "lines": [line for line in text.split("\n") if line]}


def read_codes(folder: Path) -> dict[str, list[int]]:
    """By workload that has ended: [exit code, seconds]."""
    try:
        rows = [line.split() for line in (folder / "codes").read_text().splitlines()]
    except FileNotFoundError:
        return {}
    return {row[0]: [int(row[1]), int(row[2])] for row in rows if len(row) == 3}


def ended(folder: Path, *, queued: Callable[[], bool] | None = None) -> int | None:
    """The run's exit code; None while it runs; -1 where it died without leaving one, as at a reboot.

    One that `fab stop` is about to end has that exit code as soon as its script is gone. `queued`: whether the Slurm
    job that the run is has not been over for long; what runs on this very node then says nothing.
    """
    try:
        return int((folder / "exit").read_text())
    except (FileNotFoundError, ValueError):
        pass
    if queued is not None:
        return None if queued() else -1
    try:
        pid = int((folder / "pid").read_text())
    except (FileNotFoundError, ValueError):
        return None  # about to start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        if (folder / "exit").exists():  # it has ended between the two looks
            return int((folder / "exit").read_text())
        return _STOPPED if (folder / "stopping").exists() else -1
    except PermissionError:
        return -1  # the number belongs to someone else by now
    return None


def _queue(job: str) -> Callable[[], bool]:
    from operate.ticket import Ticket  # late: most runs are no Slurm job

    ticket, over = Ticket(job), 0.0

    def queued() -> bool:
        nonlocal over
        if ticket.over():
            over = over or time.monotonic()
        return not over or time.monotonic() - over < _LATE_S

    return queued


def stream(folder: Path, offsets: dict[str, int]) -> None:
    """Print events until the run is over or the reader is gone (then the next line meets a closed pipe)."""
    if not folder.is_dir():
        print(json.dumps({"lost": f"there is no run {folder.name} on it"}), flush=True)
        return
    reader = Reader(folder, offsets)
    beat = time.monotonic()
    queued = None
    while True:
        if queued is None and (folder / "job").exists():
            queued = _queue((folder / "job").read_text().strip())
        code = ended(folder, queued=queued)
        for event in reader.new(over=code is not None):
            print(json.dumps(event), flush=True)
            beat = time.monotonic()
        if code is not None:
            print(json.dumps({"exit": code}), flush=True)
            return
        if time.monotonic() - beat >= BEAT_S:
            print(json.dumps({"beat": 1}), flush=True)
            beat = time.monotonic()
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    try:
        stream(Path(sys.argv[1]), json.loads(sys.argv[2]))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
