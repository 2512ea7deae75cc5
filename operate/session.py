"""One bash that stays, at the other end of an SSH channel: commands without the cost of a new login each.

sshd starts a session process and a login shell for every command, some 5 ms of the node's CPU; here a command costs
one fork of a shell that is already there.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from shlex import quote
from threading import Event

import paramiko

from operate.shell import Outcome

_PIECE = 1 << 16
START = "exec bash --norc --noprofile"
"""What the channel has to run."""


class Session:
    """Runs commands one after the other, each in a subshell of its own: none can change the next one's world."""

    def __init__(self, channel: paramiko.Channel) -> None:
        """`channel` runs `START`."""
        self._channel = channel
        self._mark = f"={secrets.token_hex(16)}=".encode()  # nothing that a command writes can look like it

    @property
    def alive(self) -> bool:
        """Whether it still takes commands."""
        return not (self._channel.closed or self._channel.exit_status_ready())

    def run(self, command: str, *, until: float) -> Outcome:
        """Run `command` without stdin, at most until that `time.monotonic()`.

        Raises:
            TimeoutError: it takes longer; the session cannot be used again.
            EOFError, OSError: the connection is gone.
        """
        mark = self._mark.decode()
        line = f"( eval {quote(command)} ) < /dev/null; printf '{mark}%d\\n' $?; printf '{mark}\\n' >&2\n"
        self._channel.settimeout(max(0.001, until - time.monotonic()))
        self._channel.sendall(line.encode())
        stdout, stderr = _Part(self._mark), _Part(self._mark)
        for piece in pieces(self._channel, lambda: until - time.monotonic()):
            part = stderr if piece.of_stderr else stdout
            part.add(piece.data)
            if stdout.over and stderr.over:
                return Outcome(code=int(stdout.tail), stdout=stdout.head, stderr=stderr.head)
        raise EOFError("the connection ended")

    def close(self) -> None:
        """End the bash."""
        self._channel.close()


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What came in at once on one of a channel's two streams."""

    data: bytes
    of_stderr: bool


def pieces(channel: paramiko.Channel, left_s: Callable[[], float]) -> Iterator[Piece]:
    """What `channel` brings on both streams, as it comes, until both have ended.

    The two share one window: whoever reads only one of them waits for ever once the other has filled it.
    `left_s`: how long the next piece may be waited for, in seconds.

    Raises:
        TimeoutError: nothing came in that time.
    """
    arrival = _Arrival()
    for stream in (channel.in_buffer, channel.in_stderr_buffer):
        stream.set_event(arrival)
    while True:
        arrival.told.clear()  # before the looks: what comes after them ends the wait
        over = channel.eof_received or channel.closed
        if channel.recv_ready():
            yield Piece(data=channel.recv(_PIECE), of_stderr=False)
        elif channel.recv_stderr_ready():
            yield Piece(data=channel.recv_stderr(_PIECE), of_stderr=True)
        elif over:
            return
        elif not arrival.told.wait(max(0.0, left_s())):
            raise TimeoutError


class _Arrival:
    """Told by paramiko when either stream got something or ended.

    Channel.fileno() would tell it too, but loses a piece that comes on one stream while the other is drained.
    """

    def __init__(self) -> None:
        self.told = Event()

    def set(self) -> None:
        self.told.set()

    def clear(self) -> None:
        """One stream is drained, which says nothing of the other."""


class _Part:
    """One stream of one command: what comes before the mark, and what stands between it and the end of its line."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._got = bytearray()
        self._at = -1

    def add(self, data: bytes) -> None:
        if self._at < 0:
            begin = max(0, len(self._got) - len(self._mark))
            self._got += data
            self._at = self._got.find(self._mark, begin)
        else:
            self._got += data

    @property
    def over(self) -> bool:
        return self._at >= 0 and self._got.endswith(b"\n")

    @property
    def head(self) -> bytes:
        return bytes(self._got[: self._at])

    @property
    def tail(self) -> bytes:
        return bytes(self._got[self._at + len(self._mark) : -1])
