"""Capacity reservations and capacity blocks, of which moto knows none.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateCapacityReservation.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/capacity-blocks-how.html
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.moto_api._internal import mock_random

from labs.instances import instance_type
from rehearsal import clock
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.filters import matching
from rehearsal.market import offered

_HONOURED = {"InstanceType", "InstancePlatform", "AvailabilityZone", "InstanceCount", "EndDateType", "EndDate",
             "InstanceMatchCriteria", "PlacementGroupArn", "TagSpecifications", "ClientToken", "DryRun"}  # fmt: skip
_FILTERS = {"state": "State", "instance-type": "InstanceType", "availability-zone": "AvailabilityZone"}
_WARNING = timedelta(minutes=30)
"""EC2 ends a block's instances so long before the block ends."""
_BLOCK_COUNTS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(kw_only=True)
class Reservation:
    """Machines of one type, kept free in one zone, and paid for whether used or not."""

    id: str
    kind: str
    zone: str
    count: int
    region: str
    account: str
    created: datetime
    starts: datetime
    ends: datetime | None = None
    group: str = ""
    """ARN of the cluster placement group that it was made in."""
    block: bool = False
    """Whether it is a capacity block: bought ahead, for a time."""
    cancelled: bool = False
    users: set[str] = field(default_factory=set)
    """Ids of the instances that run in it."""

    @property
    def state(self) -> str:
        """As AWS names it, now."""
        if self.cancelled:
            return "cancelled"
        if self.ends and clock.now() >= self.ends:
            return "expired"
        return "active" if clock.now() >= self.starts else "scheduled"

    def described(self, tags: list[dict[str, str]]) -> dict[str, Any]:
        """As DescribeCapacityReservations shows it."""
        free = self.count - len(self.users) if self.state == "active" else 0
        ended = {"EndDate": self.ends} if self.ends else {}
        grouped = {"PlacementGroupArn": self.group} if self.group else {}
        return {
            "CapacityReservationId": self.id, "OwnerId": self.account, "InstanceType": self.kind,
            "CapacityReservationArn": f"arn:aws:ec2:{self.region}:{self.account}:capacity-reservation/{self.id}",
            "InstancePlatform": "Linux/UNIX", "AvailabilityZone": self.zone, "Tenancy": "default",
            "TotalInstanceCount": self.count, "AvailableInstanceCount": free, "State": self.state,
            "StartDate": self.starts, "CreateDate": self.created, "EndDateType": "limited" if ended else "unlimited",
            "InstanceMatchCriteria": "targeted", "ReservationType": "capacity-block" if self.block else "default",
            **ended, **grouped, "Tags": tags,
        }  # fmt: skip


class Reservations(EC2BaseResponse):  # type: ignore[misc]  # moto ships no types
    """Create, buy, describe, cancel, and launch into them."""

    capacity: dict[str, Reservation] = {}  # noqa: RUF012  # the account's, whichever request asks
    offers: dict[str, tuple[str, str, int, datetime, datetime]] = {}  # noqa: RUF012  # type, zone, count, start, end

    def create_capacity_reservation(self) -> ActionResult:
        request = dict(self._get_params())
        if unknown := sorted(set(request) - _HONOURED):
            raise NotRehearsed(f"CreateCapacityReservation: {', '.join(unknown)}")
        if request.get("InstanceMatchCriteria", "open") != "targeted":
            raise NotRehearsed("CreateCapacityReservation: InstanceMatchCriteria other than targeted")
        limited = request.get("EndDateType", "unlimited") == "limited"
        if limited != bool(request.get("EndDate")):
            raise AwsError("InvalidParameterCombination", "EndDate goes with EndDateType limited, and with no other.")
        try:
            instance_type(request["InstanceType"])
        except ValueError as error:
            raise AwsError("InvalidParameterValue", str(error)) from None
        self.error_on_dryrun()
        return ActionResult({"CapacityReservation": self._keep(
            request["InstanceType"], request["AvailabilityZone"], int(request["InstanceCount"]), starts=clock.now(),
            ends=_aware(request["EndDate"]) if limited else None, group=request.get("PlacementGroupArn") or "",
        )})  # fmt: skip

    def describe_capacity_block_offerings(self) -> ActionResult:
        known = {"InstanceType", "InstanceCount", "StartDateRange", "EndDateRange", "CapacityDurationHours",
                 "MaxResults", "DryRun"}  # fmt: skip
        request = dict(self._get_params())
        if unknown := sorted(set(request) - known):
            raise NotRehearsed(f"DescribeCapacityBlockOfferings: {', '.join(unknown)}")
        kind, count = request["InstanceType"], int(request.get("InstanceCount") or 1)
        hours = int(request["CapacityDurationHours"])
        if kind not in (found := _sold(kind)) or count not in _BLOCK_COUNTS or hours % 24 or not 24 <= hours <= 4368:
            raise AwsError("InvalidParameterValue", f"No capacity blocks of {count} × {kind} for {hours} hours are sold"
                           if kind in found else f"Instance type '{kind}' is not sold as capacity blocks.")  # fmt: skip
        now = clock.now().replace(microsecond=0)
        earliest = max(now, _aware(request["StartDateRange"])) if request.get("StartDateRange") else now
        listed = instance_type(kind).usd_per_hour or 0.0
        rows = []
        for zone in offered(self.region, kind)[:1]:
            ends = (earliest + timedelta(hours=hours)).replace(hour=11, minute=30, second=0)  # all blocks end at 11:30
            ends += timedelta(days=1) if ends - earliest < timedelta(hours=hours - 12) else timedelta()
            id = f"cb-0{mock_random.get_random_hex(16)}"
            lasts = round((ends - earliest) / timedelta(hours=1))
            self.offers[id] = kind, zone, count, earliest, ends
            rows.append({
                "CapacityBlockOfferingId": id, "InstanceType": kind, "AvailabilityZone": zone, "InstanceCount": count,
                "StartDate": earliest, "EndDate": ends, "CapacityBlockDurationHours": lasts, "CurrencyCode": "USD",
                "Tenancy": "default", "UpfrontFee": f"{listed * count * hours:.2f}",
            })  # fmt: skip
        return ActionResult({"CapacityBlockOfferings": rows})

    def purchase_capacity_block(self) -> ActionResult:
        id = self._get_param("CapacityBlockOfferingId")
        if id not in self.offers:
            raise AwsError("InvalidCapacityBlockOfferingId.NotFound", f"The capacity block offering '{id}' is gone")
        self.error_on_dryrun()
        kind, zone, count, starts, ends = self.offers.pop(id)
        return ActionResult({
            "CapacityReservation": self._keep(kind, zone, count, starts=starts, ends=ends, block=True)
        })  # fmt: skip

    def _keep(self, kind: str, zone: str, count: int, **given: Any) -> dict[str, Any]:
        made = Reservation(
            id=f"cr-0{mock_random.get_random_hex(16)}", kind=kind, zone=zone, count=count, region=self.region,
            account=self.current_account, created=clock.now(), **given,
        )  # fmt: skip
        self.capacity[made.id] = made
        for key, value in (self._parse_tag_specification().get("capacity-reservation") or {}).items():
            self.ec2_backend.create_tags([made.id], {key: value})
        return self._shown(made)

    def describe_capacity_reservations(self) -> ActionResult:
        asked = self._get_param("CapacityReservationIds", [])
        chosen = [self.reservation(id) for id in asked] or list(self.capacity.values())
        rows = [self._shown(reservation) for reservation in chosen if reservation.region == self.region]
        return ActionResult({"CapacityReservations": matching(rows, self._filters_from_querystring(), _FILTERS)})

    def cancel_capacity_reservation(self) -> ActionResult:
        reservation = self.reservation(self._get_param("CapacityReservationId"))
        if reservation.block:
            raise AwsError("InvalidCapacityReservationState", "A capacity block cannot be cancelled.")
        reservation.cancelled = True
        return ActionResult({"Return": True})

    def ending_blocks(self) -> list[str]:
        """Ids of the instances that EC2 ends, for their capacity block does."""
        return [
            id
            for block in self.capacity.values()
            if block.block and block.ends and block.region == self.region and clock.now() >= block.ends - _WARNING
            for id in sorted(block.users)
            if self.ec2_backend.get_instance(id).state in ("pending", "running")
        ]

    def reservation(self, id: str) -> Reservation:
        """The reservation of that id.

        Raises:
            AwsError: there is none.
        """
        if id not in self.capacity:
            raise AwsError("InvalidCapacityReservationId.NotFound", f"The capacity reservation '{id}' does not exist")
        return self.capacity[id]

    def check_reservation(self, id: str, kind: str, zone: str, group: str, market: str) -> None:
        """Refuse a launch into a reservation that does not fit it. `group`: name of the launch's placement group.

        Raises:
            AwsError: it is not active, or of another type, zone or placement group, or in another market.
        """
        reservation = self.reservation(id)
        if reservation.state != "active":
            raise AwsError("InvalidCapacityReservationState", f"The capacity reservation '{id}' is {reservation.state}")
        if (reservation.kind, reservation.zone) != (kind, zone):
            raise AwsError(
                "InvalidParameterCombination",
                f"'{id}' reserves {reservation.kind} in {reservation.zone}, not {kind} in {zone}",
            )
        if reservation.block != (market == "capacity-block"):
            raise AwsError(
                "InvalidParameterCombination",
                f"'{id}' is {'' if reservation.block else 'not '}a capacity block: MarketType capacity-block goes with "
                "capacity blocks only, and they with it.",
            )
        if reservation.block and group:
            raise AwsError("InvalidParameterCombination", "A capacity block takes no placement group.")
        if reservation.group.rpartition("/")[2] != group:
            raise _exceeded()  # nothing there is compatible: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/cr-cpg.html

    def enter_reservation(self, id: str, count: int) -> Reservation:
        """The reservation, if it has room for `count` more.

        Raises:
            AwsError: it has not.
        """
        reservation = self.reservation(id)
        if count > reservation.count - len(reservation.users):
            raise _exceeded()
        return reservation

    def _shown(self, reservation: Reservation) -> dict[str, Any]:
        tags = self.ec2_backend.tags.get(reservation.id, {})
        return reservation.described([{"Key": key, "Value": value} for key, value in tags.items()])


def _exceeded() -> AwsError:
    return AwsError(
        "ReservationCapacityExceeded",
        "The requested reservation does not have sufficient compatible and available capacity for this request.",
    )


def _sold(kind: str) -> tuple[str, ...]:
    try:
        return (kind,) if instance_type(kind).capacity_block else ()
    except ValueError as error:
        raise AwsError("InvalidParameterValue", str(error)) from None


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
