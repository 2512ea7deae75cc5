"""One VPC with one public subnet in one zone, and a security group that opens no port to anyone outside."""

from aws_cdk import Stack
from aws_cdk import aws_ec2 as ec2
from constructs import Construct, DependencyGroup, IDependable

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
        self.security_group = ec2.SecurityGroup(
            self,
            "Nodes",
            vpc=self.vpc,
            description="Nodes of a lab: everything among themselves, nothing from outside",
            allow_all_outbound=True,
        )
        # EFA traffic needs the group to name itself in both directions: an address range does not admit it.
        itself = self.security_group.security_group_id
        ec2.CfnSecurityGroupIngress(
            self.security_group,
            "FromItself",
            group_id=itself,
            source_security_group_id=itself,
            ip_protocol="-1",
            description="All traffic among the nodes",
        )
        ec2.CfnSecurityGroupEgress(
            self.security_group,
            "ToItself",
            group_id=itself,
            destination_security_group_id=itself,
            ip_protocol="-1",
            description="All traffic among the nodes",
        )

        self.ready: IDependable = DependencyGroup(
            self.subnet.internet_connectivity_established,
            self.subnet.node.find_child("RouteTableAssociation"),
            self.security_group,
        )
        """What a node waits for: its way out and its rules must stand before it boots, and fall after it is gone."""
