"""One node's look at each of its peers, stage by stage, all peers at once; every stage has its own time limit.

A stage that fails ends the look at that peer: nothing beyond it can work.
"""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labs.connections import Outcome, Probe, Stage
from workloads.connection.peers import Peer
from workloads.connection.wire import Message, Talk, outcome, receive, send

NAME_S = 5.0
CONNECT_S = 3.0
"""Longest wait of one attempt to connect."""
ROUTE_S = 3.0
"""Longest time in which a route may yet appear."""
DOOR, DOOR_S = 22, 2.0
"""A port that any node answers or refuses: where it does neither, no packet gets through."""
CLOCK_S, EXCHANGES = 3.0, 8
BURST_S = 4.0
PAUSE_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long and how much."""

    arrive_s: float
    """Longest wait for a peer's doctor to listen: the nodes of a run do not start in the same moment."""
    burst_bytes: int
    """Of the large message."""

    @classmethod
    def of(cls, nodes: int) -> "Limits":
        """For a cluster of so many nodes: more of them start less together, and share the network."""
        return cls(arrive_s=10.0 + 0.25 * nodes, burst_bytes=2**20 if nodes <= 16 else 2**17)


class Look:
    """What one node finds out about one peer."""

    def __init__(self, peer: Peer, me: str, run: str, limits: Limits, clock: Callable[[], float]) -> None:
        self.peer = peer
        self.probes: list[Probe] = []
        self.doing = ""
        """What it waits for."""
        self._me, self._run = me, run
        self._limits = limits
        self._clock = clock
        self._address = peer.address
        self._hello: Message = {}

    @property
    def reached(self) -> bool:
        """Whether the peer's doctor answered."""
        return any(probe.stage == "connect" and probe.outcome == "ok" for probe in self.probes)

    @property
    def well(self) -> bool:
        """Whether ranks may meet across this link."""
        return self.reached and all(probe.outcome == "ok" for probe in self.probes)

    def run(self) -> None:
        """All stages, until one fails."""
        stages: dict[Stage, Callable[[], Probe]] = {
            "name": self._name, "connect": self._connect, "clock": self._ask_time, "burst": self._burst,
        }  # fmt: skip
        for stage, step in stages.items():
            try:
                probe = step()
            except OSError as error:
                probe = self._probe(stage, "broken", f"{self.doing}: {_said(error)}")
            self.probes.append(probe)
            if probe.outcome != "ok":
                return
        self.probes += self._addresses()
        self.doing = ""

    def _probe(self, stage: Stage, outcome: Outcome, said: str = "", value: float | None = None,
               bound: float = 0.0) -> Probe:  # fmt: skip
        return Probe(peer=self.peer.name, stage=stage, outcome=outcome, said=said, value=value, bound=bound)

    def _name(self) -> Probe:
        self.doing = f"{self.peer.address} to be resolved"
        found: list[str] = []

        def resolve() -> None:
            try:
                found.append(str(socket.getaddrinfo(self.peer.address, self.peer.port,
                                                    type=socket.SOCK_STREAM)[0][4][0]))  # fmt: skip
            except OSError as error:
                found.extend(("", _said(error)))

        thread = threading.Thread(target=resolve, daemon=True)
        thread.start()
        thread.join(NAME_S)  # a resolver has a patience of its own
        if not found or not found[0]:
            why = found[1] if found else f"no answer within {NAME_S:.0f} s"
            return self._probe("name", "unnamed", f"{self.peer.address}: {why}")
        self._address = found[0]
        return self._probe("name", "ok")

    def _connect(self) -> Probe:
        where = f"{self.peer.address}:{self.peer.port}"
        self.doing = f"{where} to answer"
        began = time.monotonic()
        while True:
            left_s = began + self._limits.arrive_s - time.monotonic()
            try:
                with Talk(self._address, self.peer.port, max(0.5, min(CONNECT_S, left_s))) as talk:
                    return self._greet(talk, where, max(CONNECT_S, left_s))
            except OSError as error:
                kind, said = outcome(error), _said(error)
            waited_s = time.monotonic() - began
            if waited_s >= self._limits.arrive_s or (kind == "unroutable" and waited_s >= ROUTE_S):
                break
            time.sleep(PAUSE_S)
        if kind == "silent":
            if self._door():
                kind, said = "filtered", f"no answer, though port {DOOR} of it answers"
            else:
                said = f"no answer, nor from its port {DOOR}"
        return self._probe("connect", kind, f"{where}: {said}, for {waited_s:.0f} s")

    def _greet(self, talk: Talk, where: str, limit_s: float) -> Probe:
        at = time.perf_counter()
        try:
            self._hello = talk.ask({"op": "hello", "node": self._me, "run": self._run}, limit_s)
        except TimeoutError:
            words = f"{where} takes connections and says nothing for {limit_s:.0f} s"
            return self._probe("connect", "broken", words)
        took_s = time.perf_counter() - at
        node, run = self._hello.get("node"), self._hello.get("run")
        if (node, run) != (self.peer.name, self._run):
            words = f"{where} is answered by {node} of run {run or 'none'}, not by {self.peer.name}"
            return self._probe("connect", "stranger", words)
        return self._probe("connect", "ok", value=took_s)

    def _door(self) -> bool:
        try:
            socket.create_connection((self._address, DOOR), timeout=DOOR_S).close()
        except OSError as error:
            return outcome(error) == "refused"
        return True

    def _ask_time(self) -> Probe:
        self.doing = f"{self.peer.name}'s clock"
        best_s, ahead_s = float("inf"), 0.0
        with Talk(self._address, self.peer.port, CONNECT_S) as talk:
            for _ in range(EXCHANGES):
                at, began = self._clock(), time.perf_counter()
                told = float(talk.ask({"op": "clock"}, CLOCK_S)["now"])
                took_s = time.perf_counter() - began
                if took_s < best_s:
                    best_s, ahead_s = took_s, told - (at + took_s / 2)
        return self._probe("clock", "ok", value=ahead_s, bound=best_s / 2)

    def _burst(self) -> Probe:
        size = self._limits.burst_bytes
        self.doing = f"{size} bytes to arrive at {self.peer.name}"
        mark = f"{self._me} {time.monotonic_ns()}"
        with Talk(self._address, self.peer.port, CONNECT_S) as talk:
            talk.ask({"op": "burst", "mark": mark, "bytes": size}, CONNECT_S)
            began = time.perf_counter()
            try:
                talk.socket.settimeout(BURST_S)
                talk.socket.sendall(bytes(size))
                receive(talk.socket)
                return self._probe("burst", "ok", value=size / (time.perf_counter() - began))
            except TimeoutError:
                waited_s = time.perf_counter() - began
        with Talk(self._address, self.peer.port, CONNECT_S) as talk:
            came = int(talk.ask({"op": "came", "mark": mark}, CONNECT_S)["bytes"])
        words = f"{came} of {size} bytes arrived at {self.peer.name} within {waited_s:.0f} s"
        if came:
            return self._probe("burst", "slow", f"{words}, {came / waited_s / 1e3:.0f} kB/s", value=came / waited_s)
        return self._probe("burst", "stalled", f"{words}, though small messages arrive")

    def _addresses(self) -> list[Probe]:
        """Whether what the peer's collectives announce leads from here to the peer."""
        found = []
        for choice in self._hello.get("choices", []):
            address, by = choice["address"], choice["by"]
            self.doing = f"{address}:{self.peer.port} to answer, which {by} announces"
            try:
                with Talk(address, self.peer.port, CONNECT_S) as talk:
                    hello = talk.ask({"op": "hello", "node": self._me, "run": self._run}, CONNECT_S)
                mine = hello.get("node") == self.peer.name
                said = "" if mine else f"{by} is {address}, where {hello.get('node')} answers"
                found.append(self._probe("address", "ok" if mine else "stranger", said))
            except OSError as error:
                found.append(self._probe("address", outcome(error), f"{by} is {address}, where nothing answers "
                                                                    f"({_said(error)})"))  # fmt: skip
        return found


def look_at(looks: Sequence[Look], limit_s: float) -> list[str]:
    """Run all looks at once; those that are not done after `limit_s`, with what they waited for."""
    threads = [threading.Thread(target=look.run, daemon=True, name=f"look at {look.peer.name}") for look in looks]
    over = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, over - time.monotonic()))
    return [f"{look.peer.name}: waited for {look.doing}" for look, thread in zip(looks, threads, strict=True)
            if thread.is_alive()]  # fmt: skip


def receive_burst(connection: socket.socket, size: int, count: Callable[[int], None]) -> None:
    """Take in a peer's burst and tell it that all of it came; `count` hears how much there is so far.

    Raises:
        OSError: the connection ended.
    """
    send(connection, {"go": True})
    came = 0
    while came < size:
        part = connection.recv(min(size - came, 2**18))
        if not part:
            raise ConnectionResetError("the connection ended in the middle")
        came += len(part)
        count(came)


def _said(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror or str(error) or type(error).__name__).lower()
