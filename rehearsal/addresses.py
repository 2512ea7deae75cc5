"""Where nodes listen: loopback addresses and ports that no other rehearsal of this machine uses."""

import itertools
import socket

from rehearsal import processes

SSH_PORT = 2222
"""Port of every node on Linux, where each node has an address of its own; 22 would need root."""
_ADDRESSES = 4000
"""Nodes that all rehearsals of a machine may have at a time."""


class Addresses:
    """Loopback addresses: 127.77.a.b on Linux; elsewhere only 127.0.0.1 answers, so nodes differ by port.

    A UDP socket bound to the address and port, which nothing else uses, claims it against rehearsals side by side
    while the node's door is closed; the kernel gives the claim back when the server dies.
    """

    def __init__(self) -> None:
        self._claims: dict[tuple[str, int], socket.socket] = {}
        self._candidates = itertools.cycle(_candidates())

    def take(self) -> tuple[str, int]:
        """The next free address and port: one that was given back is not used again soon, as on AWS."""
        for _ in range(_ADDRESSES):
            candidate = next(self._candidates)
            if claim := _claim(candidate):
                self._claims[candidate] = claim
                return candidate
        raise OSError("no loopback address is left: end a rehearsal with `fab rehearsal.stop`")

    def give_back(self, address: str, port: int) -> None:
        """Let the address be taken again."""
        self._claims.pop((address, port)).close()


def _candidates() -> list[tuple[str, int]]:
    if processes.LINUX:
        return [(f"127.77.{index // 250}.{index % 250 + 1}", SSH_PORT) for index in range(_ADDRESSES)]
    return [("127.0.0.1", 22001 + index) for index in range(_ADDRESSES)]


def _claim(candidate: tuple[str, int]) -> socket.socket | None:
    claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        claim.bind(candidate)
        # A node of a server that was killed may still listen for a moment.
        with socket.create_server(candidate):
            return claim
    except OSError:
        claim.close()
        return None
