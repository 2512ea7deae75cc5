"""One connection to a node's sshd as paramiko takes it: a socket, and in words why it ended."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class Line:
    """Bytes to and from a node, whatever carries them."""

    socket: Any
    """A socket, or a channel of paramiko's, which is used as one: read with a time-out, and closed."""
    why: Callable[[], str] = lambda: ""
    """What ended it from the other side, in the carrier's own words; "" where nothing is known."""
    close: Callable[[], None] = lambda: None
    """Lets go of what carries it; harmless the second time."""
