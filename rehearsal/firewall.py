"""What security groups let through, by moto's records of their rules: SSH over IPv4, no more of it is rehearsed."""

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from typing import Any

SSH = 22


def admits(rules: Iterable[Any], *, groups: Collection[str], addresses: Iterable[str], port: int = SSH) -> bool:
    """Whether one of `rules` lets SSH through to or from a peer in `groups`, or at one of `addresses`.

    `port`: where sshd really listens; a rule for it counts like one for 22.
    """
    peers = [ipaddress.ip_address(address) for address in addresses]
    return any(_fits(rule, port) and (_named(rule) in groups or _inside(rule, peers)) for rule in rules)


def _fits(rule: Any, port: int) -> bool:
    if rule.ip_protocol == "-1":
        return True
    return rule.ip_protocol == "tcp" and any(rule.from_port <= wanted <= rule.to_port for wanted in (SSH, port))


def _named(rule: Any) -> str | None:
    return (rule.source_group or {}).get("GroupId")  # of an egress rule, too


def _inside(rule: Any, peers: list[Any]) -> bool:
    if not rule.cidr_ipv4:
        return False
    network = ipaddress.ip_network(rule.cidr_ipv4, strict=False)
    return any(peer in network for peer in peers)


def visitors(instances: Mapping[str, Any], ports: Mapping[str, int]) -> dict[str, frozenset[str]]:
    """By instance id: the ids of the instances whose SSH the groups on both sides let through to it.

    Within a network by private address; an instance always reaches itself. `ports`: where their sshds listen.
    """
    parties: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for id, instance in instances.items():
        parties.setdefault((instance.vpc_id, tuple(sorted(_ids(instance)))), []).append(id)
    found: dict[str, frozenset[str]] = {}
    # Nodes of the same groups differ by address alone: a lab of 64 is looked at 64 times, not 4096.
    takes, reaches = {}, {}
    for party, members in parties.items():
        near = [id for id, instance in instances.items() if instance.vpc_id == party[0]]
        own = instances[members[0]]
        into = _rules(own, "ingress_rules")
        out = _rules(own, "egress_rules")
        takes[party] = frozenset(id for id in near if _passes(into, instances[id], ports[members[0]]))
        reaches[party] = frozenset(id for id in near if _passes(out, instances[id], ports[id]))
    for party, members in parties.items():
        for id in members:
            sources = (frozenset(others) for other, others in parties.items() if id in reaches[other])
            found[id] = (takes[party] & frozenset().union(*sources)) | {id}
    return found


def _passes(rules: list[Any], peer: Any, port: int) -> bool:
    return admits(rules, groups=_ids(peer), addresses=(_address(peer),), port=port)


def _rules(instance: Any, direction: str) -> list[Any]:
    return [rule for group in instance.nics[0].group_set for rule in getattr(group, direction)]


def _ids(instance: Any) -> frozenset[str]:
    return frozenset(group.id for group in instance.nics[0].group_set)


def _address(instance: Any) -> str:
    """Its private address in the subnet; the one that EC2 tells is the machine's, on loopback."""
    interface = instance.nics[0]
    return str(getattr(interface, "rehearsal_subnet_address", interface.private_ip_address))
