"""Beside a job on its node, ends it when it hangs: `python -m operate.watch RUN_FOLDER/hang/JOB SECONDS`.

Runs on the node, with the standard library alone. It looks from outside every few seconds (`operate.pulse`), agrees
with the watches of the other nodes (`operate.council`), has the ranks leave what they know (`operate.witnesses`), then
ends the job. Its lines end up in the job's log. It never ends a job because of a trouble of its own.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from operate import council, witnesses
from operate.hang import HUNG, Alone, Council, Judge, Sample, Word
from operate.pulse import Pulse, descendants, processes

_PERIODS = 24
"""Looks within the bound."""
_LONGEST_S = 5.0
_TERM_S = 8.0
"""After SIGTERM, what is left of the job is killed."""
_KILL_S = 5.0
_KEPT = 60
"""Samples that are archived, the newest."""
BESIDE = f"""\
watch() {{ # watch NAME SCOPE: from here on it is seen whether the ranks of a cluster job still do something
    watcher=
    unset ROOFLAB_WATCH
    [ "$2" = cluster ] || return 0
    export ROOFLAB_WATCH="$run/hang/$1"
    rm -rf "$ROOFLAB_WATCH" # of an earlier start, where Slurm starts a job again
    mkdir -p "$ROOFLAB_WATCH"
    [ -n "${{ROOFLAB_HANG_S:-}}" ] || return 0
    python -m operate.watch "$ROOFLAB_WATCH" "$ROOFLAB_HANG_S" > "$ROOFLAB_WATCH/watch.log" 2>&1 < /dev/null &
    watcher=$!
}}
unwatch() {{ # unwatch NAME: the job is over; $code changes if it was ended for it hung
    [ -n "${{ROOFLAB_WATCH:-}}" ] || return 0
    [ -n "$watcher" ] && {{ kill "$watcher"; wait "$watcher"; }} 2> /dev/null
    [ -s "$ROOFLAB_WATCH/watch.log" ] && cat "$ROOFLAB_WATCH/watch.log" >> "$run/logs/$1.log"
    [ -e "$ROOFLAB_WATCH/hung" ] && code={HUNG}
    rm -f "$ROOFLAB_WATCH"/*.ask "$ROOFLAB_WATCH"/*.beat "$ROOFLAB_WATCH"/*.partial
    [ "$code" -ne 0 ] || rm -rf "$ROOFLAB_WATCH"
}}"""
"""What run.sh calls around each job, as bash; `$run` is the run's folder."""


def peers(text: str) -> dict[str, str]:
    """Address by node, head first, from ROOFLAB_PEERS."""
    pairs = (word.partition("=") for word in text.split())
    return {node: address for node, _, address in pairs if address}


class Watch:
    """Of one job on one node."""

    def __init__(self, folder: Path, bound_s: float, environment: Mapping[str, str]) -> None:
        """`folder` is hang/JOB of the run's folder; `environment` is the run's."""
        self.folder, self.bound_s = folder, bound_s
        self.node = environment.get("ROOFLAB_NODE", "node0")
        self._peers = peers(environment.get("ROOFLAB_PEERS", "")) or {self.node: ""}
        self._run = environment.get("ROOFLAB_RUN", "")
        shared = all(address.startswith("127.") or not address for address in self._peers.values())
        log = folder.parent.parent / "logs" / f"{folder.name}.log"
        self.pulse = Pulse(folder, log, wires=not shared)
        self._judge = Judge()
        self._samples: list[tuple[Sample, float]] = []
        self._dumped = False

    def run(self) -> None:
        """Until the job is ended, or this process is."""
        self.pulse.rest()
        with self._counsel() as hear:
            while True:
                time.sleep(min(_LONGEST_S, self.bound_s / _PERIODS) if not self._dumped else 0.5)
                quiet_s = self._look()
                order = hear(Word(node=self.node, quiet_s=quiet_s, dumped=self._dumped))
                if order == "dump" and not self._dumped:
                    self._dump(quiet_s)
                elif order == "end":
                    if not self._dumped:
                        self._dump(quiet_s)
                    self._end()
                    return

    def _look(self) -> float:
        if not self._samples and not self.pulse.alive():
            return 0.0  # before the first rank is there, the launcher's own limits hold
        # GPUs and ranks are only asked when little else has shown life for a while: asking disturbs what is measured
        suspicious = self._judge.doubt_s >= self.bound_s / 4
        stacks: dict[int, str] = {}
        if suspicious and self._samples[-1][0].gpus:
            told = witnesses.question(self.folder, self.pulse.alive(), limit_s=1.0)
            stacks = {rank: witnesses.place(document) for rank, document in told.items()}
        sample = self.pulse.take(power=suspicious, stacks=stacks)
        quiet_s = self._judge.see(sample)
        self._samples = [*self._samples[1 - _KEPT :], (sample, quiet_s)]
        return quiet_s

    @contextlib.contextmanager
    def _counsel(self) -> Iterator[Callable[[Word], str]]:
        head, address = next(iter(self._peers.items()))
        number = council.port(self._run, self.folder.name)
        alone = Alone(bound_s=self.bound_s)
        if head != self.node:
            yield lambda word: council.ask(address, number, word) or alone.hear(word)
            return
        chair = council.Chair(Council(nodes=len(self._peers), bound_s=self.bound_s))
        with contextlib.ExitStack() as stack:
            hear = chair.hear
            if len(self._peers) > 1:
                try:
                    stack.enter_context(chair.open(address, number))
                except OSError as error:
                    tell(f"every node judges alone, and later: nobody can listen on port {number} here ({error})")
                    hear = alone.hear
            yield hear

    def _dump(self, quiet_s: float) -> None:
        self._dumped = True
        alive = self.pulse.alive()
        registered = self.pulse.ranks()
        last = ", ".join(self._judge.last_signs)
        tell(f"hung: nothing on {self.node} showed life for {quiet_s:.0f} s (last: {last})")
        try:
            for line in witnesses.dump(self.folder, {rank: process.pid for rank, process in alive.items()}):
                tell(line)
            self._archive(quiet_s, alive=sorted(alive), gone=sorted(set(registered) - set(alive)))
        except OSError as error:  # a full disk is no reason to go on paying
            tell(f"not all was archived: {error}")
        # They stand still from here on: else a rank says that it lost those which another node's watch has ended.
        _send([process.pid for process in alive.values()], signal.SIGSTOP)

    def _archive(self, quiet_s: float, *, alive: list[int], gone: list[int]) -> None:
        document: dict[str, Any] = {
            "node": self.node,
            "bound_s": self.bound_s,
            "quiet_s": round(quiet_s, 1),
            "last_signs": self._judge.last_signs,
            "alive": alive,
            "gone": gone,
            "samples": [{**asdict(sample), "quiet_s": quiet, "stacks": None} for sample, quiet in self._samples],
        }
        (self.folder / "watch.json").write_text(json.dumps(document, indent=1))

    def _end(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # run.sh's sign that the job is over comes before all is done
        with contextlib.suppress(OSError):
            (self.folder / "hung").write_text("")
        tell("ended by fab: the job hung")
        everything = processes(Path("/proc"))
        ranks = {process.pid for process in self.pulse.alive().values()}
        theirs = ranks | {process.pid for process in descendants(everything, ranks)}
        # Launchers stand still meanwhile: else they start the ranks again, or fill the log with their own end.
        job = marked(self.folder)
        launchers = [pid for pid in job if pid not in theirs and pid in everything and everything[pid].parent in job]
        _send(launchers, signal.SIGSTOP)  # not `timeout`, whose parent is none of the job: run.sh listens to it
        for number, patience_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
            _send(theirs, number)
            _send(theirs, signal.SIGCONT)  # who stands still dies of nothing less than SIGKILL
            until = time.monotonic() + patience_s
            while theirs.intersection(processes(Path("/proc"))) and time.monotonic() < until:
                time.sleep(0.1)
        _send(launchers, signal.SIGKILL)
        _send(marked(self.folder), signal.SIGKILL)


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            os.kill(pid, number)


def marked(folder: Path, proc: Path = Path("/proc")) -> list[int]:
    """Processes of the job: all that have its folder in their environment, but this one."""
    mark, found = f"ROOFLAB_WATCH={folder}".encode(), []
    for path in proc.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # ended meanwhile, or not ours
            if int(path.parent.name) != os.getpid() and mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def tell(line: str) -> None:
    """One line for the job's log."""
    print(f"[watch] {line}", flush=True)


def main(folder: Path, bound_s: float) -> None:
    """Watch the job of `folder` until it ends."""
    if not Path("/proc/self/stat").exists():
        tell("not watched for hangs: this system has no /proc")
        return
    Watch(folder, bound_s, os.environ).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
