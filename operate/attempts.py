"""Which lab to try to deploy, where, in which order; and what became of each try."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from labs.catalog import Lab
from labs.prices import dollars
from operate.reservation import Reservation
from operate.zones import Survey, Zone


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try and what became of it."""

    zone: str
    """"" where the region's first was left to the stack."""
    types: str
    capacity: str
    outcome: str
    """"up", "short", "failed" or "left out"."""
    why: str
    """In AWS's words; "" for "up"."""
    seconds: float
    usd: float | None
    """What it cost at most until it was taken away, as if all of it had stood from the first second; 0 for "up", whose
    bill goes on, and None where it is not known."""

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def table(attempts: Sequence[Attempt]) -> Table:
    """All tries for the terminal, in order."""
    shown = Table("zone", "type", "capacity", "outcome", "why", "took", "at most")
    for one in attempts:
        style = {"up": "bold green", "left out": "dim"}.get(one.outcome, "yellow")
        cost = "" if one.outcome in ("up", "left out") else dollars(one.usd)
        shown.add_row(one.zone or "first", one.types, one.capacity, Text(one.outcome, style=style), one.why,
                      f"{one.seconds:.0f} s", cost)  # fmt: skip
    return shown


def plan(lab: Lab, survey: Survey | None, found: Reservation | None, *, fallback: bool) -> list[Lab]:
    """What to try, the best first: zone after zone, with `fallback` then every type on demand.

    A reservation or a block lies in one zone (and, made in a placement group, only there); `lab.zone` wins over the
    survey. A spot fleet asks for all types of the lab that its zone offers at once.
    """
    if found:
        return [replace(lab, zone=found.zone, group=lab.group or ("" if found.block else found.group))]
    zones = _zones(lab, survey)
    tries = [_in(lab, zone) for zone in zones]
    if fallback and lab.capacity == "spot":
        tries += [
            replace(lab, instance_type=kind, alternatives="", capacity="on-demand", zone=zone.name)
            for kind in lab.types
            for zone in zones
            if kind in zone.types
        ]
    return tries


def _zones(lab: Lab, survey: Survey | None) -> list[Zone]:
    known = list(survey.zones) if survey else []
    if not lab.zone:
        return known or [Zone(name="", id="", types=lab.types)]
    return [zone for zone in known if zone.name == lab.zone] or [Zone(name=lab.zone, id="", types=lab.types)]


def _in(lab: Lab, zone: Zone) -> Lab:
    """The lab in that zone, with those of its types that the zone offers."""
    first, *others = zone.types
    return replace(lab, zone=zone.name, instance_type=first, alternatives="+".join(others))


def hinted(tries: Sequence[Lab], short: Lab, reason: str) -> list[Lab]:
    """The tries that are left after `short` came up short: of its own kind, those first whose zone EC2 named.

    "You can currently get g6.12xlarge capacity by … choosing us-east-1b, us-east-1d."
    """
    _, _, after = reason.partition("choosing")

    def like(lab: Lab) -> bool:
        return lab.capacity == short.capacity and lab.types == short.types

    first = [lab for lab in tries if like(lab) and lab.zone and lab.zone in after]
    return first + [lab for lab in tries if lab not in first]
