"""Keeps one job going among the nodes that are left: `python -m operate.roster --job train … torchrun …`.

Runs on every node, with the standard library alone, as the parent of that node's torchrun. The first node that lives
leads: it waits until all have come, then tells each to start torchrun on one meeting point of the c10d rendezvous,
which itself starts the ranks again where one fails (`--max-restarts`). A node's loss is beyond it: where the one that
holds its store dies it ends everywhere, and where another dies it waits and asks who else may come. So here the leader,
or the next node in order where it was the leader that died, starts torchrun anew among those that are left, in a new
generation (see `labs.fence`), with a fixed number of nodes: a node that is slow to start is never left out. It needs
no laptop: a dead process closes its connections, a dead machine is silent for `peers.SILENCE_S`. A laptop that follows
the run and learns it sooner from EC2 writes the node's name into the run's file `lost`. A node that shuts down or got
notice takes its leave: all ranks are told by SIGTERM to save, and the others go on without it.

Nodes talk in JSON documents, one a line, over TCP between their private addresses, like torchrun itself without proof
of identity: the lab's security group lets nobody else in.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from labs import fence
from operate.peers import SILENCE_S, Events, Link
from operate.ranks import SAVE_S, Ranks, rendezvous

_JOIN_S = 600.0
"""Longest wait for the others at the job's start: they may be busy with the job before it. Later they are not."""
_REJOIN_S = 20.0
_LOST_S = 0.0
"""Time to end where a node was lost: nothing can be saved without it."""
LEFT = 143
"""Exit code of a node that took its leave: 128 + SIGTERM."""
CUT_OFF = 69
"""Exit code of a node that the others go on without: EX_UNAVAILABLE of sysexits.h."""


class Roster:
    """One node's view of who takes part, and its part."""

    def __init__(
        self, node: str, peers: dict[str, tuple[str, int]], job: str, command: Sequence[str], run: Path
    ) -> None:
        self._node, self._peers, self._run = node, peers, run
        self._events = Events()
        self._ranks = Ranks(node, command, self._events)
        self._links: dict[str, Link] = {}
        """Those that came to this node, by name."""
        self._visits: set[asyncio.Task[None]] = set()
        self._lost: set[str] = set()
        self._noticed = False
        """Whether this node was told to end."""
        self._leaving = False
        """Whether it has told the others."""
        self._generation = -1
        shared, name = os.environ.get("ROOFLAB_SHARED", ""), os.environ.get("ROOFLAB_RUN", run.name)
        self._fence = fence.folder(shared, name, job) if shared else None

    async def run(self) -> int:
        """Take part until the job is over, or goes on without this node; the exit code."""
        server = await self._open()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._notice)
        looking = asyncio.create_task(self._look())
        try:
            for candidate in self._peers:
                if candidate in self._lost:
                    continue
                code = await (self._lead() if candidate == self._node else self._follow(candidate))
                if code is not None or self._noticed:
                    return LEFT if code is None else code
                self._lost.add(candidate)
            raise AssertionError("the node itself is among its peers and leads at last")
        finally:
            looking.cancel()
            server.close()
            await self._ranks.stop(_LOST_S)
            for link in self._links.values():
                await link.drain()
                link.close()

    async def _open(self) -> asyncio.Server:
        host, port = self._peers[self._node]
        try:
            return await asyncio.start_server(self._welcome, host, port)
        except OSError as error:  # what the others call it is no address of its own, as behind NAT
            _tell(f"warning: {host} cannot be listened on ({error.strerror}): listening on all addresses")
            return await asyncio.start_server(self._welcome, None, port)

    def _notice(self) -> None:
        self._noticed = True
        self._events.put("notice")

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.create_task(self._entertain(Link(reader, writer, self._events)))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _entertain(self, link: Link) -> None:
        hello = await link.hear()
        name = str(hello.get("node", "")) if hello else ""
        if name not in self._peers or name == self._node:
            link.close()
            return
        link.name, self._links[name] = name, link
        self._events.put("joined", name)
        await link.listen()

    async def _look(self) -> None:
        """What else tells of a loss, or of this node's own end: files in the run's folder."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                for name in (self._run / "lost").read_text().split():
                    if name in self._peers and name != self._node and name not in self._lost:
                        self._lost.add(name)
                        self._events.put("lost", name)
            if (self._run / "notice").exists():
                self._notice()
                return
            await asyncio.sleep(0.3)

    async def _reach(self, candidate: str) -> Link | None:
        """A connection to `candidate`; None where it is lost."""
        limit_s, host, port = _JOIN_S if self._generation < 0 else _REJOIN_S, *self._peers[candidate]
        until = time.monotonic() + limit_s
        while candidate not in self._lost and not self._noticed and time.monotonic() < until:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), SILENCE_S)
            except (OSError, TimeoutError):
                await asyncio.sleep(0.2)
                continue
            link = Link(reader, writer, self._events)
            link.name = candidate
            link.say("hello", node=self._node)
            return link
        return None

    async def _follow(self, leader: str) -> int | None:
        """Do as `leader` says; the exit code, or None once it is lost."""
        link = await self._reach(leader)
        if link is None:
            return None
        listening = asyncio.create_task(link.listen())
        try:
            return await self._obey(leader, link)
        finally:
            listening.cancel()
            await link.drain()
            link.close()

    async def _obey(self, leader: str, link: Link) -> int | None:
        begun = self._generation
        while True:
            waits_s = SILENCE_S * 2 if begun >= 0 and self._generation == begun else None
            what, who, details = await self._events.next(waits_s)
            if what == "nothing":
                _tell(f"{leader} goes on, and not with {self._node}: this node is cut off from who leads")
                return CUT_OFF
            if what == "start" and who == leader and not self._leaving:
                await self._ranks.stop(_LOST_S)
                self._generation = int(details["generation"])
                await self._begin(details["members"], details["endpoint"])
            elif what == "stop" and who == leader:
                await self._ranks.stop(float(details["grace_s"]))
                if self._leaving:
                    return LEFT
            elif what == "over" and who == leader:
                await self._ranks.stop(_LOST_S)
                self._lost.update(details["lost"])
                self._remember()
                return int(details["code"])
            elif what == "ended" and who == self._node:
                link.say("ended", **details)
            elif (what == "left" and details["link"] is link) or (what == "lost" and who == leader):
                _tell(f"{leader}, which led, is lost")
                await self._ranks.stop(SAVE_S if self._leaving else _LOST_S)
                return LEFT if self._leaving else None
            elif what == "notice" and not self._leaving:
                self._leaving = True
                link.say("leave")

    async def _lead(self) -> int:
        """Say who takes part, again after each loss, until the job is over; the exit code."""
        while True:
            await self._gather()
            if self._noticed:
                return LEFT
            members = [name for name in self._peers if name == self._node or name in self._links]
            self._claim()
            endpoint = f"{self._peers[self._node][0]}:{_free_port()}"
            missing = [name for name in self._peers if name not in members]
            if missing:
                _tell(
                    f"goes on with {len(members)} node{'s' * (len(members) > 1)} of {len(self._peers)} "
                    f"({', '.join(members)}), for {', '.join(missing)} {'are' if len(missing) > 1 else 'is'} lost"
                )
            for name in members:
                if name != self._node:
                    self._links[name].say("start", generation=self._generation, members=members, endpoint=endpoint)
            await self._begin(members, endpoint)
            code = await self._watch(members)
            if code is None:
                continue
            if not self._leaving:  # else the next in order finds the connection closed, and leads
                self._remember()
                for link in self._links.values():
                    link.say("over", code=code, lost=sorted(self._lost))
            return code

    async def _gather(self) -> None:
        """Wait until all who live have come; who has not in time is lost."""
        limit_s = _JOIN_S if self._generation < 0 else _REJOIN_S
        until = time.monotonic() + limit_s
        while awaited := [n for n in self._peers if n not in self._links and n not in self._lost and n != self._node]:
            what, who, details = await self._events.next(max(0.0, until - time.monotonic()))
            if what == "nothing":
                _tell(f"{', '.join(awaited)} did not come within {limit_s:.0f} s")
                self._lost.update(awaited)
            elif what == "left":
                self._drop(who, details["link"])
            elif what in ("lost", "leave") and who in self._links:
                self._links.pop(who).close()
                self._lost.add(who)
            elif what == "notice":
                return
        self._lost -= self._links.keys()

    async def _watch(self, members: Sequence[str]) -> int | None:
        """What becomes of the ranks of `members`: their exit code, or None where it must go on with others."""
        codes: dict[str, int] = {}
        while True:
            what, who, details = await self._events.next()
            if what == "left" and self._drop(who, details["link"]) and who in members:
                if 0 in codes.values():  # ranks end together: the job is done, and that node's last word is missing
                    codes[who] = 0
                else:
                    await self._without(who, "is lost", _LOST_S)
                    return None
            elif what == "lost" and who in self._links and who in members:
                self._links.pop(who).close()
                await self._without(who, "is lost", _LOST_S)
                return None
            elif what == "leave":
                await self._without(who, "takes its leave", SAVE_S)
                if who in self._links:
                    self._links.pop(who).close()
                return None
            elif what == "notice":
                _tell(f"{self._node}, which led, takes its leave")
                self._leaving = True
                await self._stop(SAVE_S)
                return LEFT
            elif what == "joined" and who not in members:
                await self._without("", f"{who} is back", SAVE_S)
                return None
            elif what == "ended" and who in members and details["generation"] == self._generation:
                codes[who] = int(details["code"])
                if codes[who] != 0 and not self._noticed:  # else the notice, which comes next, is the reason
                    dead = await self._silent()
                    if dead is None:
                        return codes[who]
                    await self._without(dead, "is lost", _LOST_S)
                    return None
            if all(codes.get(name) == 0 for name in members):
                return 0

    async def _without(self, node: str, how: str, grace_s: float) -> None:
        _tell(f"{node} {how}".strip())
        if node:
            self._lost.add(node)
        await self._stop(grace_s)

    async def _stop(self, grace_s: float) -> None:
        """End the ranks everywhere, here too."""
        for link in self._links.values():
            link.say("stop", grace_s=grace_s)
        await self._ranks.stop(grace_s)

    async def _silent(self) -> str | None:
        """A node that does not answer, or has gone; None where all do: a failure there was is one of the job's own."""
        for name, link in list(self._links.items()):
            link.answered.clear()
            link.say("ask")
            gone = asyncio.create_task(link.answered.wait())
            done, _ = await asyncio.wait({gone, link.beating}, timeout=SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if gone not in done:
                self._links.pop(name).close()
                return name
        return None

    def _drop(self, name: str, link: Link) -> bool:
        """Forget a connection that ended; whether it was the one that counts."""
        if self._links.get(name) is not link:
            return False
        del self._links[name]
        return True

    def _claim(self) -> None:
        least = self._generation + 1
        self._generation = fence.claim(self._fence, self._node, least) if self._fence else least

    def _remember(self) -> None:
        """Tell the jobs to come who is lost."""
        path = self._run / "lost"
        known = path.read_text().split() if path.exists() else []
        if new := sorted(self._lost.difference(known)):
            path.write_text("".join(f"{name}\n" for name in (*known, *new)))

    async def _begin(self, members: Sequence[str], endpoint: str) -> None:
        variables = {fence.GENERATION: str(self._generation)}
        if self._fence:
            variables[fence.FENCE] = str(self._fence)
        mine = self._peers[self._node][0]
        extra = rendezvous(len(members), endpoint, mine, hosts=members[0] == self._node)
        await self._ranks.start(extra, variables, generation=self._generation)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def _tell(line: str) -> None:
    print(f"roster: {line}", flush=True)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m operate.roster", description=__doc__)
    parser.add_argument("--job", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--peers", required=True, help="node0=10.0.0.7:23455,node1=10.0.0.8:23456: who leads first")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    peers = {}
    for peer in asked.peers.split(","):
        name, _, where = peer.partition("=")
        host, _, port = where.rpartition(":")
        peers[name] = (host, int(port))
    run = Path(os.environ["ROOFLAB_RUN_DIR"])
    return asyncio.run(Roster(asked.node, peers, asked.job, asked.command, run).run())


if __name__ == "__main__":
    sys.exit(main())
