"""All lives of a soak: in parallel, each in its worker's own rehearsal, kept as they end."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rehearsal import control
from tests.soak import home, templates
from tests.soak.life import Place, Verdict
from tests.soak.plan import plan

_LIVES_A_PLACE = 25
"""moto keeps every ended thing for ever: a rehearsal is started anew after so many lives."""
_places: list[Place] = []
_lived: list[int] = []


def prepare(folder: Path) -> None:
    """Synthesise the labs, once for all lives."""
    shutil.rmtree(folder / "clone", ignore_errors=True)
    key = home.make(folder / "clone")
    subprocess.run([sys.executable, "-m", "tests.soak.templates", str(folder / "templates"), key], check=True)


def live(folder: Path, seed: int, number: int, *, keep: bool = False) -> Verdict:
    """One life in this process's own rehearsal."""
    if not _places:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the soak itself hears Ctrl-C, and ends all rehearsals
        root = folder / f"worker{os.getpid()}"
        _places.append(Place(root, seed, templates.read(folder / "templates")))
    try:
        verdict = _places[0].live(plan(seed, number), folder / "clone")
    except Exception as error:  # a life that the soak itself cannot judge has not survived; the others go on
        traceback.print_exc()
        verdict = Verdict(
            number=number, plan=str(plan(seed, number)), left=(), lost=(), causes=(), faults=(), killed=False,
            records=0, seconds=0.0, unnamed=(f"the soak itself: {type(error).__name__}: {error}",),
        )  # fmt: skip
    _lived.append(number)
    if verdict.survived and not keep:
        shutil.rmtree(_places[0].lives / str(number))
    if not verdict.survived or len(_lived) >= _LIVES_A_PLACE:
        _places.pop().close()
        _lived.clear()
    return verdict


class Soak:
    """All lives of one seed, and what is known of those that are over."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise SystemExit(f"another soak is at work in {folder}: wait for it, or choose another --seed") from None
        self.file = folder / "lives.jsonl"
        self.over: dict[int, dict[str, Any]] = {}
        if self.file.exists():
            rows = [json.loads(line) for line in self.file.read_text().splitlines() if line.endswith("}")]
            self.over = {row["number"]: row for row in rows}
        self.causes: Counter[str] = Counter()
        self.began = time.monotonic()
        self.before = len(self.over)

    def close(self) -> None:
        """Let another soak have the folder; the end of the process does so too."""
        self._lock.close()

    def take(self, verdict: Verdict, lives: int) -> None:
        """Keep a verdict, and tell."""
        row = {**verdict.as_json(), "survived": verdict.survived}
        self.over[verdict.number] = row
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.causes.update(verdict.causes)
        if not verdict.survived:
            self.show(row)
        done = len(self.over) - self.before
        if done % 10 == 0 or len(self.over) == lives:
            rate = done / (time.monotonic() - self.began)
            told = ", ".join(f"{cause} ×{count}" for cause, count in self.causes.most_common(4))
            print(f"{len(self.over)} of {lives} lives, {60 * rate:.1f} a minute; {told or 'no failures'}", flush=True)

    def show(self, row: dict[str, Any]) -> None:
        """A life that failed, with the command that repeats it."""
        print(f"life {row['number']} of seed {self.seed}: {row['plan']}")
        for key in ("left", "lost", "unnamed", "faults", "causes"):
            for line in row[key]:
                print(f"    {key}: {line}")
        print(f"    again: python -m tests.soak --seed {self.seed} --life {row['number']}", flush=True)

    def run(self, lives: int, workers: int) -> int:
        """Live what has not been lived; returns the exit code."""
        todo = iter([number for number in range(1, lives + 1) if number not in self.over])
        pending: set[Future[Verdict]] = set()
        try:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:

                def feed(count: int) -> None:
                    for number in islice(todo, count):
                        pending.add(pool.submit(live, self.folder, self.seed, number))

                feed(workers)
                while pending:
                    done, _ = wait(pending, return_when=FIRST_COMPLETED)
                    pending.difference_update(done)
                    for future in done:
                        self.take(future.result(), lives)
                    feed(len(done))
        finally:
            end(self.folder)
        return self.conclude(range(1, lives + 1))

    def conclude(self, numbers: Iterable[int]) -> int:
        """The last line; returns the exit code."""
        rows = [self.over[number] for number in numbers if number in self.over]
        killed = sum(row["killed"] for row in rows)
        told = Counter(cause for row in rows for cause in row["causes"])
        struck = Counter(fault.split()[0].rstrip(":") for row in rows for fault in row["faults"])
        print(f"client killed in {killed} of {len(rows)}; {sum(row['records'] for row in rows)} records finished")
        print("faults that struck: " + ", ".join(f"{name} {count}" for name, count in sorted(struck.items())))
        for cause, count in told.most_common():
            print(f"  {count} × {cause}")
        for row in rows:
            if not row["survived"]:
                self.show(row)
        survived = sum(row["survived"] for row in rows)
        left, lost = (sum(len(row[key]) for row in rows) for key in ("left", "lost"))
        print(f"lives {len(rows)}, survived {survived}, leftovers {left}, lost {lost}", flush=True)
        return 0 if survived == len(rows) else 1


def end(folder: Path) -> None:
    """End every rehearsal of the soak."""
    for root in folder.glob("worker*/rehearsal"):
        control.stop(everything=True, root=root)
