"""The rehearsal's server: python -m rehearsal.serve --name NAME --state FOLDER. Loopback only.

`rehearsal.control` starts it in the background; by hand it stays in the foreground and ends with Ctrl-C.
"""

import argparse
import gc
import json
import os
import secrets
import shutil
import signal
import sys
import threading
from pathlib import Path

from rehearsal import namespaces, processes, settings
from rehearsal.keeper import Keeper
from rehearsal.rates import rate

_SSHD = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:/usr/bin"
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until the state folder is gone."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal.serve", description="an AWS on loopback")
    parser.add_argument("--name", default="default")
    parser.add_argument("--state", type=Path, required=True, help="folder for everything that the rehearsal keeps")
    parser.add_argument("--seed", type=int, default=0, help="fixes all ids")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument("--link", type=rate, help="put nodes into network namespaces, with links that fast: 100mbit")
    parser.add_argument("--ready-fd", type=int, default=-1, help="gets a line when requests are answered")
    options = parser.parse_args(arguments)
    if options.link and (why := namespaces.obstacle()):
        sys.exit(why)
    state: Path = options.state.resolve()
    for folder in ("logs", "nodes", "shared", "functions"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    sshd = shutil.which("sshd", path=_SSHD)
    if not sshd:
        sys.exit("sshd is not installed: on Debian or Ubuntu run `apt-get install openssh-server`")
    if os.getuid() == 0 and processes.LINUX:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd refuses to run as root without it
    os.environ[processes.MARK] = str(state)
    settings.configure(state)
    keeper = Keeper.fork()

    gc.disable()  # moto's large tables hold no cycles: looking for some while they load doubles the time
    from rehearsal.world import WHO, World  # late: the keeper is forked from a small process that has one thread

    keys = {who: "AKIA" + "".join(secrets.choice(_ALPHABET) for _ in range(16)) for who in WHO}
    world = World(
        name=options.name, state=state, seed=options.seed, port=options.port, keeper=keeper, sshd=sshd,
        keys=keys, secret=secrets.token_urlsafe(30), link=options.link,
    )  # fmt: skip
    gc.freeze()
    gc.enable()
    _write(state / "server.json", world.described())
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    world.start()
    if options.ready_fd >= 0:
        os.write(options.ready_fd, b"ready\n")
        os.close(options.ready_fd)
    while not ended.wait(1.0) and state.is_dir():
        pass
    world.stop()
    sys.stdout.flush()
    os._exit(0)  # taking moto's large tables apart, as a normal exit does, costs two seconds


def _write(path: Path, document: dict[str, object]) -> None:
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    main()
