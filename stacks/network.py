"""One VPC with one public subnet in one zone, and a security group that opens no port to anyone outside."""

from typing import Any

from aws_cdk import CfnElement, Stack
from aws_cdk import aws_ec2 as ec2
from constructs import Construct, DependencyGroup, IConstruct, IDependable

from stacks.acknowledged import NETWORK, acknowledge


class Network(Construct):
    """Where a lab's nodes and its file system sit.

    One zone, because EFA, cluster placement groups and FSx for Lustre each fix it. No NAT gateway, which bills by
    the hour: nodes have public addresses, and S3 is reached through a gateway endpoint, which is free. The template
    admits nobody: fab admits the operator's own address when it connects.
    """

    def __init__(self, scope: Construct, id: str, *, zone: str) -> None:
        """`zone` is a name such as us-east-1d; empty takes the region's first."""
        super().__init__(scope, id)
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.0.0.0/16"),
            availability_zones=[zone] if zone else [Stack.of(self).availability_zones[0]],
            nat_gateways=0,
            restrict_default_security_group=False,  # that takes a Lambda asset; nothing uses the default group
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="Public",
                    subnet_type=ec2.SubnetType.PUBLIC,
                    cidr_mask=20,
                    map_public_ip_on_launch=False,  # the launch template asks for the address, node by node
                )
            ],
            gateway_endpoints={"S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)},
        )
        acknowledge(self.vpc, NETWORK)
        self.subnet = self.vpc.public_subnets[0]
        # Names that every interface of every node repeats: short ones keep templates below 50 KiB.
        _named(self.subnet, "Subnet")
        self.subnet_id = self.subnet.subnet_id
        group = ec2.CfnSecurityGroup(
            self,
            "Nodes",
            vpc_id=self.vpc.vpc_id,
            group_description="Nodes of a lab: everything among themselves, nothing from outside",
            security_group_egress=[
                ec2.CfnSecurityGroup.EgressProperty(
                    ip_protocol="-1", cidr_ip="0.0.0.0/0", description="Nodes may reach anything"
                )
            ],
        )
        group.override_logical_id("Nodes")
        self.security_group_id = group.ref
        # EFA traffic needs the group to name itself in both directions: an address range does not admit it.
        within: dict[str, Any] = {
            "group_id": group.ref,
            "ip_protocol": "-1",
            "description": "All traffic among the nodes",
        }
        incoming = ec2.CfnSecurityGroupIngress(self, "FromItself", source_security_group_id=group.ref, **within)
        outgoing = ec2.CfnSecurityGroupEgress(self, "ToItself", destination_security_group_id=group.ref, **within)
        self.ready: IDependable = DependencyGroup(
            self.subnet.internet_connectivity_established,
            self.subnet.node.find_child("RouteTableAssociation"),
            incoming,
            outgoing,
        )
        """What a node waits for: its way out and its rules must stand before it boots, and fall after it is gone."""


def _named(construct: IConstruct, logical_id: str) -> None:
    child = construct.node.default_child
    assert isinstance(child, CfnElement)
    child.override_logical_id(logical_id)
