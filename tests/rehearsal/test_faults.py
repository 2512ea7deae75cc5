"""Faults strike by name, at the moment that was ordered, and the same for the same seed."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rehearsal import control, handmade, processes
from rehearsal.control import RehearsalError
from rehearsal.drills import DRILLS, ordered
from rehearsal.faults import Faults
from rehearsal.injection import Injection
from rehearsal.moments import moment
from tests.rehearsal.worlds import Lab, World, final


@pytest.fixture(autouse=True)
def clear(request: pytest.FixtureRequest) -> Iterator[None]:
    """No fault outlives its test."""
    yield
    if "world" in request.fixturenames or "lab" in request.fixturenames:
        shared: World = request.getfixturevalue("world")
        control.clear(shared.name, root=shared.root)


def _fault(world: World, name: str, at: str = "now", seed: int = 0, **options: object) -> list[dict[str, str]]:
    told: list[dict[str, str]] = control.fault(world.name, name, at=at, seed=seed, root=world.root, **options)["faults"]
    return told


@pytest.mark.parametrize(
    ("name", "at", "options", "said"),
    [
        ("flood", "now", {}, f"fault='flood' is not known: write one of {', '.join(DRILLS)}"),
        ("throttled", "later", {}, "at='later' is no moment: write now, ec2:RunInstances, ec2:RunInstances:2, call, "
         "tick:3 or AWS::EC2::VPC:CREATE_COMPLETE"),
        ("throttled", "tick:0", {}, "at='tick:0' never comes: write a number from 1"),
        ("throttled", "now", {"often": "2"}, "throttled has no option 'often': it takes action, times"),
        ("throttled", "now", {"times": "two"}, "times='two' is not allowed: write a whole number from 0"),
        ("throttled", "now", {"action": "RunInstances"},
         "action='RunInstances' is not allowed: write one such as ec2:RunInstances"),
        ("node-death", "now", {"how": "slowly"}, "how='slowly' is not allowed: write ended | dead"),
        ("delete-failed", "now", {"type": "Vpc"}, "type='Vpc' is not allowed: write one such as AWS::EC2::Subnet"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_one_line(name: str, at: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the whole text is compared
        ordered(name, at, 0, options)
    assert str(refused.value) == said


def test_a_moment_is_met_when_it_has_happened_so_often() -> None:
    second = moment("ec2:RunInstances:2", 0)
    assert [second.met("call", name) for name in ("ec2:RunInstances", "ec2:Describe", "ec2:RunInstances")] == [
        False, False, True,
    ]  # fmt: skip
    event = moment("AWS::EC2::VPC:CREATE_COMPLETE", 0)
    assert not event.met("call", "AWS::EC2::VPC:CREATE_COMPLETE")
    assert event.met("event", "AWS::EC2::VPC:CREATE_COMPLETE")
    assert moment("tick", 0).met("tick", "")


def test_the_seed_draws_the_call_that_nobody_numbered() -> None:
    drawn = [moment("call", seed).nth for seed in range(60)]
    assert drawn == [moment("call", seed).nth for seed in range(60)]
    assert len(set(drawn)) > 20
    assert set(drawn) <= set(range(1, 51))
    assert moment("call:7", 3).nth == 7


def _client(world: World, service: str) -> Any:
    """A client that tries nothing again."""
    return boto3.client(
        service, region_name="us-east-1", endpoint_url=world.environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=world.environment["AWS_ACCESS_KEY_ID"], aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


def test_the_call_that_is_met_is_throttled_and_those_around_it_are_not(world: World) -> None:
    ec2 = _client(world, "ec2")
    _fault(world, "throttled", "ec2:DescribeVpcs:2", times=1)
    ec2.describe_vpcs()
    with pytest.raises(ClientError, match=r"RequestLimitExceeded.*Request limit exceeded") as refused:
        ec2.describe_vpcs()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    ec2.describe_vpcs()
    (told,) = world.status()["faults"]
    assert told["fault"] == "throttled times=1 at ec2:DescribeVpcs:2, seed 0"
    assert told["did"] == "1 calls of ec2:DescribeVpcs are refused"
    assert told["struck"]


def test_the_operators_credentials_expire_and_clearing_renews_them(world: World) -> None:
    ec2, ssm = _client(world, "ec2"), _client(world, "ssm")
    _fault(world, "credentials-expired", "call:2")
    ec2.describe_vpcs()
    for asked in (ec2.describe_vpcs, ec2.describe_subnets, lambda: ssm.get_parameters_by_path(Path="/rooflab")):
        with pytest.raises(ClientError, match="ExpiredToken"):
            asked()
    control.clear(world.name, root=world.root)
    ec2.describe_vpcs()
    assert world.status()["faults"] == []


def test_a_stack_fails_to_delete_until_the_fault_is_spent(world: World) -> None:
    cloudformation = _client(world, "cloudformation")
    body = json.dumps({"Resources": {"Logs": {"Type": "AWS::Logs::LogGroup"}}})
    _fault(world, "delete-failed", type="AWS::Logs::LogGroup", times=1)
    cloudformation.create_stack(StackName="Stuck", TemplateBody=body)
    id = final(cloudformation, "Stuck")["StackId"]
    cloudformation.delete_stack(StackName="Stuck")
    stack = final(cloudformation, id)
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert stack["StackStatusReason"] == "The following resource(s) failed to delete: [Logs]. "
    cloudformation.delete_stack(StackName="Stuck")
    assert final(cloudformation, id)["StackStatus"] == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="does not exist"):
        cloudformation.describe_stacks(StackName="Stuck")


def test_a_stacks_event_is_a_moment(world: World) -> None:
    _fault(world, "throttled", "AWS::Logs::LogGroup:CREATE_COMPLETE", action="ec2:DescribeVpcs", times=1)
    _client(world, "ec2").describe_vpcs()
    body = json.dumps({"Resources": {"Logs": {"Type": "AWS::Logs::LogGroup"}}})
    cloudformation = _client(world, "cloudformation")
    cloudformation.create_stack(StackName="Told", TemplateBody=body)
    assert final(cloudformation, "Told")["StackStatus"] == "CREATE_COMPLETE"
    cloudformation.delete_stack(StackName="Told")
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        _client(world, "ec2").describe_vpcs()


def test_a_placement_group_is_in_use_so_often(lab: Lab) -> None:
    ec2 = _client(lab.world, "ec2")
    ec2.create_placement_group(GroupName="busy", Strategy="cluster")
    _fault(lab.world, "placement-group-in-use", times=2)
    for _ in range(2):
        with pytest.raises(ClientError, match=r"InvalidPlacementGroup\.InUse"):
            ec2.delete_placement_group(GroupName="busy")
    ec2.delete_placement_group(GroupName="busy")


def test_a_node_dies_and_ec2_knows_or_does_not(lab: Lab) -> None:
    lab.open_door()
    one, other = lab.run(2)
    _fault(lab.world, "node-death", instance=one["InstanceId"], how="dead")
    _fault(lab.world, "node-death", instance=other["InstanceId"])
    states = {
        instance["InstanceId"]: instance["State"]["Name"]
        for row in lab.ec2.describe_instances(InstanceIds=[one["InstanceId"], other["InstanceId"]])["Reservations"]
        for instance in row["Instances"]
    }
    assert states[one["InstanceId"]] == "running"
    assert states[other["InstanceId"]] in ("shutting-down", "terminated")
    assert lab.ssh(one, "true").returncode == 255
    with pytest.raises(RehearsalError, match=f"instance='{one['InstanceId']}' is no running instance"):
        _fault(lab.world, "node-death", instance=one["InstanceId"])


def test_ssh_is_refused_until_the_faults_are_cleared(lab: Lab) -> None:
    lab.open_door()
    (node,) = lab.run()
    _fault(lab.world, "ssh-refused", instance=node["InstanceId"])
    assert lab.ssh(node, "true").returncode == 255
    control.clear(lab.world.name, root=lab.world.root)
    assert lab.ssh(node, "true").returncode == 0


def test_a_node_drops_each_second_connection(lab: Lab) -> None:
    lab.open_door()
    (node,) = lab.run()
    _fault(lab.world, "ssh-flapping", instance=node["InstanceId"], every=2)
    assert sorted(lab.ssh(node, "true").returncode for _ in range(4)) == [0, 0, 255, 255]


def test_the_same_seed_chooses_the_same_node(lab: Lab) -> None:
    lab.run(3)
    chosen = []
    for _ in range(2):
        _fault(lab.world, "ssh-refused", seed=11)
        chosen.append(lab.world.status()["faults"][-1]["did"])
    assert chosen[0] == chosen[1]


def test_a_thing_made_by_hand_lies_in_a_labs_network_and_carries_no_tag(lab: Lab) -> None:
    with pytest.raises(RehearsalError, match="no lab has a subnet"):
        _fault(lab.world, "hand-made", kind="interface")
    lab.ec2.create_tags(Resources=[lab.subnet], Tags=[{"Key": "rooflab:stack", "Value": "Lab1Stack"}])
    for kind in handmade.KINDS:
        if kind == "volume":
            lab.run()
        did = _fault(lab.world, "hand-made", kind=kind)[-1]["did"]
        assert did.startswith(f"made {kind} ")
    interfaces = lab.ec2.describe_network_interfaces(Filters=[{"Name": "subnet-id", "Values": [lab.subnet]}])
    by_hand = [one for one in interfaces["NetworkInterfaces"] if one["Description"] == "made by hand"]
    assert [one["TagSet"] for one in by_hand] == [[]]
    (gateway,) = lab.ec2.describe_nat_gateways(Filters=[{"Name": "subnet-id", "Values": [lab.subnet]}])["NatGateways"]
    lab.ec2.delete_nat_gateway(NatGatewayId=gateway["NatGatewayId"])


def test_time_jumps(world: World) -> None:
    before = datetime.fromisoformat(world.status()["now"])
    _fault(world, "clock-jump", seconds=5000)
    assert (datetime.fromisoformat(world.status()["now"]) - before).total_seconds() >= 5000


def test_a_terminated_node_sends_sigterm_and_its_processes_may_heed_it(lab: Lab, tmp_path: Path) -> None:
    """It is seen shutting down until they have."""
    lab.open_door()
    (node,) = lab.run()
    saved, up, seen = tmp_path / "saved", tmp_path / "up", tmp_path / "seen"
    save = f"until [ -e {seen} ]; do sleep 0.05; done; echo saved > {saved}; exit"
    heed = f"trap '{save}' TERM; echo up > {up}; while :; do sleep 0.05; done"
    begin = f"setsid bash -c {shlex.quote(heed)} >/dev/null 2>&1 </dev/null & until [ -e {up} ]; do sleep 0.05; done"
    assert lab.ssh(node, begin).returncode == 0
    told = lab.ec2.terminate_instances(InstanceIds=[node["InstanceId"]])["TerminatingInstances"][0]
    assert told["CurrentState"]["Name"] == "shutting-down"
    assert lab.state(node["InstanceId"]) == "shutting-down"
    seen.touch()
    lab.await_state("terminated", node["InstanceId"])
    assert saved.read_text() == "saved\n"


_ASKING = """
import boto3, subprocess, sys
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
ec2 = boto3.client("ec2")
while True:
    ec2.describe_vpcs()
"""


def test_the_client_that_asks_is_killed_with_what_it_started(world: World) -> None:
    _fault(world, "laptop-killed", "ec2:DescribeVpcs:3")
    environment = {**os.environ, **world.environment}
    with subprocess.Popen(
        [sys.executable, "-c", _ASKING], env=environment, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        child = int(client.stdout.readline())
        assert client.wait(60) == -signal.SIGKILL
    until = time.monotonic() + 60
    while not (told := world.status()["faults"][0])["did"]:  # it is told when all of them are gone
        assert time.monotonic() < until, "the fault never told what it did"
        time.sleep(0.01)
    assert not processes.started(child)
    assert told["did"] == "2 processes of the client that asked for ec2:DescribeVpcs are killed"


def test_a_laptop_is_killed_at_a_call_and_at_no_other_moment(world: World) -> None:
    with pytest.raises(RehearsalError, match=r"no client is asking: choose one of its calls, for example --at call:7"):
        _fault(world, "laptop-killed")


def test_who_asks_while_a_fault_strikes_is_told_what_it_did() -> None:
    begun, held = threading.Event(), threading.Event()

    class Held(Faults):
        def limit(self, kind: str, zone: str, left: int) -> None:
            begun.set()
            held.wait(10)

    nothing: Any = None
    injection = Injection(faults=Held(), machines=nothing, ticks=nothing, imds=nothing, ec2=nothing)
    injection.order(ordered("no-capacity", "tick:1", 0, {}))
    striking = threading.Thread(target=injection.happen, args=("tick", ""))
    striking.start()
    assert begun.wait(10)
    told: list[dict[str, str]] = []
    asking = threading.Thread(target=lambda: told.extend(injection.described()))
    asking.start()
    held.set()
    asking.join()
    striking.join()
    assert told[0]["did"] == "0 left of all types in all zones"


def test_a_fault_that_ec2_refuses_did_nothing_and_says_so() -> None:
    class Refused(Faults):
        def limit(self, kind: str, zone: str, left: int) -> None:
            raise ClientError(
                {"Error": {"Code": "InvalidInstanceID.NotFound", "Message": "gone"}}, "TerminateInstances"
            )

    nothing: Any = None
    injection = Injection(faults=Refused(), machines=nothing, ticks=nothing, imds=nothing, ec2=nothing)
    injection.order(ordered("no-capacity", "tick:1", 0, {}))
    injection.happen("tick", "")
    assert injection.described()[0]["did"].startswith("nothing: An error occurred (InvalidInstanceID.NotFound)")
