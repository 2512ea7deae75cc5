"""The spot market: what a type costs where, and how likely a zone has room for it. Seeded: one seed, one market.

A price lies between a quarter and three fifths of the list price, differs by zone and moves a little from day to day,
as on AWS. The numbers are invented: they exercise the choice, they forecast nothing.
"""

import random
from datetime import UTC, datetime, timedelta

from moto.core.responses import ActionResult
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.responses._base_response import EC2BaseResponse

from labs.instances import instance_type, instance_types
from rehearsal import clock
from rehearsal.errors import AwsError, NotRehearsed

_LEAST, _MOST, _SWING = 0.25, 0.60, 0.04
_OS = "Linux/UNIX"
_DAYS = 90
"""How far back AWS tells prices: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSpotPriceHistory.html"""
_HONOURED = {"InstanceTypes", "ProductDescriptions", "StartTime", "EndTime", "AvailabilityZone", "MaxResults",
             "NextToken", "Filters", "DryRun"}  # fmt: skip


def offered(region: str, kind: str) -> list[str]:
    """Zones of a region that have the type, in order."""
    rows = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
    return sorted({row["Location"] for row in rows if row["InstanceType"] == kind})


class Market:
    """Prices and scores of one rehearsal."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def price(self, kind: str, zone: str, at: datetime) -> float | None:
        """Dollars an hour of a spot instance; None where the type has no list price to go by."""
        listed = instance_type(kind).usd_per_hour
        if listed is None:
            return None
        usual = self._draw(kind, zone).uniform(_LEAST, _MOST)
        swing = self._draw(kind, zone, at.date().isoformat()).uniform(-_SWING, _SWING)
        return round(listed * usual * (1 + swing), 4)

    def changes(self, kind: str, zone: str, start: datetime, end: datetime) -> list[tuple[datetime, float]]:
        """When the price changed to what, latest first: all within [start, end], and the one that held at `start`."""
        found = []
        day = min(end, clock.now())
        while (at := self._change(kind, zone, day)) is not None:
            price = self.price(kind, zone, day)
            if price is None:
                return []
            if at <= end:
                found.append((at, price))
            if at <= start:
                break
            day -= timedelta(days=1)
        return found

    def _change(self, kind: str, zone: str, day: datetime) -> datetime | None:
        if day < clock.now() - timedelta(days=_DAYS):
            return None
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return midnight + timedelta(seconds=self._draw(kind, zone, midnight.date().isoformat(), "at").randrange(3600))

    def score(self, kinds: list[str], zone: str, count: int) -> int:
        """From 1 (unlikely) to 10: how likely a zone has room for so many of any one of the types."""
        best = 1
        for kind in kinds:
            free = self._draw(kind, zone, "room").uniform(4, 10)
            best = max(best, round(free - min(count, 64) ** 0.5 * (1 + instance_type(kind).gpus / 8) / 4))
        return best

    def _draw(self, *what: str) -> random.Random:
        return random.Random(" ".join((str(self._seed), *what)))


class SpotMarket(EC2BaseResponse):  # type: ignore[misc]  # moto ships no types
    """What EC2 tells of it."""

    market: Market

    def describe_spot_price_history(self) -> ActionResult:
        request = dict(self._get_params())
        if unknown := sorted(set(request) - _HONOURED):
            raise NotRehearsed(f"DescribeSpotPriceHistory: {', '.join(unknown)}")
        kinds, zones = list(request.get("InstanceTypes") or []), {request["AvailabilityZone"]} if request.get(
            "AvailabilityZone") else set()  # fmt: skip
        systems = list(request.get("ProductDescriptions") or [_OS])
        for name, values in self._filters_from_querystring().items():
            if name == "availability-zone":
                zones |= set(values)
            elif name == "instance-type":
                kinds += values
            elif name == "product-description":
                systems = values
            else:
                raise NotRehearsed(f"DescribeSpotPriceHistory: filter {name}")
        now = clock.now()
        end = _aware(request.get("EndTime")) or now
        start = _aware(request.get("StartTime")) or now - timedelta(days=_DAYS)
        rows = [
            {"AvailabilityZone": zone, "InstanceType": kind, "ProductDescription": _OS, "SpotPrice": f"{price:.6f}",
             "Timestamp": at}
            for kind in (kinds or sorted(instance_types()))
            if kind in instance_types() and _OS in systems
            for zone in offered(self.region, kind)
            if not zones or zone in zones
            for at, price in self.market.changes(kind, zone, start, end)
        ]  # fmt: skip
        rows.sort(key=lambda row: row["Timestamp"], reverse=True)
        first = int(request.get("NextToken") or 0)
        last = first + int(request.get("MaxResults") or 1000)
        more = {"NextToken": str(last)} if last < len(rows) else {}
        return ActionResult({"SpotPriceHistory": rows[first:last], **more})

    def get_spot_placement_scores(self) -> ActionResult:
        request = dict(self._get_params())
        if unknown := sorted(set(request) - {"InstanceTypes", "TargetCapacity", "TargetCapacityUnitType", "DryRun",
                                             "SingleAvailabilityZone", "RegionNames", "MaxResults"}):  # fmt: skip
            raise NotRehearsed(f"GetSpotPlacementScores: {', '.join(unknown)}")
        if request.get("TargetCapacityUnitType", "units") != "units":
            raise NotRehearsed(f"GetSpotPlacementScores: TargetCapacityUnitType {request['TargetCapacityUnitType']}")
        count = int(request["TargetCapacity"])
        kinds = list(request.get("InstanceTypes") or [])
        for kind in kinds:
            if kind not in instance_types():
                raise AwsError("InvalidParameterValue", f"The instance type '{kind}' is not valid.")
        if not kinds or count < 1:
            raise AwsError("InvalidParameterValue", "InstanceTypes and a TargetCapacity of 1 or more must be given.")
        regions = request.get("RegionNames") or [self.region]
        if regions != [self.region]:
            raise NotRehearsed(f"GetSpotPlacementScores: RegionNames {', '.join(regions)}")
        ids = {zone.name: zone.zone_id for zone in self.ec2_backend.describe_availability_zones()}
        scores = {zone: self.market.score([k for k in kinds if zone in offered(self.region, k)], zone, count)
                  for zone in sorted({zone for kind in kinds for zone in offered(self.region, kind)})}  # fmt: skip
        if str(request.get("SingleAvailabilityZone")).lower() == "true":
            rows = [{"Region": self.region, "AvailabilityZoneId": ids[zone], "Score": score}
                    for zone, score in scores.items()]  # fmt: skip
        else:
            rows = [{"Region": self.region, "Score": max(scores.values(), default=1)}]
        rows.sort(key=lambda row: (-row["Score"], row.get("AvailabilityZoneId", "")))
        return ActionResult({"SpotPlacementScores": rows[: int(request.get("MaxResults") or 10)]})


def _aware(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
