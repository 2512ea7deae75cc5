"""EC2 Instance Connect Endpoints, of which moto knows none: a way to nodes that have no public address.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/connect-with-ec2-instance-connect-endpoint.html
"""

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.moto_api._internal import mock_random

from rehearsal import clock
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.filters import matching
from rehearsal.firewall import admits
from rehearsal.holds import Holds
from rehearsal.tunnel import Refusal, Tunnel

_HONOURED = {"SubnetId", "SecurityGroupIds", "PreserveClientIp", "ClientToken", "TagSpecifications", "DryRun"}
_PORTS = (22, 3389)
_FILTERS = {"instance-connect-endpoint-id": "InstanceConnectEndpointId", "state": "State", "subnet-id": "SubnetId",
            "vpc-id": "VpcId", "availability-zone": "AvailabilityZone"}  # fmt: skip


@dataclass(kw_only=True)
class Endpoint:
    """One endpoint."""

    id: str
    region: str
    account: str
    interface: Any
    """Its network interface: where connections to nodes come from."""
    preserve: bool
    created: datetime
    leaving: datetime | None = None
    """When its deletion began."""

    @property
    def described(self) -> dict[str, Any]:
        """As DescribeInstanceConnectEndpoints shows it, without state, name and tags."""
        subnet = self.interface.subnet
        arn = f"arn:aws:ec2:{self.region}:{self.account}:instance-connect-endpoint/{self.id}"
        return {
            "OwnerId": self.account, "InstanceConnectEndpointId": self.id, "InstanceConnectEndpointArn": arn,
            "NetworkInterfaceIds": [self.interface.id], "VpcId": subnet.vpc_id, "SubnetId": subnet.id,
            "AvailabilityZone": subnet.availability_zone, "CreatedAt": self.created, "PreserveClientIp": self.preserve,
            "SecurityGroupIds": [group.id for group in self.interface._group_set], "IpAddressType": "ipv4",
        }  # fmt: skip


class ConnectEndpoints(EC2BaseResponse):  # type: ignore[misc]  # moto ships no types
    """Create, describe and delete; and who may pass."""

    holds: Holds
    tunnel: Tunnel
    endpoints: dict[str, Endpoint] = {}  # noqa: RUF012  # the account's, whichever request asks

    def create_instance_connect_endpoint(self) -> ActionResult:
        request = dict(self._get_params())
        if unknown := sorted(set(request) - _HONOURED):
            raise NotRehearsed(f"CreateInstanceConnectEndpoint: {', '.join(unknown)}")
        self.error_on_dryrun()
        self._settle_endpoints()
        backend = self.ec2_backend
        subnet = backend.get_subnet(request["SubnetId"])
        for group in request.get("SecurityGroupIds") or []:
            found = backend.get_security_group_from_id(group)
            if found is None or found.vpc_id != subnet.vpc_id:
                raise AwsError("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
        if any(endpoint.interface.vpc_id == subnet.vpc_id for endpoint in self.endpoints.values()):
            # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/eice-quotas.html; code and text are not published.
            raise AwsError(
                "InstanceConnectEndpointLimitExceeded",
                f"The maximum number of EC2 Instance Connect Endpoints for the VPC '{subnet.vpc_id}' has been reached.",
            )
        id = f"eice-0{mock_random.get_random_hex(16)}"
        interface = backend.create_network_interface(
            subnet, [], group_ids=request.get("SecurityGroupIds") or [],
            description=f"EC2 Instance Connect Endpoint {id}",
        )  # fmt: skip
        interface.requester_managed, interface.status = True, "in-use"
        preserve = str(request.get("PreserveClientIp", False)).lower() == "true"
        endpoint = Endpoint(id=id, region=self.region, account=self.current_account, interface=interface,
                            preserve=preserve, created=clock.now())  # fmt: skip
        self.endpoints[id] = endpoint
        for key, value in (self._parse_tag_specification().get("instance-connect-endpoint") or {}).items():
            backend.create_tags([id], {key: value})
        return ActionResult({"InstanceConnectEndpoint": self._endpoint_shown(endpoint)})

    def describe_instance_connect_endpoints(self) -> ActionResult:
        self._settle_endpoints()
        asked = self._get_param("InstanceConnectEndpointIds", [])
        chosen = [self._endpoint(id) for id in asked] or list(self.endpoints.values())
        rows = [self._endpoint_shown(endpoint) for endpoint in chosen if endpoint.region == self.region]
        return ActionResult({"InstanceConnectEndpoints": matching(rows, self._filters_from_querystring(), _FILTERS)})

    def delete_instance_connect_endpoint(self) -> ActionResult:
        self._settle_endpoints()
        endpoint = self._endpoint(self._get_param("InstanceConnectEndpointId"))
        self.error_on_dryrun()
        endpoint.leaving = endpoint.leaving or clock.now()
        return ActionResult({"InstanceConnectEndpoint": self._endpoint_shown(endpoint)})

    def _settle_endpoints(self) -> None:
        for id, endpoint in list(self.endpoints.items()):
            if endpoint.leaving and self.holds.over("endpoint-delete", endpoint.leaving):
                endpoint.interface.delete()
                self.ec2_backend.tags.pop(id, None)
                self.endpoints.pop(id, None)

    def _endpoint(self, id: str) -> Endpoint:
        if id not in self.endpoints:
            raise AwsError(
                "InvalidInstanceConnectEndpointId.NotFound", f"The instance connect endpoint ID '{id}' does not exist"
            )
        return self.endpoints[id]

    def _endpoint_shown(self, endpoint: Endpoint) -> dict[str, Any]:
        state = "create-complete" if self.holds.over("endpoint-create", endpoint.created) else "create-in-progress"
        tags = self.ec2_backend.tags.get(endpoint.id, {})
        return {
            **endpoint.described, "State": "delete-in-progress" if endpoint.leaving else state,
            "DnsName": self.tunnel.name, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }  # fmt: skip


def target(endpoints: dict[str, Endpoint], holds: Holds, instances: list[Any], id: str, address: str, port: int) -> Any:
    """The instance that an endpoint leads to.

    Raises:
        Refusal: no such endpoint, or it is not ready; no such address in its network; no such port.
    """
    endpoint = endpoints.get(id)
    if endpoint is None:
        raise Refusal(404, "ResourceNotFound", f"The instance connect endpoint ID '{id}' does not exist")
    if endpoint.leaving or not holds.over("endpoint-create", endpoint.created):
        raise Refusal(400, "InvalidParameter", f"The instance connect endpoint '{id}' is not in a usable state")
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        raise Refusal(400, "InvalidParameter", f"The private IP address '{address}' is not valid") from None
    for instance in instances:
        if instance.private_ip == address and instance.vpc_id == endpoint.interface.vpc_id:
            if port not in (*_PORTS, _ssh_port(instance)):
                raise Refusal(400, "InvalidParameter", f"The remote port '{port}' is not valid: 22 and 3389 are")
            return instance
    raise Refusal(400, "InvalidParameter", f"The private IP address '{address}' is in no subnet of the endpoint's VPC")


def demand_admitted(endpoint: Endpoint, instance: Any) -> None:
    """Raises: ConnectionRefusedError, a security group on the way lets nothing through."""
    theirs, ours = instance.nics[0].group_set, endpoint.interface._group_set
    into = [rule for group in theirs for rule in group.ingress_rules]
    out = [rule for group in ours for rule in group.egress_rules]
    here, there = endpoint.interface.private_ip_address, instance.private_ip
    admitted = admits(into, groups=[group.id for group in ours], addresses=(here,))
    if not admitted or not admits(out, groups=[group.id for group in theirs], addresses=(there,)):
        raise ConnectionRefusedError(f"no security group lets {endpoint.id} reach {instance.id}")


def _ssh_port(instance: Any) -> int:
    tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
    return int(tags.get("rooflab:ssh-port", 22))
