"""Network interfaces of one node, derived from the facts of its instance type.

Source of the layout: AWS's "Maximize network bandwidth on Amazon EC2 instances with multiple network cards"
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-acc-inst-types.html).
"""

from dataclasses import dataclass
from typing import Literal

from labs.instances import InstanceType, instance_types


@dataclass(frozen=True, kw_only=True)
class Interface:
    """One entry of a launch template's NetworkInterfaces."""

    card: int
    """NetworkCardIndex, from 0."""
    device: int
    """DeviceIndex on that card, from 0 and below what the card holds."""
    kind: Literal["interface", "efa", "efa-only"]
    """InterfaceType: plain ENA, ENA with EFA, or EFA without an address."""


def layout(kind: InstanceType, efas: int) -> tuple[Interface, ...]:
    """Interfaces of a node of that type with `efas` EFA devices; the first is the primary one.

    Exactly one EFA is one `efa` interface, for EC2 gives a public address by itself only to a node with a single
    interface. Several are `efa-only` beside a plain primary interface, so that 32 of them do not eat 32 addresses.

    Raises:
        ValueError: more EFAs than the type takes.
    """
    if efas > kind.efas:
        raise ValueError(
            f"efa={efas} is not allowed on {kind.name}, which takes {kind.efas}: write efa=off, or a type with EFA "
            f"such as {', '.join(types_with_efa()[:3])}"
        )
    if efas == 0:
        return (Interface(card=0, device=0, kind="interface"),)
    if efas == 1 and kind.cards[0].efa:
        return (Interface(card=0, device=0, kind="efa"),)
    room = [(index, 1 if index == 0 else 0) for index, card in enumerate(kind.cards) if card.efa]
    assert len(room) >= efas, f"{kind.name}: {len(room)} cards for {efas} EFAs"
    return (
        Interface(card=0, device=0, kind="interface"),
        *(Interface(card=card, device=device, kind="efa-only") for card, device in room[:efas]),
    )


def types_with_efa() -> list[str]:
    """Types that take an EFA, cheapest first; those without a list price last."""
    known = [kind for kind in instance_types().values() if kind.efas and kind.gpus]
    return [kind.name for kind in sorted(known, key=lambda kind: (kind.usd_per_hour or float("inf"), kind.name))]
