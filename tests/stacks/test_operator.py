"""The operator's policy: enough for every template and a rehearsed life, no more, and in IAM's form and size."""

import json
import os
import re
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import cfnlint
import pytest
from botocore import xform_name

from operate import admission
from operate.account import Account
from operate.deadline import extend_deadline, read_deadline
from operate.nodes import await_nodes
from operate.stack import deployed_stack
from operate.sweep import sweep
from operate.teardown import teardown
from rehearsal import control
from stacks import operator
from stacks.grants import AS_BAKED, AS_OURS, BAKED, GRANTS, OURS
from tests.stacks.synthesis import ROOT, Synthesis, synthesise

SCHEMAS = Path(cfnlint.__file__).parent / "data/schemas"
READS = ("BatchGet", "Describe", "Filter", "Get", "List", "Lookup")
UNUSED = {
    "kms:*": "no template names a key of the customer's",
    "vpc-lattice:*": "endpoints of templates are S3's gateway",
    "vpce:AllowMultiRegion": "endpoints of templates are of their own region",
    "elasticfilesystem:*": "the guard's function mounts nothing",
    "s3files:*": "the guard's function mounts nothing",
    "s3tables:*": "the bucket has no metadata table",
    "s3:*Metadata*": "the bucket has no metadata table",
    "firehose:*": "logs are not forwarded",
    "logs:CreateLogDelivery": "logs are not forwarded",
    "s3:REST.PUT.OBJECT": "logs are not forwarded; no action of this name exists",
    "logs:AssociateKmsKey": "logs have AWS's key",
    "logs:DisassociateKmsKey": "logs have AWS's key",
    "logs:*IndexPolicy": "logs have no index",
    "logs:*DataProtectionPolicy": "logs have no such policy",
    "logs:*ResourcePolicy": "logs have no such policy",
    "logs:PutBearerTokenAuthentication": "logs are written by the role",
    "logs:PutLogGroupDeletionProtection": "logs go with GuardStack",
    "iam:*GroupPolicy": "policies of templates are roles'",
    "iam:*UserPolicy": "policies of templates are roles'",
    "iam:AttachRolePolicy": "roles of templates have inline policies alone",
    "iam:DetachRolePolicy": "roles of templates have inline policies alone",
    "iam:*RolePermissionsBoundary": "roles of templates have no boundary",
    "ssm:*Association*": "instances have no SSM association",
    "ec2:AcceptAddressTransfer": "addresses are AWS's own",
    "ec2:AllocateIpamPoolCidr": "addresses are AWS's own",
    "ec2:*VpnGateway*": "no template has one",
    "ec2:CreateVpcEncryptionControl": "no template has one",
    "ec2:ModifyVpcTenancy": "no template changes it",
    "ec2:*IamInstanceProfile*": "instances have theirs from their launch template",
    "ec2:AttachVolume": "instances have theirs from their launch template",
    "ec2:DetachVolume": "instances have theirs from their launch template",
    "ec2:ModifyInstance[CMP]*": "launch templates say it, and a change replaces the instance",
    "ec2:ModifyPrivateDnsNameOptions": "no template says it",
    "ec2:ModifyPublicIpDnsNameOptions": "no template says it",
    "ec2:*onitorInstances": "no template says it",
    "ec2:StartInstances": "nodes are never stopped",
    "ec2:StopInstances": "nodes are never stopped",
    "ec2:*Ipv6Addresses": "an interface is made with its addresses",
    "ec2:*PrivateIpAddresses": "an interface is made with its addresses",
    "lambda:AssociateRuntimeAlias": "the function has AWS's runtime",
    "lambda:DeleteFunction?*": "the function has neither signing nor concurrency of its own",
    "lambda:P*": "the function has neither versions, signing, concurrency nor a runtime of its own",
    "s3:P*ACL*": "buckets have no ACL",
    "s3:P*Acl": "buckets have no ACL",
    "s3:PutBucket[ACLNORVW]*": "the bucket has no such property",
    "s3:Put[AIMR]*Configuration": "the bucket has no such property",
    "s3:PutObjectLockConfiguration": "the bucket has no such property",
    "sns:*DataProtectionPolicy": "the topic has none",
}
"""Permissions that CloudFormation's handlers of our types name, for what no template of ours has, each with why."""
S3 = {
    "HeadBucket": "ListBucket", "ListObjectsV2": "ListBucket", "ListObjects": "ListBucket", "HeadObject": "GetObject",
    "ListObjectVersions": "ListBucketVersions", "DeleteObjects": "DeleteObject",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycle": "PutLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration", "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock", "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
}  # fmt: skip
"""Permission of an S3 operation where that has another name.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html"""
LAMBDA = {"Invoke": "InvokeFunction"}
CLI = (
    "CreateChangeSet", "DeleteChangeSet", "DeleteStack", "DescribeChangeSet", "DescribeEvents", "DescribeStackEvents",
    "DescribeStacks", "ExecuteChangeSet", "GetTemplate", "UpdateTerminationProtection",
)  # fmt: skip
"""What the cdk CLI asks of CloudFormation when it deploys and destroys."""


def permission(service: str, action: str) -> str:
    """The IAM action that an API call needs."""
    names = {"s3": S3, "lambda": LAMBDA}.get(service, {})
    return f"{service}:{names.get(action, action)}"


def matches(action: str, patterns: object) -> bool:
    """Whether one of IAM's patterns is for the action; IAM knows no upper and lower case."""
    assert isinstance(patterns, (list, tuple, dict))
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def allowed(action: str) -> bool:
    """Whether the policy allows an action on something."""
    return any(matches(action, grant.actions) for grant in GRANTS)


@pytest.fixture(scope="module")
def synthesis(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """Templates that together have every type that any lab's may have."""
    shared = {"number": 3, "nodes": 2}
    cases = {
        "addresses": {**shared, "instance_type": "g6.12xlarge", "storage": "scratch", "data": "results"},
        "elastic": {**shared, "instance_type": "p5.48xlarge", "storage": "none"},
        "endpoint": {**shared, "instance_type": "p5.48xlarge", "storage": "none", "capacity": "spot"},
        "session": {**shared, "instance_type": "g6.12xlarge", "storage": "none", "access": "ssm"},
    }
    return synthesise(tmp_path_factory.mktemp("operator"), cases)


@cache
def listed() -> dict[str, str]:
    """File of each resource type's schema."""
    found: dict[str, str] = json.loads((SCHEMAS / "providers/us-east-1.json").read_text())
    return found


def registry(kind: str) -> dict[str, Any]:
    """CloudFormation's schema of a resource type."""
    schema: dict[str, Any] = json.loads((SCHEMAS / f"resources/{listed()[kind]}.json").read_text())
    return schema


def needed(kind: str) -> set[str]:
    """What CloudFormation's handlers of a type may ask for, in the caller's name."""
    return {action for handler in registry(kind).get("handlers", {}).values() for action in handler["permissions"]}


def kinds(synthesis: Synthesis) -> set[str]:
    templates = [synthesis.guard, *(template for _, template in synthesis.labs.values())]
    found = {resource["Type"] for template in templates for resource in template["Resources"].values()}
    return found | {"AWS::SNS::Topic", "AWS::SNS::Subscription"}


def test_every_permission_of_every_type_in_a_template_is_granted_or_known_to_be_unused(synthesis: Synthesis) -> None:
    lacking = {
        kind: sorted(action for action in needed(kind) if not allowed(action) and not matches(action, UNUSED))
        for kind in kinds(synthesis)
    }
    assert {kind: actions for kind, actions in lacking.items() if actions} == {}


def test_types_whose_handlers_the_registry_does_not_name_are_covered_by_hand(synthesis: Synthesis) -> None:
    silent = {kind for kind in kinds(synthesis) if not registry(kind).get("handlers")}
    assert silent <= {"AWS::FSx::FileSystem"}
    for action in ("Create", "Update", "Delete"):
        assert allowed(f"fsx:{action}FileSystem")
    assert allowed("fsx:DescribeFileSystems")


def test_what_is_excused_as_unused_is_not_granted_on_anything_of_a_template() -> None:
    spared = {"iam:AttachRolePolicy": {"DataRole"}}
    for pattern in UNUSED:
        granting = {grant.sid for grant in GRANTS if pattern in grant.actions}
        assert granting == spared.get(pattern, set()), pattern


@cache
def known_actions() -> frozenset[str]:
    """Actions that AWS has: operations of its APIs, and permissions that handlers of its resource types name."""
    session = botocore.session.get_session()
    prefixes = {"servicequotas": "service-quotas", "elasticloadbalancing": "elbv2"}
    services = {action.partition(":")[0] for grant in GRANTS for action in grant.actions}
    found = {"iam:PassRole", "ec2-instance-connect:OpenTunnel", "s3:ListAllMyBuckets", "s3:ListBucket",
             "s3:ListBucketVersions", "s3:DeleteObjectVersion"}  # fmt: skip
    for service in services:
        model = session.get_service_model(prefixes.get(service, service))
        found |= {permission(service, name) for name in model.operation_names}
    rooms = {"EC2", "FSx", "IAM", "Lambda", "Logs", "S3", "SNS", "Scheduler"}
    return frozenset(found.union(*(needed(kind) for kind in listed() if kind.split("::")[1] in rooms)))


def test_every_action_is_one_that_aws_has() -> None:
    unknown = {
        action
        for grant in GRANTS
        for action in grant.actions
        if not any(fnmatchcase(known.lower(), action.lower()) for known in known_actions())
    }
    assert unknown <= {"cloudformation:TagResource", "cloudformation:UntagResource"}, "these two guard tags of stacks"


def test_no_write_holds_on_just_anything() -> None:
    """Reads apart, a statement names its resources, or a tag that they must carry."""
    for grant in GRANTS:
        writes = [action for action in grant.actions if not action.partition(":")[2].startswith(READS)]
        if "*" in grant.on and grant.where not in (OURS, AS_OURS, BAKED, AS_BAKED):
            assert writes == [], f"{grant.sid}: {writes}"
        assert all(not action.endswith(":*") for action in grant.actions), grant.sid
        assert grant.reason.endswith((".", "s3")), grant.sid


def test_roles_are_passed_only_to_the_service_that_each_is_for(synthesis: Synthesis) -> None:
    passing = [grant for grant in GRANTS if "iam:PassRole" in grant.actions]
    assert {grant.where["iam:PassedToService"] for grant in passing} == {
        "ec2.amazonaws.com", "lambda.amazonaws.com", "scheduler.amazonaws.com",
    }  # fmt: skip
    for grant in passing:
        (resource,) = grant.on
        name = resource.partition("role/GuardStack-")[2].rstrip("*")
        (role,) = (one for id, one in synthesis.guard["Resources"].items() if id.startswith(name) and is_role(one))
        assert grant.where["iam:PassedToService"] in json.dumps(role["Properties"]["AssumeRolePolicyDocument"])


def is_role(resource: dict[str, Any]) -> bool:
    return bool(resource["Type"] == "AWS::IAM::Role")


def test_documents_fit_into_managed_policies_and_hold_every_grant_once() -> None:
    made = operator.documents("aws-us-gov")
    assert len(made) <= 10, "a user or role takes ten managed policies"
    for document in made.values():
        assert operator.size(document) <= operator.LIMIT
        assert document["Version"] == "2012-10-17"
    statements = [statement for document in made.values() for statement in document["Statement"]]
    assert [statement["Sid"] for statement in statements] == [grant.sid for grant in GRANTS]
    assert len({statement["Sid"] for statement in statements}) == len(statements)
    arns = [one for statement in statements for one in statement["Resource"] if one != "*"]
    assert all(arn.startswith("arn:aws-us-gov:") for arn in arns)


def test_the_command_prints_the_documents_or_writes_one_file_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert operator.main([]) == 0
    assert json.loads(capsys.readouterr().out) == operator.documents()
    assert operator.main([str(tmp_path / "policy")]) == 0
    written = capsys.readouterr().out.splitlines()
    for name, line in zip(operator.documents(), written, strict=True):
        path = tmp_path / "policy" / f"{name}.json"
        assert json.loads(path.read_text()) == operator.documents()[name]
        assert line == f"aws iam create-policy --policy-name {name} --policy-document file://{path}"
    assert operator.main(["--help"]) == 1
    assert capsys.readouterr() == ("", "'--help' is not allowed: write one folder, or nothing\n")


NAME = "operator"
LAB_3 = "import app, sys; app.LABS = {3: app.LABS[3]}; sys.exit(app.main())"
"""What `python app.py` does, of one lab."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The call log of a life: labs of every way to a node are deployed, visited, extended and ended."""
    folder = tmp_path_factory.mktemp("life")
    control.start(NAME, root=folder)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in control.environment(NAME, root=folder).items():
            patch.setenv(key, value)
        account = Account()
        ways: tuple[dict[str, str], ...] = (
            {"access": "eice", "capacity": "spot", "data": "results"},
            {"instance_type": "p4d.24xlarge", "storage": "none", "name": "two"},
        )
        try:
            for index, context in enumerate(ways):
                live(account, folder / str(index), context)
        finally:
            control.stop(NAME, root=folder)
    return [json.loads(line) for line in (folder / NAME / "logs/calls.jsonl").read_text().splitlines()]


def live(account: Account, out: Path, context: dict[str, str]) -> None:
    given = {**json.loads((ROOT / "cdk.json").read_text())["context"], **context}
    environment = {"CDK_OUTDIR": str(out), "CDK_CONTEXT_JSON": json.dumps(given), "CDK_VALIDATION": "false"}
    subprocess.run([sys.executable, "-c", LAB_3], cwd=ROOT, env=os.environ | environment, check=True)
    manifest = json.loads((out / "manifest.json").read_text())["artifacts"]
    for id in ("GuardStack", "Lab3Stack"):
        deploy(account, out, id, manifest[id]["properties"])
    stack = manifest["Lab3Stack"]["properties"].get("stackName", "Lab3Stack")
    await_nodes(account, deployed_stack(account, stack))
    admission.operator_address(account.endpoint)
    read_deadline(account, stack)
    extend_deadline(account, stack, 1)
    sweep(account, stack)
    assert teardown(account, stack, pause=lambda _: time.sleep(0.1)).exit_code == 0


def deploy(account: Account, out: Path, id: str, properties: dict[str, Any]) -> None:
    """What `cdk deploy` asks of CloudFormation."""
    cloudformation = account.client("cloudformation")
    name = properties.get("stackName", id)
    if any(one["StackName"] == name for one in cloudformation.describe_stacks()["Stacks"]):
        return
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=(out / properties["templateFile"]).read_text(),
        Tags=[{"Key": key, "Value": value} for key, value in properties.get("tags", {}).items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    end = time.monotonic() + 120
    while (state := cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]) != "CREATE_COMPLETE":
        assert state == "CREATE_IN_PROGRESS"
        assert time.monotonic() < end
        time.sleep(0.2)


def test_every_call_of_a_rehearsed_life_is_allowed(calls: list[dict[str, str]]) -> None:
    made = {
        permission(call["service"], call["action"]) for call in calls if call["by"] in ("operator", "cloudformation")
    }
    assert {"ec2:RunInstances", "ec2:CreateFleet", "fsx:CreateFileSystem", "ec2:AllocateAddress"} <= made
    assert {action for action in made if not allowed(action)} == set()


def test_every_operation_that_fab_can_ask_for_is_allowed() -> None:
    """Also those that no rehearsed life comes by, such as an image's or a session's."""
    session = botocore.session.get_session()
    prefixes = {"service-quotas": "servicequotas", "elbv2": "elasticloadbalancing"}
    services = ("cloudformation", "ec2", "elbv2", "fsx", "iam", "logs", "pricing", "s3", "service-quotas", "ssm", "sts")
    actions: dict[str, set[str]] = {}
    for service in services:
        for name in session.get_service_model(service).operation_names:
            actions.setdefault(xform_name(name), set()).add(permission(prefixes.get(service, service), name))
    text = "\n".join(path.read_text() for room in ("operate", "guard") for path in (ROOT / room).rglob("*.py"))
    named = set(re.findall(r"[a-z]+(?:_[a-z0-9]+)+", text)) & set(actions)
    assert {"create_image", "start_session", "authorize_security_group_ingress"} <= named
    assert {name for name in named if not any(map(allowed, actions[name]))} == set()


def test_every_call_of_the_cdk_cli_is_allowed() -> None:
    assert [action for action in CLI if not allowed(f"cloudformation:{action}")] == []
