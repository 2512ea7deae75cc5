"""One VPC with one subnet in one zone, its way out, and a security group that opens no port to anyone outside."""

from typing import Any, TypeVar

from aws_cdk import CfnElement, Stack, Tags
from aws_cdk import aws_ec2 as ec2
from constructs import Construct, DependencyGroup, IDependable

from labs.catalog import Way
from stacks.acknowledged import NETWORK, acknowledge

_Element = TypeVar("_Element", bound=CfnElement)


def named(element: _Element, logical_id: str) -> _Element:
    """The element under a name without a hash: what every interface or node repeats must be short, for a template may
    have 50 KiB. Two of one name are an error of synthesis."""
    element.override_logical_id(logical_id)
    return element


class Network(Construct):
    """Where a lab's nodes and its file system sit.

    One zone, because EFA, cluster placement groups and FSx for Lustre each fix it. No NAT gateway, which bills by the
    hour. Nodes with a public address go out through an internet gateway. Those without go out by IPv6, through an
    egress-only internet gateway, which lets nobody in and costs nothing
    (https://docs.aws.amazon.com/vpc/latest/userguide/egress-only-internet-gateway.html). S3 is reached by IPv4 through
    a gateway endpoint, which is free too. The template admits nobody from outside: fab admits the operator's own
    address when it connects.
    """

    def __init__(self, scope: Construct, id: str, *, zone: str, way: Way) -> None:
        """`zone` is a name such as us-east-1d; empty takes the region's first. `way` is how nodes are reached."""
        super().__init__(scope, id)
        public = way in ("address", "elastic")
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.0.0.0/16"),
            ip_protocol=ec2.IpProtocol.IPV4_ONLY if public else ec2.IpProtocol.DUAL_STACK,
            availability_zones=[zone] if zone else [Stack.of(self).availability_zones[0]],
            nat_gateways=0,
            create_internet_gateway=public,
            restrict_default_security_group=False,  # that takes a Lambda asset; nothing uses the default group
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="Nodes",
                    subnet_type=ec2.SubnetType.PUBLIC if public else ec2.SubnetType.PRIVATE_WITH_EGRESS,
                    cidr_mask=20,
                    # The launch template asks for addresses, interface by interface: an efa-only one takes none.
                    map_public_ip_on_launch=False if public else None,
                    ipv6_assign_address_on_creation=None if public else False,
                )
            ],
            gateway_endpoints={"S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)},
        )
        acknowledge(self.vpc, NETWORK)
        for key in ("aws-cdk:subnet-name", "aws-cdk:subnet-type"):
            Tags.of(self.vpc).remove(key)
        Tags.of(self.vpc).add("Name", Stack.of(self).stack_name)
        (self.subnet,) = self.vpc.public_subnets if public else self.vpc.private_subnets
        made = self.subnet.node.default_child
        assert isinstance(made, ec2.CfnSubnet)
        named(made, "Subnet")
        self.subnet_id = self.subnet.subnet_id
        ipv4: dict[str, Any] = {"cidr_ip": "0.0.0.0/0"}
        ipv6: dict[str, Any] = {"cidr_ipv6": "::/0"}
        group = ec2.CfnSecurityGroup(
            self,
            "Nodes",
            vpc_id=self.vpc.vpc_id,
            group_description="Nodes of a lab: everything among themselves, nothing from outside",
            security_group_egress=[
                ec2.CfnSecurityGroup.EgressProperty(ip_protocol="-1", description="Nodes may reach anything", **range)
                for range in ([ipv4] if public else [ipv4, ipv6])
            ],
        )
        self.security_group_id = named(group, "Nodes").ref
        # EFA traffic needs the group to name itself in both directions: an address range does not admit it.
        within: dict[str, Any] = {
            "group_id": group.ref,
            "ip_protocol": "-1",
            "description": "All traffic among the nodes",
        }
        needed: list[IDependable] = [
            named(ec2.CfnSecurityGroupIngress(self, "In", source_security_group_id=group.ref, **within), "FromItself"),
            named(
                ec2.CfnSecurityGroupEgress(self, "Out", destination_security_group_id=group.ref, **within), "ToItself"
            ),
            self.subnet.internet_connectivity_established,
            self.subnet.node.find_child("RouteTableAssociation"),
        ]
        self.endpoint: ec2.CfnInstanceConnectEndpoint | None = None
        if way == "endpoint":
            self.endpoint = self._endpoint()
            needed.append(self.endpoint)  # it takes minutes, in which no GPU is paid that nobody can reach
        self.ready: IDependable = DependencyGroup(*needed)
        """What a node waits for: its way out and its rules must stand before it boots, and fall after it is gone."""

    def _endpoint(self) -> ec2.CfnInstanceConnectEndpoint:
        """The door for SSH: IAM says who may open a tunnel, and it leads to the nodes' port 22 and nowhere else.

        Its address type is the subnet's, dual-stack, with which it cannot keep the client's address
        (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateInstanceConnectEndpoint.html). That is as
        well: so the nodes need to admit the endpoint's group only, and no address of an operator.
        """
        ssh: dict[str, Any] = {
            "ip_protocol": "tcp",
            "from_port": 22,
            "to_port": 22,
            "description": "SSH through the Instance Connect Endpoint",
        }
        nodes = self.security_group_id
        group = ec2.CfnSecurityGroup(
            self,
            "Door",
            vpc_id=self.vpc.vpc_id,
            group_description="Instance Connect Endpoint of a lab: to port 22 of its nodes",
            security_group_egress=[ec2.CfnSecurityGroup.EgressProperty(destination_security_group_id=nodes, **ssh)],
        )
        admitted = ec2.CfnSecurityGroupIngress(
            self, "FromDoor", group_id=nodes, source_security_group_id=group.ref, **ssh
        )
        endpoint = ec2.CfnInstanceConnectEndpoint(
            self, "Endpoint", subnet_id=self.subnet_id, security_group_ids=[group.ref], preserve_client_ip=False
        )
        endpoint.node.add_dependency(admitted)
        return named(endpoint, "Endpoint")
