"""How a lab's nodes are reached: by their own address, or without one through AWS. See `labs.catalog.Lab.way`."""

import os
import socket
import sys
from dataclasses import dataclass
from typing import Protocol

from botocore.exceptions import ClientError

from labs.names import Output
from operate import laptop
from operate.account import Account
from operate.line import Line
from operate.nodes import Node
from operate.problem import Problem
from operate.stack import Stack, deploy_command

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
    def admits(self) -> bool:
        """Whether the nodes' security group has to let this machine's address in."""

    def open(self, node: Node) -> Line:
        """Connect to `node`'s sshd. Raises: Problem (Unreachable where another try may help), OSError."""

    def proxy_command(self, node: Node) -> tuple[str, ...]:
        """The words of OpenSSH's ProxyCommand; empty where it needs none."""


@dataclass(frozen=True, kw_only=True)
class Direct:
    """TCP to the node's own public address."""

    through: str = ""
    lifetime_s: float | None = None
    admits: bool = True

    def open(self, node: Node) -> Line:
        """See `Way.open`."""
        line = socket.create_connection((node.address, node.port), timeout=CONNECT_S)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Line(socket=line, close=line.close)

    def proxy_command(self, node: Node) -> tuple[str, ...]:
        """See `Way.proxy_command`."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Through an EC2 Instance Connect Endpoint."""

    account: Account
    endpoint: str
    """eice-…"""
    server: str
    """wss://…, or ws://… where the account's endpoint is plain http."""
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

    def proxy_command(self, node: Node) -> tuple[str, ...]:
        """See `Way.proxy_command`."""
        words = ("--server", self.server, "--endpoint", self.endpoint, "--region", self.account.region)
        return (*_python("operate.tunnel"), *words, "--address", node.address, "--port", str(node.port), *_profile())


@dataclass(frozen=True, kw_only=True)
class SessionManager:
    """Through Session Manager and its plugin."""

    account: Account
    through: str = " through Session Manager"
    lifetime_s: float | None = None
    admits: bool = False

    def open(self, node: Node) -> Line:
        """See `Way.open`."""
        from operate import plugin

        ssm = self.account.client("ssm")
        return plugin.open_line(ssm, node.instance_id, node.port, profile=os.environ.get("AWS_PROFILE", ""))

    def proxy_command(self, node: Node) -> tuple[str, ...]:
        """See `Way.proxy_command`."""
        words = ("--instance", node.instance_id, "--port", str(node.port), "--region", self.account.region)
        asked = ("--endpoint-url", self.account.endpoint) if self.account.endpoint else ()
        return (*_python("operate.plugin"), *words, *asked, *_profile())


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
