"""Things that somebody makes by hand in a lab's network, untagged: what no stack knows and every bill does."""

import random
from typing import Any

from labs.names import TAG_STACK

KINDS = ("interface", "instance", "volume", "security-group", "nat-gateway")


def make(ec2: Any, kind: str, chance: random.Random) -> str:
    """Make one thing of `kind` ("any": one that chance chooses) in a lab's subnet; returns what was made.

    Raises:
        ValueError: no lab has a subnet, or EC2 refuses.
    """
    tagged = [{"Name": "tag-key", "Values": [TAG_STACK]}]
    subnets = sorted(ec2.describe_subnets(Filters=tagged)["Subnets"], key=lambda subnet: str(subnet["SubnetId"]))
    if not subnets:
        raise ValueError("no lab has a subnet")
    subnet = chance.choice(subnets)
    chosen = chance.choice(KINDS) if kind == "any" else kind
    return f"made {chosen} {_MAKERS[chosen](ec2, subnet, chance)} in {subnet['SubnetId']}"


def _interface(ec2: Any, subnet: dict[str, Any], chance: random.Random) -> str:
    made = ec2.create_network_interface(SubnetId=subnet["SubnetId"], Description="made by hand")
    return str(made["NetworkInterface"]["NetworkInterfaceId"])


def _instance(ec2: Any, subnet: dict[str, Any], chance: random.Random) -> str:
    image = ec2.describe_images(Owners=["099720109477"])["Images"][0]["ImageId"]
    made = ec2.run_instances(
        ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1, SubnetId=subnet["SubnetId"]
    )
    return str(made["Instances"][0]["InstanceId"])


def _volume(ec2: Any, subnet: dict[str, Any], chance: random.Random) -> str:
    """A volume on one of the subnet's instances, where there is one: only that makes it the lab's."""
    asked = [
        {"Name": "subnet-id", "Values": [subnet["SubnetId"]]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    rows = ec2.describe_instances(Filters=asked)["Reservations"]
    instances = sorted(str(instance["InstanceId"]) for row in rows for instance in row["Instances"])
    if not instances:
        raise ValueError("no instance runs that a volume could be attached to")
    volume = str(ec2.create_volume(AvailabilityZone=subnet["AvailabilityZone"], Size=50)["VolumeId"])
    ec2.attach_volume(VolumeId=volume, InstanceId=chance.choice(instances), Device="/dev/sdh")
    return volume


def _security_group(ec2: Any, subnet: dict[str, Any], chance: random.Random) -> str:
    name = f"by-hand-{chance.randrange(16**8):08x}"
    return str(ec2.create_security_group(GroupName=name, Description="made by hand", VpcId=subnet["VpcId"])["GroupId"])


def _nat_gateway(ec2: Any, subnet: dict[str, Any], chance: random.Random) -> str:
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    made = ec2.create_nat_gateway(SubnetId=subnet["SubnetId"], AllocationId=address)
    return str(made["NatGateway"]["NatGatewayId"])


_MAKERS = {
    "interface": _interface, "instance": _instance, "volume": _volume, "security-group": _security_group,
    "nat-gateway": _nat_gateway,
}  # fmt: skip
