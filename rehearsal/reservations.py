"""On-demand capacity reservations, of which moto knows none.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateCapacityReservation.html
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.moto_api._internal import mock_random

from labs.instances import instance_type
from rehearsal import clock
from rehearsal.errors import AwsError, NotRehearsed

_HONOURED = {"InstanceType", "InstancePlatform", "AvailabilityZone", "InstanceCount", "EndDateType",
             "InstanceMatchCriteria", "TagSpecifications", "ClientToken", "DryRun"}  # fmt: skip


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
    state: str = "active"
    users: set[str] = field(default_factory=set)
    """Ids of the instances that run in it."""

    def described(self, tags: list[dict[str, str]]) -> dict[str, Any]:
        """As DescribeCapacityReservations shows it."""
        free = self.count - len(self.users) if self.state == "active" else 0
        return {
            "CapacityReservationId": self.id, "OwnerId": self.account, "InstanceType": self.kind,
            "CapacityReservationArn": f"arn:aws:ec2:{self.region}:{self.account}:capacity-reservation/{self.id}",
            "InstancePlatform": "Linux/UNIX", "AvailabilityZone": self.zone, "Tenancy": "default",
            "TotalInstanceCount": self.count, "AvailableInstanceCount": free, "State": self.state,
            "StartDate": self.created, "CreateDate": self.created, "EndDateType": "unlimited",
            "InstanceMatchCriteria": "targeted", "ReservationType": "default", "Tags": tags,
        }  # fmt: skip


class Reservations(EC2BaseResponse):  # type: ignore[misc]  # moto ships no types
    """Create, describe, cancel, and launch into them."""

    capacity: dict[str, Reservation] = {}  # noqa: RUF012  # the account's, whichever request asks

    def create_capacity_reservation(self) -> ActionResult:
        request = dict(self._get_params())
        if unknown := sorted(set(request) - _HONOURED):
            raise NotRehearsed(f"CreateCapacityReservation: {', '.join(unknown)}")
        if request.get("InstanceMatchCriteria", "open") != "targeted":
            raise NotRehearsed("CreateCapacityReservation: InstanceMatchCriteria other than targeted")
        if request.get("EndDateType", "unlimited") != "unlimited":
            raise NotRehearsed("CreateCapacityReservation: EndDateType other than unlimited")
        try:
            instance_type(request["InstanceType"])
        except ValueError as error:
            raise AwsError("InvalidParameterValue", str(error)) from None
        self.error_on_dryrun()
        reservation = Reservation(
            id=f"cr-0{mock_random.get_random_hex(16)}", kind=request["InstanceType"], region=self.region,
            zone=request["AvailabilityZone"], count=int(request["InstanceCount"]), account=self.current_account,
            created=clock.now(),
        )  # fmt: skip
        self.capacity[reservation.id] = reservation
        for key, value in (self._parse_tag_specification().get("capacity-reservation") or {}).items():
            self.ec2_backend.create_tags([reservation.id], {key: value})
        return ActionResult({"CapacityReservation": self._shown(reservation)})

    def describe_capacity_reservations(self) -> ActionResult:
        asked = self._get_param("CapacityReservationIds", [])
        chosen = [self.reservation(id) for id in asked] or list(self.capacity.values())
        rows = [self._shown(reservation) for reservation in chosen if reservation.region == self.region]
        for name, values in self._filters_from_querystring().items():
            rows = [row for row in rows if _value(row, name) & set(values)]
        return ActionResult({"CapacityReservations": rows})

    def cancel_capacity_reservation(self) -> ActionResult:
        self.reservation(self._get_param("CapacityReservationId")).state = "cancelled"
        return ActionResult({"Return": True})

    def reservation(self, id: str) -> Reservation:
        """The reservation of that id.

        Raises:
            AwsError: there is none.
        """
        if id not in self.capacity:
            raise AwsError("InvalidCapacityReservationId.NotFound", f"The capacity reservation '{id}' does not exist")
        return self.capacity[id]

    def check_reservation(self, id: str, kind: str, zone: str) -> None:
        """Refuse a launch into a reservation that does not fit it.

        Raises:
            AwsError: it is cancelled, or of another type or zone.
        """
        reservation = self.reservation(id)
        if reservation.state != "active":
            raise AwsError("InvalidCapacityReservationState", f"The capacity reservation '{id}' is {reservation.state}")
        if (reservation.kind, reservation.zone) != (kind, zone):
            raise AwsError(
                "InvalidParameterCombination",
                f"'{id}' reserves {reservation.kind} in {reservation.zone}, not {kind} in {zone}",
            )

    def enter_reservation(self, id: str, count: int) -> Reservation:
        """The reservation, if it has room for `count` more.

        Raises:
            AwsError: it has not.
        """
        reservation = self.reservation(id)
        if count > reservation.count - len(reservation.users):
            raise AwsError("ReservationCapacityExceeded", f"The capacity reservation '{id}' has no capacity left")
        return reservation

    def _shown(self, reservation: Reservation) -> dict[str, Any]:
        tags = self.ec2_backend.tags.get(reservation.id, {})
        return reservation.described([{"Key": key, "Value": value} for key, value in tags.items()])


def _value(row: dict[str, Any], name: str) -> set[str]:
    fields = {"state": "State", "instance-type": "InstanceType", "availability-zone": "AvailabilityZone"}
    if name in fields:
        return {row[fields[name]]}
    if name == "tag-key":
        return {tag["Key"] for tag in row["Tags"]}
    if name.startswith("tag:"):
        return {tag["Value"] for tag in row["Tags"] if tag["Key"] == name.removeprefix("tag:")}
    raise AwsError("InvalidParameterValue", f"The filter '{name}' is invalid")
