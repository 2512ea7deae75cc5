"""How a lab's nodes are reached: by their own address, or without one through AWS. See `labs.catalog.Lab.way`."""

import os
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from botocore.exceptions import ClientError

from labs.names import Output
from operate import laptop
from operate.account import Account
from operate.line import Line
from operate.nodes import Node
from operate.problem import Problem
from operate.shell import Unreachable
from operate.stack import Stack, deploy_command

NODES = 64
"""More than any lab has."""
CONNECT_S = 10.0
"""Longest wait for a connection, and for each step of its handshake."""
_USABLE = ("create-complete", "update-in-progress", "update-complete", "update-failed")
"""States in which the AWS CLI uses an endpoint."""


class Way(Protocol):
    """One way to nodes, for Fabric and for OpenSSH."""

    @property
    def through(self) -> str:
        """What stands between, as " through eice-…"; "" where nothing does."""

    @property
    def lifetime_s(self) -> float | None:
        """After this a connection is cut; None where none is."""

    @property
    def most(self) -> int:
        """To so many nodes this way is taken; through them go the connections to the others."""

    @property
    def admits(self) -> bool:
        """Whether the nodes' security group has to let this machine's address in."""

    def open(self, node: Node) -> Line:
        """Connect to `node`'s sshd. Raises: Problem (Unreachable where another try may help), OSError."""

    def option(self, node: Node) -> str:
        """The line of ssh_config that makes OpenSSH go this way; "" where it needs none."""


@dataclass(frozen=True, kw_only=True)
class Direct:
    """TCP to the node's own public address."""

    through: str = ""
    lifetime_s: float | None = None
    most: int = NODES
    admits: bool = True

    def open(self, node: Node) -> Line:
        """See `Way.open`."""
        line = socket.create_connection((node.address, node.port), timeout=CONNECT_S)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Line(socket=line, close=line.close)

    def option(self, node: Node) -> str:
        """See `Way.option`."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Through an EC2 Instance Connect Endpoint."""

    account: Account
    endpoint: str
    """eice-…"""
    server: str
    """wss://…, or ws://… where the account's endpoint is plain http."""
    most: int = 16
    """An endpoint carries 20 connections (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/eice-quotas.html): this
    leaves some to plain ssh, and to other operators."""
    admits: bool = False

    @property
    def through(self) -> str:
        """See `Way.through`."""
        return f" through {self.endpoint}"

    @property
    def lifetime_s(self) -> float | None:
        """See `Way.lifetime_s`."""
        from operate.tunnel import LIFETIME_S

        return LIFETIME_S

    def open(self, node: Node) -> Line:
        """See `Way.open`."""
        from operate import tunnel

        target = tunnel.Target(
            server=self.server,
            endpoint=self.endpoint,
            region=self.account.region,
            address=node.address,
            port=node.port,
        )
        return tunnel.open_line(target, self.account.credentials())

    def option(self, node: Node) -> str:
        """See `Way.option`."""
        return _line(self.proxy_command(node))

    def proxy_command(self, node: Node) -> tuple[str, ...]:
        """The words of OpenSSH's ProxyCommand."""
        words = ("--server", self.server, "--endpoint", self.endpoint, "--region", self.account.region)
        return (*_python("operate.tunnel"), *words, "--address", node.address, "--port", str(node.port), *_profile())


@dataclass(frozen=True, kw_only=True)
class SessionManager:
    """Through Session Manager and its plugin."""

    account: Account
    through: str = " through Session Manager"
    lifetime_s: float | None = None
    most: int = NODES
    admits: bool = False

    def open(self, node: Node) -> Line:
        """See `Way.open`."""
        from operate import plugin

        ssm = self.account.client("ssm")
        return plugin.open_line(ssm, node.instance_id, node.port, profile=os.environ.get("AWS_PROFILE", ""))

    def option(self, node: Node) -> str:
        """See `Way.option`."""
        return _line(self.proxy_command(node))

    def proxy_command(self, node: Node) -> tuple[str, ...]:
        """The words of OpenSSH's ProxyCommand."""
        words = ("--instance", node.instance_id, "--port", str(node.port), "--region", self.account.region)
        asked = ("--endpoint-url", self.account.endpoint) if self.account.endpoint else ()
        return (*_python("operate.plugin"), *words, *asked, *_profile())


@dataclass(frozen=True, kw_only=True)
class Jump:
    """Over SSH through another node of the lab."""

    over: tuple["Forwarder", ...]
    """Shells of the nodes that may be gone through, the wanted one first."""
    lifetime_s: float | None = None
    most: int = NODES
    admits: bool = False

    @property
    def through(self) -> str:
        """See `Way.through`."""
        return f" through {self.over[0].node.name}"

    def open(self, node: Node) -> Line:
        """See `Way.open`."""
        for index, shell in enumerate(self.over):
            try:
                return shell.forward(node)
            except Dropped:
                raise
            except Unreachable:  # it may be gone for good; where the next one leads there, nothing is lost
                if index == len(self.over) - 1:
                    raise
        raise AssertionError("a jump over no node")

    def option(self, node: Node) -> str:
        """See `Way.option`."""
        return f"ProxyJump {self.over[0].node.name}"


class Dropped(Unreachable):
    """A connection that came about, and ended before SSH began: worth another try at once, while a node boots."""


class Forwarder(Protocol):
    """The shell of a node that leads on to others."""

    node: Node

    def forward(self, node: Node) -> Line:
        """Connect to `node`'s sshd from there.

        Raises:
            Dropped: that node does not let it.
            Unreachable: this one does not answer.
        """


def _line(words: Sequence[str]) -> str:
    return f"ProxyCommand {literal(shlex.join(words))}"


def literal(text: object) -> str:
    """`text` for ssh_config, not to be read as OpenSSH's own %h, %p and the like."""
    return str(text).replace("%", "%%")


def _python(module: str) -> tuple[str, ...]:
    # -P: a folder called operate/ where ssh is typed must not be taken for ours
    return ("env", f"PYTHONPATH={laptop.ROOT}", sys.executable, "-P", "-m", module)


def _profile() -> tuple[str, ...]:
    profile = os.environ.get("AWS_PROFILE")
    return ("--profile", profile) if profile else ()


def choose_way(account: Account, stack: Stack) -> Way:
    """How the nodes of `stack` are reached, by its own outputs.

    Raises:
        Problem: its endpoint is not there or not usable, or the plugin is missing.
    """
    way = stack.outputs.get(Output.ACCESS, "address")
    if way == "endpoint":
        return _find_endpoint(account, stack)
    if way == "session":
        from operate.plugin import find_plugin

        find_plugin()
        return SessionManager(account=account)
    if way not in ("address", "elastic"):
        raise Problem(f"{stack.name} is reached by {way!r}, which this clone does not know", "update it: git pull")
    return Direct()


def _find_endpoint(account: Account, stack: Stack) -> Endpoint:
    identity = stack.outputs.get(Output.ENDPOINT, "")
    again = deploy_command(stack.name)
    try:
        answer = account.client("ec2").describe_instance_connect_endpoints(InstanceConnectEndpointIds=[identity])
        found = answer["InstanceConnectEndpoints"]
    except ClientError as error:
        if not error.response["Error"]["Code"].startswith("InvalidInstanceConnectEndpoint"):
            raise
        found = []
    if not found:
        raise Problem(f"the Instance Connect Endpoint {identity} of {stack.name} is not there", again)
    state, server = str(found[0].get("State", "")), str(found[0].get("DnsName", ""))
    if state not in _USABLE or not server:
        said = found[0].get("StateMessage") or "no reason given"
        raise Problem(
            f"the Instance Connect Endpoint {identity} of {stack.name} is {state or 'in no state'} ({said})",
            "wait until EC2 has made it, then try again" if state == "create-in-progress" else again,
        )
    plain = (account.endpoint or "").startswith("http://")
    return Endpoint(account=account, endpoint=identity, server=f"{'ws' if plain else 'wss'}://{server}")
