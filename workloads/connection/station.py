"""What a node's doctor answers to its peers, from its first moment to its last."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from labs.connections import Report, read_report
from labs.findings import Finding
from workloads.connection import interfaces, machine
from workloads.connection.crew import Crew
from workloads.connection.peers import Peer, read_peers
from workloads.connection.probing import receive_burst
from workloads.connection.wire import Listener, Message, send

RANKS_S = 75.0
"""Longest wait of a peer that asks for ranks which are not checked yet."""


class Station:
    """One node's end of all links."""

    def __init__(self, environment: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        """Read who the peers are.

        Raises:
            ValueError: the environment is not as the launcher sets it.
        """
        self.environment = dict(environment)
        self.clock = clock
        self.peers = read_peers(environment)
        self.run = environment.get("ROOFLAB_RUN", "")
        name = environment.get("ROOFLAB_NODE") or "node0"
        self.me: Peer = next(peer for peer in self.peers if peer.name == name)
        self.gpus, self.why_none = machine.count_gpus(environment)
        self.known = interfaces.addresses()
        self.choices = list(interfaces.choices(environment, self.known, gpus=self.gpus > 0))
        self.own: list[Finding] = []
        self.heard: set[str] = set()
        """Peers that reached this node."""
        self.reports: dict[str, Report] = {}
        self.given: set[str] = set()
        """Peers that have this node's report."""
        self._came: dict[str, int] = {}
        self._crew: Crew | None = None
        self._crewed = threading.Event()
        self._listener = Listener(self.me.port)

    @property
    def others(self) -> list[Peer]:
        """All nodes but this one."""
        return [peer for peer in self.peers if peer != self.me]

    def open(self) -> None:
        """Listen and answer from now on, on this node's address and on those that its collectives announce."""
        if not self.others:
            return
        announced = [choice.address for choice in self.choices if choice.address]
        failed = self._listener.open([self.me.address, *announced])
        failure = failed.get(self.me.address)
        if failure is not None:
            self._listener.open(["0.0.0.0"])  # behind a translated address: peers may reach it all the same
        self.own += machine.address(self.me.name, self.me.address, failure, self.me.port)
        self._listener.begin(self._answer)

    def close(self) -> None:
        """Answer no more, and end the ranks."""
        self._listener.close()
        if self._crew is not None:
            self._crew.close()

    def show(self, crew: Crew) -> None:
        """Let peers ask for these ranks."""
        self._crew = crew
        self._crewed.set()

    def publish(self, report: Report) -> None:
        """Let peers have this node's report."""
        self.reports[self.me.name] = report

    def take(self, document: object) -> None:
        """Keep a peer's report.

        Raises:
            ValueError: it is none.
        """
        report = read_report(document)
        self.reports[report.node] = report

    def _answer(self, message: Message, connection: socket.socket) -> Message | None:
        ways: dict[object, Callable[[Message, socket.socket], Message | None]] = {
            "hello": self._hello, "clock": lambda *_: {"now": self.clock()}, "burst": self._burst,
            "came": lambda asked, _: {"bytes": self._came.get(str(asked.get("mark")), 0)},
            "ranks": self._ranks, "pair": self._pair, "report": self._report,
        }  # fmt: skip
        way = ways.get(message.get("op"))
        return way(message, connection) if way else None

    def _hello(self, message: Message, _: socket.socket) -> Message:
        if message.get("run") == self.run:
            self.heard.add(str(message.get("node")))
        told = [{"by": choice.by, "address": choice.address} for choice in self.choices
                if choice.address and choice.address != self.me.address]  # fmt: skip
        return {"node": self.me.name, "run": self.run, "choices": told}

    def _burst(self, message: Message, connection: socket.socket) -> Message:
        mark = str(message["mark"])
        receive_burst(connection, int(message["bytes"]), lambda came: self._came.update({mark: came}))
        return {"bytes": self._came.get(mark, 0)}

    def _ranks(self, message: Message, _: socket.socket) -> Message:
        if not self._crewed.wait(RANKS_S) or self._crew is None or not self._crew.checked.wait(RANKS_S):
            return {"ranks": None}
        return {"ranks": [rank.local for rank in self._crew.ranks if rank.outcome == "ok"]}

    def _pair(self, message: Message, connection: socket.socket) -> Message:
        if self._crew is None or not self._crew.checked.is_set():
            return {"outcome": "absent", "said": f"{self.me.name} has no ranks yet"}
        return self._crew.answer(message, lambda: send(connection, {"go": True}))

    def _report(self, message: Message, _: socket.socket) -> Message | None:
        if message.get("report"):
            try:
                self.take(message["report"])
            except ValueError:
                return None
        mine = self.reports.get(self.me.name)
        if mine is not None:
            self.given.add(str(message.get("node")))
        return {"report": mine.as_json() if mine else None}


def begin_early(environment: Mapping[str, str]) -> Station | None:
    """A station that answers while the rest of the program is still being imported; None where the environment is
    wrong, which whoever needs a station will say."""
    try:
        station = Station(environment)
    except ValueError:
        return None
    station.open()
    return station


def keep(folder: Path, reports: Sequence[Report]) -> None:
    """Write each report as a file of its own, for whoever puts those of all nodes side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    for report in reports:
        partial = folder / f"{report.node}.partial"
        partial.write_text(json.dumps(report.as_json(), indent=1) + "\n")
        partial.replace(folder / f"{report.node}.json")
