"""A capacity reservation or block that a lab names: what it is, where it lies, whether the lab fits into it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from guard.tick import BLOCK_MARGIN
from labs.catalog import Lab
from operate.account import Account
from operate.check import Check, failed, passed, warned


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """One capacity reservation, a block among them."""

    id: str
    instance_type: str
    zone: str
    state: str
    """EC2's word: "active", "scheduled", "expired", …"""
    free: int
    total: int
    block: bool
    starts: datetime | None
    ends: datetime | None
    """None: when its owner says."""
    group: str
    """Name of the cluster placement group that it was made in; "" for none."""


def find_reservation(account: Account, lab: Lab) -> Reservation | None:
    """The reservation that the lab names; None where it names none.

    Raises:
        ClientError: AWS denies it, or knows no such reservation.
    """
    _, colon, id = lab.capacity.partition(":")
    if not colon:
        return None
    answer = account.client("ec2").describe_capacity_reservations(CapacityReservationIds=[id])
    item = answer["CapacityReservations"][0]
    return Reservation(
        id=id,
        instance_type=item["InstanceType"],
        zone=item["AvailabilityZone"],
        state=item["State"],
        free=int(item.get("AvailableInstanceCount", 0)),
        total=int(item["TotalInstanceCount"]),
        block=item.get("ReservationType") == "capacity-block",
        starts=item.get("StartDate"),
        ends=item.get("EndDate"),
        # arn:aws:ec2:REGION:ACCOUNT:placement-group/NAME
        group=item.get("PlacementGroupArn", "").rpartition("/")[2],
    )


def check_reservation(lab: Lab, found: Reservation, now: datetime, *, mine: int = 0) -> Check:
    """Whether the lab's nodes can come from it now; `mine` of its instances are the lab's already."""
    name = "reservation"
    kind = "block" if found.block else "reservation"
    until = f", until {found.ends:%Y-%m-%d %H:%M} UTC" if found.ends else ""
    group = f", in placement group {found.group}" if found.group else ""
    what = (
        f"{found.id}: {found.free} of {found.total} × {found.instance_type} free in {found.zone}, "
        f"{found.state}{until}{group}"
    )
    if not lab.capacity.startswith(f"{kind}:"):
        return failed(name, f"{what}; it is a {kind}", f"write -c capacity={kind}:{found.id}")
    if found.instance_type != lab.instance_type:
        return failed(name, what, f"write -c instance_type={found.instance_type}")
    if lab.zone and found.zone != lab.zone:
        return failed(name, what, f"write -c zone={found.zone}, or leave it out: fab up takes it from here")
    if lab.group and found.group != lab.group:
        return failed(name, what, f"write -c group={found.group}" if found.group else "leave -c group= out")
    if found.block and found.starts and found.starts > now:
        return failed(name, f"{what}; it starts at {found.starts:%Y-%m-%d %H:%M} UTC", "deploy when it has begun")
    if found.state != "active":
        return failed(name, what, "only an active one gives instances: aws ec2 describe-capacity-reservations")
    if found.free + mine < lab.nodes:
        return failed(name, what, f"write -c nodes={max(found.free + mine, 1)}, or end what runs in it")
    if found.block and found.ends and found.ends - now < BLOCK_MARGIN + timedelta(hours=lab.ttl_hours):
        left = max(timedelta(0), found.ends - BLOCK_MARGIN - now).total_seconds() / 3600
        short = f"{what}; {left:.1f} h of it are left for a lab of {lab.ttl_hours:g} h"
        if left < 0.25:
            return failed(name, short, "buy another block")
        return warned(name, short, f"the guard ends the lab then; -c ttl_hours={left:.1f} says so")
    return passed(name, what)
