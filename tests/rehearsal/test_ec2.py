"""Launching and ending instances: what AWS gives, and what it refuses."""

import base64
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.rehearsal.worlds import Lab


def _interface(lab: Lab, card: int, device: int, kind: str = "interface", **given: Any) -> dict[str, Any]:
    return {
        "NetworkCardIndex": card, "DeviceIndex": device, "InterfaceType": kind, "SubnetId": lab.subnet,
        "Groups": [lab.group], **given,
    }  # fmt: skip


def _refused(lab: Lab, code: str, text: str = "", **given: Any) -> None:
    with pytest.raises(ClientError) as caught:
        lab.ec2.run_instances(MinCount=1, MaxCount=1, **lab.order(**given))
    assert caught.value.response["Error"]["Code"] == code
    assert text in caught.value.response["Error"]["Message"]


def test_an_instance_has_what_its_template_says(lab: Lab) -> None:
    tags = [{"Key": "rooflab:stack", "Value": "Lab3Stack"}]
    lab.ec2.create_placement_group(GroupName="gang", Strategy="cluster")
    (node,) = lab.run(
        NetworkInterfaces=[_interface(lab, 0, 0, "efa", AssociatePublicIpAddress=True)],
        Placement={"GroupName": "gang"},
        MetadataOptions={"HttpTokens": "required"},
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 150, "Encrypted": True}}],
        TagSpecifications=[{"ResourceType": k, "Tags": tags} for k in ("instance", "volume", "network-interface")],
    )
    volumes = lab.ec2.describe_volumes(Filters=[{"Name": "tag:rooflab:stack", "Values": ["Lab3Stack"]}])["Volumes"]
    assert [(v["Size"], v["Encrypted"], v["Attachments"][0]["InstanceId"]) for v in volumes] == [
        (150, True, node["InstanceId"])
    ]
    interface = node["NetworkInterfaces"][0]
    assert interface["InterfaceType"] == "efa"
    assert interface["Attachment"]["DeleteOnTermination"]
    held = lab.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface["NetworkInterfaceId"]])
    assert tags[0] in held["NetworkInterfaces"][0]["TagSet"]
    assert node["Placement"]["GroupName"] == "gang"
    assert node["MetadataOptions"]["HttpTokens"] == "required"
    assert node["ImageId"].startswith("ami-0")
    assert {"rooflab:stack", "rooflab:ssh-user", "rooflab:ssh-port", "aws:ec2launchtemplate:id"} <= {
        tag["Key"] for tag in node["Tags"]
    }
    with pytest.raises(ClientError, match=r"InvalidPlacementGroup\.InUse"):
        lab.ec2.delete_placement_group(GroupName="gang")
    lab.end(node["InstanceId"])
    lab.ec2.delete_placement_group(GroupName="gang")


def test_terminating_twice_is_no_error_and_leaves_nothing(lab: Lab) -> None:
    (node,) = lab.run()
    ids = [node["InstanceId"]]
    (change,) = lab.ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"]
    assert change["PreviousState"]["Name"] == "running"
    assert change["CurrentState"]["Name"] == "shutting-down"
    lab.await_state("terminated", *ids)
    (change,) = lab.ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"]
    assert change["CurrentState"]["Name"] == "terminated"
    assert not lab.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": ids}])["Volumes"]
    assert not lab.ec2.describe_network_interfaces(Filters=[{"Name": "vpc-id", "Values": [lab.vpc]}])[
        "NetworkInterfaces"
    ]
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        lab.ec2.terminate_instances(InstanceIds=["i-00000000000000000"])


def test_a_type_with_many_cards_gets_all_its_interfaces(lab: Lab) -> None:
    efas = [_interface(lab, card, 1, "efa-only") for card in range(1, 32)]
    (node,) = lab.run(InstanceType="p5.48xlarge", NetworkInterfaces=[_interface(lab, 0, 0, "efa"), *efas])
    places = [(i["Attachment"]["NetworkCardIndex"], i["Attachment"]["DeviceIndex"]) for i in node["NetworkInterfaces"]]
    assert sorted(places) == [(0, 0), *((card, 1) for card in range(1, 32))]


def test_what_ec2_refuses_is_refused(lab: Lab) -> None:
    many = [_interface(lab, 0, 0, AssociatePublicIpAddress=True), _interface(lab, 0, 1, "efa-only")]
    _refused(lab, "InvalidParameterCombination", "multiple network interfaces", NetworkInterfaces=many)
    one_efa = [_interface(lab, 0, 0, "efa")]
    _refused(lab, "Unsupported", "takes: 0", InstanceType="g6.xlarge", NetworkInterfaces=one_efa)
    two_efas = [_interface(lab, 0, 0, "efa"), _interface(lab, 0, 1, "efa-only")]
    _refused(lab, "AttachmentLimitExceeded", "takes: 1", NetworkInterfaces=two_efas)
    _refused(
        lab,
        "AttachmentLimitExceeded",
        "Device index",
        NetworkInterfaces=[_interface(lab, 0, 0), _interface(lab, 0, 99)],
    )
    _refused(
        lab, "InvalidParameterValue", "out of range", NetworkInterfaces=[_interface(lab, 0, 0), _interface(lab, 7, 0)]
    )
    _refused(lab, "InvalidParameterCombination", "efa-only", NetworkInterfaces=[_interface(lab, 0, 0, "efa-only")])
    _refused(lab, "InvalidParameterCombination", "subnet ID", SubnetId=lab.subnet)
    _refused(lab, "InvalidParameterCombination", "security groups", SecurityGroupIds=[lab.group])
    _refused(lab, "InvalidParameterValue", "did you mean", InstanceType="g6.13xlarge")
    _refused(lab, "InvalidParameterValue", "16384", UserData=base64.b64encode(b"x" * 16385).decode())
    _refused(lab, "InvalidAMIID.NotFound", ImageId="ami-00000000000000000")
    _refused(lab, "InvalidParameterValue", "/nowhere", ImageId="resolve:ssm:/nowhere")
    _refused(lab, "InvalidKeyPair.NotFound", KeyName="nobody")
    _refused(lab, "InvalidPlacementGroup.Unknown", Placement={"GroupName": "nowhere"})
    _refused(lab, "InvalidParameterValue", "iamInstanceProfile", IamInstanceProfile={"Name": "nobody"})
    _refused(lab, "InvalidGroup.NotFound", NetworkInterfaces=[_interface(lab, 0, 0, Groups=["sg-00000000000000000"])])
    target = {"CapacityReservationTarget": {"CapacityReservationId": "cr-0123"}}
    _refused(lab, "InvalidCapacityReservationId.NotFound", CapacityReservationSpecification=target)
    lab.ec2.create_placement_group(GroupName="slow", Strategy="cluster")
    _refused(lab, "InvalidParameterCombination", "t3.medium", InstanceType="t3.medium", Placement={"GroupName": "slow"})


def test_what_would_have_to_be_ignored_is_refused_by_name(lab: Lab) -> None:
    _refused(lab, "NotRehearsed", "EnclaveOptions", EnclaveOptions={"Enabled": True})
    prefix = _interface(lab, 0, 0, Ipv4PrefixCount=1)
    _refused(lab, "NotRehearsed", "Ipv4PrefixCount", NetworkInterfaces=[prefix])
    with pytest.raises(ClientError, match=r"NotRehearsed.*DescribeScheduledInstances"):
        lab.ec2.describe_scheduled_instances()


def test_a_zone_without_the_type_is_refused_with_those_that_have_it(lab: Lab) -> None:
    elsewhere = lab.add_subnet("10.0.16.0/20", "us-east-1e")
    interface = {**_interface(lab, 0, 0), "SubnetId": elsewhere}
    _refused(lab, "Unsupported", "choosing us-east-1a", NetworkInterfaces=[interface])


def test_a_repeated_request_makes_nothing_twice(lab: Lab) -> None:
    order = {**lab.order(), "MinCount": 1, "MaxCount": 1, "ClientToken": "once"}
    first, second = (lab.ec2.run_instances(**order)["Instances"][0]["InstanceId"] for _ in range(2))
    assert first == second


def test_all_launch_templates_are_shown(lab: Lab) -> None:
    names = [f"one-of-many-{index}" for index in range(16)]
    for name in names:
        lab.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={"InstanceType": "t3.micro"})
    shown = {template["LaunchTemplateName"] for template in lab.ec2.describe_launch_templates()["LaunchTemplates"]}
    assert set(names) <= shown


def test_a_network_is_deleted_in_order_only(lab: Lab) -> None:
    (node,) = lab.run()
    for delete in (
        lambda: lab.ec2.delete_subnet(SubnetId=lab.subnet),
        lambda: lab.ec2.delete_security_group(GroupId=lab.group),
        lambda: lab.ec2.delete_vpc(VpcId=lab.vpc),
    ):
        with pytest.raises(ClientError, match="DependencyViolation"):
            delete()
    with pytest.raises(ClientError, match=r"InvalidNetworkInterface\.InUse"):
        lab.ec2.delete_network_interface(NetworkInterfaceId=node["NetworkInterfaces"][0]["NetworkInterfaceId"])
    lab.end(node["InstanceId"])
    with pytest.raises(ClientError, match="DependencyViolation"):
        lab.ec2.delete_vpc(VpcId=lab.vpc)
    lab.ec2.delete_security_group(GroupId=lab.group)
    lab.ec2.delete_subnet(SubnetId=lab.subnet)
    lab.ec2.delete_vpc(VpcId=lab.vpc)
    assert not lab.ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [lab.vpc]}])["NetworkAcls"]


def test_a_gateway_stays_while_addresses_are_mapped(lab: Lab) -> None:
    gateway = lab.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    lab.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=lab.vpc)
    (node,) = lab.run()
    with pytest.raises(ClientError, match="mapped public address"):
        lab.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=lab.vpc)
    lab.end(node["InstanceId"])
    lab.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=lab.vpc)


def test_a_reservation_takes_as_many_as_it_holds(lab: Lab) -> None:
    made = lab.ec2.create_capacity_reservation(
        InstanceType="g6.12xlarge", InstancePlatform="Linux/UNIX", AvailabilityZone="us-east-1a", InstanceCount=1,
        InstanceMatchCriteria="targeted",
    )["CapacityReservation"]  # fmt: skip
    target = {"CapacityReservationTarget": {"CapacityReservationId": made["CapacityReservationId"]}}
    (node,) = lab.run(CapacityReservationSpecification=target)
    assert node["CapacityReservationId"] == made["CapacityReservationId"]
    _refused(lab, "ReservationCapacityExceeded", CapacityReservationSpecification=target)
    _refused(
        lab,
        "InvalidParameterCombination",
        "g6.12xlarge",
        InstanceType="g6.xlarge",
        CapacityReservationSpecification=target,
    )
    lab.end(node["InstanceId"])
    (shown,) = lab.ec2.describe_capacity_reservations()["CapacityReservations"]
    assert shown["AvailableInstanceCount"] == 1
    lab.ec2.cancel_capacity_reservation(CapacityReservationId=made["CapacityReservationId"])
