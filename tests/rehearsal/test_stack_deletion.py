"""The end of a stack: order, what is kept, what cannot be deleted, exports in use."""

from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from rehearsal import resources
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


def test_deletion_goes_backwards_and_keeps_what_is_to_be_kept(account, things, name) -> None:
    account.create(
        name, {"C": thing(after="B"), "A": thing(), "B": thing(after="A"), "K": thing(DeletionPolicy="Retain")}
    )
    ids = {key: account.physical(name, key) for key in "ABCK"}
    assert account.delete(name)["StackStatus"] == "DELETE_COMPLETE"
    assert things.deleted == [ids["C"], ids["B"], ids["A"]]
    assert list(things.standing) == [ids["K"]]
    assert account.told(account.cloudformation.list_stacks()["StackSummaries"][0]["StackId"], "DELETE_SKIPPED") == ["K"]
    with pytest.raises(ClientError) as error:
        account.stack(name)
    assert refusal(error) == ("ValidationError", f"Stack with id {name} does not exist")


def test_a_replaced_thing_stays_where_its_policy_says_so(account, things, name) -> None:
    account.create(name, {"A": thing(Kind="a", UpdateReplacePolicy="Retain")})
    account.update(name, {"A": thing(Kind="b", UpdateReplacePolicy="Retain")})
    assert [row["Kind"] for row in things.standing.values()] == ["a", "b"]


def test_what_cannot_be_deleted_keeps_the_stack_and_what_it_needs(account, things, name) -> None:
    account.create(name, {"Base": thing(), "Stuck": thing(Kind="stuck", after="Base"), "Free": thing()})
    things.undeletable.add("stuck")
    stack = account.delete(name)
    assert (stack["StackStatus"], stack["StackStatusReason"]) == (
        "DELETE_FAILED", "The following resource(s) failed to delete: [Stuck, Base]. ")  # fmt: skip
    assert account.reason(name, "DELETE_FAILED").startswith("The following resource(s)")
    assert len(things.standing) == 2
    with pytest.raises(ClientError) as error:
        account.update(name, {"Base": thing()})
    assert refusal(error) == (
        "ValidationError",
        f"Stack:{stack['StackId']} is in DELETE_FAILED state and can not be updated.",
    )
    assert account.delete(name, RetainResources=["Stuck"])["StackStatus"] == "DELETE_COMPLETE"
    assert [row.get("Kind") for row in things.standing.values()] == ["stuck"]


def test_force_leaves_behind_what_cannot_be_deleted(account, things, name) -> None:
    account.create(name, {"Stuck": thing(Kind="stuck")})
    things.undeletable.add("stuck")
    account.delete(name)
    assert account.delete(name, DeletionMode="FORCE_DELETE_STACK")["StackStatus"] == "DELETE_COMPLETE"
    assert len(things.standing) == 1


def test_a_deletion_overtakes_a_creation(account, things, name, monkeypatch) -> None:
    monkeypatch.setattr("rehearsal.engine.HOLD_S", 0.0)
    account.create(name, {"Slow": thing(Kind="slow"), "Never": thing(after="Slow")})
    assert things.started.wait(100)
    account.cloudformation.delete_stack(StackName=name)
    stack = account.engine.region("123456789012", "us-east-1").stacks[-1]
    stack.operation.join(100)
    assert stack.status == "DELETE_COMPLETE"
    assert things.standing == {}
    assert account.told(stack.id, "CREATE_FAILED") == ["Slow"]


def test_an_export_in_use_protects_its_stack(account, things, name) -> None:
    export = {"Value": {"Ref": "A"}, "Export": {"Name": f"{name}:A"}}
    maker, user = f"{name}-maker", f"{name}-user"
    account.create(maker, {"A": thing(Kind="a")}, Outputs={"A": export})
    account.create(user, {"B": thing(Value={"Fn::ImportValue": f"{name}:A"})})
    assert things.standing[account.physical(user, "B")]["Value"] == account.outputs(maker)["A"]
    assert account.cloudformation.list_imports(ExportName=f"{name}:A")["Imports"] == [user]
    with pytest.raises(ClientError) as error:
        account.delete(maker)
    assert refusal(error) == (
        "ValidationError", f"Delete canceled. Cannot delete export {name}:A as it is in use by {user}.")  # fmt: skip
    account.update(maker, {"A": thing(Kind="a")})
    assert account.reason(maker, "UPDATE_ROLLBACK_IN_PROGRESS") == (
        f"Export {name}:A cannot be deleted as it is in use by {user}.")  # fmt: skip
    account.update(maker, {"A": thing(Kind="b")}, Outputs={"A": export})
    assert account.reason(maker, "UPDATE_ROLLBACK_IN_PROGRESS") == (
        f"Cannot update export {name}:A as it is in use by {user}.")  # fmt: skip
    assert account.stack(maker)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    taken = account.create(f"{name}-thief", {"C": thing()}, Outputs={"A": {**export, "Value": "x"}})
    assert taken["StackStatus"] == "ROLLBACK_COMPLETE"
    assert account.delete(user)["StackStatus"] == "DELETE_COMPLETE"
    assert account.delete(maker)["StackStatus"] == "DELETE_COMPLETE"


def test_a_protected_stack_stays(account, things, name) -> None:
    account.create(name, {"A": thing()}, EnableTerminationProtection=True)
    with pytest.raises(ClientError) as error:
        account.delete(name)
    assert refusal(error)[1] == f"Stack [{name}] cannot be deleted while TerminationProtection is enabled"
    account.cloudformation.update_termination_protection(StackName=name, EnableTerminationProtection=False)
    assert account.delete(name)["StackStatus"] == "DELETE_COMPLETE"
