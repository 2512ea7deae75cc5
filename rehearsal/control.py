"""Start, stop and steer rehearsals. Each has a name, and keeps its state in .rehearsal/NAME of the checkout.

Nothing here loads moto: the verbs of `fab rehearsal.*` answer at once.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rehearsal import drills, namespaces, processes, rates, temporary

CHECKOUT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_START_S = 180.0
"""Longest that a server may take to start; two seconds is usual."""
_END_S = 20.0
"""Longest that it may take to end by itself; half a second is usual."""
_KEPT = ("logs",)


class RehearsalError(Exception):
    """What the user can put right: one line, "cause: remedy"."""


def start(name: str = "default", seed: int = 0, link: str = "", *, root: Path | None = None) -> dict[str, Any]:
    """Start a rehearsal in the background and return its `status`.

    What a rehearsal of that name left behind when it died is cleared away first. `link`: how fast each node's own link
    is; "": all share this machine's loopback.

    Raises:
        RehearsalError: one of that name is running, it can give nodes no links, or the server did not come up.
    """
    state = _state(name, root)
    if link:
        _rate(link)
        if why := namespaces.obstacle():
            raise RehearsalError(f"link={link!r} cannot be: {why}")
    with _locked(state):
        if _alive(_server(state)):
            raise RehearsalError(f"the rehearsal {name!r} is running: use it, or end it with `{_stop_command(name)}`")
        _clear(state)
        state.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(state / "logs", ignore_errors=True)  # those of the last rehearsal of this name
        (state / "logs").mkdir()
        _spawn(name, seed, state, ["--link", link] if link else [])
    return status(name, root=root)


def _spawn(name: str, seed: int, state: Path, more: list[str]) -> None:
    command = [sys.executable, "-m", "rehearsal.serve", "--name", name, "--state", str(state), "--seed", str(seed)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MOTO_"))}
    reader, writer = os.pipe()
    log = state / "logs" / "server.log"
    with log.open("ab") as output, open(reader, "rb") as ready:  # noqa: PTH123  # a descriptor, not a path
        server = subprocess.Popen(
            [*command, *more, "--ready-fd", str(writer)], cwd=CHECKOUT, env={**environment, processes.MARK: str(state)},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[writer], start_new_session=True,
        )  # fmt: skip
        os.close(writer)
        # Either the server writes its line, or it dies and the pipe closes: no polling, no guess.
        with _deadline(server, _START_S):
            answer = ready.readline()
    if answer != b"ready\n":
        server.wait()
        said = log.read_text(errors="replace").strip().splitlines()
        raise RehearsalError(f"the rehearsal's server did not start ({said[-1] if said else 'no output'}): see {log}")
    server.returncode = 0  # it lives on by itself: without this, Popen warns when it is collected


@contextlib.contextmanager
def _deadline(server: "subprocess.Popen[bytes]", seconds: float) -> Iterator[None]:
    import threading

    timer = threading.Timer(seconds, server.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def stop(name: str | None = "default", everything: bool = False, *, root: Path | None = None) -> dict[str, Any]:
    """End a rehearsal and every process that belongs to it, whatever became of its server. Logs are kept.

    `everything` (or the name None) ends all rehearsals of this checkout. Nothing running is no error.
    Returns {"stopped": names, "processes": how many were killed after the servers had ended}.
    """
    folder = root or CHECKOUT / ".rehearsal"
    names = [name] if name and not everything else sorted(path.name for path in folder.glob("*") if path.is_dir())
    stopped, killed = [], 0
    for each in names:
        state = _state(each, root)
        if state.exists() or processes.marked(state):
            with _locked(state):
                running = (state / "processes").exists()
                killed += _clear(state)
                if running:
                    stopped.append(each)
    return {"stopped": stopped, "processes": killed}


def _clear(state: Path) -> int:
    """End all of a rehearsal's processes, then remove its state; how many had to be killed."""
    spared = {os.getpid()} | processes.ancestors(os.getpid())
    if (server := _server(state)) and _alive(server) and server["pid"] not in spared:
        os.kill(server["pid"], signal.SIGTERM)
        _await_end(server)

    def belonging() -> set[int]:
        roots = {pid for pid, begun in _recorded(state) if processes.started(pid) == begun} - spared
        marked = processes.marked(state) - spared
        return (roots | marked | processes.descendants(roots | marked)) - spared

    try:
        ended = processes.end(belonging)
    except TimeoutError as error:
        raise RehearsalError(str(error)) from None
    temporary.erase(state)
    for path in state.glob("*") if state.exists() else ():
        if path.name not in _KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return len(ended)


def _recorded(state: Path) -> list[tuple[int, str]]:
    try:
        lines = (state / "processes").read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = [line.split("\t") for line in lines]
    return [(int(row[0]), row[1]) for row in rows if len(row) == 3]  # a server killed while it wrote leaves half a line


def status(name: str = "default", *, root: Path | None = None) -> dict[str, Any]:
    """What the rehearsal is: its name, whether it is "running", where, "now" on its clock, nodes, ticks, faults."""
    state = _state(name, root)
    server = _server(state)
    known = {key: server[key] for key in ("endpoint", "pid", "seed", "state")} if server else {}
    try:
        if _alive(server):
            return {"name": name, "running": True, **known, **_ask(server, "status")}
    except RehearsalError:
        if not _await_end(server):  # one that is just being killed closes its sockets a moment before it is gone
            raise
    return {"name": name, "running": False, "state": str(state)}


def environment(name: str = "default", *, root: Path | None = None) -> dict[str, str]:
    """Environment in which every AWS tool talks to this rehearsal.

    Raises:
        RehearsalError: it is not running.
    """
    return {
        **_running(name, root)["environment"],
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        # The rehearsal refuses by itself what a template gets wrong; cdk-nag and the CLI's own checks take longer
        # than the deployment, and `make check` runs them.
        "CDK_VALIDATION": "false",
    }


def advance(name: str = "default", seconds: float = 0.0, *, root: Path | None = None) -> dict[str, Any]:
    """Move the rehearsal's clock forward. Every tick of the guard that falls due is run before this returns.

    Raises:
        RehearsalError: it is not running.
    """
    return _ask(_running(name, root), "advance", seconds=seconds)


def fault(
    name: str = "default",
    fault: str = "",
    *,
    at: str = "now",
    seed: int = 0,
    root: Path | None = None,
    **options: object,
) -> dict[str, Any]:
    """Order a fault, one of `drills.DRILLS`, for a moment (see `rehearsal.moments`); `seed` chooses what is left open.

    Raises:
        RehearsalError: it is not running, or knows no such fault, moment, option or value.
    """
    try:
        drills.ordered(fault, at, seed, options)
    except ValueError as error:
        raise RehearsalError(str(error)) from None
    return _ask(_running(name, root), "fault", fault=fault, at=at, seed=seed, options=options)


def clear(name: str = "default", *, root: Path | None = None) -> dict[str, Any]:
    """Forget all faults, and let what they hold up go on.

    Raises:
        RehearsalError: it is not running.
    """
    return _ask(_running(name, root), "fault", clear=True)


def link(name: str = "default", rate: str = "", *, root: Path | None = None) -> dict[str, Any]:
    """Let the links of all nodes be that fast from now on; runs that are begun afterwards tell it.

    Raises:
        RehearsalError: no such rate, it is not running, or was started without links.
    """
    _rate(rate)
    return _ask(_running(name, root), "link", rate=rate)


def _rate(text: str) -> None:
    try:
        rates.rate(text)
    except ValueError as error:
        raise RehearsalError(str(error)) from None


def faults() -> list[dict[str, Any]]:
    """All faults that can be ordered, with their options; no rehearsal need run."""
    return drills.listed()


def options(text: str) -> dict[str, str]:
    """A fault's options, from "left=1,zone=us-east-1a".

    Raises:
        RehearsalError: it is not of that form.
    """
    pairs = [pair.partition("=") for pair in text.split(",")] if text else []
    if wrong := [key for key, equals, _ in pairs if not key or not equals]:
        raise RehearsalError(
            f"options={text!r} is not understood at {wrong[0]!r}: write for example left=1,zone=us-east-1a"
        )
    return {key: value for key, _, value in pairs}


def told(rows: list[dict[str, Any]]) -> str:
    """Faults for a reader: those that can be ordered, or those that were."""
    lines = []
    for row in rows:
        if "says" in row:
            lines.append(f"{row['fault']}  {row['says']}")
            lines += [f"    {key}={option['default']}  {option['says']}" for key, option in row["options"].items()]
        else:
            lines.append(f"{row['fault']}: " + (f"{row['did']} ({row['struck']})" if row["struck"] else "waits"))
    return "\n".join(lines) or "no faults"


def _running(name: str, root: Path | None) -> dict[str, Any]:
    server = _server(_state(name, root))
    if not _alive(server):
        option = "" if name == "default" else f" --name {name}"
        raise RehearsalError(f"the rehearsal {name!r} is not running: start it with `fab rehearsal.start{option}`")
    return server


def _ask(server: dict[str, Any], verb: str, **given: object) -> dict[str, Any]:
    key = server["environment"]["AWS_ACCESS_KEY_ID"]
    request = urllib.request.Request(
        f"{server['endpoint']}/rehearsal/{verb}", json.dumps(given).encode(), {"Authorization": f"Credential={key}/"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as reply:
            answer: dict[str, Any] = json.load(reply)
    except urllib.error.HTTPError as error:
        raise RehearsalError(f"the rehearsal refuses {verb}: {json.load(error)['error']}") from None
    except OSError as error:
        log = Path(server["state"]) / "logs" / "server.log"
        raise RehearsalError(f"the rehearsal does not answer ({error}): see {log}, then start it anew") from None
    return answer


def _state(name: str, root: Path | None) -> Path:
    if not _NAME.fullmatch(name):
        raise RehearsalError(f"name={name!r} names no rehearsal: write 1 to 40 letters, digits, - and _")
    return (root or CHECKOUT / ".rehearsal") / name


def _server(state: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((state / "server.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # never written, or killed while it was
        return {}
    return document


def _alive(server: dict[str, Any]) -> bool:
    return bool(server) and processes.started(server["pid"]) == server["started"]


def _await_end(server: dict[str, Any]) -> bool:
    """Give a server the time that it may take to end; whether it has."""
    deadline = time.monotonic() + _END_S
    while _alive(server):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _stop_command(name: str) -> str:
    return "fab rehearsal.stop" + ("" if name == "default" else f" --name {name}")


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One start or stop of a name at a time. The kernel lifts the lock when its holder dies."""
    state.parent.mkdir(parents=True, exist_ok=True)
    with state.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
