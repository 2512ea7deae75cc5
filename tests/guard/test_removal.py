"""One step after the other until nothing is left, and never a step beyond the lab."""

from typing import Any

import pytest

from guard.inventory import look
from guard.order import RANKS, due
from guard.removal import Step, step
from tests.guard.bench import Bench

STACK = "Lab3Stack"


def end(bench: Bench, stack: str = STACK, most: int = 8) -> list[Step]:
    """Steps until one finds nothing."""
    steps = []
    for _ in range(most):
        steps.append(step(bench.clients, stack))
        if steps[-1].done:
            return steps
    raise AssertionError([(made.did, made.pending, made.refused) for made in steps])


def status(bench: Bench, state: str, reason: str = "") -> None:
    """Let the stack be in a state that moto's CloudFormation never reaches."""
    stacks = bench.clients("cloudformation").describe_stacks()["Stacks"]
    stacks[0] |= {"StackStatus": state, "StackStatusReason": reason}
    bench.answers |= {"cloudformation:DescribeStacks": {"Stacks": stacks}, "cloudformation:DeleteStack": {}}


def test_everything_goes_and_what_bills_most_goes_first(bench: Bench) -> None:
    bench.made_by_hand(bench.subnet(bench.stack()))
    steps = end(bench)
    assert steps[0].did[0].startswith("remove instance")
    assert "delete stack Lab3Stack" in steps[-2].did
    assert steps[-2].did.index("delete stack Lab3Stack") == len(steps[-2].did) - 1
    assert look(bench.clients).items == ()


def test_a_step_on_nothing_does_nothing(bench: Bench) -> None:
    made = step(bench.clients, STACK)
    assert made.done
    assert made.did == made.pending == made.refused == []


def test_two_at_once_do_no_harm(bench: Bench) -> None:
    bench.made_by_hand(bench.subnet(bench.stack()))
    seen = look(bench.clients)
    assert step(bench.clients, STACK, seen).refused == []
    assert step(bench.clients, STACK, seen).refused == []  # acts on the same, now stale, look
    end(bench)


def test_what_lies_outside_the_lab_is_not_touched(bench: Bench) -> None:
    bench.stack()
    other = bench.stack("Lab1Stack")
    foreign = bench.ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    kept = {bench.instance(bench.subnet(other)), bench.instance(bench.subnet(foreign))}
    volume = bench.volume()
    end(bench)
    rows = bench.ec2.describe_instances()["Reservations"]
    running = {row["Instances"][0]["InstanceId"] for row in rows if row["Instances"][0]["State"]["Name"] == "running"}
    assert running == kept
    assert volume in {row["VolumeId"] for row in bench.ec2.describe_volumes()["Volumes"]}
    assert bench.clients("cloudformation").describe_stacks(StackName="Lab1Stack")


@pytest.mark.parametrize("name", ["GuardStack", ""])
def test_the_guard_and_the_nameless_are_never_ended(bench: Bench, name: str) -> None:
    with pytest.raises(AssertionError):
        step(bench.clients, name)


def test_a_volume_made_by_hand_is_tagged_before_its_instance_goes(bench: Bench) -> None:
    subnet = bench.subnet(bench.stack())
    volume = bench.attached_volume(bench.instance(subnet))
    step(bench.clients, STACK)
    (row,) = bench.ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    assert {"Key": "rooflab:stack", "Value": STACK} in row["Tags"]
    end(bench)
    assert volume not in {row["VolumeId"] for row in bench.ec2.describe_volumes()["Volumes"]}


def test_a_volume_older_than_the_lab_survives_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    subnet = bench.subnet(bench.stack())
    instance = bench.instance(subnet)
    volume = bench.attached_volume(instance)
    rows = bench.ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    rows[0]["CreateTime"] = "2020-01-01T00:00:00Z"
    bench.answers["ec2:DescribeVolumes"] = {"Volumes": rows}
    end(bench)
    assert "ec2:DeleteVolume" not in bench.asked


def test_the_stack_waits_for_the_instances(bench: Bench) -> None:
    bench.instance(bench.subnet(bench.stack()))
    assert step(bench.clients, STACK).did[0].startswith("remove instance")
    assert "cloudformation:DeleteStack" not in bench.asked


def test_an_instance_on_its_way_out_is_waited_for_and_not_asked_again(bench: Bench) -> None:
    instance = bench.instance(bench.subnet(bench.stack()))
    rows = bench.ec2.describe_instances()["Reservations"]
    rows[0]["Instances"][0]["State"] = {"Name": "shutting-down"}
    bench.answers["ec2:DescribeInstances"] = {"Reservations": rows}
    made = step(bench.clients, STACK)
    assert f"instance {instance} (shutting-down)" in made.pending
    assert "ec2:TerminateInstances" not in bench.asked
    assert not made.done


def test_a_stack_still_being_made_is_stopped_at_once(bench: Bench) -> None:
    bench.instance(bench.subnet(bench.stack()))
    status(bench, "CREATE_IN_PROGRESS")
    assert step(bench.clients, STACK).did[-1] == "delete stack Lab3Stack"


def test_a_stack_being_deleted_is_left_to_it(bench: Bench) -> None:
    bench.stack()
    status(bench, "DELETE_IN_PROGRESS")
    made = step(bench.clients, STACK)
    assert made.pending == ["stack Lab3Stack (DELETE_IN_PROGRESS)"]
    assert "cloudformation:DeleteStack" not in bench.asked


def test_what_the_stack_owns_is_left_to_it_until_it_fails(bench: Bench) -> None:
    vpc = bench.stack()
    bench.answers["cloudformation:DeleteStack"] = {}
    assert step(bench.clients, STACK).did == ["delete stack Lab3Stack"]
    status(bench, "DELETE_FAILED", "the VPC has dependencies")
    made = step(bench.clients, STACK)
    assert any(line.startswith("remove vpc vpc-") for line in made.did)
    assert made.did[-1] == "delete stack Lab3Stack again (the VPC has dependencies)"
    assert vpc not in {row["VpcId"] for row in bench.ec2.describe_vpcs()["Vpcs"]}


def test_leftovers_of_a_stack_that_is_gone_are_removed_by_hand(bench: Bench) -> None:
    vpc = bench.ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=bench.tags("vpc"))["Vpc"]["VpcId"]
    bench.made_by_hand(bench.subnet(vpc))
    end(bench)
    assert vpc not in {row["VpcId"] for row in bench.ec2.describe_vpcs()["Vpcs"]}


def test_a_refusal_is_named_and_does_not_hold_up_the_rest(bench: Bench) -> None:
    made_by_hand = bench.made_by_hand(bench.subnet(bench.stack()))
    bench.refuse("ec2:TerminateInstances", message="You are not authorized.")
    made = step(bench.clients, STACK)
    assert (
        f"['{made_by_hand['instance']}']: no permission for ec2:TerminateInstances: allow it (UnauthorizedOperation)"
        in made.refused
    )
    assert "delete stack Lab3Stack" in made.did
    assert not made.done


def test_nothing_is_removed_while_stacks_cannot_be_seen(bench: Bench) -> None:
    bench.instance(bench.subnet(bench.stack()))
    bench.refuse("cloudformation:DescribeStacks", "AccessDenied")
    made = step(bench.clients, STACK)
    assert made.did == []
    assert made.refused == [
        "cannot tell whether Lab3Stack exists: no permission for cloudformation:DescribeStacks: allow it (AccessDenied)"
    ]


def test_an_interface_of_a_service_goes_with_the_service(bench: Bench) -> None:
    bench.stack()
    row: dict[str, Any] = {"NetworkInterfaceId": "eni-1", "RequesterManaged": True, "Status": "in-use"}
    row["TagSet"] = row["Tags"] = bench.tags("network-interface")[0]["Tags"]
    bench.answers["ec2:DescribeNetworkInterfaces"] = {"NetworkInterfaces": [row]}
    made = step(bench.clients, STACK)
    assert made.pending == ["network-interface eni-1 (in-use)"]
    assert made.did == ["delete stack Lab3Stack"]


def test_the_deadline_of_one_life_does_not_rule_the_next(bench: Bench) -> None:
    name = f"/rooflab/deadline/{STACK}"
    bench.clients("ssm").put_parameter(Name=name, Value="2030-01-01T00:00:00Z", Type="String")
    end(bench)
    assert bench.clients("ssm").describe_parameters()["Parameters"] == []


def test_every_kind_has_its_place_in_the_order(bench: Bench) -> None:
    from botocore import xform_name

    from guard.inventory import KINDS

    assert {xform_name(kind.noun, "-") for kind in KINDS} - {"stack"} == {kind for rank in RANKS for kind in rank}
    assert due(look(bench.clients), None, ()) == []
