"""Keeps a server for as long as its owner lives: `python -m workloads.serving.keeper COMMAND …`.

The owner holds the other end of stdin. When it closes, by whatever end the owner came to, SIGKILL included, the server
and all processes of its session end: asked first, after a few seconds made to.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_S = 5.0
"""A server that was asked to end has so long."""


def keep(command: list[str]) -> int:
    """Run `command` until it ends or stdin does; its exit code."""
    # A terminal's Ctrl-C goes to the owner, who closes stdin; a keeper that died of it would leave the server behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
    code = server.wait()
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # what the server itself left behind
    return code


def _end_with_stdin(server: subprocess.Popen) -> None:
    while os.read(0, 1):  # not sys.stdin: its lock, held by a thread, would abort the interpreter's end
        continue
    server.terminate()
    try:
        server.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]) % 256)
