"""Short messages between the doctors of two nodes: JSON with its length in front, on TCP; every wait has a limit."""

import errno
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from labs.connections import Outcome

Message = dict[str, Any]
_LENGTH = struct.Struct("!I")
_LONGEST = 64 * 2**20
_IDLE_S = 60.0
"""A connection that says nothing for so long is over: its other end may be gone without a word."""
_UNROUTABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL)


class Talk:
    """A connection to another node's doctor."""

    def __init__(self, address: str, port: int, limit_s: float) -> None:
        """Connect.

        Raises:
            OSError: it does not answer within `limit_s`, or refuses, or there is no way.
        """
        self.where = f"{address}:{port}"
        self.socket = socket.create_connection((address, port), timeout=limit_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def ask(self, message: Message, limit_s: float) -> Message:
        """Send `message` and return the answer.

        Raises:
            OSError: no answer within `limit_s`, or the connection ended.
        """
        self.socket.settimeout(limit_s)
        send(self.socket, message)
        return receive(self.socket)


def ask(address: str, port: int, message: Message, *, connect_s: float, limit_s: float) -> Message:
    """One message to another node's doctor, and its answer.

    Raises:
        OSError: as of `Talk`.
    """
    with Talk(address, port, connect_s) as talk:
        return talk.ask(message, limit_s)


def send(end: socket.socket, message: Message) -> None:
    """Send one message.

    Raises:
        OSError: it cannot be sent.
    """
    data = json.dumps(message).encode()
    end.sendall(_LENGTH.pack(len(data)) + data)


def receive(end: socket.socket) -> Message:
    """The next message.

    Raises:
        OSError: none comes in time, the connection ended, or what came is no message.
    """
    (length,) = _LENGTH.unpack(_exactly(end, _LENGTH.size))
    if length > _LONGEST:
        raise ConnectionError("what answers speaks another language")
    try:
        message = json.loads(_exactly(end, length))
    except ValueError:
        raise ConnectionError("what answers speaks another language") from None
    if not isinstance(message, dict):
        raise ConnectionError("what answers speaks another language")
    return message


def _exactly(end: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = end.recv(size - len(parts))
        if not part:
            raise ConnectionResetError("the connection ended in the middle")
        parts += part
    return bytes(parts)


def outcome(error: OSError) -> Outcome:
    """What a failure to connect means."""
    if isinstance(error, socket.gaierror):
        return "unnamed"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return "silent"
    return "unroutable" if error.errno in _UNROUTABLE else "broken"


class Listener:
    """Answers the peers' messages, each connection in a thread of its own, until it is closed."""

    def __init__(self, port: int) -> None:
        """`port` on every address that is opened."""
        self.port = port
        self.answer: Callable[[Message, socket.socket], Message | None] | None = None
        self._ready = threading.Event()
        self._sockets: list[socket.socket] = []
        self._over = False

    def open(self, addresses: Sequence[str]) -> dict[str, OSError]:
        """Listen on these addresses; those where it cannot, and why not. Nobody is answered before `begin`."""
        failed = {}
        for address in dict.fromkeys(addresses):
            try:
                found = socket.getaddrinfo(address, self.port, type=socket.SOCK_STREAM)[0]
            except OSError as error:
                failed[address] = error
                continue
            end = socket.socket(found[0], socket.SOCK_STREAM)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                end.bind(found[4])
                end.listen(128)
            except OSError as error:
                failed[address] = error
                end.close()
                continue
            self._sockets.append(end)
            threading.Thread(target=self._accept, args=(end,), daemon=True, name=f"listen {address}").start()
        return failed

    def begin(self, answer: Callable[[Message, socket.socket], Message | None]) -> None:
        """Answer from now on by `answer`, which gets the message and its connection; None ends the connection."""
        self.answer = answer
        self._ready.set()

    def close(self) -> None:
        """Listen no more."""
        self._over = True
        for end in self._sockets:
            with _quietly():
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            end.close()

    def _accept(self, end: socket.socket) -> None:
        while not self._over:
            try:
                connection, _ = end.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(connection,), daemon=True, name="serve").start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, _quietly():
            connection.settimeout(_IDLE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                message = receive(connection)
                if not self._ready.wait(_IDLE_S) or self.answer is None:
                    return
                reply = self.answer(message, connection)
                if reply is None:
                    return
                send(connection, reply)


@contextmanager
def _quietly() -> Iterator[None]:
    """A peer that went away is its own doctor's finding, not this one's."""
    try:
        yield
    except OSError:
        return
