"""What CreateFleet refuses of a request, and how much of each lifecycle it asks for: pure functions.

Rules: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateFleet.html
"""

from typing import Any

from rehearsal.errors import AwsError, NotRehearsed

_HONOURED = {"ClientToken", "DryRun", "LaunchTemplateConfigs", "OnDemandOptions", "SpotOptions", "TagSpecifications",
             "TargetCapacitySpecification", "TerminateInstancesWithExpiration", "Type",
             "ExcessCapacityTerminationPolicy", "ReplaceUnhealthyInstances"}  # fmt: skip
_HONOURED_OF_TARGET = {"TotalTargetCapacity", "DefaultTargetCapacityType", "OnDemandTargetCapacity",
                       "SpotTargetCapacity"}  # fmt: skip
_HONOURED_OF_OPTIONS = {"AllocationStrategy", "InstanceInterruptionBehavior", "SingleInstanceType",
                        "SingleAvailabilityZone", "MinTargetCapacity"}  # fmt: skip
_STRATEGIES = {
    "SpotOptions": ("lowest-price", "diversified", "capacity-optimized", "capacity-optimized-prioritized",
                    "price-capacity-optimized"),
    "OnDemandOptions": ("lowest-price", "prioritized"),
}  # fmt: skip
_LIFECYCLES = {"on-demand": "OnDemand", "spot": "Spot"}


def check(request: dict[str, Any]) -> None:
    """Refuse what AWS refuses of an instant fleet.

    Raises:
        AwsError: with AWS's code.
        NotRehearsed: what the rehearsal would have to ignore.
    """
    if unknown := sorted(set(request) - _HONOURED):
        raise NotRehearsed(f"CreateFleet: {', '.join(unknown)}")
    if (kind := request.get("Type") or "maintain") != "instant":
        raise NotRehearsed(f"CreateFleet: Type {kind}")
    target = request.get("TargetCapacitySpecification") or {}
    if int(target.get("TotalTargetCapacity") or 0) < 1:
        raise AwsError("InvalidParameterValue", "TotalTargetCapacity must be at least 1")
    if unknown := sorted(set(target) - _HONOURED_OF_TARGET):
        raise NotRehearsed(f"CreateFleet: TargetCapacitySpecification.{unknown[0]}")
    if min(counts := targets(target).values()) < 0 or sum(counts) != int(target["TotalTargetCapacity"]):
        raise AwsError("InvalidParameterValue", "On-demand and Spot target capacity do not make up the total")
    if target.get("DefaultTargetCapacityType", "on-demand") not in ("on-demand", "spot"):
        raise NotRehearsed(f"CreateFleet: DefaultTargetCapacityType {target['DefaultTargetCapacityType']}")
    for name in ("SpotOptions", "OnDemandOptions"):
        options = request.get(name) or {}
        if unknown := sorted(set(options) - _HONOURED_OF_OPTIONS):
            raise NotRehearsed(f"CreateFleet: {name}.{unknown[0]}")
        if (strategy := options.get("AllocationStrategy")) not in (None, *_STRATEGIES[name]):
            raise AwsError("InvalidParameterValue", f"AllocationStrategy '{strategy}' is not valid in {name}")
        if options.get("MinTargetCapacity") and not (
            options.get("SingleAvailabilityZone") or options.get("SingleInstanceType")
        ):
            raise AwsError(
                "InvalidParameterCombination",
                f"{name}: MinTargetCapacity needs SingleAvailabilityZone or SingleInstanceType",
            )
    if not request.get("LaunchTemplateConfigs"):
        raise AwsError("MissingParameter", "The request must contain the parameter LaunchTemplateConfigs")


def targets(target: dict[str, Any]) -> dict[str, int]:
    """How many of each lifecycle, what is named apart first; the rest is of the default one."""
    total, usual = int(target["TotalTargetCapacity"]), target.get("DefaultTargetCapacityType") or "on-demand"
    named = {
        "on-demand": int(target.get("OnDemandTargetCapacity") or 0),
        "spot": int(target.get("SpotTargetCapacity") or 0),
    }
    return {**named, usual: named[usual] or total - sum(named.values())}
