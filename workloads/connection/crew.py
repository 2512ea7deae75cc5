"""The ranks of this node, each in a process that is ended and made anew where it gives no answer in time.

This process never touches a device, and does not import torch: a driver that hangs keeps whoever asks it.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from labs.connections import Pair, Rank

START_S = 60.0
"""Longest wait for a rank's process: it imports torch, on a machine that may have a hundred others to do so."""
CHECK_S, CUDA_CHECK_S = 8.0, 15.0
"""Longest computation: a GPU's first call makes its context."""
MEET_S, CUDA_MEET_S = 5.0, 10.0
"""Longest exchange of a pair: NCCL looks at all links first."""
TURN_S = 12.0
"""Longest wait for a rank that is busy with another."""
_VAIN_S = 0.5
"""How long a rank whose partner has failed is still waited for."""
TRIES = 2
"""A rank that failed with so many others, and with none succeeded, is asked no more."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["workloads.connection.rank"])

Answer = dict[str, Any]
Serve = Callable[[Connection, int, bool, Mapping[str, str]], None]
Other = Callable[[dict[str, Any], float, float, Callable[[], None]], Answer]
"""Asks a pair's second rank to meet the first: what to tell it, the longest wait for its turn and for its end in
seconds, and what to call when it begins."""


def serve(pipe: Connection, local: int, gpu: bool, environment: Mapping[str, str]) -> None:
    """What a rank's process does; torch is imported there and not here."""
    from workloads.connection import rank

    rank.serve(pipe, local, gpu, environment)


def first_line(error: BaseException) -> str:
    """An error in one line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'without words'}"[:300]


def patience() -> float:
    """By how much to lengthen what ranks are given: on a machine that many share, none of them is to blame."""
    return max(1.0, min(4.0, os.getloadavg()[0] / (os.cpu_count() or 1) / 4))


class Member:
    """One rank's process."""

    def __init__(self, local: int, gpu: bool, environment: Mapping[str, str], work: Serve) -> None:
        self.local = local
        self.lock = threading.Lock()
        self.meet_s = (CUDA_MEET_S if gpu else MEET_S) * patience()
        self._given = (local, gpu, environment)
        self._check_s = (CUDA_CHECK_S if gpu else CHECK_S) * patience()
        self._work = work
        self._pipe: Connection | None = None
        self._process: BaseProcess | None = None
        self._over = False
        self._failures = 0
        self._successes = 0

    @property
    def spent(self) -> bool:
        """Whether it has failed often enough to be asked no more."""
        return self._failures >= TRIES and not self._successes

    def check(self) -> tuple[Rank, dict[str, str]]:
        """What its device computes alone, and the versions it tells."""
        with self.lock:
            answer = self.ask({"do": "check"}, self._check_s)
        device = str(answer.get("device") or ("GPU" if self._given[1] else "CPU"))
        rank = Rank(local=self.local, device=device, outcome=answer["outcome"], said=answer["said"])
        return rank, answer.get("versions", {})

    def ask(self, message: dict[str, Any], limit_s: float, vain: Callable[[], bool] = lambda: False) -> Answer:
        """Its answer; a process that gives none in time, or ends, or fails is replaced at the next question.

        `vain`: whether it need not be waited for much longer.
        """
        if self._over:
            return {"outcome": "absent", "said": "the doctor ends"}
        answer = self._start() if self._pipe is None else None
        pipe = self._pipe
        if answer is None and pipe is not None:
            try:
                pipe.send(message)
                answer = self._await(pipe, limit_s, f"{message['do']} did not end within {limit_s:.0f} s", vain)
            except OSError as error:
                answer = {"outcome": "raised", "said": first_line(error)}
        if answer is None:
            return {"outcome": "absent", "said": "the doctor ends"}
        if answer["outcome"] != "ok":
            self.end()
        return answer

    def count(self, outcome: str) -> None:
        """Remember how an exchange went."""
        if outcome == "ok":
            self._successes += 1
        elif outcome != "absent":
            self._failures += 1

    def close(self) -> None:
        """End its process for good."""
        self._over = True
        self.end()

    def end(self) -> None:
        """End its process, by force; one that hangs in the kernel is left to it."""
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.kill()
            process.join(1.0)

    def _start(self) -> Answer | None:
        """Make its process; None when it is ready, else why it is not."""
        mine, its = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=self._work, args=(its, *self._given), daemon=True)
        try:
            process.start()
        except (OSError, EOFError) as error:  # no memory, no more processes
            return {"outcome": "raised", "said": first_line(error)}
        self._pipe, self._process = mine, process
        its.close()
        answer = self._await(mine, START_S, f"its process was not ready within {START_S:.0f} s")
        return None if answer.get("ready") else answer

    def _await(self, pipe: Connection, limit_s: float, otherwise: str, vain: Callable[[], bool] = lambda: False
               ) -> Answer:  # fmt: skip
        over = time.monotonic() + limit_s
        try:
            while not pipe.poll(max(0.0, min(_VAIN_S, over - time.monotonic()))):
                if time.monotonic() >= over or (vain() and not pipe.poll(_VAIN_S)):
                    return {"outcome": "hangs", "said": otherwise}
            return dict(pipe.recv())
        except (EOFError, OSError, ValueError):  # its end is closed, or this one, from another thread
            process = self._process
            if process is None:
                return {"outcome": "absent", "said": "the doctor ends"}
            process.join(1.0)
            return {"outcome": "raised", "said": f"its process ended with exit code {process.exitcode}"}


class Crew:
    """All ranks of this node."""

    def __init__(self, node: str, address: str, ranks: int, *, gpu: bool, environment: Mapping[str, str],
                 work: Serve = serve) -> None:  # fmt: skip
        self.node = node
        self.address = address
        self.members = [Member(local, gpu, environment, work) for local in range(ranks)]
        self.ranks: tuple[Rank, ...] = ()
        self.versions: dict[str, str] = {}
        self.checked = threading.Event()

    def check(self) -> None:
        """Let every device compute, all at once."""
        found: dict[int, tuple[Rank, dict[str, str]]] = {}

        def one(member: Member) -> None:
            found[member.local] = member.check()

        threads = [threading.Thread(target=one, args=(member,), daemon=True) for member in self.members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.ranks = tuple(found[local][0] for local in sorted(found))
        for _, versions in found.values():
            self.versions.update(versions)
        self.checked.set()

    def fit(self, local: int) -> bool:
        """Whether that rank may be asked to meet others."""
        return self.ranks[local].outcome == "ok" and not self.members[local].spent

    def answer(self, message: Mapping[str, Any], go: Callable[[], None]) -> Answer:
        """Let the rank that a peer names meet the peer's rank, as second of the pair; `go` is called as it begins."""
        member = self.members[int(message["local"])]
        if not self.fit(member.local):
            return {"outcome": "absent", "said": f"{self.node} rank {member.local} is not fit"}
        if not member.lock.acquire(timeout=TURN_S):
            return {"outcome": "absent", "said": f"{self.node} rank {member.local} was busy for {TURN_S:.0f} s"}
        try:
            go()
            answer = member.ask({"do": "meet", "rank": 1, "address": message["address"], "port": message["port"],
                                 "limit_s": member.meet_s}, member.meet_s + 1)  # fmt: skip
            member.count(answer["outcome"])
        finally:
            member.lock.release()
        return answer

    def meet(self, local: int, second: str, other: Other) -> Pair:
        """Let rank `local` meet another, which may stand on another node; `other` asks that one."""
        address = "127.0.0.1" if second.startswith(f"{self.node}/") else self.address
        member, first = self.members[local], f"{self.node}/{local}"
        with member.lock:
            opened = member.ask({"do": "open", "limit_s": member.meet_s}, member.meet_s)
            if opened["outcome"] != "ok":
                member.count(opened["outcome"])
                return Pair(first=first, second=second, outcome=opened["outcome"], said=opened["said"])
            theirs: Answer = {}
            moved = threading.Event()  # it begins, or it said why not

            def ask() -> None:
                given = {"address": address, "port": opened["port"]}
                theirs.update(other(given, TURN_S + 1, member.meet_s + 3, moved.set))
                moved.set()

            thread = threading.Thread(target=ask, daemon=True, name=f"{first} asks {second}")
            thread.start()
            moved.wait(TURN_S + 2)
            mine: Answer = {"outcome": "hangs", "said": "nobody to meet"}
            if not theirs:
                mine = member.ask({"do": "meet", "rank": 0, "address": address, "port": opened["port"],
                                   "limit_s": member.meet_s}, member.meet_s + 1,
                                  lambda: theirs.get("outcome", "ok") != "ok")  # fmt: skip
                thread.join(member.meet_s + 3)
            pair = _together(first, second, mine, dict(theirs))
            member.count(pair.outcome)
            return pair

    def close(self) -> None:
        """End all ranks."""
        for member in self.members:
            member.close()


def _together(first: str, second: str, mine: Answer, theirs: Answer) -> Pair:
    """What both ends of a pair say; the second's words first, for the first waits for it."""
    if not theirs:
        theirs = {"outcome": "hangs", "said": f"{second}'s node did not answer"}
    if theirs["outcome"] == "absent":
        return Pair(first=first, second=second, outcome="absent", said=theirs["said"])
    for name, answer in ((second, theirs), (first, mine)):
        if answer["outcome"] != "ok":
            return Pair(first=first, second=second, outcome=answer["outcome"], said=f"{name}: {answer['said']}")
    return Pair(first=first, second=second, outcome="ok", latency_s=mine["latency_s"], bytes_per_s=mine["bytes_per_s"])
