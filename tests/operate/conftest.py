"""An account of moto's, and machines to reach: real sshds on loopback, each with a home of its own."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from moto import mock_aws

from operate import laptop
from operate.account import Account
from operate.cluster import Cluster
from operate.nodes import Node
from operate.remote import RemoteShell
from operate.shell import Shells


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An empty account in us-east-1."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with mock_aws():
        yield Account()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is very busy, a handshake or the start of Python takes longer than a user would wait for it."""
    for name in ("remote.CONNECT_S", "way.CONNECT_S", "tunnel._OPEN_S", "sshconfig._CONNECT_S", "follow._SILENCE_S"):
        monkeypatch.setattr(f"operate.{name}", 240)


@dataclass
class Machine:
    """One sshd and the home that its sessions see."""

    node: Node
    home: Path
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def host_key(self) -> str:
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def sessions(self) -> list[int]:
        """Processes of the connections that stand now."""
        listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
        return [pid for pid, parent in pairs if parent == self.process.pid]

    def cut(self) -> None:
        """Break every connection; sshd goes on."""
        for pid in self.sessions():
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End sshd and every connection: the machine is gone."""
        self.process.send_signal(signal.SIGSTOP)  # no new session while the old ones end
        self.cut()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small clone of the test's own, which the verbs take for theirs: nothing is written into the real one."""
    root = tmp_path / "clone"
    root.mkdir()
    monkeypatch.setattr(laptop, "ROOT", root)
    git(root, "init", "-q")
    (root / "hello.py").write_text("print('hello')\n")
    # what a node's own half of the verbs needs: the real files, for these tests run them
    (root / "operate").mkdir()
    watch = ("watch.py", "hang.py", "pulse.py", "council.py", "witnesses.py")
    for name in ("__init__.py", "stream.py", "ticket.py", "ship.py", "secret.py", *watch):
        shutil.copy(Path(__file__).parents[2] / "operate" / name, root / "operate" / name)
    git(root, "add", ".")
    git(root, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "First")
    return root


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True)


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def machines(tmp_path: Path, key: Path) -> Iterator[Callable[[int], list[Machine]]]:
    """Starts so many machines; they end with the test."""
    started: list[Machine] = []

    def start(count: int) -> list[Machine]:
        for _ in range(count):
            started.append(_boot(tmp_path / f"machine{len(started)}", key, f"node{len(started)}"))
        return started

    yield start
    for machine in started:
        if machine.process.poll() is None:
            machine.stop()
        while left := processes_of(machine.home):  # what a lost connection left running there
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def processes_of(home: Path) -> list[int]:
    """Living processes of the machine that has this home."""
    mark, found = f"HOME={home}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue  # ended meanwhile
    return found


def _boot(folder: Path, key: Path, name: str) -> Machine:
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert sshd, "these tests need OpenSSH's sshd: sudo apt install openssh-server"
    home = folder / "home"
    (home / ".rooflab").mkdir(parents=True)
    (home / "bin").mkdir()
    torchrun = home / "bin" / "torchrun"
    torchrun.write_text('#!/bin/bash\nwhile [ "$1" != "--log-dir" ]; do shift; done; shift 2; exec python "$@"\n')
    torchrun.chmod(0o755)
    python = shlex.quote(str(Path(sys.executable).parent))
    (home / ".rooflab" / "env.sh").write_text(f'export PATH="$HOME/bin":{python}:"$PATH"\n')
    (home / ".rooflab" / "ready").write_text("ok\n")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key")], check=True)
    shutil.copy(key.with_suffix(".pub"), folder / "authorized_keys")
    (folder / "enter").write_text(
        'cd "$HOME"; [ -n "$SSH_ORIGINAL_COMMAND" ] && exec bash -c "$SSH_ORIGINAL_COMMAND"; exec bash\n'
    )
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "AuthenticationMethods publickey\nUsePAM no\nStrictModes no\nPidFile none\nMaxStartups 100:30:200\n"
        "LoginGraceTime 0\n"
        f"SetEnv HOME={home}\nForceCommand /bin/sh {folder}/enter\n"
    )
    process, port = _listen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], folder / "log")
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    node = Node(name=name, address="127.0.0.1", port=port, user=user, private_ip="127.0.0.1")
    return Machine(node=node, home=home, folder=folder, process=process)


def _listen(command: list[str], log: Path) -> tuple["subprocess.Popen[bytes]", int]:
    """An sshd that listens, and its port; another one is taken where somebody else was quicker to take that."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with log.open("wb") as output:
            process = subprocess.Popen([*command, "-p", str(port)], stdout=output, stderr=output)
        while b"listening" not in log.read_bytes() and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is None:
            return process, port
        assert b"Address already in use" in log.read_bytes(), log.read_text()


def shells_to(machines: list[Machine], key: Path) -> Shells:
    """Shells on `machines`, with their keys pinned."""
    return Shells(
        {
            machine.node.name: RemoteShell.to_node(machine.node, host_keys=[machine.host_key], key=key)
            for machine in machines
        }
    )


@pytest.fixture
def cluster_of(key: Path, clone: Path) -> Iterator[Callable[[list[Machine]], Cluster]]:
    """Makes a cluster of machines, as a deployed stack would be one; closed with the test."""
    made: list[Cluster] = []

    def make(machines: list[Machine]) -> Cluster:
        cluster = Cluster(
            label="Lab3Stack",
            target="stack",
            nodes=tuple(machine.node for machine in machines),
            shells=shells_to(machines, key),
        )
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.shells.close()
