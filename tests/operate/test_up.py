"""Bringing a lab up: what is tried where, what is taken away, and what a user is told. `cdk` is a stand-in."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labs.catalog import LABS, Lab
from operate import attempts, laptop, up
from operate.bill import Frozen
from operate.check import Check
from operate.deploy import context, is_shortage
from operate.problem import Problem
from operate.reservation import Reservation
from operate.screen import Screen
from operate.stack import Stack
from operate.up import bring_up
from operate.wish import read_wish
from operate.zones import Survey, Zone
from tests.operate.scripted import NOW, Refusal, ScriptedAccount
from tests.operate.up_account import healthy, instances, no_stack, scores

CDK = """\
#!/bin/bash
[ "$1" = --version ] && {{ echo "2.0 (a stand-in for cdk)"; exit; }}
printf '%s\\n' "$*" >>{folder}/calls
run=$(wc -l <{folder}/calls)
cat {folder}/said.$run 2>/dev/null
exit "$(cat {folder}/code.$run 2>/dev/null || echo 0)"
"""
SHORT = (
    'Resource handler returned message: "We currently do not have sufficient g6.12xlarge capacity in the Availability '
    "Zone you requested (us-east-1c). Our system will be working on provisioning additional capacity. You can "
    "currently get g6.12xlarge capacity by not specifying an Availability Zone in your request or choosing us-east-1a. "
    '(Service: Ec2, Status Code: 500, Request ID: 1) (SDK Attempt Count: 1)" (RequestToken: 2, HandlerErrorCode: '
    "GeneralServiceException)"
)
QUOTA = (
    'Resource handler returned message: "You have requested more vCPU capacity than your current vCPU limit of 0 '
    "allows for the instance bucket that the specified instance type belongs to. (Service: Ec2, "
    'Status Code: 400)" (RequestToken: 2, HandlerErrorCode: GeneralServiceException)'
)


class World:
    """An account that the stand-in for cdk deploys into: each run of it has the outcome that the test gave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: list[str] = []
        """Of each run, in order: "up", or the reason of CREATE_FAILED, or "fleet: ERROR" for a fleet without nodes."""
        self.taken_away = 0
        self.deadline = ""
        self.stood: dict[str, Any] | None = None
        """A stack that stands before."""
        more: dict[str, Any] = {
            "cloudformation:DescribeStacks": self.stacks,
            "cloudformation:DescribeStackEvents": self.events,
            "ec2:DescribeInstances": self.nodes,
            "ec2:DescribeFleets": self.fleets,
            "ssm:PutParameter": self.put,
            "ec2:DescribeSubnets": {"Subnets": [{"AvailabilityZone": "us-east-1b"}]},
        }
        self.answers = healthy(**more)
        published = self.answers["ssm:GetParameter"]
        self.answers["ssm:GetParameter"] = lambda params: (
            published(params) if "deadline" not in params["Name"] else self.written()
        )
        self.account = ScriptedAccount(self.answers)

    def will(self, *outcomes: str) -> None:
        self.outcomes = list(outcomes)
        for run, outcome in enumerate(outcomes, 1):
            (self.folder / f"code.{run}").write_text("0" if outcome == "up" or outcome.startswith("fleet") else "1")

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def outcome(self) -> str:
        return self.outcomes[len(self.calls) - 1]

    def stacks(self, params: dict[str, Any]) -> Any:
        name = params["StackName"]
        standing = self.stood if name.startswith("Lab") and not self.calls else None
        if name.startswith("Lab") and len(self.calls) > self.taken_away:
            good = self.outcome == "up" or self.outcome.startswith("fleet")
            words = self.calls[-1]
            capacity = "spot" if self.outcome.startswith("fleet") else "on-demand"
            outputs = {"Nodes": "2" if "Lab3Stack" in words else "1", "InstanceType": "g6.12xlarge",
                       "Capacity": capacity} | ({"FleetId": "fleet-1"} if capacity == "spot" else {})  # fmt: skip
            standing = {"StackStatus": "CREATE_COMPLETE" if good else "ROLLBACK_COMPLETE", "Outputs": outputs}
            standing = (self.stood or {}) | standing
        if standing is None:
            return no_stack(params)
        tags = {"rooflab:owner": "ada", "rooflab:ttl-hours": "4"} | standing.get("Tags", {})
        return {"Stacks": [{
            "StackName": name, "StackId": f"arn:{name}", "CreationTime": NOW - timedelta(minutes=1),
            "StackStatus": standing["StackStatus"],
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            "Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in standing["Outputs"].items()],
        }]}  # fmt: skip

    def events(self, params: dict[str, Any]) -> dict[str, Any]:
        rows = [("Lab", "User Initiated", "arn"), ("Other", "Resource creation cancelled", "i"),
                ("Node0", self.outcome, "i-0")]  # fmt: skip
        return {"StackEvents": [
            {"StackId": "arn", "EventId": str(at), "StackName": "Lab", "Timestamp": NOW - timedelta(seconds=at),
             "LogicalResourceId": name, "PhysicalResourceId": physical, "ResourceStatus": "CREATE_FAILED",
             "ResourceStatusReason": reason}
            for at, (name, reason, physical) in enumerate(rows)
        ]}  # fmt: skip

    def nodes(self, params: dict[str, Any]) -> dict[str, Any]:
        ours = any(row["Name"].startswith("tag:") for row in params.get("Filters", ()))
        if not ours or not self.calls or self.outcome != "up":
            return instances()
        count = 2 if "Lab3Stack" in self.calls[-1] else 1
        return instances(*(
            {"InstanceId": f"i-{index}", "InstanceType": "g6.12xlarge", "State": {"Name": "running"}}
            for index in range(count)
        ))  # fmt: skip

    def fleets(self, params: dict[str, Any]) -> dict[str, Any]:
        said = self.outcome.removeprefix("fleet: ")
        return {"Fleets": [{"FleetId": "fleet-1", "Errors": [{"ErrorCode": said, "ErrorMessage": "so it is"}]}]}

    def put(self, params: dict[str, Any]) -> dict[str, Any]:
        self.deadline = params["Value"]
        return {"Version": 1}

    def written(self) -> Any:
        if not self.deadline:
            return Refusal("ParameterNotFound")
        return {"Parameter": {"Name": "deadline", "Value": self.deadline, "LastModifiedDate": NOW}}

    def zones(self) -> list[str]:
        """What each run of cdk was told of where and on what."""
        told = []
        for call in self.calls:
            given = dict(word.partition("=")[::2] for word in call.split() if "=" in word)
            told.append(" ".join(filter(None, (given.get("zone"), given.get("instance_type"), given.get("capacity")))))
        return told

    def up(self, lab: Lab, *, json: bool = False, **flags: Any) -> None:
        usual = {"context": "", "owner": "", "spend": "", "notify": "", "fallback": "", "force": False}
        wish = read_wish(lab, **{**usual, **flags})
        bring_up(self.account, wish, Screen(json=json), json=json)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cdk").write_text(CDK.format(folder=folder))
    (folder / "cdk").chmod(0o755)
    made = World(folder)

    def teardown(account: object, stack: str, **_: object) -> SimpleNamespace:
        made.taken_away = len(made.calls)
        made.stood = None
        return SimpleNamespace(exit_code=0, sweep=SimpleNamespace(left=()))

    frozen = {"usd_per_hour": 10.0, "things": [], "created": NOW.isoformat()}
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(laptop, "ROOT", tmp_path)
    monkeypatch.setattr(up, "teardown", teardown)
    monkeypatch.setattr(up, "frozen_cost", lambda account, stack: frozen)
    monkeypatch.setattr("operate.preflight.check_tools", lambda lab: [Check(name="tools", verdict="pass", seen="all")])
    return made


ON_DEMAND = LABS[3].override(storage="none")
SPOT = LABS[4].override(storage="none")


def test_it_deploys_into_the_best_zone_and_says_at_what_price(world, capsys) -> None:
    world.will("up")
    world.up(ON_DEMAND)
    said = capsys.readouterr().out
    assert world.calls == [
        f"deploy Lab3Stack --require-approval never --no-notices --progress events --output "
        f"{laptop.ROOT}/.rooflab/Lab3Stack/cdk.out --context storage=none --context zone=us-east-1c --context owner=ada"
    ]
    assert "Lab3Stack: 2 × g6.12xlarge, on-demand, in us-east-1c; $9.25/h, $36.98 for 4 h" in said
    assert "Lab3Stack is up in us-east-1c: 2 × g6.12xlarge, on-demand" in said
    assert "fab teardown --lab 3 ends it" in said
    assert world.taken_away == 0


def test_on_a_shortage_all_is_taken_away_and_the_zone_that_ec2_names_is_next(world, capsys) -> None:
    world.will(SHORT, "up")
    world.up(ON_DEMAND)
    assert world.zones() == ["us-east-1c", "us-east-1a"]
    assert world.taken_away == 1
    said = capsys.readouterr().out
    assert "Node0: We currently do not have sufficient g6.12xlarge capacity" in said
    assert "RequestToken" not in said
    assert "HandlerErrorCode" not in said


def test_a_fleet_that_comes_up_short_is_taken_away_with_its_own_words(world) -> None:
    world.will(*["fleet: InsufficientInstanceCapacity"] * 3)
    with pytest.raises(Problem) as problem:
        world.up(SPOT)
    assert str(problem.value) == (
        "Lab4Stack did not come up: no capacity in 3 tries, and nothing is left of it: try again later, or another "
        "-c instance_type= or AWS_REGION, or --fallback on-demand"
    )
    assert world.taken_away == 3


def test_with_a_fallback_every_type_is_tried_on_demand_after_spot(world) -> None:
    world.will(*["fleet: UnfulfillableCapacity"] * 3, *[SHORT] * 3, "up")
    world.up(SPOT, fallback="on-demand")
    assert world.zones() == [
        "us-east-1c", "us-east-1b", "us-east-1a", "us-east-1c on-demand", "us-east-1a on-demand",
        "us-east-1b on-demand", "us-east-1c g6.12xlarge on-demand",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "named"), [(QUOTA, "your current vCPU limit of 0"), ("not a valid AMI", "not a valid AMI")]
)
def test_what_is_no_shortage_is_not_tried_elsewhere(world, reason, named) -> None:
    world.will(reason)
    with pytest.raises(Problem, match=named) as problem:
        world.up(ON_DEMAND)
    assert len(world.calls) == 1
    assert world.taken_away == 1
    assert ("fab preflight --lab 3 names the quota" in str(problem.value)) == (reason is QUOTA)


def test_a_spot_quota_is_no_shortage(world) -> None:
    world.will("fleet: MaxSpotInstanceCountExceeded")
    with pytest.raises(Problem, match="fab preflight --lab 4 names the quota and the request"):
        world.up(SPOT)
    assert len(world.calls) == 1


def test_an_app_that_does_not_synthesise_is_told_in_its_own_words(world) -> None:
    world.will("irrelevant")
    (world.folder / "said.1").write_text("nodes='x' is not a number\npython3 app.py: Subprocess exited with error 1\n")
    world.answers["cloudformation:DescribeStacks"] = no_stack
    world.account.answers["cloudformation:DescribeStacks"] = no_stack
    world.account.answers["cloudformation:DescribeStackEvents"] = no_stack
    with pytest.raises(Problem, match=r"cdk deploy ended with 1: nodes='x' is not a number; see .*deploy\.log"):
        world.up(ON_DEMAND)
    assert world.taken_away == 0


def test_a_preflight_that_fails_stops_it_and_force_goes_on(world) -> None:
    world.will("up")
    world.account.answers["ec2:DescribeInstanceTypeOfferings"] = {"InstanceTypeOfferings": []}
    with pytest.raises(Problem) as problem:
        world.up(ON_DEMAND)
    assert str(problem.value) == (
        "Lab3Stack would not come up: zones, no zone of us-east-1 offers g6.12xlarge: export AWS_REGION=us-east-2, for "
        "example, or write another instance_type"
    )
    assert world.calls == []
    world.up(ON_DEMAND, force=True)
    assert len(world.calls) == 1


def test_anothers_stack_is_refused_before_anything_else(world) -> None:
    world.stood = {"StackStatus": "CREATE_COMPLETE", "Outputs": {}, "Tags": {"rooflab:owner": "grace"}}
    with pytest.raises(Problem) as problem:
        world.up(ON_DEMAND, force=True)
    assert str(problem.value) == (
        "Lab3Stack is grace's, and you are ada: deploy your own beside it: fab up --lab 3 --name ada (Lab3Stack-ada)"
    )
    world.will("up")
    world.up(ON_DEMAND, owner="grace")


def test_what_stands_keeps_its_zone_and_what_it_was_deployed_as(world) -> None:
    outputs = {"Nodes": "2", "InstanceType": "g5.12xlarge", "Capacity": "on-demand", "VpcId": "vpc-1"}
    world.stood = {"StackStatus": "CREATE_COMPLETE", "Outputs": outputs, "Tags": {"rooflab:ttl-hours": "9"}}
    world.will("up")
    world.up(ON_DEMAND)
    assert world.zones() == ["us-east-1b g5.12xlarge"]
    assert "ttl_hours=9" in world.calls[0]


def test_what_stands_is_never_taken_away_because_a_change_failed(world) -> None:
    world.stood = {"StackStatus": "CREATE_COMPLETE", "Outputs": {"VpcId": "vpc-1"}}
    world.will(SHORT)
    with pytest.raises(Problem, match="what stood before is kept: fab nodes --lab 3"):
        world.up(ON_DEMAND)
    assert (world.taken_away, len(world.calls)) == (0, 1)


def test_a_spot_lab_whose_nodes_are_gone_is_told_to_begin_anew(world) -> None:
    world.stood = {"StackStatus": "CREATE_COMPLETE", "Outputs": {"VpcId": "vpc-1", "Capacity": "spot"}}
    world.will("fleet: InsufficientInstanceCapacity")
    with pytest.raises(
        Problem, match="nodes that are lost do not come back: fab teardown --lab 4, then fab up --lab 4"
    ):
        world.up(SPOT)
    assert world.taken_away == 0


def test_a_stack_that_failed_before_is_taken_away_first(world, capsys) -> None:
    world.stood = {"StackStatus": "ROLLBACK_COMPLETE", "Outputs": {}}
    world.will("up")
    world.up(ON_DEMAND)
    assert "Lab3Stack is ROLLBACK_COMPLETE: taking it away first" in capsys.readouterr().out
    assert world.zones() == ["us-east-1c"]


def test_a_budget_becomes_the_deadline_by_the_frozen_price(world, monkeypatch) -> None:
    planned: list[float] = []

    def replanned(_account: object, stack: Stack, frozen: Frozen, end: datetime) -> Frozen:
        planned.append((end - stack.created).total_seconds() / 3600)
        return frozen

    monkeypatch.setattr(up, "replanned", replanned)
    world.will("up")
    world.up(ON_DEMAND, spend="25")
    assert world.deadline == (NOW - timedelta(minutes=1) + timedelta(hours=2.5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert planned == [2.5], "the receipt compares with the budget, not with the time to live"


def test_a_budget_beyond_the_time_to_live_moves_nothing(world, capsys) -> None:
    world.will("up")
    world.up(ON_DEMAND, spend="100")
    assert world.deadline == ""
    assert "$100.00 would last until 2026-11-20 21:59 UTC; fab extend moves the end" in capsys.readouterr().out


def test_json_is_one_document_also_where_it_fails(world, capsys) -> None:
    world.will("up")
    world.up(ON_DEMAND, json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["up"], told["zone"], told["nodes"], told["usd_per_hour"]) == (True, "us-east-1c", 2, 10.0)
    assert [one["outcome"] for one in told["attempts"]] == ["up"]
    (world.folder / "calls").unlink()
    world.will(QUOTA)
    with pytest.raises(Problem):
        world.up(ON_DEMAND, json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["up"], told["attempts"][0]["outcome"]) == (False, "failed")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"spend": "1"},
            "a budget of $1.00 buys 6 min of Lab3Stack at $9.25/h: write at least --budget 2.32, for 15 min",
        ),
        ({"spend": "0"}, "budget=0 is not allowed: write the dollars that the lab may cost, for example --budget 25"),
        ({"spend": "much"}, "budget='much' is not a number: write for example --budget 30"),
        ({"fallback": "spot"}, "fallback='spot' is not allowed: write --fallback on-demand, or leave it out"),
        ({"fallback": "on-demand"}, "fallback='on-demand' is not allowed with capacity=on-demand: leave it out"),
        ({"notify": "me"}, "notify='me' is no mail address: write --notify me@example.org"),
        (
            {"spend": "9", "context": "instance_type=p5e.48xlarge"},
            "what Lab3Stack costs is not known, so no budget can be kept: leave --budget out; fab cost --lab 3 says "
            "why; it ends after 4 h",
        ),
    ],
)
def test_flags_are_checked_before_any_account_is_asked(world, flags, message) -> None:
    with pytest.raises((ValueError, Problem)) as refused:
        world.up(ON_DEMAND, **flags)
    assert str(refused.value) == message
    assert world.account.asked == []


def test_everything_the_user_asked_for_reaches_cdk(world) -> None:
    world.will("up")
    world.up(ON_DEMAND.override(name="ada"), context="nodes=1,ttl_hours=2.5", notify="ada@example.org")
    for given in ("nodes=1", "ttl_hours=2.5", "name=ada", "storage=none", "notify=ada@example.org", "owner=ada"):
        assert f"--context {given}" in world.calls[0]


def test_only_what_differs_from_the_catalogue_is_context() -> None:
    assert context(LABS[3]) == {}
    assert context(LABS[4].override(capacity="on-demand")) == {"capacity": "on-demand", "alternatives": ""}


def test_a_reservation_fixes_zone_and_group() -> None:
    found = Reservation(id="cr-1", instance_type="p5.48xlarge", zone="us-east-1f", state="active", free=2, total=2,
                        block=False, starts=None, ends=None, group="near")  # fmt: skip
    lab = LABS[3].override(instance_type="p5.48xlarge", capacity="reservation:cr-1")
    survey = Survey(zones=(Zone(name="us-east-1a", id="", types=lab.types),), without=())
    assert attempts.plan(lab, survey, found, fallback=False) == [replace(lab, zone="us-east-1f", group="near")]
    block = replace(found, block=True)
    held = lab.override(capacity="block:cr-1")
    assert [one.group for one in attempts.plan(held, survey, block, fallback=False)] == [""]


def test_a_zone_that_was_given_wins(world) -> None:
    world.account.answers["ec2:GetSpotPlacementScores"] = scores(a=1, b=9, c=9)
    world.will("up")
    world.up(ON_DEMAND, context="zone=us-east-1a")
    assert world.zones() == ["us-east-1a"]


def test_a_region_whose_zones_are_not_known_leaves_the_choice_to_the_stack() -> None:
    assert [one.zone for one in attempts.plan(LABS[3], None, None, fallback=False)] == [""]


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        (SHORT, True),
        ("InsufficientInstanceCapacity: There is no Spot capacity available that matches your request.", True),
        ("Your requested instance type (g6.xlarge) is not supported in your requested Availability Zone (us-east-1e).",
         True),
        ("UnfulfillableCapacity: Unable to fulfill capacity due to your request configuration.", True),
        (QUOTA, False),
        ("MaxSpotInstanceCountExceeded: Max spot instance count exceeded", False),
        ("ReservationCapacityExceeded: The requested reservation does not have sufficient compatible and available "
         "capacity for this request.", True),
        ("API: ec2:RunInstances Not authorized for images", False),
    ],
)  # fmt: skip
def test_what_counts_as_a_shortage(reason, short) -> None:
    assert is_shortage(reason) is short


def test_ctrl_c_ends_cdk_and_says_what_stands(world, tmp_path) -> None:
    """In a process of its own, for a signal goes to a process."""
    program = tmp_path / "run.py"
    program.write_text(_INTERRUPTED.format(root=tmp_path, tests=Path(__file__).parents[2]))
    event = "GuardStack | 0/1 | 1:00:00 AM | CREATE_IN_PROGRESS | AWS::CloudFormation::Stack | GuardStack"
    (world.folder / "cdk").write_text(f"#!/bin/bash\necho $$ >{world.folder}/pid\necho '{event}'\nexec sleep 600\n")
    process = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "deploying GuardStack\n":
            break
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == 130
    assert (
        "problem: interrupted: Lab3Stack stands (CREATE_IN_PROGRESS), CloudFormation goes on with it, and it may bill: "
        "fab teardown --lab 3 takes it away, fab up goes on; else the guard ends it 4 h after 11:59 UTC" in said
    )
    alive = subprocess.run(["kill", "-0", (world.folder / "pid").read_text().strip()], capture_output=True, check=False)
    assert alive.returncode != 0, "cdk outlived us"


_INTERRUPTED = """
import sys
from pathlib import Path
sys.path.insert(0, "{tests}")
from datetime import datetime, timedelta
from labs.catalog import LABS
from operate import laptop
from operate.bill import Frozen
from operate.check import Check
from operate.problem import Problem
from operate.screen import Screen
from operate.stack import Stack
from operate.up import bring_up
from operate.verb import fail
from operate.wish import read_wish
from tests.operate.scripted import NOW, ScriptedAccount
from tests.operate.up_account import healthy, no_stack
import operate.preflight
operate.preflight.check_tools = lambda lab: [Check(name="tools", verdict="pass", seen="all")]
laptop.ROOT = Path("{root}")
def stacks(params):
    if not Path("{root}/bin/pid").exists() or params["StackName"] != "Lab3Stack":
        return no_stack(params)
    return {{"Stacks": [{{"StackName": "Lab3Stack", "StackId": "arn", "StackStatus": "CREATE_IN_PROGRESS",
             "CreationTime": NOW - timedelta(minutes=1)}}]}}
account = ScriptedAccount(healthy(**{{"cloudformation:DescribeStacks": stacks}}))
wish = read_wish(LABS[3], context="", owner="", spend="", notify="", fallback="", force=False)
print("ready", flush=True)
sys.stdout.reconfigure(line_buffering=True)
try:
    bring_up(account, wish, Screen(), json=False)
except Problem as problem:
    fail(problem)
"""
