"""Instant fleets: a gang or nothing, and shortage told inside the answer."""

import json
import urllib.request
import uuid
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal import control
from rehearsal.control import RehearsalError
from tests.rehearsal.worlds import Lab


def _request(lab: Lab, overrides: list[dict[str, Any]], total: int = 2, **given: Any) -> dict[str, Any]:
    data = lab.order(UserData=lab.user_data(), TagSpecifications=[
        {"ResourceType": "instance", "Tags": [{"Key": "rooflab:stack", "Value": "Lab4Stack"}]}])  # fmt: skip
    del data["NetworkInterfaces"][0]["SubnetId"]
    template = lab.ec2.create_launch_template(
        LaunchTemplateName=uuid.uuid4().hex,
        LaunchTemplateData=data,
    )["LaunchTemplate"]
    return {
        "Type": "instant",
        "LaunchTemplateConfigs": [{
            "LaunchTemplateSpecification": {"LaunchTemplateId": template["LaunchTemplateId"], "Version": "1"},
            "Overrides": overrides,
        }],
        "TargetCapacitySpecification": {"TotalTargetCapacity": total, "DefaultTargetCapacityType": "spot"},
        "SpotOptions": {"AllocationStrategy": "price-capacity-optimized", "SingleAvailabilityZone": True,
                        "MinTargetCapacity": total},
        **given,
    }  # fmt: skip


def _short(lab: Lab, **what: Any) -> None:
    control.fault(lab.world.name, "no-capacity", root=lab.world.root, **what)


def test_a_spot_fleet_comes_up_and_its_nodes_answer(lab: Lab) -> None:
    lab.open_door()
    made = lab.ec2.create_fleet(**_request(lab, [{"SubnetId": lab.subnet}]))
    assert made["Errors"] == []
    (group,) = made["Instances"]
    assert group["Lifecycle"] == "spot"
    found = lab.ec2.describe_instances(InstanceIds=group["InstanceIds"])["Reservations"]
    nodes = [instance for reservation in found for instance in reservation["Instances"]]
    assert len(nodes) == 2
    for node in nodes:
        tags = {tag["Key"]: tag["Value"] for tag in node["Tags"]}
        assert tags["rooflab:stack"] == "Lab4Stack"
        assert tags["aws:ec2:fleet-id"] == made["FleetId"]
        assert node["InstanceLifecycle"] == "spot"
        assert node["SpotInstanceRequestId"].startswith("sir-")
        assert lab.ssh(node, "true").returncode == 0
    with pytest.raises(ClientError, match="Spot Instance"):
        lab.ec2.stop_instances(InstanceIds=group["InstanceIds"][:1])


def test_a_spot_instance_ends_two_minutes_after_its_notice(lab: Lab) -> None:
    made = lab.ec2.create_fleet(**_request(lab, [{"SubnetId": lab.subnet}]))
    ended, spared = made["Instances"][0]["InstanceIds"]
    control.fault(lab.world.name, "spot-notice", root=lab.world.root, instance=ended)
    with pytest.raises(RehearsalError, match="no running spot instance"):
        control.fault(lab.world.name, "spot-notice", root=lab.world.root, instance="i-00000000000000000")
    base = f"{lab.world.environment['AWS_ENDPOINT_URL']}/imds/{ended}/latest"
    put = urllib.request.Request(
        f"{base}/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT"
    )
    with urllib.request.urlopen(put) as reply:
        token = {"X-aws-ec2-metadata-token": reply.read().decode()}
    with urllib.request.urlopen(
        urllib.request.Request(f"{base}/meta-data/spot/instance-action", headers=token)
    ) as reply:
        notice = json.load(reply)
    now = datetime.fromisoformat(lab.world.status()["now"])
    assert notice["action"] == "terminate"
    assert 100 < (datetime.fromisoformat(notice["time"]) - now).total_seconds() <= 120
    control.advance(lab.world.name, 90, root=lab.world.root)
    assert _states(lab, ended, spared) == ["running", "running"]
    control.advance(lab.world.name, 40, root=lab.world.root)
    lab.await_state("terminated", ended)
    assert _states(lab, spared) == ["running"]


def _states(lab: Lab, *ids: str) -> list[str]:
    return [lab.state(id) for id in ids]


def test_deleting_a_fleet_ends_its_instances_and_twice_is_no_error(lab: Lab) -> None:
    made = lab.ec2.create_fleet(**_request(lab, [{"SubnetId": lab.subnet}]))
    ids = [made["FleetId"]]
    (shown,) = lab.ec2.describe_fleets(FleetIds=ids)["Fleets"]
    assert (shown["FleetState"], shown["FulfilledCapacity"]) == ("active", 2.0)
    assert lab.ec2.describe_fleets()["Fleets"] == []
    for _ in range(2):
        done = lab.ec2.delete_fleets(FleetIds=ids, TerminateInstances=True)
        assert done["UnsuccessfulFleetDeletions"] == []
    lab.await_state("terminated", *made["Instances"][0]["InstanceIds"])
    (shown,) = lab.ec2.describe_fleets(FleetIds=ids)["Fleets"]
    assert (shown["FleetState"], shown["FulfilledCapacity"]) == ("deleted_terminating", 0.0)
    (failed,) = lab.ec2.delete_fleets(FleetIds=["fleet-0"], TerminateInstances=True)["UnsuccessfulFleetDeletions"]
    assert failed["Error"]["Code"] == "fleetIdDoesNotExist"


def test_a_gang_that_cannot_be_whole_is_not_started(lab: Lab) -> None:
    _short(lab, instance_type="g6.12xlarge", zone="us-east-1a", left=1)
    made = lab.ec2.create_fleet(**_request(lab, [{"SubnetId": lab.subnet}]))
    assert made["Instances"] == []
    assert [error["ErrorCode"] for error in made["Errors"]] == ["InsufficientInstanceCapacity"]
    other = lab.add_subnet("10.0.16.0/20", "us-east-1b")
    made = lab.ec2.create_fleet(**_request(lab, [{"SubnetId": lab.subnet}, {"SubnetId": other}]))
    (group,) = made["Instances"]
    assert len(group["InstanceIds"]) == 2
    assert group["LaunchTemplateAndOverrides"]["Overrides"]["SubnetId"] == other
    with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
        lab.ec2.run_instances(MinCount=2, MaxCount=2, **lab.order())
    assert len(lab.ec2.run_instances(MinCount=1, MaxCount=2, **lab.order())["Instances"]) == 1
    _short(lab, instance_type="g6.12xlarge", zone="us-east-1a", left=1000)


def test_without_a_minimum_a_fleet_takes_what_there_is(lab: Lab) -> None:
    _short(lab, instance_type="g6e.12xlarge", left=1)
    options = {"AllocationStrategy": "price-capacity-optimized"}
    override = {"SubnetId": lab.subnet, "InstanceType": "g6e.12xlarge"}
    made = lab.ec2.create_fleet(**_request(lab, [override], SpotOptions=options))
    assert [len(group["InstanceIds"]) for group in made["Instances"]] == [1]
    assert [error["ErrorCode"] for error in made["Errors"]] == ["InsufficientInstanceCapacity"]
    _short(lab, instance_type="g6e.12xlarge", left=1000)


def test_a_shortage_of_everything_counts_all_types_together(lab: Lab) -> None:
    _short(lab, left=1)
    with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
        lab.ec2.run_instances(MinCount=2, MaxCount=2, **lab.order())
    lab.ec2.run_instances(MinCount=1, MaxCount=1, **lab.order(InstanceType="g6.xlarge"))
    with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
        lab.ec2.run_instances(MinCount=1, MaxCount=1, **lab.order())
    _short(lab, left=1000)


def test_a_fleet_takes_the_cheapest_type_that_has_room_and_one_only(lab: Lab) -> None:
    kinds = ("g6.12xlarge", "g6e.12xlarge", "g5.12xlarge")
    now = datetime.fromisoformat(lab.world.status()["now"])
    told = lab.ec2.describe_spot_price_history(
        InstanceTypes=list(kinds), AvailabilityZone="us-east-1a", ProductDescriptions=["Linux/UNIX"], StartTime=now
    )["SpotPriceHistory"]
    cheapest, second = [row["InstanceType"] for row in sorted(told, key=lambda row: float(row["SpotPrice"]))][:2]
    options = {"AllocationStrategy": "price-capacity-optimized", "SingleAvailabilityZone": True,
               "SingleInstanceType": True, "MinTargetCapacity": 2}  # fmt: skip
    request = _request(lab, [{"SubnetId": lab.subnet, "InstanceType": kind} for kind in kinds], SpotOptions=options)
    (group,) = lab.ec2.create_fleet(**request)["Instances"]
    assert (group["InstanceType"], len(group["InstanceIds"])) == (cheapest, 2)
    _short(lab, instance_type=cheapest, left=1)
    made = lab.ec2.create_fleet(**request)
    assert ([group["InstanceType"] for group in made["Instances"]], made["Errors"]) == ([second], [])
    prioritized = {**options, "AllocationStrategy": "capacity-optimized-prioritized"}
    ordered = [{"SubnetId": lab.subnet, "InstanceType": kind, "Priority": rank} for rank, kind in
               ((2, cheapest), (0, kinds[0]), (1, kinds[1])) if kind != cheapest]  # fmt: skip
    (group,) = lab.ec2.create_fleet(**_request(lab, ordered, SpotOptions=prioritized))["Instances"]
    assert group["InstanceType"] == min(ordered, key=lambda row: float(row["Priority"]))["InstanceType"]
    _short(lab, instance_type=cheapest, left=1000)


def test_a_fleet_may_be_part_on_demand(lab: Lab) -> None:
    target = {"TotalTargetCapacity": 3, "OnDemandTargetCapacity": 1, "DefaultTargetCapacityType": "spot"}
    made = lab.ec2.create_fleet(**_request(lab, [{"SubnetId": lab.subnet}], SpotOptions={},
                                           TargetCapacitySpecification=target))  # fmt: skip
    counts = {group["Lifecycle"]: len(group["InstanceIds"]) for group in made["Instances"]}
    assert counts == {"on-demand": 1, "spot": 2}


def test_a_shortage_of_spot_is_told_in_ec2s_words_and_a_quota_too(lab: Lab) -> None:
    world = lab.world
    _short(lab, left=0)
    (error,) = lab.ec2.create_fleet(**_request(lab, [{"SubnetId": lab.subnet}]))["Errors"]
    assert (error["ErrorCode"], error["ErrorMessage"]) == (
        "InsufficientInstanceCapacity", "There is no Spot capacity available that matches your request.",
    )  # fmt: skip
    control.clear(world.name, root=world.root)
    control.fault(world.name, "quota", root=world.root, vcpus=8)
    (error,) = lab.ec2.create_fleet(**_request(lab, [{"SubnetId": lab.subnet}]))["Errors"]
    assert error["ErrorCode"] == "MaxSpotInstanceCountExceeded"
    control.clear(world.name, root=world.root)


def test_an_override_that_ec2_refuses_is_an_error_inside_the_answer(lab: Lab) -> None:
    wrong, right = {"SubnetId": lab.subnet, "InstanceType": "g6.13xlarge"}, {"SubnetId": lab.subnet}
    made = lab.ec2.create_fleet(**_request(lab, [wrong, right]))
    assert [error["ErrorCode"] for error in made["Errors"]] == ["InvalidParameterValue"]
    assert len(made["Instances"][0]["InstanceIds"]) == 2


def test_what_ec2_refuses_in_a_fleet(lab: Lab) -> None:
    request = _request(lab, [{"SubnetId": lab.subnet}])
    for change, text in (
        ({"SpotOptions": {"MinTargetCapacity": 2}}, "MinTargetCapacity needs"),
        ({"Type": "maintain"}, "NotRehearsed.*maintain"),
        ({"TargetCapacitySpecification": {"TotalTargetCapacity": 0}}, "TotalTargetCapacity"),
        ({"TargetCapacitySpecification": {"TotalTargetCapacity": 1, "OnDemandTargetCapacity": 2}}, "make up the total"),
        ({"SpotOptions": {"AllocationStrategy": "prioritized"}}, "'prioritized' is not valid in SpotOptions"),
        ({"SpotOptions": {"MaxTotalPrice": "1"}}, r"NotRehearsed.*SpotOptions\.MaxTotalPrice"),
    ):
        with pytest.raises(ClientError, match=text):
            lab.ec2.create_fleet(**{**request, **change})
