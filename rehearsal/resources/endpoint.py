"""Ways into a network and out of it that are no gateway: VPC endpoints and EC2 Instance Connect Endpoints."""

from collections.abc import Mapping
from typing import Any

from rehearsal.failure import Refused
from rehearsal.resources.handler import Call, Handler, retag, tag_specifications

Given = Mapping[str, Any]


class VpcEndpoint(Handler):
    type = "AWS::EC2::VPCEndpoint"
    replaces = ("ServiceName", "VpcEndpointType", "VpcId")
    updates = ("RouteTableIds", "Tags")
    fixed = ("PolicyDocument", "PrivateDnsEnabled", "SecurityGroupIds", "SubnetIds")
    attributes = ("Id",)

    def create(self, call: Call, given: Given) -> str:
        wanted = {name: given[name] for name in (*self.replaces, *self.fixed, "RouteTableIds") if name in given}
        answer = call.api("ec2", "create_vpc_endpoint", **wanted,
                          TagSpecifications=tag_specifications("vpc-endpoint", given))  # fmt: skip
        return str(answer["VpcEndpoint"]["VpcEndpointId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Id": physical_id}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        before, after = list(old.get("RouteTableIds") or ()), list(new.get("RouteTableIds") or ())
        added = [table for table in after if table not in before] or None
        removed = [table for table in before if table not in after] or None
        if added or removed:
            call.api("ec2", "modify_vpc_endpoint", VpcEndpointId=physical_id,
                     AddRouteTableIds=added, RemoveRouteTableIds=removed)  # fmt: skip
        retag(call, physical_id, old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_vpc_endpoints", VpcEndpointIds=[physical_id])
        call.wait_gone("deletion of the endpoint", lambda: all(
            endpoint["State"] == "deleted" for endpoint in
            call.api("ec2", "describe_vpc_endpoints", VpcEndpointIds=[physical_id])["VpcEndpoints"]
        ))  # fmt: skip


class InstanceConnectEndpoint(Handler):
    type = "AWS::EC2::InstanceConnectEndpoint"
    replaces = ("ClientToken", "PreserveClientIp", "SecurityGroupIds", "SubnetId")
    updates = ("Tags",)
    attributes = ("Id", "AvailabilityZone", "InstanceConnectEndpointArn", "NetworkInterfaceIds", "State", "VpcId")

    def create(self, call: Call, given: Given) -> str:
        wanted = {name: given.get(name) for name in self.replaces}
        answer = call.api("ec2", "create_instance_connect_endpoint", **wanted,
                          TagSpecifications=tag_specifications("instance-connect-endpoint", given))  # fmt: skip
        return str(answer["InstanceConnectEndpoint"]["InstanceConnectEndpointId"])

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        def made() -> bool:
            state = self._find(call, physical_id)[0]
            if state["State"] == "create-failed":
                raise Refused(f"{self.type}: {physical_id} did not stabilize: {state.get('StateMessage', '')}")
            return bool(state["State"] == "create-complete")

        call.wait(f"creation of {physical_id}", made)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Id": physical_id, **self._find(call, physical_id)[0]}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        retag(call, physical_id, old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_instance_connect_endpoint", InstanceConnectEndpointId=physical_id)
        call.wait_gone(f"deletion of {physical_id}", lambda: not self._find(call, physical_id))

    @staticmethod
    def _find(call: Call, physical_id: str) -> list[dict[str, Any]]:
        answer = call.api("ec2", "describe_instance_connect_endpoints", InstanceConnectEndpointIds=[physical_id])
        found: list[dict[str, Any]] = answer["InstanceConnectEndpoints"]
        return found


HANDLERS = (VpcEndpoint, InstanceConnectEndpoint)
