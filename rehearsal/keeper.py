"""The keeper: a small process that forks one init per node, so that no node outlives the rehearsal's server.

It is forked from the server before that has threads or moto, hence a node costs one fork of a small process. A
node's init is the ancestor of everything that runs on the node: it answers SSH connections, adopts orphans, and
kills all of it when the server says so or is gone (its end of the socket closes, whatever became of the server).
"""

import json
import os
import select
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict

from rehearsal import processes
from rehearsal.init import InitOrder, NodeInit, settle


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

    def listen(self, addresses: list[tuple[str, int]], *, operator: bool) -> None:
        """Answer SSH on exactly these addresses and ports; connections that stand are left alone.

        `operator`: whether what is no node's may come in; of nodes, those that `doors.visitors` names.

        Raises:
            OSError: an address cannot be bound.
        """
        with self._lock:
            self._say({"listen": addresses, "operator": operator})
            if problem := self._hear():
                raise OSError(problem)

    def put_inside(self, namespace: int, addresses: list[str], hosts: str) -> None:
        """Let what is started on the node from now on be in that network namespace, which has these addresses.

        `hosts`: the file that it sees as /etc/hosts.

        Raises:
            OSError: the node has ended.
        """
        with self._lock:
            order = json.dumps({"inside": addresses, "hosts": hosts}).encode() + b"\n"
            socket.send_fds(self._channel, [order], [namespace])
            self._hear()

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


def _keep(channel: socket.socket) -> None:
    settle()
    with channel, channel.makefile("r") as orders:
        for line in orders:
            order = InitOrder(**json.loads(line))
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                ours.close()
                channel.close()
                _live(NodeInit(order, theirs).run)
            socket.send_fds(channel, [f"{pid}".encode()], [ours.fileno()])
            ours.close()
            theirs.close()
    processes.end(lambda: processes.descendants([os.getpid()]))
