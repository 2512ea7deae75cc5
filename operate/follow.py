"""Live output of a run from all its nodes, until it is over or the operator looks away.

One stream a node. A dropped connection is picked up again where it broke; a node that EC2 says is gone is lost.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from queue import Empty, Queue
from shlex import quote
from typing import Any

from operate.cluster import Cluster
from operate.launch import Place
from operate.nodes import Node
from operate.output import Output
from operate.problem import Problem
from operate.screen import Screen
from operate.shell import Shell, Unreachable
from operate.stream import BEAT_S
from operate.verb import as_problem

_SILENCE_S = 4 * BEAT_S
_GIVE_UP_S = 600.0
_STATE_S = 15.0


@dataclass(kw_only=True)
class Ending:
    """How a run ended."""

    exits: dict[str, int] = field(default_factory=dict)
    """Exit code of the whole run, by node; a lost node has none."""
    codes: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """By node and workload: (exit code, seconds). What had not ended is missing."""
    lost: dict[str, str] = field(default_factory=dict)
    """By node: why nothing more was heard of it."""


def stream_command(place: Place, run: str, offsets: Mapping[str, int]) -> str:
    """The command whose output `follow` reads."""
    return (
        f"[ -f {place.environment} ] && . {place.environment}; cd -P {place.tree}"
        f" && exec python3 -m operate.stream {place.run(run)} {quote(json.dumps(dict(offsets)))}"
    )


def follow(
    cluster: Cluster,
    run: str,
    screen: Screen,
    *,
    status: Callable[[], str] = lambda: "",
    lost: Callable[[tuple[str, ...], tuple[str, ...]], None] = lambda names, others: None,
    secrets: tuple[str, ...] = (),
    give_up_s: float = _GIVE_UP_S,
) -> Ending:
    """Show the output of `run` on every node until all have ended or are lost.

    `status` adds to the moving line, for example the dollars so far. `lost` is called once a node is lost, with the
    names of all that are and of those that still run. `secrets` are blanked in what is shown. KeyboardInterrupt is
    passed on: the run goes on.
    """
    events: Queue[tuple[str, dict[str, Any]]] = Queue()
    for node in cluster.nodes:
        watcher = _Watcher(cluster, node, run, events.put, give_up_s)
        threading.Thread(target=watcher.watch, name=f"follow-{node.name}", daemon=True).start()
    ending, output = Ending(), Output(screen, cluster.names)
    doing: dict[str, str] = {}

    def tell() -> str:
        names = Counter(doing.values())
        busy = ", ".join(f"{name} on {count}" if len(cluster.nodes) > 1 else name for name, count in names.items())
        return " · ".join(part for part in (busy or "starting", status()) if part)

    with screen.moving(tell):
        while len(ending.exits) + len(ending.lost) < len(cluster.nodes):
            try:
                name, event = events.get(timeout=0.5)
            except Empty:
                output.pause()
                continue
            if "log" in event:
                doing[name] = event["log"]
                output.lines(name, event["log"], [_blanked(line, secrets) for line in event["lines"]])
            elif "codes" in event:
                told = {workload: (row[0], row[1]) for workload, row in event["codes"].items()}
                for workload in told.keys() - ending.codes.get(name, {}).keys():
                    output.ended(name, workload, *told[workload])
                ending.codes[name] = told
            elif "exit" in event:
                doing.pop(name, None)
                ending.exits[name] = event["exit"]
            elif "lost" in event:
                doing.pop(name, None)
                ending.lost[name] = event["lost"]
                output.warn(name, f"{name} is lost: {event['lost']}")
                if left := tuple(n for n in cluster.names if n not in ending.exits and n not in ending.lost):
                    lost(tuple(ending.lost), left)
            else:
                output.warn(name, event["notice"])
    output.close()
    return ending


def _blanked(line: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        line = line.replace(secret, "***")
    return line


def _event(line: bytes) -> dict[str, Any] | None:
    """One event of `operate.stream`; None for what the machine's own env.sh may write."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


class _Watcher:
    """Follows one node; everything it has to say goes to `put`."""

    def __init__(
        self,
        cluster: Cluster,
        node: Node,
        run: str,
        put: Callable[[tuple[str, dict[str, Any]]], None],
        give_up_s: float,
    ) -> None:
        self._cluster, self._node, self._run = cluster, node, run
        self._put, self._give_up_s = put, give_up_s
        self._shell: Shell = cluster.shells.shells[node.name]
        self._offsets: dict[str, int] = {}

    def watch(self) -> None:
        """Until the run's exit is told, or the node is lost."""
        try:
            self._watch()
        except Exception as error:  # else whoever follows would wait for this node for ever
            self._say(lost=str(as_problem(error)))

    def _watch(self) -> None:
        cut: float | None = None
        pause_s = 0.5
        while True:
            try:
                for event in self._events():
                    if cut is not None:
                        self._say(notice=f"{self._node.name} answers again")
                        cut, pause_s = None, 0.5
                    if "log" in event:
                        self._offsets[event["log"]] = event["at"]
                    if "beat" not in event:
                        self._put((self._node.name, event))
                    if "exit" in event or "lost" in event:
                        return
                problem: Problem = Unreachable("its stream ended early", "fab attach")
            except Unreachable as error:
                problem = error
            except Problem as error:  # a changed host key: trying again would be wrong
                self._say(lost=error.cause)
                return
            state = self._cluster.state(self._node)
            if state not in ("running", "pending"):
                self._say(lost=f"EC2 says that it is {state}")
                return
            if cut is None:
                cut = time.monotonic()
                self._say(notice=f"{problem.cause}; the run goes on there, trying to reach it again")
            elif time.monotonic() - cut > self._give_up_s:
                self._say(lost=f"no answer for {self._give_up_s:.0f} s")
                return
            time.sleep(pause_s)
            pause_s = min(10.0, pause_s * 2)

    def _events(self) -> Iterator[dict[str, Any]]:
        rest = b""
        command = stream_command(self._cluster.place, self._run, self._offsets)
        for piece in self._shell.stream(command, idle_s=_SILENCE_S):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if event := _event(line):
                    yield event

    def _say(self, **event: str) -> None:
        self._put((self._node.name, dict(event)))
