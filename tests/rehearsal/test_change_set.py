"""Change sets, as the CDK CLI uses them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.rehearsal.engine_server import Account, refusal, serve

# moto warns of each error code that a service's model does not list; CloudFormation's ValidationError is one.
pytestmark = pytest.mark.filterwarnings("ignore:Exception.* does not match an error shape")


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with serve() as account:
        yield account


def body(**resources: Any) -> str:
    return json.dumps({"Resources": resources})


def topic(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::SNS::Topic", "Properties": properties}


def test_a_stack_begins_in_review_and_is_made_by_executing(account: Account) -> None:
    cfn = account.cloudformation
    made = cfn.create_change_set(
        StackName="New", ChangeSetName="c", ChangeSetType="CREATE", TemplateBody=body(A=topic())
    )
    assert account.stack("New")["StackStatus"] == "REVIEW_IN_PROGRESS"
    described = cfn.describe_change_set(StackName="New", ChangeSetName="c")
    assert (described["Status"], described["ExecutionStatus"]) == ("CREATE_COMPLETE", "AVAILABLE")
    assert [change["ResourceChange"]["Action"] for change in described["Changes"]] == ["Add"]
    cfn.execute_change_set(ChangeSetName=made["Id"])
    assert account.stack("New")["StackStatus"] == "CREATE_COMPLETE"
    assert cfn.get_template(StackName="New")["TemplateBody"] == json.loads(body(A=topic()))
    with pytest.raises(ClientError) as error:
        cfn.execute_change_set(ChangeSetName=made["Id"])
    assert refusal(error)[0] == "InvalidChangeSetStatus"


def test_a_dead_namesakes_change_set_is_not_found_by_name(account: Account) -> None:
    cfn = account.cloudformation
    for _ in range(2):
        cfn.create_change_set(
            StackName="Twice", ChangeSetName="c", ChangeSetType="CREATE", TemplateBody=body(A=topic())
        )
        described = cfn.describe_change_set(StackName="Twice", ChangeSetName="c")
        assert described["ExecutionStatus"] == "AVAILABLE"
        cfn.execute_change_set(StackName="Twice", ChangeSetName="c")
        assert account.stack("Twice")["StackStatus"] == "CREATE_COMPLETE"
        cfn.delete_stack(StackName="Twice")


def test_changes_say_what_would_be_replaced(account: Account) -> None:
    account.create("Diff", {"A": topic(TopicName="a"), "B": topic(DisplayName="b"), "C": topic()})
    account.cloudformation.create_change_set(
        StackName="Diff",
        ChangeSetName="d",
        TemplateBody=body(A=topic(TopicName="x"), B=topic(DisplayName="y"), D=topic()),
    )
    changes = account.cloudformation.describe_change_set(StackName="Diff", ChangeSetName="d")["Changes"]
    assert {
        (
            c["ResourceChange"]["Action"],
            c["ResourceChange"]["LogicalResourceId"],
            c["ResourceChange"].get("Replacement"),
        )
        for c in changes
    } == {("Modify", "A", "True"), ("Modify", "B", "False"), ("Add", "D", None), ("Remove", "C", None)}


def test_an_operation_is_an_id_and_a_rollback_another(account: Account) -> None:
    account.create("Ops", {"A": topic()})
    account.update("Ops", {"A": topic(), "B": {"Type": "AWS::None::Such"}})
    ids: dict[str, set[str]] = {}
    for event in account.events("Ops"):
        phase = "rollback" if "ROLLBACK" in event["ResourceStatus"] else event["ResourceStatus"].split("_")[0]
        ids.setdefault(phase if event["LogicalResourceId"] == "Ops" else "", set()).add(event["OperationId"])
    assert {len(ids[phase]) for phase in ("CREATE", "UPDATE", "rollback")} == {1}
    assert len(ids["CREATE"] | ids["UPDATE"] | ids["rollback"]) == 3


@pytest.mark.parametrize(
    ("operation", "given", "code", "message"),
    [
        ("describe_stacks", {"StackName": "No"}, "ValidationError", "Stack with id No does not exist"),
        ("describe_stack_events", {"StackName": "No"}, "ValidationError", "Stack [No] does not exist"),
        ("describe_change_set", {"StackName": "No", "ChangeSetName": "c"}, "ChangeSetNotFound",
         "ChangeSet [c] does not exist"),
        ("create_change_set", {"StackName": "No", "ChangeSetName": "c", "ChangeSetType": "UPDATE",
                               "TemplateBody": body(A=topic())}, "ValidationError", "Stack [No] does not exist"),
        ("create_change_set", {"StackName": "No", "ChangeSetName": "c", "ChangeSetType": "IMPORT",
                               "TemplateBody": body(A=topic())}, "NotRehearsed", "change sets of type IMPORT"),
        ("create_stack", {"StackName": "1st", "TemplateBody": body(A=topic())}, "ValidationError",
         "Value '1st' at 'stackName' failed to satisfy constraint"),
        ("create_stack", {"StackName": "S", "TemplateBody": body(A=topic()), "RoleARN": "arn:aws:iam::1:role/no"},
         "ValidationError", "Role arn:aws:iam::1:role/no is invalid or cannot be assumed"),
        ("create_stack", {"StackName": "S", "TemplateURL": "https://x/y"}, "NotRehearsed", "TemplateURL"),
        ("create_stack", {"StackName": "S", "TemplateBody": body(A={"Type": "AWS::IAM::Role"})},
         "InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_IAM]"),
        ("create_stack", {"StackName": "S", "TemplateBody": body(A={"Type": "T", "DependsOn": "B"})}, "ValidationError",
         "Unresolved resource dependencies [B]"),
        ("update_stack", {"StackName": "No", "TemplateBody": body(A=topic())}, "ValidationError",
         "Stack [No] does not exist"),
        ("validate_template", {"TemplateBody": "{}"}, "ValidationError", "At least one Resources member"),
    ],
)  # fmt: skip
def test_a_refusal_has_awss_code_and_text(account: Account, operation, given, code, message) -> None:
    with pytest.raises(ClientError) as error:
        getattr(account.cloudformation, operation)(**given)
    assert refusal(error)[0] == code
    assert message in refusal(error)[1]


def test_nothing_of_a_refused_creation_is_kept(account: Account) -> None:
    before = len(account.cloudformation.list_stacks()["StackSummaries"])
    with pytest.raises(ClientError):
        account.cloudformation.create_change_set(
            StackName="Refused", ChangeSetName="c", ChangeSetType="CREATE", TemplateBody="{}"
        )
    assert len(account.cloudformation.list_stacks()["StackSummaries"]) == before


def test_deleting_what_is_not_there_is_no_error(account: Account) -> None:
    account.cloudformation.delete_change_set(StackName="No", ChangeSetName="c")
    account.cloudformation.delete_stack(StackName="No")


def test_a_failed_creation_takes_no_update_and_is_made_anew_after_deletion(account: Account) -> None:
    account.create("Again", {"A": {"Type": "AWS::None::Such"}})
    assert account.stack("Again")["StackStatus"] == "ROLLBACK_COMPLETE"
    with pytest.raises(ClientError) as error:
        account.cloudformation.create_change_set(StackName="Again", ChangeSetName="c", TemplateBody=body(A=topic()))
    assert refusal(error)[1].endswith("is in ROLLBACK_COMPLETE state and can not be updated.")
    account.delete("Again")
    assert account.create("Again", {"A": topic()})["StackStatus"] == "CREATE_COMPLETE"


def test_a_summary_tells_parameters_and_capabilities(account: Account) -> None:
    text = json.dumps({
        "Parameters": {"P": {"Type": "String", "Default": "x", "NoEcho": True}},
        "Resources": {"R": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": {"Ref": "P"}}}},
    })  # fmt: skip
    summary = account.cloudformation.get_template_summary(TemplateBody=text)
    assert summary["Capabilities"] == ["CAPABILITY_NAMED_IAM"]
    assert summary["ResourceTypes"] == ["AWS::IAM::Role"]
    assert [(p["ParameterKey"], p["DefaultValue"], p["NoEcho"]) for p in summary["Parameters"]] == [("P", "x", True)]
