"""Instances: launched and reached as on AWS, where moto differs."""

from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.utils import parse_user_data
from moto.moto_api._internal import mock_random

from rehearsal import clock, launch
from rehearsal.ending import Endings
from rehearsal.errors import AwsError
from rehearsal.faults import Faults
from rehearsal.launch import Order
from rehearsal.quotas import Quotas

_CARD_STRIDE = 100
"""moto keys a machine's interfaces by device index alone; card * stride + device keeps cards apart."""


class Instances(Endings):
    """RunInstances and what follows from it."""

    faults: Faults
    quotas: Quotas
    launched: dict[str, Any] = {}  # noqa: RUF012  # reservations by client token: a repeated request is one request

    def run_instances(self) -> ActionResult:
        request = dict(self._get_params())
        token = request.get("ClientToken")
        if token and token in self.launched:
            return ActionResult(self.launched[token])
        order = launch.expand(request, self.template_data(request.get("LaunchTemplate")))
        order.setdefault("InstanceType", "m1.small")
        self.error_on_dryrun()
        zone = self.prepare(order)
        least, most = int(request.get("MinCount") or 1), int(request.get("MaxCount") or 1)
        spot = launch.market_of(order) == "spot"
        self.demand_quota(order, least, spot=spot)
        count = self.faults.grant(order["InstanceType"], zone, most)
        if count < least:
            self.faults.give_back(order["InstanceType"], zone, count)
            raise shortage(order["InstanceType"], zone)
        reservation = self.launch(order, count, tags={}, spot=spot)
        if token:
            self.launched[token] = reservation
        return ActionResult(reservation)

    def demand_quota(self, order: Order, count: int, *, spot: bool) -> None:
        """Raises: AwsError, the account's vCPU quota has no room for so many more."""
        if not launch.reservation_of(order):  # reserved capacity counted when it was reserved
            self.quotas.demand_vcpus(order["InstanceType"], count, self.standing(), spot=spot)

    def launch(self, order: Order, count: int, tags: dict[str, str], *, spot: bool = False) -> Any:
        """Make `count` instances of a prepared order, each with its machine."""
        reserved = launch.reservation_of(order)
        room = self.enter_reservation(reserved, count) if reserved else None
        reservation = self.ec2_backend.run_instances(
            order["ImageId"], count, parse_user_data(order.get("UserData")), [], **self._moto_arguments(order, tags)
        )
        for instance in reservation.instances:
            self._complete(instance, order)
            if spot:
                instance.lifecycle = "spot"
                instance.spot_instance_request_id = f"sir-{mock_random.get_random_hex(8)}"
            if room:
                instance.capacity_reservation_id = room.id
                if room.block:
                    instance.lifecycle = "capacity-block"
                room.users.add(instance.id)
            self.machines.boot(instance)
        return reservation

    def _moto_arguments(self, order: Order, tags: dict[str, str]) -> dict[str, Any]:
        interfaces = []
        for interface in order["NetworkInterfaces"]:
            own = interface.get("NetworkInterfaceId")
            index = interface["NetworkCardIndex"] * _CARD_STRIDE + interface["DeviceIndex"]
            interfaces.append({
                **interface, "DeviceIndex": index, "SubnetId": order["SubnetId"],
                "DeleteOnTermination": bool(interface.get("DeleteOnTermination", not own)),
            })  # fmt: skip
        return {
            "instance_type": order["InstanceType"], "is_instance_type_default": False, "region_name": self.region,
            "subnet_id": None if interfaces else order["SubnetId"], "nics": interfaces,
            "security_group_ids": list(order.get("SecurityGroupIds") or []),
            "associate_public_ip": None, "key_name": order.get("KeyName"), "client_token": order.get("ClientToken"),
            "ebs_optimized": bool(order.get("EbsOptimized")),
            "disable_api_termination": bool(order.get("DisableApiTermination")),
            "instance_initiated_shutdown_behavior": order.get("InstanceInitiatedShutdownBehavior"),
            "monitoring_state": "enabled" if (order.get("Monitoring") or {}).get("Enabled") else "disabled",
            "metadata_options": order.get("MetadataOptions") or {},
            "block_device_mappings": self._devices(order),
            "tags": {
                "instance": {**launch.tags_of(order, "instance"), **tags},
                "volume": launch.tags_of(order, "volume"),
            },
        }  # fmt: skip

    def _devices(self, order: Order) -> list[dict[str, Any]]:
        root = self.ec2_backend.amis[order["ImageId"]].root_device_name
        devices = [dict(device) for device in order.get("BlockDeviceMappings") or []]
        if all(device["DeviceName"] != root for device in devices):
            devices.insert(0, {"DeviceName": root, "Ebs": {}})
        image = self.baked(order["ImageId"])
        for device in devices:
            is_root = device["DeviceName"] == root
            usual = {"VolumeSize": 8, "VolumeType": "gp3", "DeleteOnTermination": is_root, **image.get(root, {})}
            device["Ebs"] = {**(usual if is_root else {**usual, "VolumeSize": 8}), **device.get("Ebs", {})}
        return devices

    def _complete(self, instance: Any, order: Order) -> None:
        slots = {(i["NetworkCardIndex"], i["DeviceIndex"]): i for i in order["NetworkInterfaces"]}
        for index, interface in instance.nics.items():
            card, device = divmod(index, _CARD_STRIDE)
            wanted = slots.get((card, device), {})
            interface.device_index, interface.network_card_index = device, card
            interface.interface_type = wanted.get("InterfaceType", "interface")
            if not wanted.get("NetworkInterfaceId"):
                interface.delete_on_termination = bool(wanted.get("DeleteOnTermination", True))
                interface.add_tags(launch.tags_of(order, "network-interface"))
                self._address(interface, wanted)
        if order["NetworkInterfaces"]:
            instance.security_groups = list(instance.nics[0]._group_set)
        if profile := order.get("IamInstanceProfile"):
            self.ec2_backend.associate_iam_instance_profile(
                instance.id, iam_instance_profile_name=profile.get("Name"), iam_instance_profile_arn=profile.get("Arn")
            )
        if name := (order.get("Placement") or {}).get("GroupName"):
            instance.placement.group_name = name
            self.group(name).members.add(instance.id)

    def _address(self, interface: Any, wanted: Order) -> None:
        """Give a new interface the IPv6 addresses that the order or its subnet asks for."""
        given = [row["Ipv6Address"] for row in wanted.get("Ipv6Addresses") or []]
        count = int(wanted.get("Ipv6AddressCount") or 0)
        if not given and not count and wanted.get("InterfaceType") != "efa-only":
            count = int(interface.subnet.assign_ipv6_address_on_creation in (True, "true"))
        self.ec2_backend.assign_ipv6_addresses(interface.id, ipv6_addresses=given, ipv6_count=count)

    def stop_instances(self) -> ActionResult:
        for instance in self.ec2_backend.get_multi_instances_by_id(self._get_param("InstanceIds", [])):
            if instance.lifecycle == "spot":
                raise AwsError(
                    "UnsupportedOperation",
                    f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time Spot "
                    "Instance request.",
                )
        result = super().stop_instances()
        self.machines.down(self._get_param("InstanceIds", []))
        return result

    def start_instances(self) -> ActionResult:
        result = super().start_instances()
        for id in self._get_param("InstanceIds", []):
            self.machines.up(id)
        return result

    def reboot_instances(self) -> EmptyResult:
        result = super().reboot_instances()
        for id in self._get_param("InstanceIds", []):
            self.machines.down([id])
            self.machines.up(id)
        return result

    def get_console_output(self) -> ActionResult:
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        node = self.machines.nodes.find(instance.id)
        lines = [f"[    0.000000] Rehearsed {instance.instance_type}, {instance.image_id}"]
        if node:
            lines += ["-----BEGIN SSH HOST KEY KEYS-----", node.host_key, "-----END SSH HOST KEY KEYS-----"]
            lines += [f"[   10.000000] cloud-init: rooflab {node.boot.ready}"]
        output = Base64EncodedString.from_raw_string("\r\n".join(lines) + "\r\n")
        return ActionResult({"InstanceId": instance.id, "Timestamp": clock.now(), "Output": output})


def shortage(kind: str, zone: str) -> AwsError:
    """What EC2 answers where a zone has no machine left."""
    return AwsError(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone}). "
        "Our system will be working on provisioning additional capacity.",
    )
