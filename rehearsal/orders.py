"""Orders for instances, checked against the account: all that RunInstances and CreateFleet refuse before a launch."""

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response
from moto.ec2.utils import filter_iam_instance_profiles
from moto.iam.exceptions import NotFoundException
from moto.ssm.models import ssm_backends

from rehearsal import launch
from rehearsal.errors import AwsError
from rehearsal.images import BakedImage
from rehearsal.ipv6 import demand_range
from rehearsal.launch import Order
from rehearsal.market import offered
from rehearsal.placement import PlacementGroups
from rehearsal.reservations import Reservations


class Orders(PlacementGroups, Reservations, EC2Response):  # type: ignore[misc]  # moto ships no types
    """What a request and a launch template amount to in this account."""

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
        if any(interface.get("Ipv6AddressCount") or interface.get("Ipv6Addresses") for interface in interfaces):
            demand_range(subnet)
        self._check_volumes(order)
        for group in [*order.get("SecurityGroupIds", []), *(g for i in interfaces for g in i.get("Groups") or [])]:
            if backend.get_security_group_from_id(group) is None:
                raise AwsError("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
        if (key := order.get("KeyName")) and key not in backend.key_pairs:
            raise AwsError("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
        zone = str(subnet.availability_zone)
        self._check_zone(kind.name, zone)
        self._check_profile(order)
        group = (order.get("Placement") or {}).get("GroupName") or ""
        if group:
            self._check_group(group, kind.name, kind.burstable, zone)
        if reservation := launch.reservation_of(order):
            self.check_reservation(reservation, kind.name, zone, group, launch.market_of(order))
        return zone

    def baked(self, image: str) -> dict[str, dict[str, Any]]:
        """Volumes of an image that was made of an instance, by device: size, type and snapshot."""
        ami = self.ec2_backend.amis[image]
        if not isinstance(ami, BakedImage):
            return {}
        kept = ("VolumeSize", "VolumeType", "SnapshotId", "Encrypted")
        return {row["DeviceName"]: {key: row["Ebs"][key] for key in kept} for row in ami.block_device_mappings}

    def _check_volumes(self, order: Order) -> None:
        held = self.baked(order["ImageId"])
        for device in order.get("BlockDeviceMappings") or []:
            size = int((device.get("Ebs") or {}).get("VolumeSize") or 0)
            least = held.get(device["DeviceName"])
            if size and least and size < least["VolumeSize"]:
                raise AwsError(
                    "InvalidBlockDeviceMapping",
                    f"Volume of size {size}GB is smaller than snapshot '{least['SnapshotId']}', expect size >= "
                    f"{least['VolumeSize']}GB",
                )

    def _image(self, image: str) -> str:
        if image.startswith("resolve:ssm:"):
            name = image.removeprefix("resolve:ssm:")
            parameter = ssm_backends[self.current_account][self.region].get_parameter(name)
            if parameter is None:
                raise AwsError("InvalidParameterValue", f"The parameter '{name}' of ImageId does not exist")
            image = str(parameter.value)
        if image and image not in self.ec2_backend.amis:
            raise AwsError("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
        if image and (state := self.ec2_backend.amis[image].state) != "available":
            raise AwsError(
                "InvalidAMIID.Unavailable", f"The image ID '{image}' is no longer available" if state != "pending"
                else f"The image ID '{image}' is not available: it is pending"
            )  # fmt: skip
        return image

    def _default_subnet(self, order: Order) -> Any:
        zone = (order.get("Placement") or {}).get("AvailabilityZone") or f"{self.region}a"
        subnet = self.ec2_backend.get_default_subnets().get(zone)
        if subnet is None:
            raise AwsError("MissingInput", f"No default subnet for availability zone: '{zone}'.")
        return subnet

    def _check_zone(self, kind: str, zone: str) -> None:
        zones = offered(self.region, kind)
        if not zones:
            raise AwsError(
                "Unsupported",
                "The requested configuration is currently not supported. Please check the documentation for supported "
                "configurations.",
            )
        if zone not in zones:
            raise AwsError(
                "Unsupported",
                f"Your requested instance type ({kind}) is not supported in your requested Availability Zone ({zone}). "
                f"Please retry your request by not specifying an Availability Zone or choosing {', '.join(zones)}.",
            )

    def _check_profile(self, order: Order) -> None:
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

    def describe_launch_templates(self) -> ActionResult:
        self._show_all()
        return super().describe_launch_templates()

    def describe_launch_template_versions(self) -> ActionResult:
        self._show_all()
        return super().describe_launch_template_versions()

    def _show_all(self) -> None:
        # moto shows 15 and gives no token for the rest; AWS shows 200 and gives one.
        self.params.setdefault("MaxResults", 10_000)
