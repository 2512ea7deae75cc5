"""Addresses: network interfaces, Elastic IPs and what ties one to the other."""

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.resources.handler import Call, Handler, is_gone, retag, tag_specifications

Given = Mapping[str, Any]


class NetworkInterface(Handler):
    type = "AWS::EC2::NetworkInterface"
    replaces = ("InterfaceType", "PrivateIpAddress", "SubnetId")
    updates = ("Tags",)
    fixed = ("Description", "GroupSet", "Ipv6AddressCount", "Ipv6Addresses")
    attributes = ("Id", "PrimaryIpv6Address", "PrimaryPrivateIpAddress", "VpcId")

    def create(self, call: Call, given: Given) -> str:
        wanted = {name: given.get(name) for name in (*self.replaces, *self.fixed) if name != "GroupSet"}
        answer = call.api("ec2", "create_network_interface", **wanted, Groups=given.get("GroupSet"),
                          TagSpecifications=tag_specifications("network-interface", given))  # fmt: skip
        return str(answer["NetworkInterface"]["NetworkInterfaceId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        found = call.api("ec2", "describe_network_interfaces", NetworkInterfaceIds=[physical_id])
        interface = found["NetworkInterfaces"][0]
        return {
            "Id": physical_id,
            "PrimaryIpv6Address": next((row["Ipv6Address"] for row in interface.get("Ipv6Addresses", ())), ""),
            "PrimaryPrivateIpAddress": interface.get("PrivateIpAddress", ""),
            "VpcId": interface["VpcId"],
        }

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        retag(call, physical_id, old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_network_interface", NetworkInterfaceId=physical_id)


class Address(Handler):
    type = "AWS::EC2::EIP"
    replaces = ("NetworkBorderGroup",)
    updates = ("Tags",)
    fixed = ("Domain", "InstanceId")
    attributes = ("AllocationId", "PublicIp")

    def create(self, call: Call, given: Given) -> str:
        answer = call.api("ec2", "allocate_address", Domain=given.get("Domain", "vpc"),
                          NetworkBorderGroup=given.get("NetworkBorderGroup"),
                          TagSpecifications=tag_specifications("elastic-ip", given))  # fmt: skip
        return str(answer["PublicIp"])

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        if given.get("InstanceId"):
            allocation = self.read(call, physical_id, given)["AllocationId"]
            call.api("ec2", "associate_address", AllocationId=allocation, InstanceId=given["InstanceId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        address = call.api("ec2", "describe_addresses", PublicIps=[physical_id])["Addresses"][0]
        return {"AllocationId": address["AllocationId"], "PublicIp": physical_id}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        retag(call, call.attributes["AllocationId"], old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        try:
            address = call.api("ec2", "describe_addresses", PublicIps=[physical_id])["Addresses"][0]
        except ClientError as error:
            if not is_gone(error):
                raise
            return
        if given.get("InstanceId") and address.get("AssociationId"):
            call.remove("ec2", "disassociate_address", AssociationId=address["AssociationId"])
        call.remove("ec2", "release_address", AllocationId=address["AllocationId"])


class AddressAssociation(Handler):
    type = "AWS::EC2::EIPAssociation"
    replaces = ("AllocationId", "InstanceId", "NetworkInterfaceId", "PrivateIpAddress")
    attributes = ("Id",)

    def create(self, call: Call, given: Given) -> str:
        return str(call.api("ec2", "associate_address", AllowReassociation=True, **given)["AssociationId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Id": physical_id}

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "disassociate_address", AssociationId=physical_id)


HANDLERS = (NetworkInterface, Address, AddressAssociation)
