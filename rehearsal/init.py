"""A node's init: the ancestor of everything that runs on the node. It lets connections in and hands them to sshd."""

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rehearsal import doors, links, namespaces, origin, processes


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
    instance: str
    """The node's instance id."""
    state: str
    """The rehearsal's folder."""


def _reap(_number: int, _frame: FrameType | None) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def settle() -> None:
    """Signals and orphans of a keeper or an init: only the closing of its channel ends it."""
    processes.adopt_orphans()
    signal.signal(signal.SIGCHLD, _reap)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


class NodeInit:
    """Process 1 of a node."""

    def __init__(self, order: InitOrder, channel: socket.socket) -> None:
        self._order = order
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[tuple[str, int], socket.socket] = {}
        self._namespace: int | None = None
        """Descriptor of the one that the node's processes are in; None: this machine's."""
        self._inside: set[str] = set()
        """Addresses that are of that one."""
        self._hosts = ""
        """What its processes see as /etc/hosts."""
        self._sessions: set[int] = set()
        """Pids of the sshd of each connection; some may have ended."""
        self._every = 0
        self._came = 0
        self._operator = False

    def run(self) -> None:
        """Answer and obey until the server says that the node ends, or is gone."""
        settle()
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
            self._serve(socket.socket(fileno=descriptors[0]), tunnelled=True)
            self._channel.sendall(b"\n")
            return True
        if "inside" in order:
            self._namespace, self._inside, self._hosts = descriptors[0], set(order["inside"]), order["hosts"]
            os.set_inheritable(self._namespace, False)
            self._channel.sendall(b"\n")
            return True
        if "drop" in order:
            self._drop(order["drop"])
            self._channel.sendall(b"\n")
            return True
        self._operator = order["operator"]
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
                    listener = self._bind(address)
                except OSError as error:
                    return f"{address[0]}:{address[1]}: {error.strerror}"
                listener.setblocking(False)
                self._listeners[address] = listener
                self._selector.register(listener, selectors.EVENT_READ)
        return ""

    def _bind(self, address: tuple[str, int]) -> socket.socket:
        if self._namespace is None or address[0] not in self._inside:
            return socket.create_server(address, backlog=256)
        with namespaces.within(self._namespace):
            return socket.create_server(address, backlog=256)

    def _answer(self, listener: object) -> None:
        assert isinstance(listener, socket.socket)
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self._serve(connection, tunnelled=False)

    def _serve(self, connection: socket.socket, *, tunnelled: bool) -> None:
        self._came += 1
        with connection:
            if self._every and self._came % self._every == 0:
                return
            pid = os.fork()
            if pid == 0:
                if not tunnelled and not self._welcomes(connection):
                    os._exit(0)
                self._become_sshd(connection)
            self._sessions.add(pid)

    def _welcomes(self, connection: socket.socket) -> bool:
        """Whether security groups let in whoever has connected; where not, the connection is reset."""
        state = Path(self._order.state)
        here, there = connection.getsockname()[0], connection.getpeername()[0]
        if here in self._inside:
            guest = links.neighbour(state, self._order.instance, there)
        else:
            guest = origin.node_behind(connection, state)
        if guest in doors.visitors(state, self._order.instance) if guest else self._operator:
            return True
        with Path(self._order.log).open("a") as log:
            log.write(f"no security group lets in {guest or 'the operator'}\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def _become_sshd(self, connection: socket.socket) -> None:
        # Python ignores SIGPIPE and the server may have been started with SIGINT ignored: both would be inherited.
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        if self._namespace is not None:
            namespaces.enter(self._namespace)
            namespaces.see_own(self._hosts)
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
