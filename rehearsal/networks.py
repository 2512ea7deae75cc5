"""Networks: doors that open and close with security groups, elastic addresses, and AWS's order of deletion."""

from typing import Any

from moto.core.responses import ActionResult, EmptyResult

from rehearsal.errors import AwsError
from rehearsal.instances import Instances
from rehearsal.quotas import ADDRESSES, VPCS


def _violation(message: str) -> AwsError:
    return AwsError("DependencyViolation", message)


class Networks(Instances):
    """What moto lets go too easily, or leaves behind."""

    def authorize_security_group_ingress(self) -> ActionResult:
        return self._then_readmit(super().authorize_security_group_ingress())

    def revoke_security_group_ingress(self) -> ActionResult:
        return self._then_readmit(super().revoke_security_group_ingress())

    def authorize_security_group_egress(self) -> ActionResult:
        return self._then_readmit(super().authorize_security_group_egress())

    def revoke_security_group_egress(self) -> ActionResult:
        return self._then_readmit(super().revoke_security_group_egress())

    def modify_security_group_rules(self) -> ActionResult:
        return self._then_readmit(super().modify_security_group_rules())

    def modify_instance_attribute(self) -> ActionResult:
        return self._then_readmit(super().modify_instance_attribute())

    def modify_network_interface_attribute(self) -> ActionResult:
        return self._then_readmit(super().modify_network_interface_attribute())

    def _then_readmit(self, result: Any) -> Any:
        self.machines.readmit()
        return result

    def create_vpc(self) -> ActionResult:
        if len(self.ec2_backend.vpcs) >= self.quotas.limit(VPCS):
            raise AwsError("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
        return super().create_vpc()

    def allocate_address(self) -> ActionResult:
        if len(self.ec2_backend.addresses) >= self.quotas.limit(ADDRESSES):
            raise AwsError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
        return super().allocate_address()

    def associate_address(self) -> ActionResult:
        result = super().associate_address()
        for address in self.ec2_backend.addresses:
            if address.eni and address.eni.instance and address.instance is None:
                address.instance = address.eni.instance
        self._lead_addresses()
        return result

    def disassociate_address(self) -> ActionResult:
        held = [address.eni for address in self.ec2_backend.addresses if address.eni]
        result = super().disassociate_address()
        for interface in held:
            self.machines.alias(interface)
        return result

    def release_address(self) -> ActionResult:
        wanted = self._get_param("AllocationId"), self._get_param("PublicIp")
        for address in self.ec2_backend.addresses:
            if address.association_id and (address.allocation_id == wanted[0] or address.public_ip == wanted[1]):
                raise AwsError("InvalidIPAddress.InUse", f"Address {address.public_ip} is in use.")
        return super().release_address()

    def _lead_addresses(self) -> None:
        for address in self.ec2_backend.addresses:
            if address.eni:
                self.machines.alias(address.eni)

    def detach_internet_gateway(self) -> ActionResult:
        vpc = self._get_param("VpcId")
        for interface in self.ec2_backend.enis.values():
            if interface.vpc_id == vpc and interface.public_ip:
                raise _violation(
                    f"Network {vpc} has some mapped public address(es). Please unmap those public address(es) before "
                    "detaching the gateway."
                )
        return super().detach_internet_gateway()

    def delete_network_interface(self) -> ActionResult:
        id = self._get_param("NetworkInterfaceId")
        interface = self.ec2_backend.get_network_interface(id)
        if interface.instance:
            raise AwsError("InvalidNetworkInterface.InUse", f"Interface '{id}' is currently in use.")
        if interface.requester_managed:
            raise AwsError("OperationNotPermitted", f"Interface '{id}' is managed by another service.")
        return super().delete_network_interface()

    def delete_subnet(self) -> EmptyResult:
        id = self._get_param("SubnetId")
        if any(interface.subnet.id == id for interface in self.ec2_backend.enis.values()):
            raise _violation(f"The subnet '{id}' has dependencies and cannot be deleted.")
        result = super().delete_subnet()
        for table in self.ec2_backend.route_tables.values():
            for association in [a for a, subnet in table._associations.items() if subnet == id]:
                del table._associations[association]
        self._forget(id)
        return result

    def delete_security_group(self) -> EmptyResult:
        id = self._get_param("GroupId")
        backend = self.ec2_backend
        if any(id in {group.id for group in interface._group_set} for interface in backend.enis.values()):
            raise _violation(f"resource {id} has a dependent object")
        for groups in backend.groups.values():
            for other in groups.values():
                rules = [] if other.id == id else [*other.ingress_rules, *other.egress_rules]
                if any((rule.source_group or {}).get("GroupId") == id for rule in rules):
                    raise _violation(f"resource {id} has a dependent object")
        result = super().delete_security_group()
        self._forget(id)
        return result

    def delete_vpc(self) -> EmptyResult:
        id = self._get_param("VpcId")
        backend = self.ec2_backend
        groups = [group for group in backend.groups.get(id, {}).values() if group.name != "default"]
        gateways = [gateway for gateway in backend.internet_gateways.values() if gateway.vpc and gateway.vpc.id == id]
        endpoints = [endpoint for endpoint in backend.vpc_end_points.values() if endpoint.vpc_id == id]
        gateways += [row for row in backend.egress_only_internet_gateways.values() if row.vpc_id == id]
        if groups or gateways or endpoints:
            raise _violation(f"The vpc '{id}' has dependencies and cannot be deleted.")
        result = super().delete_vpc()
        for acl in [acl for acl in backend.network_acls.values() if acl.vpc_id == id]:
            del backend.network_acls[acl.id]
            self._forget(acl.id)
        self._forget(id)
        return result

    def delete_vpc_endpoints(self) -> ActionResult:
        result = super().delete_vpc_endpoints()
        backend = self.ec2_backend
        for endpoint in [e for e in backend.vpc_end_points.values() if e.state == "deleted"]:
            del backend.vpc_end_points[endpoint.id]
            self._forget(endpoint.id)
        return result

    def _forget(self, id: str) -> None:
        self.ec2_backend.tags.pop(id, None)
