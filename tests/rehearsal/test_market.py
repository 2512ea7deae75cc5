"""What EC2 tells of types, prices, scores and quotas, and what it enforces of them."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from labs.instances import instance_type
from rehearsal import control
from rehearsal.faults import Faults
from rehearsal.market import Market
from rehearsal.quotas import QUOTAS, Quotas
from tests.rehearsal.worlds import Lab, World


def test_prices_lie_below_the_list_and_end_at_the_rehearsals_now(world: World) -> None:
    ec2 = world.client("ec2")
    now = datetime.fromisoformat(world.status()["now"])
    asked: dict[str, Any] = {"InstanceTypes": ["g6.12xlarge"], "ProductDescriptions": ["Linux/UNIX"]}
    current = ec2.describe_spot_price_history(**asked, StartTime=now)["SpotPriceHistory"]
    zones = [row["AvailabilityZone"] for row in current]
    assert len(zones) == len(set(zones)) > 1
    listed = instance_type("g6.12xlarge").usd_per_hour
    assert listed
    assert all(0.2 * listed < float(row["SpotPrice"]) < 0.7 * listed for row in current)
    week = ec2.describe_spot_price_history(**asked, StartTime=now - timedelta(days=7), AvailabilityZone=zones[0])
    times = [row["Timestamp"] for row in week["SpotPriceHistory"]]
    assert times == sorted(times, reverse=True)
    assert 7 <= len(times) <= 9
    assert times[0] <= now + timedelta(minutes=5)
    page = ec2.describe_spot_price_history(**asked, StartTime=now, MaxResults=2)
    rest = ec2.describe_spot_price_history(**asked, StartTime=now, MaxResults=2, NextToken=page["NextToken"])
    assert page["SpotPriceHistory"] + rest["SpotPriceHistory"] == current[:4]
    with pytest.raises(ClientError, match=r"NotRehearsed.*filter spot-price"):
        ec2.describe_spot_price_history(Filters=[{"Name": "spot-price", "Values": ["1"]}])


def test_one_seed_makes_one_market() -> None:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    prices = [Market(seed).price("g6.12xlarge", "us-east-1a", at) for seed in (1, 1, 2)]
    assert prices[0] == prices[1] != prices[2]
    assert Market(1).price("p5e.48xlarge", "us-east-1a", at) is None


def test_scores_rank_zones_and_fall_with_the_number_wanted(world: World) -> None:
    ec2 = world.client("ec2")

    def scores(count: int) -> dict[str, int]:
        answer = ec2.get_spot_placement_scores(
            InstanceTypes=["g6.12xlarge"], TargetCapacity=count, SingleAvailabilityZone=True, RegionNames=["us-east-1"]
        )["SpotPlacementScores"]
        return {row["AvailabilityZoneId"]: row["Score"] for row in answer}

    one, many = scores(1), scores(64)
    assert all(1 <= many[zone] <= one[zone] <= 10 for zone in one)
    offered = ec2.describe_instance_type_offerings(
        LocationType="availability-zone-id", Filters=[{"Name": "instance-type", "Values": ["g6.12xlarge"]}]
    )["InstanceTypeOfferings"]
    assert {row["Location"] for row in offered} == set(one)
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*'g6.13xlarge' is not valid"):
        ec2.get_spot_placement_scores(InstanceTypes=["g6.13xlarge"], TargetCapacity=1)


def test_quotas_are_told_under_their_codes(world: World) -> None:
    client = world.client("service-quotas")
    told = {row["QuotaCode"]: row["QuotaName"] for row in client.list_service_quotas(ServiceCode="ec2")["Quotas"]}
    assert told["L-DB2E81BA"] == "Running On-Demand G and VT instances"
    assert told["L-417A185B"] == "Running On-Demand P instances"
    assert {"L-1216C47A", "L-7212CCBC", "L-C4BD4855", "L-3819A6DF", "L-34B43A08", "L-0263D0A3"} <= set(told)
    assert client.get_service_quota(ServiceCode="vpc", QuotaCode="L-F678F1CE")["Quota"]["Value"] > 5
    assert client.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode="L-417A185B")["Quota"]["Value"] == 0
    with pytest.raises(ClientError, match="NoSuchResourceException"):
        client.get_service_quota(ServiceCode="ec2", QuotaCode="L-00000000")


def test_a_quota_can_be_set_and_a_fault_lowers_those_of_vcpus() -> None:
    faults = Faults()
    quotas = Quotas(faults)
    quotas.set("L-0263D0A3", 2)
    assert quotas.limit("L-0263D0A3") == 2
    faults.vcpus = 8
    assert (quotas.limit("L-DB2E81BA"), quotas.limit("L-0263D0A3")) == (8, 2)
    for given, text in ((("L-0", 1), "code='L-0' is no quota here"), (("L-0263D0A3", -1), "value=-1: write 0 or more")):
        with pytest.raises(ValueError, match=text):
            quotas.set(*given)
    assert all(quota.aws <= quota.usual for quota in QUOTAS.values())


def test_a_launch_beyond_the_quota_is_refused_in_ec2s_words(lab: Lab) -> None:
    world = lab.world
    control.fault(world.name, "quota", root=world.root, vcpus=50)
    try:
        quota = world.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-DB2E81BA")["Quota"]
        assert quota["Value"] == 50
        with pytest.raises(ClientError) as caught:
            lab.run(2)
        assert caught.value.response["Error"] == {
            "Code": "VcpuLimitExceeded",
            "Message": "You have requested more vCPU capacity than your current vCPU limit of 50 allows for the "
            "instance bucket that the specified instance type belongs to. Please visit "
            "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        }
        with pytest.raises(ClientError, match=r"MaxSpotInstanceCountExceeded.*Max spot instance count exceeded"):
            lab.run(2, InstanceMarketOptions={"MarketType": "spot"})
        (node,) = lab.run(1)
        with pytest.raises(ClientError, match="VcpuLimitExceeded"):
            lab.run(1)
        lab.run(1, InstanceType="t3.medium")  # another bucket
        (spot,) = lab.run(1, InstanceMarketOptions={"MarketType": "spot"})  # and another
        assert (spot["InstanceLifecycle"], "InstanceLifecycle" in node) == ("spot", False)
        lab.end(node["InstanceId"])
        lab.run(1)
    finally:
        control.clear(world.name, root=world.root)


def test_addresses_run_out_after_five(lab: Lab) -> None:
    held = len(lab.ec2.describe_addresses()["Addresses"])
    made = [lab.ec2.allocate_address(Domain="vpc")["AllocationId"] for _ in range(5 - held)]
    with pytest.raises(ClientError, match=r"AddressLimitExceeded.*The maximum number of addresses has been reached\."):
        lab.ec2.allocate_address(Domain="vpc")
    for id in made:
        lab.ec2.release_address(AllocationId=id)


def test_the_lines_of_the_guide_buy_a_block(world: World) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "capacity.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    environment = {**os.environ, **world.environment}
    ended = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    offered, id = ended.stdout.splitlines()
    assert re.fullmatch(r"us-east-1\w .* USD", offered)
    (block,) = world.client("ec2").describe_capacity_reservations(CapacityReservationIds=[id])["CapacityReservations"]
    assert (block["ReservationType"], block["TotalInstanceCount"]) == ("capacity-block", 2)
