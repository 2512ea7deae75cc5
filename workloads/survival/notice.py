"""SIGTERM as a notice: the training hears of it at its next step, saves, and ends by itself.

It comes from the node's watch for a spot instance's end or the lab's (userdata/notice.sh), from a launcher that starts
the ranks anew, or from `fab stop`; perhaps on one node only. Python runs a handler between two of its own instructions,
and the main thread may wait for ever for a rank that is gone: so a thread of its own hears the signal, and ends the
process where no step follows.
"""

import os
import signal
import threading
import time
from pathlib import Path
from types import TracebackType

from labs.survival import INTERRUPTED, PEER_LOST
from workloads import heartbeat

PATIENCE_S = 20.0
"""After the signal, without a step: then the main thread waits for a rank that will not come."""


class Notice:
    """Takes SIGTERM over from `workloads.command` while it is entered, in the main thread."""

    def __init__(self, name: str, patience_s: float = PATIENCE_S) -> None:
        """`name` is the workload's, for the line that it may end with."""
        self._name, self._patience_s = name, patience_s
        self._since: float | None = None
        self._beat = time.monotonic()
        self._stepping = self._saving = False
        self._heard = threading.Event()
        self._over = threading.Event()

    @property
    def given(self) -> bool:
        """Whether the signal came."""
        return self._heard.is_set()

    @property
    def age_s(self) -> float:
        """Seconds since it came; 0 where it did not."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def beat(self) -> None:
        """A step is done, or the first one begins: the main thread waits for nobody."""
        self._beat = time.monotonic()
        self._stepping = True
        heartbeat.beat()

    def saving(self) -> None:
        """From here on a wait has no limit but the notice's own."""
        self._saving = True

    def __enter__(self) -> "Notice":
        """Listen."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._handler = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        self._wakeup = signal.set_wakeup_fd(self._write)
        self._thread = threading.Thread(target=self._listen, name="notice", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
                 ) -> None:  # fmt: skip
        """Give the signal back."""
        signal.set_wakeup_fd(self._wakeup)
        signal.signal(signal.SIGTERM, self._handler)
        self._over.set()
        os.write(self._write, b"\0")
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _listen(self) -> None:
        while not self._over.is_set():
            if os.read(self._read, 1) == bytes([signal.SIGTERM]) and not self._heard.is_set():
                self._since = time.monotonic()
                self._heard.set()
                self._watch()

    def _watch(self) -> None:
        """End the process where no step comes: before the first one at once, for there is nothing to save."""
        while not self._over.is_set():
            since = max(self._beat, self._since or 0.0)
            if not self._stepping:
                self._end("told to end before the first step of this life: started again it resumes", INTERRUPTED)
            if not self._saving and time.monotonic() - since > self._patience_s:
                self._end(f"told to end, and no step came within {self._patience_s:g} s: started again, all resume "
                          "from the newest whole checkpoint", PEER_LOST)  # fmt: skip
            self._over.wait(min(0.2, self._patience_s / 4))

    def _end(self, line: str, code: int) -> None:
        os.write(2, f"{self._name}: {line}\n".encode())
        os._exit(code)


def reason(environment: dict[str, str] | None = None) -> str:
    """Why this node ends, as its belt or its watch wrote it into the run's folder; "" where nobody did."""
    folder = (os.environ if environment is None else environment).get("ROOFLAB_RUN_DIR")
    if not folder:
        return ""
    try:
        return (Path(folder) / "notice").read_text().strip()
    except OSError:
        return ""
