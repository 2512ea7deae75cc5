"""The engine by CloudFormation's API: create, update, roll back, delete, and what is refused."""

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from botocore.exceptions import ClientError

from rehearsal import resources
from rehearsal.engine import NO_CHANGES
from tests.rehearsal.engine_server import Account, refusal, serve
from tests.rehearsal.things import Thing, thing

# moto warns of each error code that a service's model does not list; CloudFormation's ValidationError is one.
pytestmark = pytest.mark.filterwarnings("ignore:Exception.* does not match an error shape")


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with serve() as account:
        yield account


@pytest.fixture
def things(monkeypatch: pytest.MonkeyPatch) -> Thing:
    handler = Thing()
    monkeypatch.setitem(resources.HANDLERS, handler.type, handler)
    return handler


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str("S" + request.node.name.removeprefix("test_").replace("_", "-").split("[")[0][:30])


def test_a_stack_is_made_in_order_and_told_event_by_event(account, things, name) -> None:
    stack = account.create(
        name,
        {"Last": thing(Value={"Fn::GetAtt": ["First", "Arn"]}), "First": thing(Value="x")},
        Outputs={"Ref": {"Value": {"Ref": "First"}, "Description": "d"}},
        Tags=[{"Key": "owner", "Value": "ada"}],
    )
    first, last = things.standing
    assert (stack["StackStatus"], stack["Outputs"]) == (
        "CREATE_COMPLETE", [{"OutputKey": "Ref", "OutputValue": first, "Description": "d"}])  # fmt: skip
    assert first.startswith(f"{name}-First-")
    assert things.standing[last]["Value"] == f"arn:aws:some:us-east-1:123456789012:{first}"
    assert things.standing[first]["Tags"] == [{"Key": "owner", "Value": "ada"}]
    events = account.events(name)
    assert [(event["LogicalResourceId"], event["ResourceStatus"]) for event in events] == [
        (name, "CREATE_IN_PROGRESS"),
        ("First", "CREATE_IN_PROGRESS"),
        ("First", "CREATE_IN_PROGRESS"),
        ("First", "CREATE_COMPLETE"),
        ("Last", "CREATE_IN_PROGRESS"),
        ("Last", "CREATE_IN_PROGRESS"),
        ("Last", "CREATE_COMPLETE"),
        (name, "CREATE_COMPLETE"),
    ]
    times = [event["Timestamp"] for event in events]
    assert all(later > earlier for earlier, later in pairwise(times))
    assert {event["PhysicalResourceId"] for event in (events[0], events[-1])} == {stack["StackId"]}


def test_one_seed_gives_the_same_ids_and_names(things) -> None:
    def names() -> tuple[str, list[str]]:
        things.standing.clear()
        with serve() as account:
            return account.create("Same", {"A": thing(), "B": thing()})["StackId"], list(things.standing)

    first = names()
    assert first == names()
    assert len(set(first[1])) == 2


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"Type": "AWS::EC2::NatGateway"}, "AWS::EC2::NatGateway: this resource type is not rehearsed"),
        (thing(Colour="red"), "Test::Some::Thing: property Colour is not rehearsed"),
        (thing(Value={"Fn::GetAtt": ["Good", "Colour"]}),
         "Test::Some::Thing: attribute Colour (Fn::GetAtt of Good) is not rehearsed"),
        (thing(Kind="impossible"), "out of stock"),
        (thing(Kind="unready"), "Internal failure of the rehearsal: ZeroDivisionError: division by zero"),
        (thing(Value={"Fn::ImportValue": "Nobody:Exports"}), None),
    ],
)  # fmt: skip
def test_what_fails_is_named_and_rolled_back(account, things, name, wrong, reason, request) -> None:
    name = f"{name}-{request.node.callspec.indices['wrong']}"
    stack = account.create(name, {"Good": thing(), "Wrong": {**wrong, "DependsOn": "Good"}})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert things.standing == {}
    if reason is None:
        assert account.reason(name, "ROLLBACK_IN_PROGRESS").startswith("No export named Nobody:Exports found.")
        return
    assert account.told(name, "CREATE_FAILED") == ["Wrong"]
    assert account.reason(name, "CREATE_FAILED") == reason
    assert account.reason(name, "ROLLBACK_IN_PROGRESS") == (
        "The following resource(s) failed to create: [Wrong]. Rollback requested by user.")  # fmt: skip


def test_an_apis_refusal_keeps_its_message_and_code(account, name) -> None:
    account.create(name, {"Subnet": {"Type": "AWS::EC2::Subnet", "Properties": {"VpcId": "vpc-0", "CidrBlock": "::"}}})
    reason = account.reason(name, "CREATE_FAILED")
    assert "Operation: CreateSubnet" in reason
    assert "Error Code: InvalidVpcID.NotFound" in reason
    assert "HandlerErrorCode: NotFound" in reason


def test_an_unknown_nested_property_is_named(account, name) -> None:
    data = {"LaunchTemplateData": {"InstanceTyp": "t3.micro"}}
    account.create(name, {"Template": {"Type": "AWS::EC2::LaunchTemplate", "Properties": data}})
    assert 'Unknown parameter in LaunchTemplateData: "InstanceTyp"' in account.reason(name, "CREATE_FAILED")


@pytest.mark.parametrize(
    ("wish", "status", "left"), [("DELETE", "DELETE_COMPLETE", 0), ("DO_NOTHING", "CREATE_FAILED", 1)]
)
def test_on_failure_decides_what_stays(account, things, name, wish, status, left) -> None:
    made = account.cloudformation.create_stack(
        StackName=f"{name}-{left}",
        TemplateBody=json.dumps({"Resources": {"Good": thing(), "Bad": thing(Kind="impossible", after="Good")}}),
        OnFailure=wish,
    )
    assert account.stack(made["StackId"])["StackStatus"] == status
    assert len(things.standing) == left


def test_an_update_changes_in_place_replaces_adds_and_removes(account, things, name) -> None:
    account.create(
        name,
        {"Placed": thing(Value="1"), "Replaced": thing(Kind="a"), "Removed": thing(), "Left": thing(Value="same"),
         "Follower": thing(Value={"Ref": "Replaced"})},
    )  # fmt: skip
    before = {key: account.physical(name, key) for key in ("Placed", "Replaced", "Removed", "Left", "Follower")}
    stack = account.update(
        name,
        {"Placed": thing(Value="2"), "Replaced": thing(Kind="b"), "Added": thing(), "Left": thing(Value="same"),
         "Follower": thing(Value={"Ref": "Replaced"})},
    )  # fmt: skip
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    after = {key: account.physical(name, key) for key in ("Placed", "Replaced", "Added", "Left", "Follower")}
    assert after["Placed"] == before["Placed"]
    assert things.standing[after["Placed"]]["Value"] == "2"
    assert after["Replaced"] != before["Replaced"]
    assert things.standing[after["Follower"]]["Value"] == after["Replaced"]
    assert set(things.standing) == set(after.values())
    assert sorted(things.deleted) == sorted([before["Replaced"], before["Removed"]])
    assert "Left" not in account.told(name, "UPDATE_IN_PROGRESS")
    cleanup = [event["ResourceStatus"] for event in account.events(name)].index("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    assert all("DELETE" not in event["ResourceStatus"] for event in account.events(name)[:cleanup])


def test_a_failed_update_puts_everything_back(account, things, name) -> None:
    good = {"Placed": thing(Value="1"), "Replaced": thing(Kind="a"), "Removed": thing()}
    account.create(name, good)
    before = dict(things.standing)
    stack = account.update(
        name,
        {"Placed": thing(Value="2"), "Replaced": thing(Kind="b"), "Added": thing(),
         "Bad": thing(Kind="impossible", after=["Placed", "Replaced", "Added"])},
    )  # fmt: skip
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert account.reason(name, "UPDATE_ROLLBACK_IN_PROGRESS") == (
        "The following resource(s) failed to create: [Bad]. ")  # fmt: skip
    assert things.standing == before
    assert account.update(name, {**good, "Placed": thing(Value="3")})["StackStatus"] == "UPDATE_COMPLETE"


def test_an_update_that_fails_half_way_through_a_resource_is_taken_back(account, things, name) -> None:
    account.create(name, {"A": thing(Value="fine")})
    stack = account.update(name, {"A": thing(Value="unacceptable")})
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert [row["Value"] for row in things.standing.values()] == ["fine"]


def test_what_the_rehearsal_does_not_update_is_refused_by_name(account, things, name) -> None:
    account.create(name, {"A": thing(Fixed="1", Value="1")})
    account.update(name, {"A": thing(Fixed="2", Value="2")})
    assert account.reason(name, "UPDATE_FAILED") == "Test::Some::Thing: an update of property Fixed is not rehearsed"
    assert [row["Value"] for row in things.standing.values()] == ["1"]


def test_a_thing_with_a_name_of_its_own_cannot_be_replaced(account, things, name) -> None:
    account.create(name, {"A": thing(Name=f"{name}-own", Kind="a")})
    account.update(name, {"A": thing(Name=f"{name}-own", Kind="b")})
    assert "cannot update a stack when a custom-named resource requires replacing" in account.reason(
        name, "UPDATE_FAILED"
    )
    assert [row["Kind"] for row in things.standing.values()] == ["a"]


def test_changed_parameters_and_tags_reach_what_uses_them(account, things, name) -> None:
    sections = {"Declared": {"P": {"Type": "String"}}}
    resource = {"A": thing(Value={"Ref": "P"})}
    account.create(name, resource, Parameters=[{"ParameterKey": "P", "ParameterValue": "1"}], **sections)
    account.update(name, resource, Parameters=[{"ParameterKey": "P", "ParameterValue": "2"}],
                   Tags=[{"Key": "k", "Value": "v"}], **sections)  # fmt: skip
    (row,) = things.standing.values()
    assert row == {"Value": "2", "Tags": [{"Key": "k", "Value": "v"}]}
    account.cloudformation.update_stack(
        StackName=name, UsePreviousTemplate=True, Parameters=[{"ParameterKey": "P", "UsePreviousValue": True}],
        Tags=[{"Key": "k", "Value": "w"}],
    )  # fmt: skip
    (row,) = things.standing.values()
    assert row == {"Value": "2", "Tags": [{"Key": "k", "Value": "w"}]}


def test_an_update_without_a_change_is_refused(account, things, name) -> None:
    account.create(name, {"A": thing(Value="1")})
    with pytest.raises(ClientError) as error:
        account.update(name, {"A": thing(Value="1")})
    assert refusal(error) == ("ValidationError", "No updates are to be performed.")
    made = account.cloudformation.create_change_set(
        StackName=name, ChangeSetName="none", TemplateBody=json.dumps({"Resources": {"A": thing(Value="1")}})
    )
    described = account.cloudformation.describe_change_set(ChangeSetName=made["Id"])
    assert (described["Status"], described["StatusReason"]) == ("FAILED", NO_CHANGES)
