"""EC2 of a rehearsal: moto's records, our rules."""

from typing import Any

from moto.ec2.models import elastic_network_interfaces

from rehearsal.faults import Faults
from rehearsal.fleets import Fleets
from rehearsal.machines import Machines
from rehearsal.networks import Networks


class _Attachment(elastic_network_interfaces.Attachment):  # type: ignore[misc]  # moto ships no types
    """moto puts every interface on card 0."""

    def __init__(self, eni: Any) -> None:
        super().__init__(eni)
        self.network_card_index = getattr(eni, "network_card_index", 0)


def install(machines: Machines, faults: Faults) -> Any:
    """What is to answer EC2's requests, tied to this rehearsal's machines."""
    elastic_network_interfaces.Attachment = _Attachment
    bound: Any = type("Ec2", (Fleets, Networks), {"machines": machines, "faults": faults})
    return bound.dispatch
