"""The call log: one line of JSON for every API request, in logs/calls.jsonl of a rehearsal."""

import json
import threading
from pathlib import Path

from rehearsal import clock
from rehearsal.requests import Request

FLUSH_S = 0.5
"""A line is on disk after at most so long."""


class Calls:
    """Every request that was made of the API, by whom."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def add(self, request: Request, by: str) -> None:
        """Note a request of "operator", "guard", "node" or "cloudformation"."""
        line = json.dumps({
            "time": clock.now().isoformat(timespec="milliseconds"), "service": request.service,
            "action": request.action, "agent": request.agent, "by": by,
        })  # fmt: skip
        with self._lock:
            self._file.write(line + "\n")
            if self._timer is None:  # a flush for each line would cost more than the line
                self._timer = threading.Timer(FLUSH_S, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Put every line on disk."""
        with self._lock:
            self._timer = None
            self._file.flush()
