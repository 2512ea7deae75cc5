"""The keeper: a small process that forks one init per node, so that no node outlives the rehearsal's server.

It is forked from the server before that has threads or moto, hence a node costs one fork of a small process. A
node's init is the ancestor of everything that runs on the node: it answers SSH connections, adopts orphans, and
kills all of it when the server says so or is gone (its end of the socket closes, whatever became of the server).
"""

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rehearsal import processes


@dataclass(frozen=True, kw_only=True)
class InitOrder:
    """What an init must know to answer for one node."""

    sshd: str
    """Path of OpenSSH's server."""
    config: str
    """Path of the node's sshd_config."""
    log: str
    """File that sshd's messages are appended to."""
    environment: dict[str, str]
    """Environment of the processes that the init starts."""


class Keeper:
    """The server's handle on the keeper."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel
        self._lock = threading.Lock()

    @classmethod
    def fork(cls) -> "Keeper":
        """Fork the keeper. Call it while the process is small and has one thread."""
        assert threading.active_count() == 1
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _live(lambda: _keep(theirs))
        theirs.close()
        return cls(pid, ours)

    def boot(self, order: InitOrder) -> "Init":
        """Start the init of a node."""
        with self._lock:
            self._channel.sendall(json.dumps(asdict(order)).encode() + b"\n")
            answer, descriptors, _, _ = socket.recv_fds(self._channel, 64, 1)
        return Init(int(answer), socket.socket(fileno=descriptors[0]))


class Init:
    """The server's handle on one node's init."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel
        self._reader = channel.makefile("r")
        self._lock = threading.Lock()

    def listen(self, addresses: list[tuple[str, int]]) -> None:
        """Answer SSH on exactly these addresses and ports; connections that stand are left alone.

        Raises:
            OSError: an address cannot be bound.
        """
        with self._lock:
            self._say({"listen": addresses})
            if problem := self._hear():
                raise OSError(problem)

    def connect(self) -> socket.socket:
        """A connection to the node's sshd that passes no door: what a tunnel carries.

        Raises:
            OSError: the node has ended.
        """
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            socket.send_fds(self._channel, [json.dumps({"answer": True}).encode() + b"\n"], [theirs.fileno()])
            self._hear()
        return ours

    def drop(self, every: int) -> None:
        """Drop the connections that stand, and from now on each `every`-th that comes; 0 drops none any more."""
        with self._lock:
            self._say({"drop": every})
            self._hear()

    def order_end(self, grace_s: float = 0.0) -> None:
        """Ask the init to end everything on the node: SIGTERM, and SIGKILL after `grace_s`.

        `await_end` waits. Two steps: nodes end together. A second order overtakes the first.
        """
        with self._lock:
            try:
                self._say({"end": grace_s})
            except OSError:  # the init was killed: `await_end` finds its channel closed
                return

    def await_end(self, within_s: float = 10.0) -> bool:
        """Wait until everything on the node is dead; whether it is."""
        # Without the lock: a second order may come while this waits.
        ended, _, _ = select.select([self._channel], [], [], within_s)
        if ended:
            self._reader.close()
            self._channel.close()
        return bool(ended)

    def _say(self, order: Mapping[str, object]) -> None:
        self._channel.sendall(json.dumps(order).encode() + b"\n")

    def _hear(self) -> str:
        return self._reader.readline().strip()


def _live(life: "object") -> None:
    """Run a forked process's life and leave without the parent's exit handlers."""
    assert callable(life)
    status = 1
    try:
        life()
        status = 0
    except Exception as error:  # the parent's stack is not ours to unwind into: report here, then leave
        sys.stderr.write(f"rehearsal process {os.getpid()}: {type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(status)


def _reap(_number: int, _frame: FrameType | None) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _settle() -> None:
    """Signals and orphans of a keeper or an init: only the closing of its channel ends it."""
    processes.adopt_orphans()
    signal.signal(signal.SIGCHLD, _reap)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _keep(channel: socket.socket) -> None:
    _settle()
    with channel, channel.makefile("r") as orders:
        for line in orders:
            order = InitOrder(**json.loads(line))
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                ours.close()
                channel.close()
                _live(_NodeInit(order, theirs).run)
            socket.send_fds(channel, [f"{pid}".encode()], [ours.fileno()])
            ours.close()
            theirs.close()
    processes.end(lambda: processes.descendants([os.getpid()]))


class _NodeInit:
    """Process 1 of a node."""

    def __init__(self, order: InitOrder, channel: socket.socket) -> None:
        self._order = order
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[tuple[str, int], socket.socket] = {}
        self._sessions: set[int] = set()
        """Pids of the sshd of each connection; some may have ended."""
        self._every = 0
        self._came = 0

    def run(self) -> None:
        _settle()
        self._selector.register(self._channel, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._channel:
                    self._answer(key.fileobj)
                elif not self._obey(*socket.recv_fds(self._channel, 65536, 1)[:2]):
                    return

    def _obey(self, line: bytes, descriptors: list[int]) -> bool:
        # One order is outstanding at a time and is short, so it arrives whole. Nothing arrives: the server is gone.
        order: dict[str, Any] = json.loads(line) if line else {"end": 0.0}
        if "end" in order:
            self._listen([])
            self._ask_to_end(order["end"])
            processes.end(self._living)
            return False
        if "answer" in order:
            self._serve(socket.socket(fileno=descriptors[0]))
            self._channel.sendall(b"\n")
            return True
        if "drop" in order:
            self._drop(order["drop"])
            self._channel.sendall(b"\n")
            return True
        self._channel.sendall(self._listen([(address, port) for address, port in order["listen"]]).encode() + b"\n")
        return True

    def _living(self) -> set[int]:
        return processes.descendants([os.getpid()])

    def _ask_to_end(self, grace_s: float) -> None:
        """What an operating system does as it shuts down: SIGTERM to all, and time to heed it.

        The next order, or the server's end, cuts that short.
        """
        if grace_s <= 0:
            return
        for pid in self._living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline, pause_s = time.monotonic() + grace_s, 0.005
        while self._living() and time.monotonic() < deadline:
            if select.select([self._channel], [], [], pause_s)[0]:
                return
            pause_s = min(pause_s * 1.5, 0.1)

    def _drop(self, every: int) -> None:
        self._every = every
        living = self._living()
        for pid in self._sessions & living if every else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # what it started lives on, as on a node whose network fails
        self._sessions &= living

    def _listen(self, addresses: list[tuple[str, int]]) -> str:
        for gone in self._listeners.keys() - set(addresses):
            listener = self._listeners.pop(gone)
            self._selector.unregister(listener)
            listener.close()
        for address in addresses:
            if address not in self._listeners:
                try:
                    listener = socket.create_server(address, backlog=256)
                except OSError as error:
                    return f"{address[0]}:{address[1]}: {error.strerror}"
                listener.setblocking(False)
                self._listeners[address] = listener
                self._selector.register(listener, selectors.EVENT_READ)
        return ""

    def _answer(self, listener: object) -> None:
        assert isinstance(listener, socket.socket)
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        self._came += 1
        with connection:
            if self._every and self._came % self._every == 0:
                return
            pid = os.fork()
            if pid == 0:
                self._become_sshd(connection)
            self._sessions.add(pid)

    def _become_sshd(self, connection: socket.socket) -> None:
        # Python ignores SIGPIPE and the server may have been started with SIGINT ignored: both would be inherited.
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        connection.setblocking(True)
        with Path(self._order.log).open("ab") as log:
            os.dup2(connection.fileno(), 0)
            os.dup2(connection.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.execve(
            self._order.sshd,
            [self._order.sshd, "-i", "-f", self._order.config, "-E", self._order.log],
            self._order.environment,
        )
