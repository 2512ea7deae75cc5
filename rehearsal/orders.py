"""Orders for instances, checked against the account: all that RunInstances and CreateFleet refuse before a launch."""

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.responses import EC2Response
from moto.ec2.utils import filter_iam_instance_profiles
from moto.iam.exceptions import NotFoundException
from moto.ssm.models import ssm_backends

from rehearsal import launch
from rehearsal.errors import AwsError
from rehearsal.launch import Order
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
            self.check_reservation(reservation, kind.name, zone)
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
                f"Please retry your request by not specifying an Availability Zone or choosing {', '.join(offered)}.",
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
