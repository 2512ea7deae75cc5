"""IPv6 of a network: the range that Amazon provides, and the gateway that lets out and nobody in."""

from collections.abc import Mapping
from typing import Any

from rehearsal.failure import Refused
from rehearsal.resources.handler import Call, Handler, retag, tag_specifications

Given = Mapping[str, Any]


class VpcCidrBlock(Handler):
    """An address range beside a VPC's first one."""

    type = "AWS::EC2::VPCCidrBlock"
    replaces = ("AmazonProvidedIpv6CidrBlock", "CidrBlock", "VpcId")
    attributes = ("Id",)

    def create(self, call: Call, given: Given) -> str:
        answer = call.api("ec2", "associate_vpc_cidr_block", **given)
        made = answer.get("Ipv6CidrBlockAssociation") or answer["CidrBlockAssociation"]
        return f"{made['AssociationId']}|{given['VpcId']}"

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        call.wait(f"association of {physical_id}", lambda: self._state(call, physical_id) == "associated")

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Id": physical_id.partition("|")[0]}

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "disassociate_vpc_cidr_block", AssociationId=physical_id.partition("|")[0])

    @staticmethod
    def _state(call: Call, physical_id: str) -> str:
        id, _, vpc = physical_id.partition("|")
        found = call.api("ec2", "describe_vpcs", VpcIds=[vpc])["Vpcs"][0]
        for kind in ("Ipv6CidrBlock", "CidrBlock"):
            for row in found.get(f"{kind}AssociationSet", ()):
                if row["AssociationId"] == id:
                    return str(row[f"{kind}State"]["State"])
        raise Refused(f"AWS::EC2::VPCCidrBlock: {id} is not associated with {vpc}")


class EgressOnlyGateway(Handler):
    type = "AWS::EC2::EgressOnlyInternetGateway"
    replaces = ("VpcId",)
    updates = ("Tags",)
    attributes = ("Id",)

    def create(self, call: Call, given: Given) -> str:
        answer = call.api("ec2", "create_egress_only_internet_gateway", VpcId=given.get("VpcId"),
                          TagSpecifications=tag_specifications("egress-only-internet-gateway", given))  # fmt: skip
        return str(answer["EgressOnlyInternetGateway"]["EgressOnlyInternetGatewayId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Id": physical_id}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        retag(call, physical_id, old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_egress_only_internet_gateway", EgressOnlyInternetGatewayId=physical_id)


HANDLERS = (VpcCidrBlock, EgressOnlyGateway)
