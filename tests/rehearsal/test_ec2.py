"""Launching and ending instances: what AWS gives, and what it refuses."""

import base64
import re
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal import control
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


def test_an_end_bears_the_time_at_which_it_was_asked_for_and_not_that_at_which_all_was_gone(lab: Lab) -> None:
    """Billing stops there, and receipts read it."""
    (node,) = lab.run()
    ids = [node["InstanceId"]]
    lab.ec2.terminate_instances(InstanceIds=ids)
    (asked,) = lab.ec2.describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"]
    control.advance(lab.world.name, 300, root=lab.world.root)
    lab.await_state("terminated", *ids)
    (gone,) = lab.ec2.describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"]
    assert gone["StateTransitionReason"] == asked["StateTransitionReason"]
    assert re.fullmatch(r"User initiated \(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d GMT\)", gone["StateTransitionReason"])


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
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-discovery.html: not every region has every type
    _refused(lab, "Unsupported", "requested configuration is currently not supported", InstanceType="p5e.48xlarge")
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


def test_what_ec2_refuses_of_interfaces_and_markets(lab: Lab) -> None:
    addressed = [_interface(lab, 0, 0), _interface(lab, 0, 1, "efa-only", Ipv6AddressCount=1)]
    _refused(lab, "InvalidParameterCombination", "EFA-only network interface takes no IP address: Ipv6AddressCount",
             NetworkInterfaces=addressed)  # fmt: skip
    own = lab.ec2.create_network_interface(SubnetId=lab.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    _refused(lab, "InvalidParameterCombination", "takes no Groups",
             NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": own, "Groups": [lab.group]}])  # fmt: skip
    lab.ec2.create_placement_group(GroupName="stopping", Strategy="cluster")
    stop = {"MarketType": "spot", "SpotOptions": {"InstanceInterruptionBehavior": "stop"}}
    _refused(lab, "InvalidParameterCombination", "interruption behavior 'stop' cannot be launched in a placement group",
             InstanceMarketOptions=stop, Placement={"GroupName": "stopping"})  # fmt: skip
    _refused(lab, "InvalidParameterCombination", "'stop' needs a persistent Spot request", InstanceMarketOptions=stop)
    wrong = {"SpotOptions": {"MaxPrice": "1"}}
    _refused(lab, "InvalidParameterCombination", "for MarketType spot only", InstanceMarketOptions=wrong)
    block = {"MarketType": "capacity-block"}
    _refused(lab, "InvalidParameterCombination", "not sold as capacity blocks", InstanceMarketOptions=block)
    _refused(lab, "MissingParameter", "CapacityReservationId", InstanceType="p5.48xlarge", InstanceMarketOptions=block)


def test_an_address_that_ec2_assigned_is_amazons_and_an_elastic_one_is_ones_own(lab: Lab) -> None:
    (node,) = lab.run()
    assert node["NetworkInterfaces"][0]["Association"]["IpOwnerId"] == "amazon"
    own = lab.ec2.create_network_interface(SubnetId=lab.subnet, Groups=[lab.group])["NetworkInterface"]
    address = lab.ec2.allocate_address(Domain="vpc")["AllocationId"]
    lab.ec2.associate_address(AllocationId=address, NetworkInterfaceId=own["NetworkInterfaceId"])
    shown = lab.ec2.describe_network_interfaces(NetworkInterfaceIds=[own["NetworkInterfaceId"]])
    assert shown["NetworkInterfaces"][0]["Association"]["IpOwnerId"] == node["NetworkInterfaces"][0]["OwnerId"]
    (bare,) = lab.run(NetworkInterfaces=[_interface(lab, 0, 0)])
    assert "Association" not in bare["NetworkInterfaces"][0]
    held = lab.ec2.describe_addresses(AllocationIds=[address])["Addresses"][0]
    lab.ec2.disassociate_address(AssociationId=held["AssociationId"])
    lab.ec2.release_address(AllocationId=address)


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


def _block(lab: Lab, hours: int = 24) -> dict[str, Any]:
    offer = lab.ec2.describe_capacity_block_offerings(
        InstanceType="p5.48xlarge", InstanceCount=1, CapacityDurationHours=hours
    )["CapacityBlockOfferings"][0]
    made: dict[str, Any] = lab.ec2.purchase_capacity_block(
        CapacityBlockOfferingId=offer["CapacityBlockOfferingId"], InstancePlatform="Linux/UNIX"
    )["CapacityReservation"]
    return made


def test_a_capacity_block_takes_only_launches_that_name_it_and_ends_them_half_an_hour_before_its_end(lab: Lab) -> None:
    block = _block(lab)
    assert (block["ReservationType"], block["State"], block["EndDateType"]) == ("capacity-block", "active", "limited")
    target = {"CapacityReservationTarget": {"CapacityReservationId": block["CapacityReservationId"]}}
    order: dict[str, Any] = {"InstanceType": "p5.48xlarge", "CapacityReservationSpecification": target}
    market: dict[str, Any] = {"InstanceMarketOptions": {"MarketType": "capacity-block"}}
    _refused(lab, "InvalidParameterCombination", "is a capacity block", **order)
    lab.ec2.create_placement_group(GroupName="besides", Strategy="cluster")
    _refused(lab, "InvalidParameterCombination", "takes no placement group", **order, **market,
             Placement={"GroupName": "besides"})  # fmt: skip
    elsewhere = {**_interface(lab, 0, 0), "SubnetId": lab.add_subnet("10.0.32.0/20", "us-east-1b")}
    _refused(lab, "InvalidParameterCombination", f"reserves p5.48xlarge in {block['AvailabilityZone']}, not", **order,
             **market, NetworkInterfaces=[elsewhere])  # fmt: skip
    (node,) = lab.run(**order, **market)
    assert node["InstanceLifecycle"] == "capacity-block"
    _refused(lab, "ReservationCapacityExceeded", "does not have sufficient compatible and available capacity", **order,
             **market)  # fmt: skip
    with pytest.raises(ClientError, match="cannot be cancelled"):
        lab.ec2.cancel_capacity_reservation(CapacityReservationId=block["CapacityReservationId"])
    now = datetime.fromisoformat(lab.world.status()["now"])
    left = (block["EndDate"] - now).total_seconds()
    control.advance(lab.world.name, left - 2400, root=lab.world.root)
    assert lab.state(node["InstanceId"]) == "running"
    control.advance(lab.world.name, 700, root=lab.world.root)
    lab.await_state("terminated", node["InstanceId"])
    control.advance(lab.world.name, 2400, root=lab.world.root)
    ids = [block["CapacityReservationId"]]
    assert lab.ec2.describe_capacity_reservations(CapacityReservationIds=ids)["CapacityReservations"][0]["State"] == (
        "expired"
    )
    _refused(lab, "InvalidCapacityReservationState", "is expired", **order, **market)


def test_no_block_is_sold_of_other_types_or_times(lab: Lab) -> None:
    for kind, hours, text in (
        ("g6.12xlarge", 24, "'g6.12xlarge' is not sold as capacity blocks"),
        ("p5.48xlarge", 25, "for 25 hours are sold"),
    ):
        with pytest.raises(ClientError, match=text):
            lab.ec2.describe_capacity_block_offerings(InstanceType=kind, InstanceCount=1, CapacityDurationHours=hours)
    with pytest.raises(ClientError, match=r"InvalidCapacityBlockOfferingId\.NotFound"):
        lab.ec2.purchase_capacity_block(CapacityBlockOfferingId="cb-0", InstancePlatform="Linux/UNIX")


def test_a_reservation_made_in_a_placement_group_takes_launches_into_that_group_only(lab: Lab) -> None:
    group = lab.ec2.create_placement_group(GroupName="reserved", Strategy="cluster")["PlacementGroup"]
    lab.ec2.create_placement_group(GroupName="another", Strategy="cluster")
    made = lab.ec2.create_capacity_reservation(
        InstanceType="g6.12xlarge", InstancePlatform="Linux/UNIX", AvailabilityZone="us-east-1a", InstanceCount=2,
        InstanceMatchCriteria="targeted", PlacementGroupArn=group["GroupArn"],
    )["CapacityReservation"]  # fmt: skip
    assert made["PlacementGroupArn"] == group["GroupArn"]
    target = {"CapacityReservationTarget": {"CapacityReservationId": made["CapacityReservationId"]}}
    placements: list[dict[str, Any]] = [{}, {"Placement": {"GroupName": "another"}}]
    for placement in placements:
        _refused(lab, "ReservationCapacityExceeded", CapacityReservationSpecification=target, **placement)
    (node,) = lab.run(CapacityReservationSpecification=target, Placement={"GroupName": "reserved"})
    assert node["CapacityReservationId"] == made["CapacityReservationId"]
