"""What lies between the nodes of a run: loopback, a link that the rehearsal limits, TCP or EFA; its rate, if known."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from labs.accelerators import by_instance
from labs.instances import InstanceType, instance_types
from workloads.device import Device

_LIMITED = re.compile(r"(\d+)(m|g)bit")


@dataclass(frozen=True, kw_only=True)
class Between:
    """The way from a node to the others."""

    name: str
    """For example "link of 100 Mbit/s", "loopback", "EFA"."""
    bytes_per_s: float | None
    """Most that leaves a node; None where nothing tells."""
    source: str
    """Where that figure is from, or why there is none."""


def kind_of(device: Device, name: str | None) -> InstanceType | None:
    """The type whose network this is: the one that the launcher names, if this machine may be one.

    A rehearsed node bears a GPU type's name and has none of its GPUs; its network is not that type's.
    """
    kind = instance_types().get(name or "")
    if kind is None or (kind.gpus and (device.accelerator is None or by_instance(kind) is not device.accelerator)):
        return None
    return kind


def between(nodes: int, kind: InstanceType | None, environment: Mapping[str, str] = os.environ) -> Between:
    """From what the launcher and the machine tell. `kind`: the instance type, where this machine is really one."""
    link = environment.get("ROOFLAB_LINK", "")
    if nodes > 1 and link:
        return _limited(link)
    peers = [peer.partition("=")[2] for peer in environment.get("ROOFLAB_PEERS", "").split()]
    if nodes == 1 or all(map(_on_loopback, peers)):
        return Between(name="loopback", bytes_per_s=None, source="loopback is as fast as this machine copies")
    efas = environment.get("ROOFLAB_EFAS", "0")
    name = "EFA" if efas.isdecimal() and int(efas) > 0 else "TCP"
    if kind is None:
        return Between(name=name, bytes_per_s=None, source="the network between the nodes is not known")
    return Between(name=name, bytes_per_s=kind.gbps * 1e9 / 8, source=f"{kind.name}: {kind.gbps:g} Gbit/s a node")


def _limited(link: str) -> Between:
    """A link of the rehearsal's, as fast as it says."""
    found = _LIMITED.fullmatch(link)
    if found is None:
        return Between(name="link without a limit", bytes_per_s=None, source="nothing limits the link but this machine")
    rate = int(found[1]) * {"m": 1e6, "g": 1e9}[found[2]] / 8
    name = f"link of {found[1]} {found[2].upper()}bit/s"
    return Between(name=name, bytes_per_s=rate, source="as the rehearsal limits it")


def _on_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a host's name
        return False
