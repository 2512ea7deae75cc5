"""Machines to talk to: one sshd each on loopback, with a key, a pinned host key and a home of its own."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from operate.nodes import Node
from operate.problem import Problem
from operate.remote import RemoteShell

_START_S = 10.0
_MEMORY = ("/dev/shm",)
"""Where homes lie, if it is there: 64 of them on one disk would measure the disk."""
_SFTP = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")


@dataclass(frozen=True, kw_only=True)
class Machines:
    """sshd's that run, all of this user."""

    folder: Path
    key: Path
    known_hosts: Path
    nodes: tuple[Node, ...]

    def shell(self, node: Node) -> RemoteShell:
        """Our own way to one of them, not yet connected."""
        kind, encoded, *_ = (self.folder / node.name / "host_key.pub").read_text().split()
        return RemoteShell.to_node(node, host_keys=[f"{kind} {encoded}"], key=self.key)

    def home(self, node: Node) -> Path:
        """Its home, which lies on this machine."""
        return self.folder / node.name / "home"

    def ssh(self, node: Node) -> list[str]:
        """OpenSSH's command line to one of them, without its address."""
        given = {"IdentityFile": self.key, "UserKnownHostsFile": self.known_hosts, "IdentitiesOnly": "yes",
                 "StrictHostKeyChecking": "yes", "BatchMode": "yes"}  # fmt: skip
        options = [word for name, value in given.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-p", str(node.port), *options]


@contextmanager
def machines(count: int) -> Iterator[Machines]:
    """Start `count` of them, and end them.

    Raises:
        Problem: sshd is not installed, or one does not answer.
    """
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise Problem("sshd is not installed", "sudo apt-get install openssh-server")
    memory = next((path for path in _MEMORY if os.access(path, os.W_OK)), None)
    with tempfile.TemporaryDirectory(prefix="rooflab-bench-", dir=memory) as name:
        folder = Path(name)
        key = _key(folder / "id")
        user = pwd.getpwuid(os.getuid()).pw_name
        nodes = tuple(
            Node(name=f"node{index}", address="127.0.0.1", user=user, port=_free_port()) for index in range(count)
        )
        running: list[subprocess.Popen[bytes]] = []
        try:
            lines = [_start(program, folder, node, key, running) for node in nodes]
            known_hosts = folder / "known_hosts"
            known_hosts.write_text("".join(lines))
            for node in nodes:
                _wait(node, folder)
            if any(process.poll() is not None for process in running):
                raise Problem("somebody else took the port of an sshd before it did", "run the benchmark again")
            yield Machines(folder=folder, key=key, known_hosts=known_hosts, nodes=nodes)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def _start(program: str, folder: Path, node: Node, key: Path, running: list[subprocess.Popen[bytes]]) -> str:
    """Start one sshd, note it in `running`, and return its line of known_hosts."""
    own = folder / node.name
    (own / "home").mkdir(parents=True)
    host_key = _key(own / "host_key")
    (own / "sshd_config").write_text(f"""\
ListenAddress 127.0.0.1:{node.port}
HostKey {host_key}
AuthorizedKeysFile {key}.pub
AuthenticationMethods publickey
UsePAM no
StrictModes no
UseDNS no
PidFile none
PrintMotd no
PrintLastLog no
MaxStartups 100
Subsystem sftp {_sftp()} -d {own / "home"}
SetEnv HOME={own / "home"}
""")
    command = [program, "-D", "-e", "-f", str(own / "sshd_config")]
    with (own / "log").open("wb") as log:
        running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    return f"[127.0.0.1]:{node.port} {Path(f'{host_key}.pub').read_text()}"


def _sftp() -> str:
    """The program for SFTP, where distributions put it."""
    return next((path for path in _SFTP if Path(path).exists()), _SFTP[0])


def _key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(node: Node, folder: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        try:
            with socket.create_connection((node.address, node.port), timeout=1):
                return
        except OSError:
            time.sleep(0.02)
    log = (folder / node.name / "log").read_text(errors="replace").strip().splitlines()
    raise Problem(f"sshd does not start: {log[-1] if log else 'no output'}", "try `mkdir -p /run/sshd` as root")
