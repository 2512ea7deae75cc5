"""A shell over SSH: Fabric's connection with pinned host keys, without its stalls, and with an end to every wait.

Fabric 3.2 trusts any host key on first sight (AutoAddPolicy) and paramiko leaves Nagle's algorithm on, which
costs some 40 ms a command. Both are put right here.
"""

import base64
import logging
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from threading import Lock, Semaphore, Thread

import paramiko
from fabric import Config, Connection
from paramiko.ssh_exception import (
    AuthenticationException,
    BadHostKeyException,
    ChannelException,
    NoValidConnectionsError,
    PasswordRequiredException,
    SSHException,
)

from operate.hostkeys import host_name
from operate.line import Line
from operate.nodes import Node
from operate.problem import Problem
from operate.session import START, Session, pieces
from operate.shell import Outcome, Unreachable
from operate.way import CONNECT_S, Direct, Dropped, Jump, Way

DIRECT = Direct()
_KEEPALIVE_S = 15
_PAUSES_S = (0.5, 1.5)
"""Before the second and the third try of a connection that was dropped."""
_NEAR_S = 5.0
_SILENT = logging.NullHandler()
_PORTION = 1 << 18
HANDSHAKES = 16
"""Handshakes at once: each takes tens of ms of a CPU here. Were 64 to begin together on a busy machine, all would be
too late together, and so at the next try. A node that takes no connection takes no place either."""
_PLACES = Semaphore(HANDSHAKES)
_BOOTING = "is it still booting? try again"


class RemoteShell:
    """One node's bash over one SSH connection, opened when first needed and again when it broke."""

    def __init__(self, node: Node, connection: Connection, way: Way, key: Path | None = None) -> None:
        logging.getLogger("paramiko").addHandler(_SILENT)  # else its threads print tracebacks of what is told here
        self.node = node
        self._connection = connection
        self.way = way
        self.key = key
        self._line: Line | None = None
        self._since = self._shaking = 0.0
        self._lock = Lock()
        self._turn = Lock()
        self._session: Session | None = None

    @classmethod
    def to_node(cls, node: Node, *, host_keys: Iterable[str], key: Path, way: Way = DIRECT) -> "RemoteShell":
        """A shell on a lab's node: only the pinned `host_keys` ("TYPE BASE64") and only the private `key` count."""
        connection = Connection(
            node.address,
            user=node.user,
            port=node.port,
            config=Config(lazy=True),  # the user's own ssh_config says nothing about a lab's nodes
            connect_timeout=int(CONNECT_S),
            connect_kwargs={"key_filename": str(key), "allow_agent": False, "look_for_keys": False},
        )
        for pinned in host_keys:
            kind, _, encoded = pinned.partition(" ")
            host_key = paramiko.PKey.from_type_string(kind, base64.b64decode(encoded))
            connection.client.get_host_keys().add(host_name(node.address, node.port), kind, host_key)
        return cls(node, connection, way, key)

    @classmethod
    def to_host(cls, name: str, spec: str) -> "RemoteShell":
        """A shell on a machine of the user's own, by the user's own ssh_config, keys, agent and known_hosts."""
        connection = Connection(spec, connect_timeout=int(CONNECT_S))
        connection.client.load_system_host_keys()
        for file in str(connection.ssh_config.get("userknownhostsfile", "")).split():
            path = Path(file).expanduser()
            if path.exists():
                connection.client.load_system_host_keys(str(path))
        node = Node(name=name, address=connection.host, user=connection.user, port=connection.port)
        return cls(node, connection, DIRECT)

    def run(self, command: str, *, stdin: bytes = b"", timeout_s: float = 60) -> Outcome:
        """See `operate.shell.Shell.run`. A command is never sent twice."""
        until = time.monotonic() + timeout_s
        try:
            if not stdin and self._turn.acquire(blocking=False):
                try:
                    return self._standing().run(command, until=until)
                finally:
                    self._turn.release()
            return self._once(command, stdin, until)
        except TimeoutError:
            raise self._lost(f"answers no more: a command took over {timeout_s:.0f} s") from None
        except (OSError, EOFError, SSHException) as error:
            raise self._cut(error) from None

    def _standing(self) -> Session:
        """The session that stays, started where there is none."""
        if self._session is None or not self._session.alive:
            self._session = Session(self._channel(START))
        return self._session

    def _once(self, command: str, stdin: bytes, until: float) -> Outcome:
        """A command in a channel of its own, with `stdin`."""
        channel = self._channel(f"exec bash --norc -c {quote(command)}")
        stdout, stderr = bytearray(), bytearray()
        try:
            if stdin:
                Thread(target=_feed, args=(channel, stdin, until), name=f"stdin-{self.node.name}", daemon=True).start()
            else:
                channel.shutdown_write()
            for piece in pieces(channel, lambda: until - time.monotonic()):
                (stderr if piece.of_stderr else stdout).extend(piece.data)
            if not channel.status_event.wait(max(0.0, until - time.monotonic())):
                raise TimeoutError
            code = channel.recv_exit_status()
        finally:
            channel.close()
        if code == -1:  # paramiko's sign that the connection ended before the command did
            raise EOFError("the connection ended")
        return Outcome(code=code, stdout=bytes(stdout), stderr=bytes(stderr))

    def stream(self, command: str, *, idle_s: float) -> Iterator[bytes]:
        """See `operate.shell.Shell.stream`."""
        channel = self._channel(f"exec bash --norc -c {quote(command)}")
        try:
            channel.shutdown_write()
            for piece in pieces(channel, lambda: idle_s):
                if not piece.of_stderr:
                    yield piece.data
            if not channel.status_event.wait(idle_s) or channel.recv_exit_status() == -1:
                raise EOFError
        except TimeoutError:
            raise self._lost(f"was silent for {idle_s:.0f} s") from None
        except (OSError, EOFError, SSHException) as error:
            raise self._cut(error) from None
        finally:
            channel.close()

    def forward(self, node: Node) -> Line:
        """See `operate.way.Forwarder.forward`."""
        try:
            with self._lock:
                transport = self._open()
        except Dropped as problem:
            raise Unreachable(problem.cause, problem.remedy) from None
        try:
            ends = (node.address, node.port), ("127.0.0.1", 0)
            channel = transport.open_channel("direct-tcpip", *ends, timeout=CONNECT_S)
        except ChannelException as error:
            raise Dropped(f"{node.name} ({node.address} port {node.port}) cannot be reached from {self.node.name} "
                           f"({error.text})", _BOOTING) from None  # fmt: skip
        except (OSError, EOFError, SSHException) as error:
            raise self._cut(error) from None
        return Line(socket=channel, close=channel.close)

    def close(self) -> None:
        """See `operate.shell.Shell.close`."""
        self._connection.client.close()
        if self._line is not None:
            self._line.close()

    def _cut(self, error: Exception) -> Unreachable:
        lifetime_s = self.way.lifetime_s
        if lifetime_s is not None and time.monotonic() - self._since >= lifetime_s - _NEAR_S:
            return self._lost(f"was cut off, as every connection{self.way.through} is after {lifetime_s / 60:.0f} min")
        said = (self._line.why() if self._line else "") or str(error)
        return self._lost(f"lost its connection ({said})" if said else "lost its connection")

    def _lost(self, why: str) -> Unreachable:
        self.close()
        return Unreachable(
            f"{self.node.name} ({self.node.address}) {why}",
            "a detached run goes on: fab attach finds it; fab nodes shows what EC2 says of the node",
        )

    def _channel(self, command: str) -> paramiko.Channel:
        with self._lock:
            transport = self._open()
            try:
                channel = transport.open_session(timeout=CONNECT_S)
                channel.exec_command(command)
            except (OSError, EOFError, SSHException) as error:
                raise self._lost(f"takes no commands ({error or type(error).__name__})") from None
            return channel

    def _open(self) -> paramiko.Transport:
        """The live transport. Raises: Unreachable, or Problem where another try would not help."""
        transport = self._connection.client.get_transport()
        if transport is not None and transport.is_authenticated():  # active, too: paramiko looks at both
            return transport
        for pause_s in (*_PAUSES_S, None):
            try:
                self._attempt()
                break
            except Dropped:  # sshd was there: while a node boots, it starts, stops and starts again
                if pause_s is None:
                    raise
                time.sleep(pause_s)
        transport = self._connection.client.get_transport()
        if transport is None:
            raise self._lost("was let go of")  # by `close`, as at Ctrl-C: whoever still reads is told so
        return transport

    def _attempt(self) -> None:
        where = f"{self.node.name} ({self._connection.host} port {self._connection.port}{self.way.through})"
        try:
            self._connect()
        except Problem:  # the way's own
            raise
        except BadHostKeyException:
            raise Problem(
                f"{where} shows another host key than the one pinned for it",
                "someone may stand between you and it. If the machine was made anew on purpose, remove its old line: "
                f"ssh-keygen -R '{host_name(self._connection.host, self._connection.port)}'",
            ) from None
        except PasswordRequiredException:
            raise Problem(f"the private key for {where} has a passphrase", "ssh-add it, then try again") from None
        except AuthenticationException as error:
            raise self._refused(where, error) from None
        except (NoValidConnectionsError, TimeoutError, ConnectionRefusedError, socket.gaierror) as error:
            raise self._silent(where, error) from None
        except (SSHException, OSError, EOFError) as error:
            if "not found in known_hosts" in str(error):
                raise self._unknown(where) from None
            if said := self._line.why() if self._line else "":
                raise Dropped(f"{where} cannot be reached ({said})", _BOOTING) from None
            if isinstance(error, OSError) and not isinstance(error, ConnectionError):
                raise self._silent(where, error) from None
            if time.monotonic() - self._shaking >= CONNECT_S:
                raise Unreachable(f"{where} accepts connections and says nothing", _BOOTING) from None
            raise Dropped(
                f"{where} drops connections ({_reason(error)}; tried {len(_PAUSES_S) + 1} times)", _BOOTING
            ) from None

    def _refused(self, where: str, error: Exception) -> Problem:
        """No other try would help: cloud-init puts the key in place before it shows the host keys that are pinned."""
        transport = self._connection.client.get_transport()
        answered = transport is not None and transport.is_active()  # paramiko calls a broken line a failure, too
        self.close()
        if not answered:
            return Dropped(f"{where} drops connections ({error})", _BOOTING)
        if "timeout" in str(error):
            return Unreachable(f"{where} takes over {CONNECT_S:.0f} s to look at a key", _BOOTING)
        if self.key is None:
            return Problem(
                f"{where} refuses the keys of {self._connection.user}",
                f"add one to its authorized_keys: ssh-copy-id -p {self._connection.port} "
                f"{self._connection.user}@{self._connection.host}",
            )
        return Problem(
            f"{where} refuses the key {self.key}",
            "the lab was deployed with another one: deploy it again from here, or put that key in its place",
        )

    def _silent(self, where: str, error: Exception) -> Unreachable:
        return Unreachable(
            f"{where} does not answer ({_reason(error)})",
            "fab nodes shows what EC2 says of it; on AWS your own address may have changed: try again"
            if self.node.instance_id
            else "is the name right, and does sshd run there? plain ssh says more",
        )

    def _connect(self) -> None:
        connection = self._connection
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        connection.connect_kwargs.update(banner_timeout=CONNECT_S, auth_timeout=CONNECT_S)
        self.close()
        self._line, self._since = None, time.monotonic()
        if not connection.gateway:
            self._line = self.way.open(self.node)
            connection.connect_kwargs["sock"] = self._line.socket
        with _PLACES:
            self._shaking = time.monotonic()
            connection.open()
        transport = connection.client.get_transport()
        if transport is None:
            raise EOFError("let go of")
        transport.set_keepalive(_KEEPALIVE_S)

    def _unknown(self, where: str) -> Problem:
        port = "" if self._connection.port == 22 else f"-p {self._connection.port} "
        return Problem(
            f"the host key of {where} is not in your known_hosts",
            f"add it: ssh-keyscan {port}{self._connection.host} >> ~/.ssh/known_hosts; compare the fingerprint "
            "with what the machine itself says: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )


def open_shells(
    nodes: Sequence[Node], *, host_keys: Mapping[str, Iterable[str]], key: Path, way: Way
) -> dict[str, RemoteShell]:
    """Shells on a lab's nodes by name; what is more than `way` carries goes through the first ones, turn by turn."""
    shells: dict[str, RemoteShell] = {}
    for index, node in enumerate(nodes):
        first = list(shells.values())[: way.most]
        turn = index % way.most
        taken: Way = way if index < way.most else Jump(over=(*first[turn:], *first[:turn]))
        shells[node.name] = RemoteShell.to_node(node, host_keys=host_keys[node.name], key=key, way=taken)
    return shells


def _feed(channel: paramiko.Channel, stdin: bytes, until: float) -> None:
    """Send `stdin`, beside whoever reads: a command may write much before it has read all."""
    try:
        channel.settimeout(max(0.001, until - time.monotonic()))
        for begin in range(0, len(stdin), _PORTION):  # sendall copies all that is left for each packet of 32 KiB
            channel.sendall(stdin[begin : begin + _PORTION])
        channel.shutdown_write()
    except (OSError, EOFError, SSHException):
        return  # the command or the connection ended first: whoever reads is told


def _reason(error: Exception) -> str:
    if isinstance(error, NoValidConnectionsError):
        return "; ".join(dict.fromkeys(str(reason.strerror or reason) for reason in error.errors.values()))
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
