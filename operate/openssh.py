"""The user's own OpenSSH, rsync and scp on a lab's nodes, by the ssh_config that fab writes."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shlex import quote

from operate import laptop
from operate.cluster import Cluster
from operate.nodes import Node
from operate.problem import Problem

_AT_ONCE = 4
"""Copies at a time: each has a connection of its own, of which an endpoint carries 20."""
_NO_RSYNC = (12, 127)
"""rsync's codes where the other side has none."""


def config(cluster: Cluster) -> Path:
    """The ssh_config of a deployed lab, for `ssh -F`."""
    assert cluster.account is not None
    return laptop.state(cluster.label, cluster.account.endpoint) / "ssh_config"


def choose(cluster: Cluster, name: str) -> Node:
    """The node called `name` ("node1" or "1"); the head where it is empty.

    Raises:
        Problem: there is no such node.
    """
    for node in cluster.nodes:
        if name in (node.name, node.name.removeprefix("node")) or not name:
            return node
    raise Problem(f"{cluster.label} has no node {name!r}", f"write one of {', '.join(cluster.names)}")


def ssh_words(cluster: Cluster, node: Node, command: Sequence[str] = ()) -> list[str]:
    """The command line of `ssh` to `node`, running `command` there, or a login shell."""
    return ["ssh", "-F", str(config(cluster)), *(["-t"] if not command else []), node.name, *command]


def tunnel_words(cluster: Cluster, node: Node, *, port: int, local_port: int) -> list[str]:
    """The command line that leads `local_port` of this machine (loopback only) to `port` of `node`."""
    forward = f"127.0.0.1:{local_port}:localhost:{port}"
    return ["ssh", "-F", str(config(cluster)), "-N", "-o", "ExitOnForwardFailure=yes", "-L", forward, node.name]


def copy_words(cluster: Cluster, source: Sequence[str], target: str, *, rsync: bool) -> list[str]:
    """The command line that copies `source` to `target`, one of them on a node."""
    if rsync:
        return [
            "rsync",
            "-az",
            "--partial",
            "-e",
            " ".join(["ssh", "-F", quote(str(config(cluster)))]),
            "--",
            *source,
            target,
        ]
    return ["scp", "-qrp", "-F", str(config(cluster)), "--", *source, target]


def port(flag: str, text: str) -> int:
    """The port that a flag gives.

    Raises:
        ValueError: it is none.
    """
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"{flag}={text!r} is not a port: write 1 to 65535")
    return int(text)


def free_port(port: int) -> None:
    """Check that `port` of this machine's loopback is free.

    Raises:
        Problem: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise Problem(f"port {port} of this machine is taken", f"choose another: --local-port {port + 1}") from None


def foreground(words: Sequence[str]) -> int:
    """Run `words` on this terminal and return the exit code. Ctrl-C is theirs, as if typed by hand."""
    _demand(words[0])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # the child gets Ctrl-C back: what is ignored here would be ignored there
        with subprocess.Popen(words, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
            return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def keep_open(words: Sequence[str]) -> None:
    """Run a tunnel until Ctrl-C, which is its proper end.

    Raises:
        Problem: it ended by itself.
    """
    _demand(words[0])
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            return
    raise Problem(f"the tunnel ended with exit code {code}", "ssh says why above; fab nodes shows the node")


def put(cluster: Cluster, source: Path, target: str, nodes: Sequence[Node]) -> dict[str, str]:
    """Copy `source` to `target` (below the home) on all `nodes` at once; by node, why it failed."""
    if not source.exists():
        raise Problem(f"{source} does not exist", "name a file or folder of this machine")
    return _each(nodes, lambda node, rsync: copy_words(cluster, [str(source)], f"{node.name}:{target}", rsync=rsync))


def get(cluster: Cluster, source: str, target: Path, nodes: Sequence[Node]) -> dict[str, str]:
    """Copy `source` of every one of `nodes` to `target`, or to `target`/NODE where there are several."""

    def words(node: Node, rsync: bool) -> list[str]:
        home = target / node.name if len(nodes) > 1 else target
        (home if len(nodes) > 1 else home.parent).mkdir(parents=True, exist_ok=True)
        return copy_words(cluster, [f"{node.name}:{source}"], str(home), rsync=rsync)

    return _each(nodes, words)


def demand(failed: dict[str, str], doing: str) -> None:
    """Nothing, if no copy failed.

    Raises:
        Problem: naming each node and why.
    """
    if failed:
        cause = "; ".join(f"{name} could not {doing} ({why})" for name, why in failed.items())
        raise Problem(cause, "fab nodes shows whether it answers; is the path right?")


def _each(nodes: Sequence[Node], words: Callable[[Node, bool], list[str]]) -> dict[str, str]:
    rsync = shutil.which("rsync") is not None
    _demand("ssh")

    def one(node: Node) -> str:
        done = subprocess.run(words(node, rsync), capture_output=True, text=True, check=False)
        if rsync and done.returncode in _NO_RSYNC and "not found" in done.stderr:
            done = subprocess.run(words(node, False), capture_output=True, text=True, check=False)
        said = done.stderr.strip().splitlines()
        why = said[0].removeprefix("problem: ") if said else f"exit code {done.returncode}"
        return "" if done.returncode == 0 else why

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        return {node.name: why for node, why in zip(nodes, pool.map(one, nodes), strict=True) if why}


def _demand(program: str) -> None:
    if shutil.which(program) is None:
        raise Problem(f"{program} is not installed", "install OpenSSH: sudo apt install openssh-client")
