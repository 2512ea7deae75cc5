"""EC2 fleets of type instant: one answer to one request, with errors inside it rather than raised.

Rules: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateFleet.html
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.moto_api._internal import mock_random

from rehearsal import clock, launch
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.instances import Instances, shortage
from rehearsal.launch import Order

_HONOURED = {"ClientToken", "DryRun", "LaunchTemplateConfigs", "OnDemandOptions", "SpotOptions", "TagSpecifications",
             "TargetCapacitySpecification", "TerminateInstancesWithExpiration", "Type",
             "ExcessCapacityTerminationPolicy", "ReplaceUnhealthyInstances"}  # fmt: skip
_HONOURED_OF_OVERRIDE = {"InstanceType", "SubnetId", "AvailabilityZone", "MaxPrice", "Priority", "ImageId", "Placement"}


@dataclass(kw_only=True)
class Fleet:
    """One fleet and what became of its request."""

    id: str
    request: dict[str, Any]
    lifecycle: str
    """"spot" or "on-demand"."""
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


class Fleets(Instances):
    """Create, describe and delete."""

    fleets: dict[str, Fleet] = {}  # noqa: RUF012  # the account's, whichever request asks
    fleet_tokens: dict[str, str] = {}  # noqa: RUF012  # fleet ids by client token

    def create_fleet(self) -> ActionResult:
        request = dict(self._get_params())
        _check(request)
        self.error_on_dryrun()
        token = request.get("ClientToken")
        if token and token in self.fleet_tokens:
            return ActionResult(_created(self.fleets[self.fleet_tokens[token]]))
        target = request["TargetCapacitySpecification"]
        lifecycle = target.get("DefaultTargetCapacityType") or "on-demand"
        id = "fleet-" + "-".join(mock_random.get_random_hex(length) for length in (8, 4, 4, 4, 12))
        fleet = Fleet(id=id, request=request, lifecycle=lifecycle, created=clock.now())
        for key, value in self._fleet_tags(request, "fleet").items():
            self.ec2_backend.create_tags([id], {key: value})
        options = request.get("SpotOptions" if lifecycle == "spot" else "OnDemandOptions") or {}
        candidates = list(self._candidates(fleet))
        self._fill(fleet, _gangs(candidates, options), int(target["TotalTargetCapacity"]), options)
        self.fleets[id] = fleet
        if token:
            self.fleet_tokens[token] = id
        return ActionResult(_created(fleet))

    def _candidates(self, fleet: Fleet) -> Iterator[_Candidate]:
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
                    zone = self.prepare(order)
                except AwsError as error:
                    fleet.errors.append(_error(shown, fleet.lifecycle, error))
                    continue
                yield _Candidate(named=shown, order=order, zone=zone)

    def _fill(self, fleet: Fleet, gangs: list[list[_Candidate]], target: int, options: dict[str, Any]) -> None:
        """Fill the target from the first gang that can give the least that was asked for."""
        least = int(options.get("MinTargetCapacity") or 0)
        for gang in gangs:
            granted: list[tuple[_Candidate, int]] = []
            left = target
            for candidate in gang:
                count = self.faults.grant(candidate.order["InstanceType"], candidate.zone, left)
                granted.append((candidate, count))
                left -= count
                if not left:
                    break
                error = shortage(candidate.order["InstanceType"], candidate.zone)
                fleet.errors.append(_error(candidate.named, fleet.lifecycle, error))
            if target - left < max(least, 1):
                for candidate, count in granted:
                    self.faults.give_back(candidate.order["InstanceType"], candidate.zone, count)
                continue
            for candidate, count in granted:
                if count:
                    self._launch(fleet, candidate, count)
            return

    def _launch(self, fleet: Fleet, candidate: _Candidate, count: int) -> None:
        tags = {"aws:ec2:fleet-id": fleet.id, **self._fleet_tags(fleet.request, "instance")}
        instances = self.launch(candidate.order, count, tags).instances
        for instance in instances:
            if fleet.lifecycle == "spot":
                instance.lifecycle = "spot"
                instance.spot_instance_request_id = f"sir-{mock_random.get_random_hex(8)}"
        fleet.launched.append({
            "LaunchTemplateAndOverrides": candidate.named, "Lifecycle": fleet.lifecycle,
            "InstanceType": candidate.order["InstanceType"], "InstanceIds": [instance.id for instance in instances],
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
        alive = [id for id in fleet.instances if self.ec2_backend.get_instance(id).state != "terminated"]
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

    def describe_spot_price_history(self) -> ActionResult:
        # moto's price of $0.00001 in 2006 would flatter every estimate.
        raise NotRehearsed("DescribeSpotPriceHistory: it has no market")

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


def _check(request: dict[str, Any]) -> None:
    if unknown := sorted(set(request) - _HONOURED):
        raise NotRehearsed(f"CreateFleet: {', '.join(unknown)}")
    if (kind := request.get("Type") or "maintain") != "instant":
        raise NotRehearsed(f"CreateFleet: Type {kind}")
    target = request.get("TargetCapacitySpecification") or {}
    if int(target.get("TotalTargetCapacity") or 0) < 1:
        raise AwsError("InvalidParameterValue", "TotalTargetCapacity must be at least 1")
    if unknown := sorted(set(target) - {"TotalTargetCapacity", "DefaultTargetCapacityType"}):
        raise NotRehearsed(f"CreateFleet: TargetCapacitySpecification.{unknown[0]}")
    if target.get("DefaultTargetCapacityType", "on-demand") not in ("on-demand", "spot"):
        raise NotRehearsed(f"CreateFleet: DefaultTargetCapacityType {target['DefaultTargetCapacityType']}")
    for name in ("SpotOptions", "OnDemandOptions"):
        options = request.get(name) or {}
        if options.get("MinTargetCapacity") and not (
            options.get("SingleAvailabilityZone") or options.get("SingleInstanceType")
        ):
            raise AwsError(
                "InvalidParameterCombination",
                f"{name}: MinTargetCapacity needs SingleAvailabilityZone or SingleInstanceType",
            )
    if not request.get("LaunchTemplateConfigs"):
        raise AwsError("MissingParameter", "The request must contain the parameter LaunchTemplateConfigs")


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
