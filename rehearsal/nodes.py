"""Nodes: every running instance becomes a machine one can reach by SSH, with its own address, home and host key."""

import os
import pwd
import shlex
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from rehearsal import doors, processes, temporary
from rehearsal.addresses import Addresses
from rehearsal.init import InitOrder
from rehearsal.keeper import Init, Keeper
from rehearsal.links import INTERFACE, Links, Place, Wire
from rehearsal.origin import RECORD
from rehearsal.rates import Rate

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin"
_SFTP = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server",
         "/usr/lib/ssh/sftp-server")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What a node is made from."""

    instance: str
    """Instance id."""
    authorized_keys: tuple[str, ...]
    """Public keys that may log in."""
    environment: dict[str, str]
    """Variables of the node's environment file."""
    place: Place
    """Where it is in its network, which counts where nodes have links of their own."""
    ready: str = "ok"
    """What the ready file says: "ok", or "failed: STEP: reason"."""


@dataclass(kw_only=True)
class Node:
    """One machine."""

    instance: str
    address: str
    port: int
    folder: Path
    host_key: str
    """Public half, one line: "ssh-ed25519 AAAA… root@ip-…"."""
    boot: Boot
    aliases: set[str] = field(default_factory=set)
    """Elastic addresses that lead here."""
    admitted: bool = False
    """Whether a security group lets the operator in."""
    visitors: frozenset[str] = frozenset()
    """Instances that security groups let in."""
    refused: bool = False
    """Whether its sshd takes no connection, whatever the security groups say."""
    every: int = 0
    """Each so-many-th connection is dropped; 0: none."""
    ending: bool = False
    """Whether it shuts down: its init hears nothing more."""
    init: Init | None = None
    wire: Wire | None = None
    """Its own link, while it is up; None where all share this machine's loopback."""

    @property
    def private(self) -> str:
        """What other nodes call it."""
        return self.wire.place.address if self.wire else self.address

    @property
    def home(self) -> Path:
        """The login user's home: the machine's disk."""
        return self.folder / "home"


class Nodes:
    """All nodes of a rehearsal."""

    def __init__(self, *, state: Path, keeper: Keeper, sshd: str, links: Links | None = None) -> None:
        self._state = state
        self._links = links
        self._keeper = keeper
        self._sshd = sshd
        self._lock = threading.RLock()
        self._nodes: dict[str, Node] = {}
        self._addresses = Addresses()

    @property
    def user(self) -> str:
        """Login on every node: an unprivileged sshd admits nobody else."""
        return pwd.getpwuid(os.getuid()).pw_name

    def find(self, instance: str) -> Node | None:
        """The node of an instance, or None where that has ended."""
        return self._nodes.get(instance)

    def all(self) -> list[Node]:
        """Every node there is, in order of birth."""
        with self._lock:
            return list(self._nodes.values())

    def create(self, boot: Boot) -> Node:
        """Make the machine of an instance and start it, with its door closed until `admit`.

        Raises:
            OSError: no address is left, or the disk is full.
        """
        with self._lock:
            steps = {"begin": time.monotonic()}
            address, port = self._addresses.take()
            folder = self._state / "nodes" / boot.instance
            private, public = _host_key(address)
            steps["host-key"] = time.monotonic()
            node = Node(instance=boot.instance, address=address, port=port, folder=folder, host_key=public, boot=boot)
            node.home.mkdir(parents=True)
            temporary.make(self._state, boot.instance)
            self._write(node, private)
            self._nodes[boot.instance] = node
            steps["disk"] = time.monotonic()
        self.start(node)
        _write_seconds(node, {**steps, "sshd": time.monotonic()})
        return node

    def start(self, node: Node) -> None:
        """Start a machine that is down; its disk is as it was left."""
        with self._lock:
            assert node.init is None
            order = InitOrder(
                sshd=self._sshd,
                config=str(node.folder / "sshd_config"),
                log=str(self._state / "logs" / f"{node.instance}.log"),
                environment={"PATH": _PATH, **self._marks(node)},
                instance=node.instance,
                state=str(self._state),
            )
            node.wire = self._links.join(node.instance, node.boot.place) if self._links else None
            node.init = self._keeper.boot(order)
            record(self._state, node.init.pid, node.instance)
            if node.wire:
                node.init.put_inside(node.wire.namespace, [node.private], str(node.wire.hosts))
            self._open(node)

    def admit(self, operator: Iterable[str], visitors: Mapping[str, frozenset[str]]) -> None:
        """Open or close doors: to the operator, of these instances; to other instances, by instance.

        A session that stands goes on, as on AWS.
        """
        with self._lock:
            welcome, changed = set(operator), []
            for node in self._nodes.values():
                door = node.instance in welcome, visitors.get(node.instance, frozenset())
                if door != (node.admitted, node.visitors):
                    node.admitted, node.visitors = door
                    changed.append(node)
            if changed:
                doors.write(self._state, {node.instance: node.visitors for node in self._nodes.values()})
            for node in changed:
                self._open(node)

    def alias(self, node: Node, address: str, *, present: bool) -> None:
        """Let a further address lead to the node, or no longer."""
        with self._lock:
            (node.aliases.add if present else node.aliases.discard)(address)
            self._open(node)

    def _open(self, node: Node) -> None:
        if node.init is not None and not node.ending:
            names = dict.fromkeys((node.address, *sorted(node.aliases), node.private))
            addresses = [(name, node.port) for name in names]
            expected = node.admitted or node.visitors - {node.instance}
            node.init.listen(addresses if expected and not node.refused else [], operator=node.admitted)

    def connect(self, instance: str) -> socket.socket:
        """A connection to the node's sshd, whether its door is open or not: the end of a tunnel.

        Raises:
            ConnectionRefusedError: the node is down, or takes no connections.
        """
        with self._lock:
            node = self._nodes.get(instance)
            if node is None or node.init is None or node.ending or node.refused:
                raise ConnectionRefusedError(f"{instance} takes no connection")
            return node.init.connect()

    def refuse(self, node: Node, *, refused: bool) -> None:
        """Let the node's sshd take no connection, or take them again. A session that stands goes on."""
        with self._lock:
            if node.refused != refused:
                node.refused = refused
                self._open(node)

    def drop(self, node: Node, *, every: int) -> None:
        """Drop the node's connections, and each `every`-th that comes; 0: drop none any more."""
        with self._lock:
            if node.every != every and node.init is not None and not node.ending:
                node.init.drop(every)
            node.every = every

    def stop(self, instances: Iterable[str]) -> None:
        """Kill everything on these machines, all at once; their disks stay."""
        with self._lock:
            inits = [
                (node, init) for id in instances if (node := self._nodes.get(id)) and (init := node.init) is not None
            ]
            for node, init in inits:
                init.order_end()
                node.init = None
        for node, init in inits:
            init.await_end()
            self._part(node)

    def ask_to_end(self, instances: Iterable[str], grace_s: float) -> None:
        """Send everything on these machines SIGTERM, and SIGKILL after `grace_s`; `ended` waits for that."""
        with self._lock:
            for id in instances:
                if (node := self._nodes.get(id)) and node.init is not None:
                    node.ending = True
                    node.init.order_end(grace_s)

    def ended(self, instance: str, within_s: float) -> bool:
        """Wait until a machine that was asked to end has ended, then erase its disk; whether it has."""
        with self._lock:
            node = self._nodes.get(instance)
        if node is None:
            return True
        if node.init is not None and not node.init.await_end(within_s):
            return False
        with self._lock:
            node.init = None
            self._part(node)
            if self._nodes.pop(instance, None) is None:
                return True
            self._addresses.give_back(node.address, node.port)
            erased = self._state / "erased" / instance
            erased.parent.mkdir(exist_ok=True)
            node.folder.rename(erased)
        temporary.erase(self._state, instance)
        # Hundreds of files a node: on a busy disk that takes seconds, and 64 nodes end one after the other.
        threading.Thread(target=shutil.rmtree, args=[erased, True], name=f"erase-{instance}", daemon=True).start()
        return True

    def limit(self, rate: Rate) -> None:
        """Let the link of every node be that fast, and their environment say so.

        Raises:
            ValueError: nodes have no links of their own.
        """
        if self._links is None:
            raise ValueError("its nodes have no links of their own: end it, then `fab rehearsal.start --link 100mbit`")
        with self._lock:
            self._links.limit(rate)
            for node in self._nodes.values():
                self._write_environment(node)

    def _part(self, node: Node) -> None:
        if self._links and node.wire:
            self._links.part(node.wire)
            node.wire = None

    def _write_environment(self, node: Node) -> None:
        interface = INTERFACE if self._links else "lo" if processes.LINUX else "lo0"
        link = {"ROOFLAB_LINK": self._links.rate.text} if self._links else {}
        (node.home / ".rooflab" / "env.sh").write_text(_environment_file(node, interface, link))

    def _write(self, node: Node, private_key: str) -> None:
        folder = node.folder
        (folder / "host_key").touch(mode=0o600)
        (folder / "host_key").write_text(private_key)
        (folder / "authorized_keys").write_text("".join(f"{key}\n" for key in node.boot.authorized_keys))
        (folder / "enter").write_text(_ENTER)
        (folder / "sshd_config").write_text(self._config(node))
        (node.home / ".rooflab").mkdir()
        self._write_environment(node)
        (node.home / ".rooflab" / "ready").write_text(node.boot.ready + "\n")

    def _marks(self, node: Node) -> dict[str, str]:
        return {processes.MARK: str(self._state), "REHEARSAL_NODE": node.instance}

    def _config(self, node: Node) -> str:
        # tmux meets its server at a socket in /tmp by the user's name: all nodes would share one.
        own = {"TMPDIR": str(temporary.folder(self._state, node.instance)), "TMUX_TMPDIR": str(node.folder)}
        fixed = {"HOME": str(node.home), "PATH": _PATH, **own, **self._marks(node)}
        sftp = next((path for path in _SFTP if Path(path).exists()), "internal-sftp")
        enter = f"/bin/sh {shlex.quote(str(node.folder / 'enter'))}"
        # Ubuntu's own choices where they matter: it accepts LANG and LC_* from a client, and nothing else.
        return f"""\
HostKey "{node.folder / "host_key"}"
AuthorizedKeysFile "{node.folder / "authorized_keys"}"
AuthenticationMethods publickey
AllowUsers {self.user}
UsePAM no
StrictModes no
UseDNS no
PidFile none
PrintMotd no
PrintLastLog no
AcceptEnv LANG LC_*
Subsystem sftp {sftp}
SetEnv {" ".join(f'"{name}={value}"' for name, value in fixed.items())}
ForceCommand {enter}
"""


_ENTER = """\
# sshd starts every session here: the real home of the user is not this machine's.
cd "$HOME" || exit
shell=$(command -v bash || echo "$SHELL")
export SHELL="$shell"
command=$SSH_ORIGINAL_COMMAND
unset SSH_ORIGINAL_COMMAND OLDPWD
if [ -n "$command" ]; then exec "$shell" -c "$command"; fi
exec "$shell" -l
"""


def _environment_file(node: Node, interface: str, link: Mapping[str, str]) -> str:
    interpreter = Path(sys.executable).parent
    variables = {"GLOO_SOCKET_IFNAME": interface, "TP_SOCKET_IFNAME": interface, **link, **node.boot.environment}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    return f'export PATH={shlex.quote(str(interpreter))}:"$PATH"\n' + "".join(lines)


def _write_seconds(node: Node, reached: dict[str, float]) -> None:
    """What each step of the node's making took, in the form of a real node's boot: "STEP SECONDS" a line."""
    (node.home / ".rooflab" / "boot").mkdir()
    lines = [
        f"{step} {at - before:.3f}\n"
        for (step, at), before in zip(list(reached.items())[1:], reached.values(), strict=False)
    ]
    (node.home / ".rooflab" / "boot" / "seconds").write_text("".join(lines))


def _host_key(address: str) -> tuple[str, str]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, f"{public} root@ip-{address.replace('.', '-')}"


def record(state: Path, pid: int, what: str) -> None:
    """Note a process that belongs to the rehearsal, so that `stop` finds it after the server was killed."""
    with (state / RECORD).open("a") as file:
        file.write(f"{pid}\t{processes.started(pid)}\t{what}\n")
