"""One bash that stays, at the other end of an SSH channel: commands without the cost of a new login each.

sshd starts a session process and a login shell for every command, some 5 ms of the node's CPU; here a command costs
one fork of a shell that is already there.
"""

import secrets
import time
from collections.abc import Callable
from shlex import quote

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
        stdout, code = self._read(self._channel.recv, until)
        stderr, _ = self._read(self._channel.recv_stderr, until)
        return Outcome(code=int(code), stdout=stdout, stderr=stderr)

    def close(self) -> None:
        """End the bash."""
        self._channel.close()

    def _read(self, receive: Callable[[int], bytes], until: float) -> tuple[bytes, bytes]:
        """What comes before the mark, and what stands between it and the end of its line."""
        got = bytearray()
        begin = 0
        while True:
            at = got.find(self._mark, begin)
            if at >= 0 and got.endswith(b"\n"):
                return bytes(got[:at]), bytes(got[at + len(self._mark) : -1])
            begin = max(0, len(got) - len(self._mark)) if at < 0 else at
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._channel.settimeout(left)
            piece = receive(_PIECE)
            if not piece:
                raise EOFError("the connection ended")
            got += piece
