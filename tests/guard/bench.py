"""An account in moto, in this process, with a lab in it as a stack would have made it."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto import mock_aws

REGION = "us-east-1"
TEMPLATE = """
Resources:
  Vpc:
    Type: AWS::EC2::VPC
    Properties: {CidrBlock: 10.0.0.0/16}
Outputs:
  VpcId: {Value: !Ref Vpc}
"""


@cache
def client_of(service: str) -> Any:
    """One client for all tests of a process: making one takes longer than most of what it is asked."""
    client = boto3.client(service, region_name=REGION)
    client.meta.events.register("before-call", lambda model, **_: BENCHES[-1].answer(f"{service}:{model.name}"))
    return client


BENCHES: list["Bench"] = []
"""The benches in use, the innermost last."""


class Bench:
    """A moto account, and the few things that tests put into it."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {
            "ec2:DescribePlacementGroups": {"PlacementGroups": []},
            "ec2:DescribeCapacityReservations": {"CapacityReservations": []},
            "ec2:DescribeInstanceConnectEndpoints": {"InstanceConnectEndpoints": []},
        }
        """What is answered in moto's place: it does not know these, and a test may add more."""
        self.asked: list[str] = []
        """Every request, as service:Operation."""
        self.clients = client_of
        self.ec2 = client_of("ec2")

    def answer(self, request: str) -> Any:
        """What to answer in moto's place, as botocore's hook wants it; None leaves it to moto."""
        self.asked.append(request)
        parsed = deepcopy(self.answers.get(request))
        if parsed is None:
            return None
        status = 403 if "Error" in parsed else 200
        return AWSResponse("", status, {}, None), {**parsed, "ResponseMetadata": {"HTTPStatusCode": status}}

    def refuse(self, request: str, code: str = "UnauthorizedOperation", message: str = "not you.") -> None:
        """Let a request, for example "ec2:DescribeVolumes", fail."""
        self.answers[request] = {"Error": {"Code": code, "Message": message}}

    def tags(self, kind: str, stack: str = "Lab3Stack") -> list[dict[str, Any]]:
        """TagSpecifications of a lab's thing."""
        tags = [{"Key": "rooflab:stack", "Value": stack}, {"Key": "rooflab:lab", "Value": "3"}]
        return [{"ResourceType": kind, "Tags": tags}]

    def stack(self, name: str = "Lab3Stack", ttl: str = "4") -> str:
        """A stack that owns one VPC. Returns the VPC's id."""
        tags = {"rooflab:stack": name, "rooflab:lab": "3", "rooflab:ttl-hours": ttl}
        cloudformation = self.clients("cloudformation")
        cloudformation.create_stack(
            StackName=name, TemplateBody=TEMPLATE, Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
        )
        outputs = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
        vpc: str = outputs[0]["OutputValue"]
        self.ec2.create_tags(Resources=[vpc], Tags=self.tags("vpc", name)[0]["Tags"])
        return vpc

    def subnet(self, vpc: str) -> str:
        """An untagged subnet, as if made by hand."""
        block = self.ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["CidrBlock"].replace("/16", "/24")
        subnet: str = self.ec2.create_subnet(VpcId=vpc, CidrBlock=block)["Subnet"]["SubnetId"]
        return subnet

    def instance(self, subnet: str, **more: Any) -> str:
        """An instance, untagged unless `more` says otherwise."""
        image = self.ec2.register_image(Name=f"image of {subnet}", RootDeviceName="/dev/sda1")["ImageId"]
        made = self.ec2.run_instances(ImageId=image, SubnetId=subnet, MinCount=1, MaxCount=1, **more)
        ident: str = made["Instances"][0]["InstanceId"]
        return ident

    def volume(self, **more: Any) -> str:
        """A volume of 100 GiB, untagged unless `more` says otherwise."""
        made: str = self.ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=100, VolumeType="gp3", **more)[
            "VolumeId"
        ]
        return made

    def attached_volume(self, instance: str) -> str:
        """A volume made by hand and attached to an instance."""
        volume = self.volume()
        self.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
        return volume

    def made_by_hand(self, subnet: str) -> dict[str, str]:
        """One untagged thing of many kinds in or on a subnet: kind -> id."""
        vpc = self.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
        instance = self.instance(subnet)
        interface = self.ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
        address = self.ec2.allocate_address(Domain="vpc")["AllocationId"]
        self.ec2.associate_address(AllocationId=address, NetworkInterfaceId=interface)
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        group = self.ec2.create_security_group(GroupName="hand", Description="by hand", VpcId=vpc)["GroupId"]
        volume = self.attached_volume(instance)
        return {
            "instance": instance, "network-interface": interface, "address": address, "subnet": subnet,
            "volume": volume, "internet-gateway": gateway, "security-group": group,
        }  # fmt: skip


@contextmanager
def moto_bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench, for as long as the context lasts."""
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # hundreds of images and snapshots, in every look
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        BENCHES.append(Bench())
        yield BENCHES[-1]
        BENCHES.pop()
