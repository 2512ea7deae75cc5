"""EC2 of a rehearsal: moto's records, our rules."""

from typing import Any

from moto.ec2.models import elastic_network_interfaces, subnets

from rehearsal import connect
from rehearsal.connect import ConnectEndpoints
from rehearsal.faults import Faults
from rehearsal.fleets import Fleets
from rehearsal.holds import Holds
from rehearsal.images import Images
from rehearsal.ipv6 import Ipv6
from rehearsal.machines import Machines
from rehearsal.market import Market, SpotMarket
from rehearsal.networks import Networks
from rehearsal.quotas import Quotas
from rehearsal.tunnel import Tunnel


class _Attachment(elastic_network_interfaces.Attachment):  # type: ignore[misc]  # moto ships no types
    """moto puts every interface on card 0."""

    def __init__(self, eni: Any) -> None:
        super().__init__(eni)
        self.network_card_index = getattr(eni, "network_card_index", 0)


def _mend_associations() -> None:
    """An address that EC2 assigned by itself is Amazon's: that is how a bill tells it from an Elastic IP."""
    interface = elastic_network_interfaces.NetworkInterface
    original = interface.association.fget

    def association(self: Any) -> dict[str, Any] | None:
        found: dict[str, Any] = original(self)
        if not found:
            return None  # moto shows an empty one
        return found if found.get("allocationId") else {**found, "ipOwnerId": "amazon"}

    interface.association = property(association)


def _mend_ranges() -> None:
    """moto shows a subnet's IPv6 state as the text of a dictionary."""

    def ranges(self: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self.ipv6_cidr_block_associations.values()
                if row["ipv6CidrBlockState"]["State"] == "associated"]  # fmt: skip

    subnets.Subnet.ipv6_cidr_block_association_set = property(ranges)


def install(machines: Machines, faults: Faults, holds: Holds, quotas: Quotas, market: Market, tunnel: Tunnel) -> Any:
    """What is to answer EC2's requests, tied to this rehearsal's machines."""
    elastic_network_interfaces.Attachment = _Attachment
    _mend_associations()
    _mend_ranges()
    tied = {"machines": machines, "faults": faults, "holds": holds, "quotas": quotas, "market": market,
            "tunnel": tunnel}  # fmt: skip
    bound: Any = type("Ec2", (Fleets, ConnectEndpoints, SpotMarket, Ipv6, Images, Networks), tied)
    return bound.dispatch


def tunnel(machines: Machines, holds: Holds, *, key: str, secret: str, region: str) -> Tunnel:
    """The tunnel of all Instance Connect Endpoints."""
    endpoints = ConnectEndpoints.endpoints

    def check(id: str, address: str, port: int) -> None:
        connect.target(endpoints, holds, machines.instances(), id, address, port)

    def lead(id: str, address: str, port: int) -> Any:
        instance = connect.target(endpoints, holds, machines.instances(), id, address, port)
        connect.demand_admitted(endpoints[id], instance)
        return machines.nodes.connect(instance.id)

    return Tunnel(key=key, secret=secret, region=region, check=check, connect=lead)
