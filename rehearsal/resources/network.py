"""Network: VPC, subnets, routes, gateways."""

from collections.abc import Mapping
from typing import Any

from rehearsal.resources.handler import Call, Handler, retag, tag_specifications

Given = Mapping[str, Any]


class Vpc(Handler):
    type = "AWS::EC2::VPC"
    replaces = ("CidrBlock", "InstanceTenancy")
    updates = ("EnableDnsHostnames", "EnableDnsSupport", "Tags")
    attributes = ("VpcId", "CidrBlock", "DefaultSecurityGroup", "DefaultNetworkAcl", "Ipv6CidrBlocks")
    fresh = ("Ipv6CidrBlocks",)

    def create(self, call: Call, given: Given) -> str:
        answer = call.api("ec2", "create_vpc", CidrBlock=given.get("CidrBlock"),
                          InstanceTenancy=given.get("InstanceTenancy"),
                          TagSpecifications=tag_specifications("vpc", given))  # fmt: skip
        return str(answer["Vpc"]["VpcId"])

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        for name in ("EnableDnsSupport", "EnableDnsHostnames"):
            if name in given:
                call.api("ec2", "modify_vpc_attribute", VpcId=physical_id, **{name: {"Value": given[name]}})

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        of_vpc = [{"Name": "vpc-id", "Values": [physical_id]}]
        groups = call.api("ec2", "describe_security_groups",
                          Filters=[*of_vpc, {"Name": "group-name", "Values": ["default"]}])  # fmt: skip
        acls = call.api("ec2", "describe_network_acls", Filters=[*of_vpc, {"Name": "default", "Values": ["true"]}])
        ranges = call.api("ec2", "describe_vpcs", VpcIds=[physical_id])["Vpcs"][0].get("Ipv6CidrBlockAssociationSet")
        return {
            "VpcId": physical_id,
            "CidrBlock": given.get("CidrBlock"),
            "DefaultSecurityGroup": groups["SecurityGroups"][0]["GroupId"],
            "DefaultNetworkAcl": acls["NetworkAcls"][0]["NetworkAclId"],
            "Ipv6CidrBlocks": _ranges(ranges),
        }

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        self.complete(call, physical_id, {"EnableDnsSupport": True, "EnableDnsHostnames": False, **new})
        retag(call, physical_id, old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_vpc", VpcId=physical_id)


class Subnet(Handler):
    type = "AWS::EC2::Subnet"
    replaces = ("VpcId", "CidrBlock", "AvailabilityZone", "AvailabilityZoneId")
    updates = ("AssignIpv6AddressOnCreation", "MapPublicIpOnLaunch", "Tags")
    fixed = ("Ipv6CidrBlock",)
    attributes = ("SubnetId", "VpcId", "CidrBlock", "AvailabilityZone", "AvailabilityZoneId", "Ipv6CidrBlocks")

    def create(self, call: Call, given: Given) -> str:
        given_only = {name: given.get(name) for name in (*self.replaces, *self.fixed)}
        answer = call.api("ec2", "create_subnet", **given_only, TagSpecifications=tag_specifications("subnet", given))
        return str(answer["Subnet"]["SubnetId"])

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        for name in ("MapPublicIpOnLaunch", "AssignIpv6AddressOnCreation"):
            if name in given:
                call.api("ec2", "modify_subnet_attribute", SubnetId=physical_id, **{name: {"Value": given[name]}})

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        subnet = call.api("ec2", "describe_subnets", SubnetIds=[physical_id])["Subnets"][0]
        return {**subnet, "Ipv6CidrBlocks": _ranges(subnet.get("Ipv6CidrBlockAssociationSet"))}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        self.complete(call, physical_id, {"MapPublicIpOnLaunch": False, "AssignIpv6AddressOnCreation": False, **new})
        retag(call, physical_id, old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_subnet", SubnetId=physical_id)


class RouteTable(Handler):
    type = "AWS::EC2::RouteTable"
    replaces = ("VpcId",)
    updates = ("Tags",)
    attributes = ("RouteTableId",)

    def create(self, call: Call, given: Given) -> str:
        answer = call.api("ec2", "create_route_table", VpcId=given.get("VpcId"),
                          TagSpecifications=tag_specifications("route-table", given))  # fmt: skip
        return str(answer["RouteTable"]["RouteTableId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"RouteTableId": physical_id}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        retag(call, physical_id, old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_route_table", RouteTableId=physical_id)


class RouteTableAssociation(Handler):
    type = "AWS::EC2::SubnetRouteTableAssociation"
    replaces = ("RouteTableId", "SubnetId")
    attributes = ("Id",)

    def create(self, call: Call, given: Given) -> str:
        return str(call.api("ec2", "associate_route_table", **given)["AssociationId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Id": physical_id}

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "disassociate_route_table", AssociationId=physical_id)


class Route(Handler):
    type = "AWS::EC2::Route"
    replaces = ("RouteTableId", "DestinationCidrBlock", "DestinationIpv6CidrBlock")
    updates = ("EgressOnlyInternetGatewayId", "GatewayId", "NetworkInterfaceId")
    attributes = ("CidrBlock",)

    def create(self, call: Call, given: Given) -> str:
        call.api("ec2", "create_route", **given)
        return f"{given['RouteTableId']}|{self._destination(given)}"

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"CidrBlock": self._destination(given)}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        call.api("ec2", "replace_route", **new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        place = {name: given[name] for name in self.replaces if name in given}
        call.remove("ec2", "delete_route", **place)

    @staticmethod
    def _destination(given: Given) -> str:
        return str(given.get("DestinationCidrBlock") or given.get("DestinationIpv6CidrBlock"))


class InternetGateway(Handler):
    type = "AWS::EC2::InternetGateway"
    updates = ("Tags",)
    attributes = ("InternetGatewayId",)

    def create(self, call: Call, given: Given) -> str:
        answer = call.api("ec2", "create_internet_gateway",
                          TagSpecifications=tag_specifications("internet-gateway", given))  # fmt: skip
        return str(answer["InternetGateway"]["InternetGatewayId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"InternetGatewayId": physical_id}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        retag(call, physical_id, old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_internet_gateway", InternetGatewayId=physical_id)


class GatewayAttachment(Handler):
    type = "AWS::EC2::VPCGatewayAttachment"
    replaces = ("VpcId",)
    fixed = ("InternetGatewayId",)
    attributes = ("AttachmentType",)

    def create(self, call: Call, given: Given) -> str:
        call.api("ec2", "attach_internet_gateway", **given)
        return f"IGW|{given['VpcId']}"

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"AttachmentType": "IGW"}

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "detach_internet_gateway", **given)


def _ranges(associations: list[dict[str, Any]] | None) -> list[str]:
    return [row["Ipv6CidrBlock"] for row in associations or () if row["Ipv6CidrBlockState"]["State"] == "associated"]


HANDLERS = (Vpc, Subnet, RouteTable, RouteTableAssociation, Route, InternetGateway, GatewayAttachment)
