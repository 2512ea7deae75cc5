"""One connection to a node's sshd as paramiko takes it: a socket, and in words why it ended."""

import socket
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(kw_only=True)
class Line:
    """Bytes to and from a node, whatever carries them."""

    socket: socket.socket
    """A real one: paramiko reads it with a time-out and closes it."""
    why: Callable[[], str] = lambda: ""
    """What ended it from the other side, in the carrier's own words; "" where nothing is known."""
    close: Callable[[], None] = lambda: None
    """Lets go of what carries it; harmless the second time."""
