"""The operator's own address, let in at a lab's security group and taken out again.

The template opens no port. What is opened here is one /32 on the nodes' SSH port, by a rule that says whose it is.
"""

import ipaddress
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from operate.account import Account
from operate.problem import Problem

DESCRIPTION = "rooflab operator"
"""Marks the rules that are ours to withdraw."""
_ECHO = "https://checkip.amazonaws.com"


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
        raise Problem(f"{echo} does not answer ({error})", "it tells your public address; check the network") from None
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise Problem(
            f"{echo} says your address is {text!r}, which is no IPv4 address", "connect from a network that has IPv4"
        ) from None


def admit(account: Account, group: str, ports: Iterable[int], address: str) -> bool:
    """Let `address`/32 in at the SSH `ports` of security group `group`. Whether a rule had to be made."""
    ec2 = account.client("ec2")
    wanted = set(ports)
    for rule in _rules(account, group):
        if rule.get("CidrIpv4") == f"{address}/32" and rule.get("FromPort") == rule.get("ToPort"):
            wanted.discard(int(rule["FromPort"]))
    made = False
    for port in sorted(wanted):
        permission = {
            "IpProtocol": "tcp",
            "FromPort": port,
            "ToPort": port,
            "IpRanges": [{"CidrIp": f"{address}/32", "Description": DESCRIPTION}],
        }
        try:
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
            made = True
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidPermission.Duplicate":
                raise
    return made


def withdraw(account: Account, group: str) -> int:
    """Take out every rule that `admit` made in `group`; how many there were. A group that is gone has none."""
    try:
        ours = [rule["SecurityGroupRuleId"] for rule in _rules(account, group)]
    except ClientError as error:
        if error.response["Error"]["Code"] == "InvalidGroup.NotFound":
            return 0
        raise
    if ours:
        account.client("ec2").revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=ours)
    return len(ours)


def _rules(account: Account, group: str) -> list[dict[str, str]]:
    pages = (
        account.client("ec2")
        .get_paginator("describe_security_group_rules")
        .paginate(Filters=[{"Name": "group-id", "Values": [group]}])
    )
    return [
        rule
        for page in pages
        for rule in page["SecurityGroupRules"]
        if not rule["IsEgress"] and rule.get("Description") == DESCRIPTION
    ]
