"""One node's part of the doctor's work, from its own look at itself to the reports of all nodes."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from labs.connections import Pair, Report
from labs.findings import Finding
from workloads.connection import interfaces, machine
from workloads.connection.crew import Answer, Crew, Serve, patience, serve
from workloads.connection.peers import Peer, rounds
from workloads.connection.probing import CONNECT_S, PAUSE_S, Limits, Look, look_at
from workloads.connection.station import RANKS_S, Station
from workloads.connection.wire import Talk, ask, receive

PAIRS_S = 15.0
"""Longest time for all pairs, and two seconds for each round of them and half a second for each rank."""
EXCHANGE_S = 20.0
"""Longest wait for the peers' reports, once this node's is made."""
LOST = 3
"""So many failures in a row to reach a peer that was reached before: its doctor is gone."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is looked at."""

    ranks: int
    """Ranks on a node without GPUs; 0: no ranks at all."""
    gpus: bool = True
    """Whether GPUs are used where there are some."""
    limit_s: float
    """Longest time for all of it; what is not done then is left out and named."""
    limits: Limits
    work: Serve = serve
    """What a rank's process does."""


class Examination:
    """Runs once."""

    def __init__(self, station: Station, order: Order, say: Callable[[str], None]) -> None:
        self._station = station
        self._order = order
        self._say = say
        self._began = time.monotonic()
        self._over = self._began + order.limit_s
        self._left: list[str] = []
        self._unmet = 0
        self._looks = [Look(peer, station.me.name, station.run, order.limits, station.clock) for peer in station.others]
        self._facts: dict[str, str] = {}
        self._own: list[Finding] = []
        self._pairs: list[Pair] = []
        gpus = station.gpus if order.gpus else 0
        self._gpus = gpus
        self._crew = Crew(station.me.name, station.me.address, gpus or order.ranks if order.ranks else 0,
                          gpu=gpus > 0, environment=station.environment, work=order.work)  # fmt: skip

    def run(self) -> dict[str, Report]:
        """Look at everything; this node's report, and those of the peers that gave theirs, by node."""
        station = self._station
        station.show(self._crew)
        mine = threading.Thread(target=self._look_at_itself, daemon=True, name="itself")
        ranks = threading.Thread(target=self._crew.check, daemon=True, name="ranks")
        mine.start()
        ranks.start()
        self._say(f"{station.me.name}: {len(self._looks)} peers, {len(self._crew.members)} ranks")
        self._left += look_at(self._looks, self._remaining())
        for look in self._looks:
            failed = [probe for probe in look.probes if probe.outcome != "ok"]
            self._say(f"{look.peer.name}: {failed[0].stage}: {failed[0].said}" if failed else f"{look.peer.name}: ok")
        self._finish(mine, "what this machine says of itself")
        self._finish(ranks, "what each rank computes alone")
        for rank in self._crew.ranks:
            self._say(f"rank {rank.local}: {rank.outcome} {rank.said}".rstrip())
        self._meet()
        station.publish(self._report())
        self._exchange()
        return dict(station.reports)

    def _remaining(self) -> float:
        return max(0.0, self._over - time.monotonic())

    def _finish(self, thread: threading.Thread, what: str) -> None:
        thread.join(self._remaining())
        if thread.is_alive():
            self._left.append(f"waited for {what} until {self._order.limit_s:.0f} s were over")

    def _look_at_itself(self) -> None:
        station, node = self._station, self._station.me.name
        self._own += machine.interfaces(node, station.choices)
        self._own += machine.fabric(node, station.environment)
        self._own += machine.driver(node, station.why_none if self._order.gpus else "")
        self._own += machine.cards(node, self._gpus)
        self._facts.update(machine.facts(station.environment, interfaces.mtu(station.me.address, station.known)))

    def _report(self) -> Report:
        station = self._station
        return Report(
            node=station.me.name, address=station.me.address, seconds=time.monotonic() - self._began,
            facts={**self._facts, **self._crew.versions}, own=(*station.own, *self._own),
            probes=tuple(probe for look in self._looks for probe in look.probes),
            ranks=self._crew.ranks, pairs=tuple(self._pairs), left=tuple(self._left), unmet=self._unmet,
        )  # fmt: skip

    def _meet(self) -> None:
        """All pairs that a rank of this node begins, each rank in a thread of its own."""
        if not self._crew.checked.is_set() or any(one.level == "fail" for one in self._own):
            return
        well = {look.peer.name: look.peer for look in self._looks if look.well}
        ranks = [f"{name}/{local}" for name, locals_ in self._all_ranks(well).items() for local in locals_]
        turns = rounds(ranks)
        limit_s = (PAIRS_S + 2 * len(turns) + len(ranks) / 2) * patience()
        over = min(self._over, time.monotonic() + limit_s)
        threads = []
        for member in self._crew.members:
            first = f"{self._station.me.name}/{member.local}"
            seconds = [other for turn in turns for one, other in turn if one == first]
            threads.append(threading.Thread(target=self._meet_all, args=(member.local, seconds, well, over),
                                            daemon=True, name=first))  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, over - time.monotonic()) + 5)
            if thread.is_alive():
                self._left.append(f"waited for the pairs of {thread.name}")
        done = len(self._pairs)
        self._say(f"{done} pairs, {sum(pair.outcome == 'ok' for pair in self._pairs)} ok")

    def _all_ranks(self, well: Mapping[str, Peer]) -> dict[str, list[int]]:
        """Ranks by node, of this node and of all that can be reached, in the order of nodes."""
        found: dict[str, list[int]] = {}
        for peer in self._station.peers:
            if peer == self._station.me:
                found[peer.name] = [rank.local for rank in self._crew.ranks if rank.outcome == "ok"]
            elif peer.name in well:
                try:
                    limit_s = min(RANKS_S, self._remaining())
                    told = ask(peer.address, peer.port, {"op": "ranks"}, connect_s=CONNECT_S, limit_s=limit_s)
                    found[peer.name] = told["ranks"] or []
                except OSError:
                    continue  # its report, or that it gives none, tells
        return found

    def _meet_all(self, local: int, seconds: list[str], well: Mapping[str, Peer], over: float) -> None:
        for met, second in enumerate(seconds):
            if not self._crew.fit(local):
                return
            if time.monotonic() >= over:
                self._unmet += len(seconds) - met
                return
            node, _, other = second.rpartition("/")
            here = node == self._station.me.name
            ask_other = self._ask_here(int(other)) if here else _ask_there(well[node], int(other))
            self._pairs.append(self._crew.meet(local, second, ask_other))

    def _ask_here(self, local: int) -> Callable[[dict[str, Any], float, float, Callable[[], None]], Answer]:
        return lambda given, _turn_s, _end_s, go: self._crew.answer({**given, "local": local}, go)

    def _exchange(self) -> None:
        """Give this node's report to every peer and take theirs; stay until those that are there have both."""
        station = self._station
        over = time.monotonic() + EXCHANGE_S + len(station.peers) / 2
        reached = {look.peer.name: look.peer for look in self._looks if look.reached}
        threads = [threading.Thread(target=self._trade, args=(peer, over), daemon=True) for peer in reached.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, over - time.monotonic()) + 1)
        waiting = station.heard - set(reached) - {station.me.name}
        while time.monotonic() < over and any(
            name not in station.reports or name not in station.given for name in waiting
        ):
            time.sleep(PAUSE_S)

    def _trade(self, peer: Peer, over: float) -> None:
        """Until this node has the peer's report and the peer has this one's."""
        station, failures = self._station, 0
        mine = station.reports[station.me.name].as_json()
        message = {"op": "report", "node": station.me.name, "report": mine}
        while time.monotonic() < over and failures < LOST:
            try:
                told = ask(peer.address, peer.port, message, connect_s=CONNECT_S, limit_s=CONNECT_S)
                station.given.add(peer.name)
                if told.get("report"):
                    station.take(told["report"])
                if peer.name in station.reports:
                    return
                failures = 0
            except (OSError, ValueError):
                failures += 1
            time.sleep(PAUSE_S)


def _ask_there(peer: Peer, local: int) -> Callable[[dict[str, Any], float, float, Callable[[], None]], Answer]:
    def other(given: dict[str, Any], turn_s: float, end_s: float, go: Callable[[], None]) -> Answer:
        try:
            with Talk(peer.address, peer.port, CONNECT_S) as talk:
                told = talk.ask({"op": "pair", "local": local, **given}, turn_s)
                if told.get("go"):
                    go()
                    talk.socket.settimeout(end_s)
                    told = receive(talk.socket)
            return told
        except OSError as error:
            return {"outcome": "hangs", "said": f"{peer.name} did not answer: {error}"}

    return other
