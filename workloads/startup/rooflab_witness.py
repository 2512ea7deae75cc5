"""What a rank can tell when it is stuck or fails: its stacks, torch's flight recorder, its first error.

Standard library alone, and no import of torch: it only asks a torch that the rank has imported itself. A thread waits
for a byte in a named pipe, which costs nothing until it comes; SIGUSR1 makes faulthandler write the stacks even where
the rank never lets go of the interpreter's lock. Flight recorder: https://docs.pytorch.org/tutorials/unstable/flight_recorder_tutorial.html
"""

import contextlib
import faulthandler
import json
import linecache
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

_CALLS = 200
"""Newest entries of the flight recorder that are kept."""
_FRAMES = 60
_NEIGHBOURS_S = 1.0
"""How long a rank that fails waits for the others on its node to write down where they are."""


def attend(environment: Mapping[str, str] = os.environ) -> "Witness | None":
    """Stand by in this process, if it is the rank itself and no child of it; None else."""
    if os.environ.get("ROOFLAB_WITNESS", str(os.getpid())) != str(os.getpid()):
        return None
    os.environ["ROOFLAB_WITNESS"] = str(os.getpid())
    witness = Witness(environment)
    witness.start()
    return witness


class Witness:
    """One rank's."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` says which rank this is and where its word is kept."""
        self.folder = Path(environment["ROOFLAB_WATCH"])
        self.rank = int(environment["RANK"])
        self._facts = {
            "rank": self.rank,
            "world": int(environment.get("WORLD_SIZE", "1")),
            "local_rank": int(environment.get("LOCAL_RANK", "0")),
            "node": environment.get("ROOFLAB_NODE", ""),
            "attempt": int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
            "pid": os.getpid(),
        }
        self._error: dict[str, Any] | None = None
        self._writing = threading.Lock()

    def start(self) -> None:
        """Open the ways in which this rank can be asked."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pipe = self.folder / f"rank{self.rank}.ask"
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
        asked = os.open(pipe, os.O_RDWR)  # with a writer of its own, it never reads an end
        self._stacks = (self.folder / f"rank{self.rank}.stacks").open("w")
        faulthandler.register(signal.SIGUSR1, file=self._stacks, all_threads=True)
        faulthandler.enable(file=self._stacks, all_threads=True)  # a crash in C++, as gloo's, leaves the stack too
        (self.folder / f"rank{self.rank}.json").unlink(missing_ok=True)
        self._keep(f"rank{self.rank}.pid", self._facts)
        threading.Thread(target=self._answer, args=(asked,), name="witness", daemon=True).start()
        earlier = sys.excepthook

        def failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            with contextlib.suppress(Exception):  # the user's error is what has to be seen
                self.fail(kind, error, trace)
            earlier(kind, error, trace)

        sys.excepthook = failed

    def fail(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Write down the error that ends this rank, and have its neighbours write down where it leaves them."""
        text = (str(error).strip().splitlines() or [""])[0]
        frames = traceback.extract_tb(trace)
        self._error = {"kind": kind.__name__, "text": text, "time": time.time(), "stack": _told(frames)}
        self.write()
        asked = [pipe for pipe in self.folder.glob("rank*.ask") if pipe.stem != f"rank{self.rank}" and ask(pipe)]
        until = time.monotonic() + _NEIGHBOURS_S
        while time.monotonic() < until and not all(pipe.with_suffix(".json").exists() for pipe in asked):
            time.sleep(0.02)

    def write(self) -> None:
        """Write down this moment; first without the flight recorder, for to read that might block as well."""
        with self._writing:
            frames = sys._current_frames()
            threads = {thread.ident: thread for thread in threading.enumerate()}
            main = threading.main_thread().ident
            told = {
                **self._facts,
                "time": time.time(),
                "error": self._error,
                "stack": _told(traceback.extract_stack(frames.get(main or 0))),
                "threads": {
                    threads[ident].name: _told(traceback.extract_stack(frame))
                    for ident, frame in frames.items()
                    if ident in threads and ident not in (main, threading.get_ident())
                },
                "recorder": None,
            }
            self._keep(f"rank{self.rank}.json", told)
            if recorder := _recorder():
                self._keep(f"rank{self.rank}.json", {**told, "recorder": recorder})

    def _answer(self, asked: int) -> None:
        while os.read(asked, 1):
            with contextlib.suppress(Exception):  # who asked sees by its age that nothing came
                self.write()

    def _keep(self, name: str, document: Any) -> None:
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        partial.write_text(json.dumps(document))
        partial.replace(self.folder / name)


def ask(pipe: Path) -> bool:
    """Ask the rank at the other end to write; False where there is none any more, or none on this machine."""
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


def _told(frames: traceback.StackSummary) -> list[list[Any]]:
    """[file, line, function, text] a frame, outermost first."""
    return [[frame.filename, frame.lineno, frame.name, _line(frame)] for frame in frames[-_FRAMES:]]


def _line(frame: traceback.FrameSummary) -> str:
    return linecache.getline(frame.filename, frame.lineno or 0).strip()[:200]


def _recorder() -> dict[str, Any] | None:
    """The newest calls of torch's flight recorder; None where the rank has no torch, or one without it."""
    torch = sys.modules.get("torch")
    bindings = getattr(getattr(torch, "_C", None), "_distributed_c10d", None)
    for name in ("_dump_fr_trace_json", "_dump_nccl_trace_json"):
        if dump := getattr(bindings, name, None):
            document = json.loads(dump())
            document["entries"] = document.get("entries", [])[-_CALLS:]
            return dict(document)
    return None
