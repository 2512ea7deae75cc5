"""How the watches of a run's nodes agree: each asks the head node's over TCP, one line of JSON there, one back.

Runs on the nodes, with the standard library alone. It carries seconds and nodes' names, no secret; only nodes of the
lab reach its port, as they reach torchrun's.
"""

import contextlib
import json
import socket
import socketserver
import threading
import time
import zlib
from collections.abc import Iterator

from operate.hang import Council, Word

_ANSWER_S = 5.0


def port(run: str, job: str) -> int:
    """Where the head's watch of a job listens, 10000 to 19999: below torchrun's ports and those given to clients."""
    return 10000 + zlib.crc32(f"{run} {job}".encode()) % 10000


class Chair:
    """The council on the head node, for its own watch and for those that ask by the network."""

    def __init__(self, council: Council) -> None:
        """`council` is asked by several threads, one at a time."""
        self._council = council
        self._lock = threading.Lock()

    def hear(self, word: Word) -> str:
        """See `Council.hear`."""
        with self._lock:
            return self._council.hear(word, time.monotonic())

    @contextlib.contextmanager
    def open(self, address: str, number: int) -> Iterator[int]:
        """Answer on that port of `address`, or where the machine does not know it as its own, of all its addresses.

        Raises:
            OSError: the port is taken.
        """
        chair = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = _ANSWER_S

            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError, TypeError):  # cut off, or no watch of ours
                    word = Word(**json.loads(self.rfile.readline(4096)))
                    self.wfile.write(json.dumps({"order": chair.hear(word)}).encode() + b"\n")

        try:
            server = _Server((address, number), Handler)
        except OSError:
            server = _Server(("", number), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="council", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A broken connection is its caller's to tell."""


def ask(address: str, number: int, word: Word) -> str | None:
    """What the head's watch orders; None where it cannot be reached."""
    line = json.dumps({"node": word.node, "quiet_s": word.quiet_s, "dumped": word.dumped}).encode() + b"\n"
    try:
        with socket.create_connection((address, number), timeout=_ANSWER_S) as line_to_head:
            line_to_head.sendall(line)
            with line_to_head.makefile("rb") as answer:
                return str(json.loads(answer.readline(4096))["order"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
