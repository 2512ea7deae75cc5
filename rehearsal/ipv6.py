"""IPv6 of networks: ranges that fit, and gateways that stand while their network does. moto checks neither.

https://docs.aws.amazon.com/vpc/latest/userguide/vpc-cidr-blocks.html#vpc-ipv6-addressing
"""

import ipaddress
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses._base_response import EC2BaseResponse

from rehearsal.errors import AwsError, NotRehearsed

_SUBNET_PREFIXES = range(44, 65, 4)


class Ipv6(EC2BaseResponse):  # type: ignore[misc]  # moto ships no types
    """What moto takes too easily."""

    def associate_vpc_cidr_block(self) -> ActionResult:
        if unknown := sorted(set(self._get_params()) - {"VpcId", "AmazonProvidedIpv6CidrBlock", "CidrBlock", "DryRun"}):
            raise NotRehearsed(f"AssociateVpcCidrBlock: {', '.join(unknown)}")
        return super().associate_vpc_cidr_block()

    def disassociate_vpc_cidr_block(self) -> ActionResult:
        id, backend = self._get_param("AssociationId"), self.ec2_backend
        for vpc in backend.vpcs.values():
            for row in vpc.get_cidr_block_association_set(ipv6=True):
                if row["association_id"] != id:
                    continue
                if row["cidr_block_state"]["state"] == "disassociated":
                    break
                if any(_range(subnet) for subnet in self._subnets(vpc.id)):
                    raise AwsError(
                        "InvalidCidrBlock.InUse",
                        f"The vpc {vpc.id} currently has a subnet within CIDR block {row['cidr_block']}",
                    )
                result = super().disassociate_vpc_cidr_block()
                del vpc._cidr_block_association_set[id]
                return result
        if any(id in vpc._cidr_block_association_set for vpc in backend.vpcs.values()):
            return super().disassociate_vpc_cidr_block()
        raise AwsError(
            "InvalidVpcCidrBlockAssociationID.NotFound", f"The vpc CIDR block association ID '{id}' does not exist"
        )

    def create_subnet(self) -> ActionResult:
        if wanted := self._get_param("Ipv6CidrBlock"):
            self._check_range(self._get_param("VpcId"), wanted)
        return super().create_subnet()

    def associate_subnet_cidr_block(self) -> ActionResult:
        subnet = self.ec2_backend.get_subnet(self._get_param("SubnetId"))
        self._check_range(subnet.vpc_id, self._get_param("Ipv6CidrBlock"))
        return super().associate_subnet_cidr_block()

    def create_network_interface(self) -> ActionResult:
        subnet = self.ec2_backend.get_subnet(self._get_param("SubnetId"))
        if self._get_int_param("Ipv6AddressCount", 0) or self._get_param("Ipv6Addresses", []):
            demand_range(subnet)
        result = super().create_network_interface()
        interface = result.result["NetworkInterface"]
        if not interface.ipv6_addresses and subnet.assign_ipv6_address_on_creation in (True, "true"):
            self.ec2_backend.assign_ipv6_addresses(interface.id, ipv6_count=1)
        return result

    def delete_egress_only_internet_gateway(self) -> ActionResult:
        self.ec2_backend.tags.pop(self._get_param("EgressOnlyInternetGatewayId"), None)
        return super().delete_egress_only_internet_gateway()

    def _check_range(self, vpc: str, wanted: str) -> None:
        try:
            block = ipaddress.IPv6Network(wanted)
        except ValueError:
            raise AwsError("InvalidParameterValue", f"Value ({wanted}) for parameter ipv6CidrBlock is invalid.") from (
                None
            )
        held = [
            ipaddress.IPv6Network(row["cidr_block"])
            for row in self.ec2_backend.get_vpc(vpc).get_cidr_block_association_set(ipv6=True)
            if row["cidr_block_state"]["state"] == "associated"
        ]
        if block.prefixlen not in _SUBNET_PREFIXES or not any(block.subnet_of(whole) for whole in held):
            raise AwsError("InvalidSubnet.Range", f"The CIDR '{wanted}' is invalid.")
        for subnet in self._subnets(vpc):
            if (taken := _range(subnet)) and block.overlaps(ipaddress.IPv6Network(taken)):
                raise AwsError("InvalidSubnet.Conflict", f"The CIDR '{wanted}' conflicts with another subnet")

    def _subnets(self, vpc: str) -> list[Any]:
        zones = self.ec2_backend.subnets.values()
        return [subnet for zone in zones for subnet in zone.values() if subnet.vpc_id == vpc]


def _range(subnet: Any) -> str:
    """The IPv6 range of a subnet, or ""."""
    for row in subnet.ipv6_cidr_block_associations.values():
        if row["ipv6CidrBlockState"]["State"] == "associated":
            return str(row["ipv6CidrBlock"])
    return ""


def demand_range(subnet: Any) -> None:
    """Raises: AwsError, the subnet has no IPv6 range to take an address from."""
    if not _range(subnet):
        raise AwsError("InvalidParameterValue", "Subnet does not contain any IPv6 CIDR block ranges")
