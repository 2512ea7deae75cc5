"""How a lab's nodes are bought: on demand, on spot, from a reservation or from a capacity block."""

from collections.abc import Sequence

from aws_cdk import CfnTag
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from labs.catalog import Lab


def is_spot(lab: Lab) -> bool:
    """Whether the nodes come from a fleet of spot instances; else each is an instance of its own."""
    return lab.capacity == "spot"


def reservation(lab: Lab) -> ec2.CfnLaunchTemplate.CapacityReservationSpecificationProperty | None:
    """The reservation that the nodes must come from; a launch that it has no room for fails."""
    if ":" not in lab.capacity:
        return None
    target = ec2.CfnLaunchTemplate.CapacityReservationTargetProperty(
        capacity_reservation_id=lab.capacity.partition(":")[2]
    )
    return ec2.CfnLaunchTemplate.CapacityReservationSpecificationProperty(capacity_reservation_target=target)


def market(lab: Lab) -> ec2.CfnLaunchTemplate.InstanceMarketOptionsProperty | None:
    """Market of the launch template: only a capacity block names one; a fleet states spot itself."""
    if not lab.capacity.startswith("block:"):
        return None
    return ec2.CfnLaunchTemplate.InstanceMarketOptionsProperty(market_type="capacity-block")


def spot_fleet(
    scope: Construct,
    id: str,
    *,
    lab: Lab,
    template: ec2.CfnLaunchTemplate,
    subnet_id: str,
    tags: Sequence[CfnTag],
) -> ec2.CfnEC2Fleet:
    """All of the lab's nodes at once on spot capacity, in one zone and of one of its types, or none; never relaunched.

    All types share the template, so the catalogue admits only those with the same interfaces. The subnet stands in the
    override, and therefore in none of the template's interfaces.
    """
    return ec2.CfnEC2Fleet(
        scope,
        id,
        type="instant",
        launch_template_configs=[
            ec2.CfnEC2Fleet.FleetLaunchTemplateConfigRequestProperty(
                launch_template_specification=ec2.CfnEC2Fleet.FleetLaunchTemplateSpecificationRequestProperty(
                    launch_template_id=template.ref, version=template.attr_latest_version_number
                ),
                overrides=[
                    ec2.CfnEC2Fleet.FleetLaunchTemplateOverridesRequestProperty(instance_type=kind, subnet_id=subnet_id)
                    for kind in lab.types
                ],
            )
        ],
        target_capacity_specification=ec2.CfnEC2Fleet.TargetCapacitySpecificationRequestProperty(
            total_target_capacity=lab.nodes, default_target_capacity_type="spot"
        ),
        spot_options=ec2.CfnEC2Fleet.SpotOptionsRequestProperty(
            allocation_strategy="price-capacity-optimized",
            instance_interruption_behavior="terminate",
            single_availability_zone=True,
            single_instance_type=True,
            min_target_capacity=lab.nodes,
        ),
        tag_specifications=[ec2.CfnEC2Fleet.TagSpecificationProperty(resource_type="fleet", tags=tags)],
    )
