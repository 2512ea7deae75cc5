"""A real stack of ours, in a rehearsed account, with things made by hand in it: the deployed guard and a teardown."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import WaiterError

from labs.catalog import LABS
from labs.prices import cost_of
from operate import laptop
from operate.account import Account
from operate.bill import frozen_cost
from operate.deadline import extend_deadline, read_deadline
from operate.sweep import sweep
from operate.teardown import teardown
from rehearsal import control

ROOT = Path(__file__).parent.parent.parent
STACK = "Lab3Stack"
NAME = "guard"
TTL_HOURS = 0.2


class Rehearsal:
    """A rehearsed account with GuardStack in it."""

    def __init__(self, folder: Path, templates: Path) -> None:
        self.folder, self.templates = folder, templates
        self.account = Account()
        self.ec2 = self.account.client("ec2")
        self.cloudformation = self.account.client("cloudformation")

    def deploy(self, stack: str) -> None:
        """What `cdk deploy` asks of CloudFormation."""
        manifest = json.loads((self.templates / "manifest.json").read_text())["artifacts"][stack]
        tags = [{"Key": key, "Value": value} for key, value in manifest["properties"].get("tags", {}).items()]
        template = (self.templates / f"{stack}.template.json").read_text()
        self.cloudformation.create_stack(
            StackName=stack, TemplateBody=template, Tags=tags, Capabilities=["CAPABILITY_IAM"]
        )
        self.cloudformation.get_waiter("stack_create_complete").wait(
            StackName=stack, WaiterConfig={"Delay": 1, "MaxAttempts": 500}
        )

    def advance(self, hours: float) -> None:
        """Let time pass, and the guard tick."""
        ticks = control.advance(NAME, hours * 3600, root=self.folder)["ticks"]
        assert [tick["error"] for tick in ticks if tick["error"]] == []
        self.account.observe(self.account.client("sts").get_caller_identity())

    def make_by_hand(self) -> set[str]:
        """An instance, a volume on a node, an interface with an address, a group: all untagged. Returns their ids."""
        things = {item.kind: item.id for item in sweep(self.account, STACK).left}
        node = self.ec2.describe_instances(InstanceIds=[things["instance"]])["Reservations"][0]["Instances"][0]
        subnet = things["subnet"]
        made = self.ec2.run_instances(
            ImageId=node["ImageId"], InstanceType="t3.micro", MinCount=1, MaxCount=1, SubnetId=subnet
        )
        volume = self.ec2.create_volume(AvailabilityZone=node["Placement"]["AvailabilityZone"], Size=50)["VolumeId"]
        self.ec2.attach_volume(VolumeId=volume, InstanceId=things["instance"], Device="/dev/sdg")
        interface = self.ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
        address = self.ec2.allocate_address(Domain="vpc")["AllocationId"]
        self.ec2.associate_address(AllocationId=address, NetworkInterfaceId=interface)
        group = self.ec2.create_security_group(GroupName="hand", Description="by hand", VpcId=things["vpc"])["GroupId"]
        return {made["Instances"][0]["InstanceId"], volume, interface, address, group}

    def calls(self) -> list[tuple[datetime, str, str]]:
        """Time, action and caller of every request so far."""
        control.status(NAME, root=self.folder)  # which writes down what is still in memory
        (log,) = self.folder.rglob("calls.jsonl")
        rows = map(json.loads, log.read_text().splitlines())
        return [(datetime.fromisoformat(row["time"]), row["action"], row["by"]) for row in rows]

    def meter(self, since: datetime) -> float:
        """Dollars of what was made since then: a node with its volume and address from RunInstances to the first
        TerminateInstances, the file system from its creation to its deletion."""
        each = {"RunInstances": 4.6016 + 150 * 0.08 / 730 + 0.005, "CreateFileSystem": 1200 * 0.14 / 730}
        ends = {"RunInstances": "TerminateInstances", "CreateFileSystem": "DeleteFileSystem"}
        calls = [(time, action) for time, action, _ in self.calls() if time >= since]
        usd = 0.0
        for made, action in calls:
            if action in each:
                end = min(time for time, other in calls if other == ends[action])
                usd += each[action] * (end - made).total_seconds() / 3600
        return usd

    def left(self) -> set[str]:
        """Ids of all that is left of any lab; everything was looked at."""
        found = sweep(self.account)
        assert found.not_looked_at == {}
        return {item.id for item in found.left}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("rehearsal")
    templates = folder / "templates"
    context = json.loads((ROOT / "cdk.json").read_text())["context"] | {"ttl_hours": str(TTL_HOURS)}
    subprocess.run(
        [sys.executable, "-c", "import app, sys; app.LABS = {3: app.LABS[3]}; sys.exit(app.main())"],
        cwd=ROOT,
        env=os.environ
        | {"CDK_OUTDIR": str(templates), "CDK_CONTEXT_JSON": json.dumps(context), "CDK_VALIDATION": "false"},
        check=True,
    )
    control.start(NAME, root=folder)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in control.environment(NAME, root=folder).items():
            patch.setenv(key, value)
        patch.setattr(laptop, "ROOT", folder)
        made = Rehearsal(folder, templates)
        made.deploy("GuardStack")
        yield made
    control.stop(NAME, root=folder)


def test_the_deployed_guard_ends_a_lab_past_its_deadline_and_all_made_by_hand_in_it(rehearsal: Rehearsal) -> None:
    rehearsal.deploy(STACK)
    made = rehearsal.make_by_hand()
    assert made <= rehearsal.left()
    left = read_deadline(rehearsal.account, STACK).left / timedelta(hours=1)  # what was made took its time
    rehearsal.advance(left - 0.1)
    assert made <= rehearsal.left(), "nothing goes before the deadline"
    rehearsal.advance(0.5)
    assert rehearsal.left() == set()
    assert sweep(rehearsal.account).clean
    assert "GuardStack" in {item.id for item in sweep(rehearsal.account).standing}


def test_the_second_life_is_guarded_like_the_first_and_can_be_extended(rehearsal: Rehearsal) -> None:
    rehearsal.deploy(STACK)
    assert read_deadline(rehearsal.account, STACK).by == "ttl"
    assert extend_deadline(rehearsal.account, STACK, 0.25).by == "extended"
    rehearsal.advance(TTL_HOURS + 0.1)
    assert STACK in rehearsal.left()
    rehearsal.advance(0.5)
    assert rehearsal.left() == set()


def test_a_teardown_ends_it_from_here_with_a_clean_receipt(rehearsal: Rehearsal) -> None:
    rehearsal.deploy(STACK)
    made = rehearsal.make_by_hand()
    receipt = teardown(rehearsal.account, STACK)
    assert made <= {item.id for item in receipt.created}
    assert receipt.exit_code == 0, receipt.as_json()
    assert rehearsal.left() == set()


def test_a_stack_that_failed_to_delete_is_brought_to_an_end(rehearsal: Rehearsal) -> None:
    rehearsal.deploy(STACK)
    rehearsal.make_by_hand()
    rehearsal.cloudformation.delete_stack(StackName=STACK)  # `cdk destroy`: the subnet is still in use

    with pytest.raises(WaiterError, match="DELETE_FAILED"):
        rehearsal.cloudformation.get_waiter("stack_delete_complete").wait(
            StackName=STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 500}
        )
    said: list[str] = []
    receipt = teardown(rehearsal.account, STACK, progress=lambda made, elapsed: said.extend(made.did))
    assert any(line.startswith(f"delete stack {STACK} again (") for line in said)
    assert receipt.exit_code == 0, receipt.as_json()
    assert rehearsal.left() == set()


def test_a_life_that_the_guard_ends_costs_what_was_estimated_and_what_a_meter_counts(rehearsal: Rehearsal) -> None:
    since = rehearsal.account.now()
    rehearsal.deploy(STACK)
    extend_deadline(rehearsal.account, STACK, 4)
    frozen = frozen_cost(rehearsal.account, STACK)
    rehearsal.advance(TTL_HOURS + 4.5)
    assert rehearsal.left() == set()
    metered = rehearsal.meter(since)
    receipt = teardown(rehearsal.account, STACK, frozen=frozen)
    assert receipt.created == ()
    assert receipt.actual_usd == pytest.approx(metered, rel=0.05)
    assert receipt.estimate_usd == pytest.approx(metered, rel=0.05)
    assert receipt.estimate_usd == pytest.approx(cost_of(LABS[3]).usd(TTL_HOURS + 4), rel=0.01)


def test_a_life_that_is_torn_down_costs_what_a_meter_counts(rehearsal: Rehearsal) -> None:
    since = rehearsal.account.now()
    rehearsal.deploy(STACK)
    extend_deadline(rehearsal.account, STACK, 4)
    frozen = frozen_cost(rehearsal.account, STACK)
    rehearsal.advance(1.5)
    receipt = teardown(rehearsal.account, STACK, frozen=frozen)
    assert receipt.actual_usd == pytest.approx(rehearsal.meter(since), rel=0.05)
    assert receipt.exit_code == 0


def test_no_deploy_has_a_billable_moment_without_a_guard(rehearsal: Rehearsal) -> None:
    """The stack, whose tag the guard reads, is there before the first thing that bills; so is the schedule."""
    scheduler = rehearsal.account.client("scheduler")
    (schedule,) = scheduler.list_schedules()["Schedules"]
    assert schedule["State"] == "ENABLED"
    for _ in range(2):
        rehearsal.deploy(STACK)
        born = rehearsal.cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["CreationTime"]
        bills = ("RunInstances", "CreateFileSystem")
        billed = [time for time, action, _ in rehearsal.calls() if action in bills and time >= born]
        assert schedule["CreationDate"] < born <= min(billed)
        assert read_deadline(rehearsal.account, STACK).by == "ttl"
        rehearsal.advance(TTL_HOURS + 0.5)
        assert rehearsal.left() == set()
