"""EC2 fleets of type instant: one answer to one request, with errors inside it rather than raised.

Rules: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateFleet.html
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.moto_api._internal import mock_random

from labs.instances import instance_type
from rehearsal import allocation, clock, launch
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.instances import Instances, shortage
from rehearsal.launch import Order
from rehearsal.market import Market

_HONOURED_OF_OVERRIDE = {"InstanceType", "SubnetId", "AvailabilityZone", "MaxPrice", "Priority", "ImageId", "Placement"}
_NO_SPOT = AwsError("InsufficientInstanceCapacity", "There is no Spot capacity available that matches your request.")


@dataclass(kw_only=True)
class Fleet:
    """One fleet and what became of its request."""

    id: str
    request: dict[str, Any]
    created: datetime
    state: str = "active"
    launched: list[dict[str, Any]] = field(default_factory=list)
    """As CreateFleet answers them: one entry per launch template and override."""
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def instances(self) -> list[str]:
        """Ids of all it launched."""
        return [id for row in self.launched for id in row["InstanceIds"]]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    named: dict[str, Any]
    order: Order
    zone: str
    lifecycle: str
    """"spot" or "on-demand"."""

    @property
    def kind(self) -> str:
        """Instance type."""
        return str(self.order["InstanceType"])


class Fleets(Instances):
    """Create, describe and delete."""

    market: Market
    fleets: dict[str, Fleet] = {}  # noqa: RUF012  # the account's, whichever request asks
    fleet_tokens: dict[str, str] = {}  # noqa: RUF012  # fleet ids by client token

    def create_fleet(self) -> ActionResult:
        request = dict(self._get_params())
        allocation.check(request)
        self.error_on_dryrun()
        token = request.get("ClientToken")
        if token and token in self.fleet_tokens:
            return ActionResult(_created(self.fleets[self.fleet_tokens[token]]))
        id = "fleet-" + "-".join(mock_random.get_random_hex(length) for length in (8, 4, 4, 4, 12))
        fleet = Fleet(id=id, request=request, created=clock.now())
        for lifecycle, count in allocation.targets(request["TargetCapacitySpecification"]).items():
            if count:
                options = request.get("SpotOptions" if lifecycle == "spot" else "OnDemandOptions") or {}
                gangs = _gangs(list(self._candidates(fleet, lifecycle, options)), options)
                self._fill(fleet, self._in_order(gangs, count, options), count, options)
        if self.faults.fleets_fail and not fleet.launched:
            raise AwsError(fleet.errors[0]["ErrorCode"], fleet.errors[0]["ErrorMessage"])
        for key, value in self._fleet_tags(request, "fleet").items():
            self.ec2_backend.create_tags([id], {key: value})
        self.fleets[id] = fleet
        if token:
            self.fleet_tokens[token] = id
        return ActionResult(_created(fleet))

    def _candidates(self, fleet: Fleet, lifecycle: str, options: dict[str, Any]) -> Iterator[_Candidate]:
        behaviour = options.get("InstanceInterruptionBehavior", "terminate") if lifecycle == "spot" else "terminate"
        for config in fleet.request["LaunchTemplateConfigs"]:
            named = dict(config.get("LaunchTemplateSpecification") or {})
            template = self.template_data(named)
            named["LaunchTemplateId"] = next(
                tag["Value"] for tag in template["TagSpecifications"][-1]["Tags"] if tag["Key"].endswith(":id")
            )
            for override in config.get("Overrides") or [{}]:
                shown = {"LaunchTemplateSpecification": named, **({"Overrides": override} if override else {})}
                try:
                    order = _order(template, override)
                    if behaviour != "terminate" and (order.get("Placement") or {}).get("GroupName"):
                        raise launch.grouped_spot(behaviour)
                    zone = self.prepare(order)
                except AwsError as error:
                    fleet.errors.append(_error(shown, lifecycle, error))
                    continue
                yield _Candidate(named=shown, order=order, zone=zone, lifecycle=lifecycle)

    def _in_order(self, gangs: list[list[_Candidate]], count: int, options: dict[str, Any]) -> list[list[_Candidate]]:
        """The gangs as the allocation strategy prefers them; their order in the request breaks a tie.

        Of those that have room now, and then of the others, price-capacity-optimized takes the cheapest first.
        """
        strategy = options.get("AllocationStrategy", "lowest-price")

        def rank(gang: list[_Candidate]) -> tuple[float, ...]:
            prices = [self._price(candidate) for candidate in gang]
            priority = min(float(c.named.get("Overrides", {}).get("Priority") or 0) for c in gang)
            room = sum(self.faults.room(candidate.kind, candidate.zone, count) for candidate in gang) >= count
            likely = max(self.market.score([candidate.kind], candidate.zone, count) for candidate in gang)
            return {
                "price-capacity-optimized": (not room, min(prices)), "lowest-price": (min(prices),),
                "capacity-optimized": (not room, -likely), "diversified": (),
                "capacity-optimized-prioritized": (not room, priority, -likely), "prioritized": (priority,),
            }[strategy]  # fmt: skip

        return sorted(gangs, key=rank)

    def _price(self, candidate: _Candidate) -> float:
        kind = instance_type(candidate.kind)
        price = kind.usd_per_hour
        if candidate.lifecycle == "spot":
            price = self.market.price(candidate.kind, candidate.zone, clock.now())
        return float("inf") if price is None else price

    def _fill(self, fleet: Fleet, gangs: list[list[_Candidate]], target: int, options: dict[str, Any]) -> None:
        """Fill the target from the first gang that can give the least that was asked for."""
        least = int(options.get("MinTargetCapacity") or 0)
        for gang in gangs:
            granted: list[tuple[_Candidate, int]] = []
            left = target
            for candidate in gang:
                try:
                    self.demand_quota(candidate.order, left, spot=candidate.lifecycle == "spot")
                except AwsError as error:
                    fleet.errors.append(_error(candidate.named, candidate.lifecycle, error))
                    continue
                count = self.faults.grant(candidate.kind, candidate.zone, left)
                granted.append((candidate, count))
                left -= count
                if not left:
                    break
                short = _NO_SPOT if candidate.lifecycle == "spot" else shortage(candidate.kind, candidate.zone)
                fleet.errors.append(_error(candidate.named, candidate.lifecycle, short))
            if target - left < max(least, 1):
                for candidate, count in granted:
                    self.faults.give_back(candidate.kind, candidate.zone, count)
                continue
            for candidate, count in granted:
                if count:
                    self._launch(fleet, candidate, count)
            return

    def _launch(self, fleet: Fleet, candidate: _Candidate, count: int) -> None:
        tags = {"aws:ec2:fleet-id": fleet.id, **self._fleet_tags(fleet.request, "instance")}
        instances = self.launch(candidate.order, count, tags, spot=candidate.lifecycle == "spot").instances
        fleet.launched.append({
            "LaunchTemplateAndOverrides": candidate.named, "Lifecycle": candidate.lifecycle,
            "InstanceType": candidate.kind, "InstanceIds": [instance.id for instance in instances],
        })  # fmt: skip

    def _fleet_tags(self, request: dict[str, Any], kind: str) -> dict[str, str]:
        return launch.tags_of({"TagSpecifications": request.get("TagSpecifications") or []}, kind)

    def describe_fleets(self) -> ActionResult:
        asked = self._get_param("FleetIds", [])
        if missing := [id for id in asked if id not in self.fleets]:
            raise AwsError("InvalidFleetId.NotFound", f"The fleet ID '{missing[0]}' does not exist")
        # Without ids AWS hides instant fleets, and the rehearsal has no other.
        return ActionResult({"Fleets": [self._described(self.fleets[id]) for id in asked]})

    def _described(self, fleet: Fleet) -> dict[str, Any]:
        tags = self.ec2_backend.tags.get(fleet.id, {})
        alive = [id for id in fleet.instances if self.ec2_backend.get_instance(id).state in ("pending", "running")]
        return {
            "FleetId": fleet.id, "FleetState": fleet.state, "Type": "instant", "CreateTime": fleet.created,
            "ActivityStatus": "fulfilled" if alive else "error", "FulfilledCapacity": float(len(alive)),
            "TargetCapacitySpecification": fleet.request["TargetCapacitySpecification"],
            "LaunchTemplateConfigs": fleet.request["LaunchTemplateConfigs"],
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            "Instances": fleet.launched, "Errors": fleet.errors,
        }  # fmt: skip

    def describe_fleet_instances(self) -> ActionResult:
        # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeFleetInstances.html
        raise AwsError("UnsupportedOperation", "DescribeFleetInstances knows no instant fleets: use DescribeFleets")

    def delete_fleets(self) -> ActionResult:
        self.error_on_dryrun()
        done, failed = [], []
        for id in self._get_param("FleetIds", []):
            fleet = self.fleets.get(id)
            if fleet is None:
                error = {"Code": "fleetIdDoesNotExist", "Message": f"The fleet ID '{id}' does not exist"}
                failed.append({"FleetId": id, "Error": error})
                continue
            if not self._get_bool_param("TerminateInstances"):
                raise AwsError("InvalidParameterValue", "An instant fleet cannot be deleted with NoTerminateInstances")
            self.terminate(fleet.instances)
            done.append({"FleetId": id, "PreviousFleetState": fleet.state, "CurrentFleetState": "deleted_terminating"})
            fleet.state = "deleted_terminating"
            self.ec2_backend.tags.pop(id, None)
        return ActionResult({"SuccessfulFleetDeletions": done, "UnsuccessfulFleetDeletions": failed})


def _order(template: dict[str, Any], override: dict[str, Any]) -> Order:
    if unknown := sorted(set(override) - _HONOURED_OF_OVERRIDE):
        raise NotRehearsed(f"CreateFleet: Overrides.{unknown[0]}")
    if (template.get("InstanceMarketOptions") or {}).get("MarketType") == "spot":
        raise AwsError("InvalidParameterCombination", "A fleet's launch template takes no InstanceMarketOptions spot")
    request = {key: override[key] for key in ("InstanceType", "ImageId", "Placement") if override.get(key)}
    if zone := override.get("AvailabilityZone"):
        request["Placement"] = {**(template.get("Placement") or {}), "AvailabilityZone": zone}
    order = launch.expand(request, template)
    if subnet := override.get("SubnetId"):
        if order["NetworkInterfaces"]:
            for interface in order["NetworkInterfaces"]:
                interface["SubnetId"] = subnet
        else:
            order["SubnetId"] = subnet
    return order


def _gangs(candidates: list[_Candidate], options: dict[str, Any]) -> list[list[_Candidate]]:
    """Candidates that may serve the fleet together."""
    gangs: dict[tuple[str, str], list[_Candidate]] = {}
    for candidate in candidates:
        zone = candidate.zone if options.get("SingleAvailabilityZone") else ""
        kind = str(candidate.order["InstanceType"]) if options.get("SingleInstanceType") else ""
        gangs.setdefault((zone, kind), []).append(candidate)
    return list(gangs.values())


def _error(named: dict[str, Any], lifecycle: str, error: AwsError) -> dict[str, Any]:
    return {
        "LaunchTemplateAndOverrides": named, "Lifecycle": lifecycle, "ErrorCode": error.code,
        "ErrorMessage": error.message,
    }  # fmt: skip


def _created(fleet: Fleet) -> dict[str, Any]:
    return {"FleetId": fleet.id, "Errors": fleet.errors, "Instances": fleet.launched}
