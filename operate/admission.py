"""The operator's own address, let in at a lab's security group and taken out again.

The template opens no port. What is opened here is one /32 on the nodes' SSH port, by a rule that says whose it is:
each operator's machine takes out its own old rules and leaves the others'.
"""

import getpass
import ipaddress
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from labs.names import Output
from operate.account import Account
from operate.problem import Problem
from operate.stack import Stack, deploy_command

DESCRIPTION = "rooflab operator"
"""Begins the description of the rules that are ours; whose it is comes after it."""
_ECHO = "https://checkip.amazonaws.com"
_NO_IPV4 = "this lab is reached by IPv4 alone: connect from a network that has it, or deploy with -c access=eice"


def operator_address(endpoint: str | None, *, echo: str = _ECHO) -> str:
    """The IPv4 address that the nodes see this machine come from.

    With an endpoint of one's own (AWS_ENDPOINT_URL): the local address that talks to it. On AWS: what Amazon's
    echo service saw.

    Raises:
        Problem: neither can be reached, or the answer is no IPv4 address.
    """
    if endpoint:
        url = urlsplit(endpoint)
        try:
            with socket.create_connection(
                (url.hostname, url.port or (443 if url.scheme == "https" else 80)), timeout=10
            ) as line:
                address = str(line.getsockname()[0])
        except OSError as error:
            raise Problem(
                f"{endpoint} does not answer ({error})", "is the rehearsal up? fab rehearsal.status"
            ) from None
        return "127.0.0.1" if address == "::1" else address
    try:
        with urllib.request.urlopen(echo, timeout=10) as answer:
            text = answer.read(100).decode("ascii", "replace").strip()
    except (urllib.error.URLError, OSError) as error:
        raise Problem(
            f"{echo} does not answer ({error})",
            f"it tells this machine's public IPv4 address; check the network. {_NO_IPV4}",
        ) from None
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise Problem(f"{echo} says your address is {text!r}, which is no IPv4 address", _NO_IPV4) from None


def operator_name() -> str:
    """Who asks, as it stands in a rule's description: user@host, in the letters that EC2 allows there."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "someone"
    return re.sub(r"[^A-Za-z0-9._@-]", "-", f"{user}@{socket.gethostname()}")[:200]


def admit_operator(account: Account, stack: Stack, ports: Iterable[int]) -> None:
    """Let this machine in at the nodes' own security group, and take out what it was let in by before it moved.

    Raises:
        Problem: the stack names no group, or this machine's address cannot be told.
    """
    group = stack.outputs.get(Output.SECURITY_GROUP)
    if not group:
        raise Problem(f"{stack.name} names no security group", deploy_command(stack.name))
    admit(account, group, ports, operator_address(account.endpoint))


def admit(account: Account, group: str, ports: Iterable[int], address: str, *, who: str = "") -> bool:
    """Let `address`/32 in at the SSH `ports` of security group `group`, and withdraw what else was opened for `who`
    (this operator). Whether a rule had to be made."""
    ec2 = account.client("ec2")
    ours = f"{DESCRIPTION} {who or operator_name()}"
    wanted = {(f"{address}/32", port) for port in ports}
    rules = {rule["SecurityGroupRuleId"]: rule for rule in _rules(account, group)}
    opened = {identity: (rule.get("CidrIpv4", ""), rule["FromPort"]) for identity, rule in rules.items()}
    missing = sorted(wanted - set(opened.values()))
    for cidr, port in missing:
        permission = {
            "IpProtocol": "tcp",
            "FromPort": port,
            "ToPort": port,
            "IpRanges": [{"CidrIp": cidr, "Description": ours}],
        }
        try:
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidPermission.Duplicate":
                raise
    _revoke(account, group, [
        identity
        for identity, rule in rules.items()
        if rule["Description"] == ours and opened[identity] not in wanted
    ])  # fmt: skip
    return bool(missing)


def withdraw(account: Account, group: str) -> int:
    """Take out every rule that `admit` made in `group`, for whomever; how many there were. A group that is gone has
    none."""
    try:
        ours = [rule["SecurityGroupRuleId"] for rule in _rules(account, group)]
    except ClientError as error:
        if error.response["Error"]["Code"] == "InvalidGroup.NotFound":
            return 0
        raise
    _revoke(account, group, ours)
    return len(ours)


def _revoke(account: Account, group: str, rules: list[str]) -> None:
    if not rules:
        return
    try:
        account.client("ec2").revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=rules)
    except ClientError as error:  # another command of ours was quicker
        if error.response["Error"]["Code"] not in ("InvalidSecurityGroupRuleId.NotFound", "InvalidPermission.NotFound"):
            raise


def _rules(account: Account, group: str) -> list[dict[str, Any]]:
    pages = (
        account.client("ec2")
        .get_paginator("describe_security_group_rules")
        .paginate(Filters=[{"Name": "group-id", "Values": [group]}])
    )
    return [
        rule
        for page in pages
        for rule in page["SecurityGroupRules"]
        if not rule["IsEgress"] and str(rule.get("Description", "")).startswith(DESCRIPTION)
    ]
