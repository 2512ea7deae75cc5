"""A lab's nodes, found by asking EC2 for what the stack made; never from a file that can go stale."""

import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from labs.names import TAG_NODE, TAG_SSH_PORT, TAG_SSH_USER, TAG_STACK, Output
from operate.account import Account
from operate.problem import Problem
from operate.stack import Stack, deploy_command, destroy_command


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine of a cluster. node0 is the head."""

    name: str
    """node0, node1, … in the order of their tag, else of their private address."""
    address: str
    """Where its sshd answers: its public address, or its private one where it has no other; empty while EC2 has not
    given it one."""
    user: str = "ubuntu"
    port: int = 22
    private_ip: str = ""
    """What the other nodes call it."""
    instance_id: str = ""
    instance_type: str = ""
    state: str = "running"
    """EC2's word."""
    groups: tuple[str, ...] = ()
    """Ids of its security groups."""
    launched: datetime | None = None
    """When EC2 started it, aware UTC."""

    @property
    def on_loopback(self) -> bool:
        """Whether it shares this very machine, and so its CPUs, with its peers."""
        try:
            return ipaddress.ip_address(self.address).is_loopback
        except ValueError:  # a host's name, or no address yet
            return False

    @property
    def peer_address(self) -> str:
        """Where the other nodes reach it: its private address, which a host that was named by hand has not."""
        return self.private_ip or self.address


def read_nodes(instances: Sequence[dict[str, Any]], *, private: bool = False) -> tuple[Node, ...]:
    """Nodes from EC2's description of instances, sorted and named: by their tag, so that a loss renames nobody.

    A fleet's nodes carry no such tag; they are counted in the order of their addresses. `private`: they are reached
    through AWS, by their private addresses.
    """

    def order(instance: dict[str, Any]) -> tuple[int, int]:
        index = _tag(instance, TAG_NODE)
        address = instance.get("PrivateIpAddress") or "255.255.255.255"
        return (int(index) if index.isdecimal() else 1 << 30, int(ipaddress.ip_address(address)))

    indices = [_tag(instance, TAG_NODE) for instance in instances]
    tagged = all(index.isdecimal() for index in indices) and len(set(indices)) == len(indices)
    return tuple(
        Node(
            name=f"node{int(_tag(instance, TAG_NODE)) if tagged else position}",
            address=instance.get("PrivateIpAddress" if private else "PublicIpAddress", ""),
            user=_tag(instance, TAG_SSH_USER) or "ubuntu",
            port=int(_tag(instance, TAG_SSH_PORT) or 22),
            private_ip=instance.get("PrivateIpAddress", ""),
            instance_id=instance["InstanceId"],
            instance_type=instance.get("InstanceType", ""),
            state=instance["State"]["Name"],
            groups=tuple(group["GroupId"] for group in instance.get("SecurityGroups", [])),
            launched=instance.get("LaunchTime"),
        )
        for position, instance in enumerate(sorted(instances, key=order))
    )


def _tag(instance: dict[str, Any], key: str) -> str:
    return next((str(tag["Value"]) for tag in instance.get("Tags", []) if tag["Key"] == key), "")


def find_nodes(account: Account, stack: str, *, private: bool = False) -> tuple[Node, ...]:
    """The nodes of `stack` that EC2 says are pending or running, without waiting. May be empty.

    `private`: see `read_nodes`.
    """
    pages = (
        account.client("ec2")
        .get_paginator("describe_instances")
        .paginate(
            Filters=[
                {"Name": f"tag:{TAG_STACK}", "Values": [stack]},
                {"Name": "instance-state-name", "Values": ["pending", "running"]},
            ]
        )
    )
    return read_nodes(
        [instance for page in pages for reservation in page["Reservations"] for instance in reservation["Instances"]],
        private=private,
    )


def await_nodes(
    account: Account,
    stack: Stack,
    *,
    partial: bool = False,
    limit_s: float = 300,
    tell: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Node, ...]:
    """All nodes of `stack`, running and with the address they are reached by. With `partial`, those that are left, if
    any, will do.

    Raises:
        Problem: fewer came up than the stack asked for (with the fleet's own words), or they do not get to run.
    """
    wanted = int(stack.outputs.get(Output.NODES, "1"))
    private = stack.outputs.get(Output.ACCESS) in ("endpoint", "session")
    waited_s = 0.0
    while True:
        nodes = find_nodes(account, stack.name, private=private)
        if len(nodes) < wanted and not partial:
            raise _too_few(account, stack, len(nodes), wanted)
        slow = [node for node in nodes if node.state != "running" or not node.address]
        if not slow:
            return nodes
        listed = ", ".join(f"{node.name} ({node.instance_id}) is {node.state}" for node in slow)
        if waited_s >= limit_s:
            raise Problem(
                f"after {limit_s:.0f} s {listed}, not running with a {'private' if private else 'public'} address",
                f"look at it in the EC2 console, or fab teardown and {deploy_command(stack.name)}",
            )
        tell(listed)
        sleep(3)
        waited_s += 3


def _too_few(account: Account, stack: Stack, found: int, wanted: int) -> Problem:
    cause = f"{stack.name} has {found} of its {wanted} nodes"
    again = f"{destroy_command(stack.name)}, then {deploy_command(stack.name)}"
    fleet = stack.outputs.get(Output.FLEET)
    if not fleet:
        return Problem(f"{cause}; the others were stopped or terminated", again)
    said = "; ".join(fleet_errors(account, fleet)) or "the fleet names no error, so nodes were interrupted"
    return Problem(
        f"{cause}: {said}", f"{again} with -c zone=… (another one), -c instance_type=… or -c capacity=on-demand"
    )


def fleet_errors(account: Account, fleet: str) -> tuple[str, ...]:
    """Why an EC2 fleet launched less than it was asked to, in EC2's words. An instant fleet answers only by its id."""
    answer = account.client("ec2").describe_fleets(FleetIds=[fleet])
    said = (
        f"{error.get('ErrorCode', '')}: {error.get('ErrorMessage', '')}"
        for found in answer["Fleets"]
        for error in found.get("Errors", [])
    )
    return tuple(dict.fromkeys(said))
