"""One node's torchrun in a job that goes on when a node is lost."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

from operate.peers import Events

SAVE_S = 90
"""Time to save where a node takes its leave. A spot notice gives 120 s."""


class Ranks:
    """This node's torchrun."""

    def __init__(self, node: str, command: Sequence[str], events: Events) -> None:
        self._node, self._command, self._events = node, list(command), events
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def start(self, extra: Sequence[str], variables: dict[str, str], *, generation: int) -> None:
        """Start it with further flags; its end becomes the event "ended" of this node."""
        program, *words = self._command
        # With the store that torchrun shares, ranks that it starts again find the addresses of those that are gone:
        # https://github.com/pytorch/pytorch/issues/135712
        own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVE_S)}
        environment = {**os.environ, **variables, **own_store}
        self._process = await asyncio.create_subprocess_exec(program, *extra, *words, env=environment)
        self._waiting = asyncio.create_task(self._wait(self._process, generation))

    async def _wait(self, process: asyncio.subprocess.Process, generation: int) -> None:
        code = await process.wait()
        if self._process is process:
            told = {"code": code if code >= 0 else 128 - code, "generation": generation}
            self._events.put("ended", self._node, told)

    async def stop(self, grace_s: float) -> None:
        """End it with all that it started: politely, after `grace_s` by force; by force at once where that is 0."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if grace_s > 0:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            for pid in descendants(process.pid) | {process.pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await process.wait()


def descendants(pid: int) -> set[int]:
    """Living processes that `pid` started, and theirs: torchrun's ranks are in sessions of their own."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [(int(child), int(parent)) for child, parent in (line.split() for line in listed.splitlines())]
    found, size = {pid}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in pairs if parent in found}
    return found - {pid}


def rendezvous(nodes: int, endpoint: str, address: str, *, hosts: bool) -> list[str]:
    """torchrun's flags for one generation: it meets at `endpoint`, whose store the node that `hosts` keeps."""
    return ["--nnodes", str(nodes), "--rdzv-endpoint", endpoint, "--rdzv-conf",
            f"is_host={'true' if hosts else 'false'}", "--local-addr", address]  # fmt: skip
