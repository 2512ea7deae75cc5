"""Instances: launched, ended and reached as on AWS, where moto differs."""

from collections.abc import Iterable
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.responses import EC2Response
from moto.ec2.utils import parse_user_data
from moto.iam.exceptions import NotFoundException
from moto.ssm.models import ssm_backends

from rehearsal import clock, launch
from rehearsal.errors import AwsError
from rehearsal.faults import Faults
from rehearsal.launch import Order
from rehearsal.machines import Machines
from rehearsal.placement import PlacementGroups

_CARD_STRIDE = 100
"""moto keys a machine's interfaces by device index alone; card * stride + device keeps cards apart."""


class Instances(PlacementGroups, EC2Response):  # type: ignore[misc]  # moto ships no types
    """RunInstances and what follows from it."""

    machines: Machines
    faults: Faults
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
        count = self.faults.grant(order["InstanceType"], zone, most)
        if count < least:
            raise shortage(order["InstanceType"], zone)
        reservation = self.launch(order, count, tags={})
        if token:
            self.launched[token] = reservation
        return ActionResult(reservation)

    def template_data(self, named: dict[str, Any] | None) -> dict[str, Any]:
        """Data of the launch template version that a request names, with the tags EC2 adds; {} where it names none."""
        if not named:
            return {}
        version = self.ec2_backend._get_template_from_args(named)
        tags = [
            {"Key": "aws:ec2launchtemplate:id", "Value": version.template.id},
            {"Key": "aws:ec2launchtemplate:version", "Value": str(version.number)},
        ]
        specifications = [*(version.data.get("TagSpecifications") or []), {"ResourceType": "instance", "Tags": tags}]
        data = {**version.data, "TagSpecifications": specifications}
        if data.get("UserData") is not None:
            data["UserData"] = str(data["UserData"])  # moto wraps what came in as base64
        return data

    def prepare(self, order: Order) -> str:
        """Check an order against the account, fill in what EC2 would fill in, and return its zone.

        Raises:
            AwsError: what AWS would answer.
        """
        order["ImageId"] = self._image(str(order.get("ImageId", "")))
        kind = launch.check(order)
        backend = self.ec2_backend
        interfaces = order["NetworkInterfaces"]
        if interfaces:
            given = interfaces[0].get("NetworkInterfaceId")
            own = backend.get_network_interface(given) if given else None
            if own and own.instance:
                raise AwsError("InvalidNetworkInterface.InUse", f"Interface '{given}' is currently in use.")
            subnet_id = own.subnet.id if own else interfaces[0].get("SubnetId")
        else:
            subnet_id = order.get("SubnetId")
        subnet = backend.get_subnet(subnet_id) if subnet_id else self._default_subnet(order)
        order["SubnetId"] = subnet.id
        for group in [*order.get("SecurityGroupIds", []), *(g for i in interfaces for g in i.get("Groups") or [])]:
            if backend.get_security_group_from_id(group) is None:
                raise AwsError("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
        if (key := order.get("KeyName")) and key not in backend.key_pairs:
            raise AwsError("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
        zone = str(subnet.availability_zone)
        self._check_zone(kind.name, zone)
        self._check_profile(order)
        if name := (order.get("Placement") or {}).get("GroupName"):
            self._check_group(name, kind.name, kind.burstable, zone)
        if reservation := launch.reservation_of(order):
            raise AwsError(
                "InvalidCapacityReservationId.NotFound", f"The capacity reservation '{reservation}' does not exist"
            )
        return zone

    def _image(self, image: str) -> str:
        if image.startswith("resolve:ssm:"):
            name = image.removeprefix("resolve:ssm:")
            parameter = ssm_backends[self.current_account][self.region].get_parameter(name)
            if parameter is None:
                raise AwsError("InvalidParameterValue", f"The parameter '{name}' of ImageId does not exist")
            image = str(parameter.value)
        if image and image not in self.ec2_backend.amis:
            raise AwsError("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
        return image

    def _default_subnet(self, order: Order) -> Any:
        zone = (order.get("Placement") or {}).get("AvailabilityZone") or f"{self.region}a"
        subnet = self.ec2_backend.get_default_subnets().get(zone)
        if subnet is None:
            raise AwsError("MissingInput", f"No default subnet for availability zone: '{zone}'.")
        return subnet

    def _check_zone(self, kind: str, zone: str) -> None:
        offered = sorted(
            row["Location"]
            for row in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(self.region, [])
            if row["InstanceType"] == kind
        )
        if offered and zone not in offered:
            raise AwsError(
                "Unsupported",
                f"Your requested instance type ({kind}) is not supported in your requested Availability Zone ({zone}). "
                "Please retry your request by not specifying an Availability Zone or choosing " + ", ".join(offered) + ".",
            )

    def _check_profile(self, order: Order) -> None:
        from moto.ec2.utils import filter_iam_instance_profiles

        if profile := order.get("IamInstanceProfile"):
            try:
                filter_iam_instance_profiles(
                    self.current_account, self.partition, profile.get("Arn"), profile.get("Name")
                )
            except NotFoundException:
                name = profile.get("Arn") or profile.get("Name")
                raise AwsError(
                    "InvalidParameterValue", f"Value ({name}) for parameter iamInstanceProfile is invalid."
                ) from None

    def _check_group(self, name: str, kind: str, burstable: bool, zone: str) -> None:
        group = self.group(name)
        if burstable:
            raise AwsError(
                "InvalidParameterCombination",
                f"Cluster placement groups are not supported by the '{kind}' instance type. "
                "Specify a supported instance type or change the placement group strategy, and try again.",
            )
        for member in group.members:
            elsewhere = self.ec2_backend.get_instance(member).placement.zone
            if elsewhere != zone:
                raise AwsError(
                    "InvalidParameterValue", f"Placement group {name} is in {elsewhere}: it cannot take one in {zone}."
                )

    def launch(self, order: Order, count: int, tags: dict[str, str]) -> Any:
        """Make `count` instances of a prepared order, each with its machine."""
        reservation = self.ec2_backend.run_instances(
            order["ImageId"], count, parse_user_data(order.get("UserData")), [], **self._moto_arguments(order, tags)
        )
        for instance in reservation.instances:
            self._complete(instance, order)
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
        market = (order.get("InstanceMarketOptions") or {}).get("MarketType")
        return {
            "instance_type": order["InstanceType"], "is_instance_type_default": False, "region_name": self.region,
            "subnet_id": None if interfaces else order["SubnetId"], "nics": interfaces,
            "security_group_ids": list(order.get("SecurityGroupIds") or []),
            "associate_public_ip": None, "key_name": order.get("KeyName"), "client_token": order.get("ClientToken"),
            "ebs_optimized": bool(order.get("EbsOptimized")),
            "disable_api_termination": bool(order.get("DisableApiTermination")),
            "instance_initiated_shutdown_behavior": order.get("InstanceInitiatedShutdownBehavior"),
            "instance_market_options": market if market == "spot" else None,
            "monitoring_state": "enabled" if (order.get("Monitoring") or {}).get("Enabled") else "disabled",
            "metadata_options": order.get("MetadataOptions") or {},
            "block_device_mappings": self._devices(order),
            "tags": {"instance": {**launch.tags_of(order, "instance"), **tags}, "volume": launch.tags_of(order, "volume")},
        }  # fmt: skip

    def _devices(self, order: Order) -> list[dict[str, Any]]:
        root = self.ec2_backend.amis[order["ImageId"]].root_device_name
        devices = [dict(device) for device in order.get("BlockDeviceMappings") or []]
        if all(device["DeviceName"] != root for device in devices):
            devices.insert(0, {"DeviceName": root, "Ebs": {}})
        for device in devices:
            is_root = device["DeviceName"] == root
            device["Ebs"] = {"VolumeSize": 8, "VolumeType": "gp3", "DeleteOnTermination": is_root, **device.get("Ebs", {})}
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
        if order["NetworkInterfaces"]:
            instance.security_groups = list(instance.nics[0]._group_set)
        if profile := order.get("IamInstanceProfile"):
            self.ec2_backend.associate_iam_instance_profile(
                instance.id, iam_instance_profile_name=profile.get("Name"), iam_instance_profile_arn=profile.get("Arn")
            )
        if name := (order.get("Placement") or {}).get("GroupName"):
            instance.placement.group_name = name
            self.group(name).members.add(instance.id)

    def terminate_instances(self) -> ActionResult:
        ids = self._get_param("InstanceIds", [])
        self.error_on_dryrun()
        return ActionResult({"TerminatingInstances": self.terminate(ids)})

    def terminate(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        """End instances and all that was made with them. One that has ended already is left as it is."""
        backend = self.ec2_backend
        instances = backend.get_multi_instances_by_id(list(ids))
        for instance in instances:
            if instance.disable_api_termination:
                raise AwsError(
                    "OperationNotPermitted",
                    f"The instance '{instance.id}' may not be terminated. "
                    "Modify its 'disableApiTermination' instance attribute and try again.",
                )
        alive = [instance for instance in instances if instance.state != "terminated"]
        self.machines.end(instance.id for instance in alive)
        changes = [_change(instance, "terminated", 48) for instance in instances if instance not in alive]
        for instance in alive:
            changes.append(_change(instance, "shutting-down", 32))
            self._terminate(instance)
        return changes

    def _terminate(self, instance: Any) -> None:
        backend = self.ec2_backend
        for address in backend.addresses:
            if address.association_id and (address.instance is instance or address.eni in instance.nics.values()):
                kept = address.eni and not address.eni.delete_on_termination
                if not kept:
                    backend.disassociate_address(association_id=address.association_id)
        for interface in list(instance.nics.values()):
            if taken := getattr(interface, "rehearsal_subnet_address", None):
                interface.subnet.del_subnet_ip(taken)
                interface.private_ip_address = taken
                interface.private_ip_addresses[0]["PrivateIpAddress"] = taken
        volumes = [device.volume_id for device in instance.block_device_mapping.values() if device.delete_on_termination]
        instance.terminate()
        for volume in volumes:
            backend.tags.pop(volume, None)
        for interface in list(instance.nics.values()):
            if interface.delete_on_termination:
                backend.tags.pop(interface.id, None)
            else:
                interface.attachment_id, interface.instance, interface.status = None, None, "available"
        if instance.placement.group_name:
            self.group(instance.placement.group_name).members.discard(instance.id)

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


def _change(instance: Any, name: str, code: int) -> dict[str, Any]:
    previous = {"Code": instance.state_code, "Name": instance.state}
    return {"InstanceId": instance.id, "CurrentState": {"Code": code, "Name": name}, "PreviousState": previous}


def shortage(kind: str, zone: str) -> AwsError:
    """What EC2 answers where a zone has no machine left."""
    return AwsError(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone}). "
        "Our system will be working on provisioning additional capacity.",
    )
