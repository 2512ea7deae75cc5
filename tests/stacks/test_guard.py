"""GuardStack: what it keeps, what its roles may do, and that its Lambda is the guard of `guard/`."""

import ast
import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import cfnlint
import pytest
from aws_cdk import App
from aws_cdk.assertions import Template

from guard import notice
from guard.inventory import KINDS
from labs import names
from stacks import permissions
from stacks.guard import SOURCES, GuardStack, guard_source
from tests.stacks.synthesis import ROOT, Synthesis, of_type


def statements(template, role: str) -> list[dict]:
    return [
        statement
        for policy in of_type(template, "AWS::IAM::Policy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if any(role in one["Ref"] for one in policy["Properties"]["Roles"])
    ]


def listed(value) -> list:
    return value if isinstance(value, list) else [value]


def allowed(template, role: str, action: str) -> list[dict]:
    return [
        statement
        for statement in statements(template, role)
        if any(fnmatchcase(action, pattern) for pattern in listed(statement["Action"]))
    ]


def api_name(operation: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in operation.split("_"))


def test_the_results_outlive_everything(plain: Synthesis) -> None:
    (bucket,) = of_type(plain.guard, "AWS::S3::Bucket").values()
    assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    made = bucket["Properties"]
    assert all(made["PublicAccessBlockConfiguration"].values())
    assert made["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    (rule,) = made["LifecycleConfiguration"]["Rules"]
    assert (rule["Prefix"], rule["ExpirationInDays"]) == ("results/", 30)
    assert plain.guard["Outputs"][names.Output.RESULTS_BUCKET]["Value"] == {"Ref": "Results25575328"}


def test_the_bucket_refuses_plain_http(plain: Synthesis) -> None:
    (policy,) = of_type(plain.guard, "AWS::S3::BucketPolicy").values()
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_nothing_else_is_kept(plain: Synthesis) -> None:
    for id, resource in plain.guard["Resources"].items():
        kept = resource.get("DeletionPolicy", "Delete").startswith("Retain")
        assert kept == (resource["Type"] == "AWS::S3::Bucket"), id


def test_the_guard_ticks_every_five_minutes_with_the_accounts_time(plain: Synthesis) -> None:
    (schedule,) = of_type(plain.guard, "AWS::Scheduler::Schedule").values()
    made = schedule["Properties"]
    assert made["ScheduleExpression"] == "rate(5 minutes)"
    assert made["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert json.loads(made["Target"]["Input"]) == {"time": "<aws.scheduler.scheduled-time>"}


def test_a_tick_ends_before_the_next_begins(plain: Synthesis) -> None:
    (function,) = of_type(plain.guard, "AWS::Lambda::Function").values()
    assert function["Properties"]["Timeout"] < 300
    assert function["Properties"]["Runtime"] == "python3.12"


def test_the_guards_log_expires_and_goes_with_the_stack(plain: Synthesis) -> None:
    (log,) = of_type(plain.guard, "AWS::Logs::LogGroup").values()
    assert log["Properties"]["RetentionInDays"] == 30
    assert log["DeletionPolicy"] == "Delete"


def test_the_lambda_is_the_text_of_guard(plain: Synthesis) -> None:
    (function,) = of_type(plain.guard, "AWS::Lambda::Function").values()
    text = function["Properties"]["Code"]["ZipFile"]
    assert text == guard_source()
    assert function["Properties"]["Handler"] == "index.handler"
    shipped, meant = (code_of(ast.parse(one)) for one in (text, "\n".join(
        line for name in SOURCES for line in (ROOT / "guard" / name).read_text().splitlines()
        if not line.startswith("from guard.")
    )))  # fmt: skip
    assert shipped == meant
    assert len(text.encode()) < 32_000


def code_of(tree: ast.Module) -> str:
    """What a module does, without what it says of itself."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    return ast.dump(tree)


def test_the_lambdas_text_needs_only_what_lambda_has() -> None:
    tree = ast.parse(guard_source())
    modules = {node.module if isinstance(node, ast.ImportFrom) else alias.name
               for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)
               for alias in node.names}  # fmt: skip
    assert not [module for module in modules if module and module.startswith(("guard", "labs"))]


def test_no_name_of_the_guard_is_defined_twice() -> None:
    """In one file the later definition would silently replace the earlier one."""
    defined = [name for source in SOURCES for name in top_level(ROOT / "guard" / source)]
    assert len(defined) == len(set(defined)), {name for name in defined if defined.count(name) > 1}


def top_level(path: Path) -> list[str]:
    names_: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names_.append(node.name)
        elif isinstance(node, ast.Assign):
            names_ += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return names_


def test_the_lambdas_text_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    space: dict = {"__name__": "index"}
    exec(compile(guard_source(), "index.py", "exec"), space)
    monkeypatch.delenv("AWS_REGION", raising=False)
    with pytest.raises(KeyError, match="AWS_REGION"):  # the first thing that Lambda gives it
        space["handler"]({"time": "2026-01-01T00:00:00Z"}, None)


def test_a_missing_file_of_the_guard_is_named(tmp_path: Path) -> None:
    (tmp_path / "inventory.py").write_text("")
    with pytest.raises(ValueError, match=r"guard/order\.py is missing: the guard is made of inventory\.py, order\.py"):
        guard_source(tmp_path)


def test_a_guard_too_long_for_a_template_is_refused(tmp_path: Path) -> None:
    for name in SOURCES:
        (tmp_path / name).write_text("x = 1\n" * 3000)
    with pytest.raises(ValueError, match=r"guard/ is 90000 bytes long: at most \d+ fit into the template"):
        guard_source(tmp_path)


def test_the_guard_may_look_at_every_kind_and_remove_it(plain: Synthesis) -> None:
    services = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}
    for kind in KINDS:
        service = services.get(kind.service, kind.service)
        rows = api_name(kind.rows.split(".")[-1])
        assert allowed(plain.guard, "GuardRole", f"{service}:Describe{rows}"), rows
        if not kind.remove:
            assert allowed(plain.guard, "GuardRole", f"{service}:Delete{api_name(kind.noun)}"), kind.noun


def test_the_guard_may_make_every_request_that_its_text_names(plain: Synthesis) -> None:
    texts = {node.value for node in ast.walk(ast.parse(guard_source()))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip
    verb = r"(add|cancel|create|delete|deregister|describe|detach|disassociate|release|revoke|tag|terminate)(_[a-z]+)+"
    operations = {text for text in texts if re.fullmatch(verb, text)}
    assert {"terminate_instances", "delete_stack", "delete_parameter"} <= operations
    for operation in operations:
        asked = [
            f"{service}:{api_name(operation)}"
            for service in ("ec2", "cloudformation", "logs", "ssm", "fsx", "elasticloadbalancing")
        ]
        assert any(allowed(plain.guard, "GuardRole", action) for action in asked), operation
    for action in ("ssm:GetParameter", "logs:ListTagsForResource"):
        assert allowed(plain.guard, "GuardRole", action), action


def test_the_guard_may_delete_all_that_a_lab_is_made_of(matrix: Synthesis, plain: Synthesis) -> None:
    """CloudFormation deletes a stack with the permissions of whoever asked: here the guard."""
    needs = {
        "AWS::EC2::VPC": "ec2:DeleteVpc", "AWS::EC2::Subnet": "ec2:DeleteSubnet", "AWS::EC2::EIP": "ec2:ReleaseAddress",
        "AWS::EC2::RouteTable": "ec2:DeleteRouteTable", "AWS::EC2::Route": "ec2:DeleteRoute",
        "AWS::EC2::SubnetRouteTableAssociation": "ec2:DisassociateRouteTable",
        "AWS::EC2::InternetGateway": "ec2:DeleteInternetGateway",
        "AWS::EC2::VPCGatewayAttachment": "ec2:DetachInternetGateway",
        "AWS::EC2::VPCEndpoint": "ec2:DeleteVpcEndpoints", "AWS::EC2::SecurityGroup": "ec2:DeleteSecurityGroup",
        "AWS::EC2::SecurityGroupIngress": "ec2:RevokeSecurityGroupIngress",
        "AWS::EC2::SecurityGroupEgress": "ec2:RevokeSecurityGroupEgress",
        "AWS::EC2::PlacementGroup": "ec2:DeletePlacementGroup", "AWS::EC2::LaunchTemplate": "ec2:DeleteLaunchTemplate",
        "AWS::EC2::Instance": "ec2:TerminateInstances", "AWS::EC2::EC2Fleet": "ec2:DeleteFleets",
        "AWS::EC2::NetworkInterface": "ec2:DeleteNetworkInterface",
        "AWS::EC2::EIPAssociation": "ec2:DisassociateAddress", "AWS::FSx::FileSystem": "fsx:DeleteFileSystem",
        "AWS::FSx::DataRepositoryAssociation": "fsx:DeleteDataRepositoryAssociation",
        "AWS::EC2::InstanceConnectEndpoint": "ec2:DeleteInstanceConnectEndpoint",
        "AWS::EC2::EgressOnlyInternetGateway": "ec2:DeleteEgressOnlyInternetGateway",
        "AWS::EC2::VPCCidrBlock": "ec2:DisassociateVpcCidrBlock",
    }  # fmt: skip
    made = {resource["Type"] for _, template in matrix.labs.values() for resource in template["Resources"].values()}
    assert made <= set(needs)
    for kind, action in needs.items():
        assert allowed(plain.guard, "GuardRole", action), kind


def test_the_guard_removes_only_what_carries_a_labs_tag(plain: Synthesis) -> None:
    for statement in statements(plain.guard, "GuardRole"):
        changing = [action for action in listed(statement["Action"])
                    if not re.match(r"\w+:(Describe|List|Get)|logs:(Create|Put)", action)]  # fmt: skip
        if changing and statement["Resource"] == "*":
            ((operator, condition),) = statement["Condition"].items()
            assert operator == "StringLike"
            assert next(iter(condition)).endswith(f"Tag/{names.TAG_STACK}")
            assert set(condition.values()) == {"Lab?Stack*"}


def test_no_role_has_a_wildcard_that_writes(plain: Synthesis) -> None:
    for role in ("GuardRole", "NodeRole", "ScheduleRole"):
        assert statements(plain.guard, role), role
        for statement in statements(plain.guard, role):
            for action in listed(statement["Action"]):
                assert "*" not in action or action == "ec2:Describe*", f"{role}: {action}"


def test_a_lab_matches_the_guards_patterns_and_the_guard_does_not() -> None:
    for lab in range(5):
        assert fnmatchcase(names.stack_name(lab), "Lab?Stack*")
        assert fnmatchcase(names.stack_name(lab, "alice"), "Lab?Stack*")
    assert not fnmatchcase(names.GUARD_STACK, "Lab?Stack*")


def test_a_node_may_send_results_and_know_its_deadline_and_little_else(plain: Synthesis) -> None:
    actions = {action for statement in statements(plain.guard, "NodeRole") for action in listed(statement["Action"])}
    assert {action for action in actions if not action.startswith("ssmmessages:")} == {
        "s3:PutObject", "ssm:GetParameter", "ssm:UpdateInstanceInformation", "cloudformation:DescribeStacks",
    }  # fmt: skip
    (sending,) = allowed(plain.guard, "NodeRole", "s3:PutObject")
    assert sending["Resource"]["Fn::Join"][1][-1] == "/results/*"
    assert not of_type(plain.guard, "AWS::IAM::ManagedPolicy")
    for role in of_type(plain.guard, "AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role["Properties"]


def mailed(notify: str) -> dict[str, Any]:
    stack = GuardStack(App(), names.GUARD_STACK, notify=notify)
    return dict(Template.from_stack(stack).to_json())


def test_the_topic_stands_and_the_guard_may_tell_it_whether_or_not_a_deploy_names_an_address() -> None:
    """A later deploy, such as a lab's, does not know the address: it must not end the mails."""
    told, untold = mailed("me@example.org"), mailed("")
    assert not of_type(untold, "AWS::SNS::Subscription")
    (mail,) = of_type(told, "AWS::SNS::Subscription")
    del told["Resources"][mail]
    assert told == untold, "nothing else differs, so nothing else changes"


def test_an_address_that_was_given_once_is_kept_by_deploys_without_it_and_replaced_by_another() -> None:
    (mail,) = of_type(mailed("me@example.org"), "AWS::SNS::Subscription").values()
    assert (mail["Properties"]["Protocol"], mail["Properties"]["Endpoint"]) == ("email", "me@example.org")
    assert (mail["DeletionPolicy"], mail["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Delete")


def test_the_guard_publishes_to_its_topic_and_keeps_what_it_told_and_no_more(plain: Synthesis) -> None:
    ((topic, made),) = of_type(plain.guard, "AWS::SNS::Topic").items()
    assert made.get("DeletionPolicy", "Delete") == "Delete", "and with the topic go its subscriptions"
    (function,) = of_type(plain.guard, "AWS::Lambda::Function").values()
    assert function["Properties"]["Environment"] == {"Variables": {"TOPIC": {"Ref": topic}}}
    (tell,) = allowed(plain.guard, "GuardRole", "sns:Publish")
    assert tell["Resource"] == {"Ref": topic}
    told = allowed(plain.guard, "GuardRole", "ssm:GetParametersByPath")[0]["Resource"]["Fn::Join"][1][-1]
    assert told.endswith(":parameter/rooflab/told")


def test_what_the_guard_removes_only_by_its_tag_can_be_told_by_a_tag() -> None:
    """The service authorization reference, as cfn-lint carries it: where an action ignored the tag of its resource,
    the condition would never hold, and the guard could not remove that thing in AWS."""
    reference = json.loads((Path(cfnlint.__file__).parent / "data/AdditionalSpecs/Policies.json").read_text())
    for action in permissions.REMOVE:
        service, _, name = action.partition(":")
        kinds = reference[service]["Actions"][name.lower()]["Resources"]
        assert kinds, action
        for kind in kinds:
            keys = reference[service]["Resources"][kind]["ConditionKeys"]
            assert any(key.startswith("aws:ResourceTag") for key in keys), (action, kind)


@pytest.mark.parametrize("notify", ["me", "me@example", "a@b.c,d@e.f", "me@ example.org"])
def test_an_address_that_cannot_be_mailed_is_refused(notify: str) -> None:
    with pytest.raises(ValueError, match=r"notify=.* is no mail address: write notify=me@example\.org"):
        mailed(notify)


def test_the_guards_names_for_what_it_told_are_one() -> None:
    assert f"{permissions.TOLD}/" == notice.TOLD
