"""Zones of a region for one lab: which offer its types, how EC2 rates their spare capacity, what spot costs there.

One lab, one zone: EFA, cluster placement groups and FSx for Lustre each fix it, so it is chosen first of all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from labs.catalog import Lab
from operate.account import Account, explain

HISTORY = timedelta(days=7)
"""How far back spot prices are looked at."""


@dataclass(frozen=True, kw_only=True)
class Zone:
    """One availability zone, as far as a lab is concerned."""

    name: str
    """For example us-east-1d; the same name is another place in another account."""
    id: str
    """For example use1-az4, the same place in every account."""
    types: tuple[str, ...]
    """Types of the lab that it offers, in the lab's order."""
    score: int | None = None
    """Spot placement score, 1 to 10: how likely so many instances are had there now. None: not known."""
    spot_usd: float | None = None
    """Spot price of the lab's first type there, dollars an hour and node, now."""
    spot_most_usd: float | None = None
    """The most that it was in `HISTORY`."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A region's zones for one lab, the best one first."""

    zones: tuple[Zone, ...]
    """Those that offer one of its types."""
    without: tuple[str, ...]
    """Zones that offer none of them."""
    unanswered: dict[str, str] = field(default_factory=dict)
    """What AWS denied or did not answer -> why: "offerings", "scores", "prices"."""


def survey(account: Account, lab: Lab) -> Survey:
    """Ask EC2 about every zone of the region. What it denies is said in the survey, and a zone's fields stay None.

    Raises:
        ClientError, BotoCoreError: not even the zones can be listed.
    """
    ec2 = account.client("ec2")
    listed = ec2.describe_availability_zones(Filters=[{"Name": "zone-type", "Values": ["availability-zone"]}])
    names = {
        zone["ZoneName"]: zone["ZoneId"]
        for zone in listed["AvailabilityZones"]
        if zone.get("State", "available") == "available"
    }
    unanswered: dict[str, str] = {}

    def ask(what: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return call()
        except (BotoCoreError, ClientError) as error:
            unanswered[what] = explain(error).cause
            return None

    offered = ask("offerings", lambda: _offerings(ec2, lab))
    scores = ask("scores", lambda: _scores(account, lab)) or {}
    prices = ask("prices", lambda: _prices(account, lab)) or {}
    zones = []
    for name, id in names.items():
        # Where EC2 does not say what a zone offers, every zone may offer all.
        types = lab.types if offered is None else tuple(kind for kind in lab.types if kind in offered.get(name, ()))
        now, most = prices.get(name, (None, None))
        zones.append(Zone(name=name, id=id, types=types, score=scores.get(id), spot_usd=now, spot_most_usd=most))
    return Survey(
        zones=tuple(sorted((zone for zone in zones if zone.types), key=_rank(lab))),
        without=tuple(zone.name for zone in zones if not zone.types),
        unanswered=unanswered,
    )


def _rank(lab: Lab) -> Callable[[Zone], tuple[Any, ...]]:
    """Where to try first: the wanted type offered, the better score, the lower spot price, the name.

    The score rates capacity that nobody uses, which on-demand nodes are taken from as well.
    """

    def key(zone: Zone) -> tuple[Any, ...]:
        wanted = zone.types[0] == lab.types[0]
        price = float("inf") if zone.spot_usd is None else zone.spot_usd
        return (not wanted, -(zone.score or 0), price, zone.name)

    return key


def _offerings(ec2: Any, lab: Lab) -> dict[str, set[str]]:
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": list(lab.types)}]
    )
    offered: dict[str, set[str]] = {}
    for row in (row for page in pages for row in page["InstanceTypeOfferings"]):
        offered.setdefault(row["Location"], set()).add(row["InstanceType"])
    return offered


def _scores(account: Account, lab: Lab) -> dict[str, int]:
    """By zone id. https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetSpotPlacementScores.html"""
    answer = account.client("ec2").get_spot_placement_scores(
        InstanceTypes=list(lab.types), TargetCapacity=lab.nodes, TargetCapacityUnitType="units",
        SingleAvailabilityZone=True, RegionNames=[account.region],
    )  # fmt: skip
    return {row["AvailabilityZoneId"]: int(row["Score"]) for row in answer["SpotPlacementScores"]}


def _prices(account: Account, lab: Lab) -> dict[str, tuple[float, float]]:
    """By zone: the first type's spot price now, and the most it was. A price holds until the next one is told."""
    now = account.now()
    pages = (
        account.client("ec2")
        .get_paginator("describe_spot_price_history")
        .paginate(
            InstanceTypes=[lab.instance_type], ProductDescriptions=["Linux/UNIX"], StartTime=now - HISTORY, EndTime=now
        )
    )
    told: dict[str, list[tuple[Any, float]]] = {}
    for row in (row for page in pages for row in page["SpotPriceHistory"]):
        told.setdefault(row["AvailabilityZone"], []).append((row["Timestamp"], float(row["SpotPrice"])))
    return {zone: (max(rows)[1], max(price for _, price in rows)) for zone, rows in told.items()}
