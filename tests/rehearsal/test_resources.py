"""Resource handlers against AWS's own schemas, and against moto: what is made is really there, then really gone."""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from rehearsal.resources import HANDLERS
from tests.rehearsal.engine_server import Account, serve

# moto warns of each error code that a service's model does not list; CloudFormation's ValidationError is one.
pytestmark = pytest.mark.filterwarnings("ignore:Exception.* does not match an error shape")
REAL = sorted(set(HANDLERS) - {"AWS::CDK::Metadata"})  # CDK's own type has no public schema
NOT_IN_SCHEMA = {
    "AWS::EC2::Instance": {"AvailabilityZone"},
    "AWS::EC2::Subnet": {"AvailabilityZone", "AvailabilityZoneId", "CidrBlock", "VpcId"},
    "AWS::EC2::VPC": {"CidrBlock"},
    "AWS::SNS::Topic": {"TopicName"},
    "AWS::SSM::Parameter": {"Type", "Value"},
}
"""Attributes that CloudFormation answers beside a type's read-only properties (its Return values pages)."""


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with serve() as account:
        yield account


def schema(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    return found


def names(found: dict[str, Any], *keys: str) -> set[str]:
    return {path.removeprefix("/properties/") for key in keys for path in found.get(key, ())}


@pytest.mark.parametrize("kind", REAL)
def test_a_handler_honours_only_what_aws_knows(kind: str) -> None:
    handler, found = HANDLERS[kind], schema(kind)
    honoured = [*handler.replaces, *handler.updates, *handler.fixed]
    assert len(honoured) == len(set(honoured)), "each property stands in one tuple"
    writable = set(found["properties"]) - names(found, "readOnlyProperties")
    assert set(honoured) <= writable
    assert set(handler.attributes) <= names(found, "readOnlyProperties") | NOT_IN_SCHEMA.get(kind, set())


@pytest.mark.parametrize("kind", REAL)
def test_a_handler_replaces_where_aws_replaces(kind: str) -> None:
    handler, found = HANDLERS[kind], schema(kind)
    assert set(handler.replaces) == names(found, "createOnlyProperties") & {
        *handler.replaces, *handler.updates, *handler.fixed
    } | (set(handler.replaces) & names(found, "conditionalCreateOnlyProperties"))  # fmt: skip


def test_a_network_is_made_and_leaves_nothing(account: Account) -> None:
    ec2 = account.client("ec2")

    def standing() -> dict[str, int]:
        return {
            key: len(getattr(ec2, operation)()[key])
            for operation, key in (
                ("describe_vpcs", "Vpcs"), ("describe_subnets", "Subnets"), ("describe_route_tables", "RouteTables"),
                ("describe_internet_gateways", "InternetGateways"), ("describe_security_groups", "SecurityGroups"),
                ("describe_launch_templates", "LaunchTemplates"), ("describe_addresses", "Addresses"),
                ("describe_network_interfaces", "NetworkInterfaces"),
            )
        }  # fmt: skip

    before = standing()
    of_group = {"GroupId": {"Ref": "Group"}, "IpProtocol": "-1", "Description": "among themselves"}
    network = {
        "Vpc": res("EC2::VPC", CidrBlock="10.0.0.0/16", EnableDnsHostnames="true", Tags=[{"Key": "a", "Value": "b"}]),
        "Subnet": res("EC2::Subnet", VpcId={"Ref": "Vpc"}, CidrBlock="10.0.0.0/24", MapPublicIpOnLaunch=True,
                      AvailabilityZone={"Fn::Select": [0, {"Fn::GetAZs": ""}]}),
        "Table": res("EC2::RouteTable", VpcId={"Ref": "Vpc"}),
        "Join": res("EC2::SubnetRouteTableAssociation", RouteTableId={"Ref": "Table"}, SubnetId={"Ref": "Subnet"}),
        "Gateway": res("EC2::InternetGateway"),
        "Attached": res("EC2::VPCGatewayAttachment", VpcId={"Ref": "Vpc"}, InternetGatewayId={"Ref": "Gateway"}),
        "Out": {**res("EC2::Route", RouteTableId={"Ref": "Table"}, DestinationCidrBlock="0.0.0.0/0",
                      GatewayId={"Ref": "Gateway"}), "DependsOn": "Attached"},
        "Group": res("EC2::SecurityGroup", GroupDescription="nodes", VpcId={"Ref": "Vpc"}, SecurityGroupEgress=[
            {"IpProtocol": "tcp", "FromPort": 443, "ToPort": "443", "CidrIp": "0.0.0.0/0"}]),
        "In": res("EC2::SecurityGroupIngress", **of_group, SourceSecurityGroupId={"Ref": "Group"}),
        "OutOfGroup": res("EC2::SecurityGroupEgress", **of_group, DestinationSecurityGroupId={"Ref": "Group"}),
        "Template": res("EC2::LaunchTemplate", LaunchTemplateData={"InstanceType": "t3.micro"}),
        "Interface": res("EC2::NetworkInterface", SubnetId={"Ref": "Subnet"}, GroupSet=[{"Ref": "Group"}]),
        "Address": res("EC2::EIP", Domain="vpc"),
    }  # fmt: skip
    made = {"Outputs": {"Version": {"Value": {"Fn::GetAtt": ["Template", "LatestVersionNumber"]}}}}
    assert account.create("Net", network, **made)["StackStatus"] == "CREATE_COMPLETE"
    vpc = ec2.describe_vpcs(VpcIds=[account.physical("Net", "Vpc")])["Vpcs"][0]
    assert vpc["Tags"] == [{"Key": "a", "Value": "b"}]
    group = ec2.describe_security_groups(GroupIds=[account.physical("Net", "Group")])["SecurityGroups"][0]
    assert sorted(rule["IpProtocol"] for rule in group["IpPermissionsEgress"]) == ["-1", "tcp"]
    assert all(not rule["IpRanges"] for rule in group["IpPermissionsEgress"] if rule["IpProtocol"] == "-1")
    network["Template"] = res("EC2::LaunchTemplate", LaunchTemplateData={"InstanceType": "t3.small"})
    network["Group"]["Properties"]["SecurityGroupEgress"][0]["ToPort"] = "444"
    account.update("Net", network, **made)
    assert account.outputs("Net") == {"Version": "2"}
    group = ec2.describe_security_groups(GroupIds=[account.physical("Net", "Group")])["SecurityGroups"][0]
    assert [rule["ToPort"] for rule in group["IpPermissionsEgress"] if rule["IpProtocol"] == "tcp"] == [444]
    assert account.delete("Net")["StackStatus"] == "DELETE_COMPLETE"
    assert standing() == before


def test_identity_is_made_changed_and_leaves_nothing(account: Account) -> None:
    iam = account.client("iam")
    trust = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}  # fmt: skip

    def may(action: str) -> dict[str, Any]:
        return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}

    def template(action: str) -> dict[str, Any]:
        return {
            "Role": res("IAM::Role", AssumeRolePolicyDocument=trust,
                        Policies=[{"PolicyName": "inline", "PolicyDocument": may(action)}]),
            "Policy": res("IAM::Policy", PolicyName="extra", PolicyDocument=may(action), Roles=[{"Ref": "Role"}]),
            "Managed": res("IAM::ManagedPolicy", PolicyDocument=may("s3:*"), Roles=[{"Ref": "Role"}]),
            "Profile": res("IAM::InstanceProfile", Roles=[{"Ref": "Role"}]),
        }  # fmt: skip

    assert account.create("Ident", template("s3:GetObject"))["StackStatus"] == "CREATE_COMPLETE"
    role = account.physical("Ident", "Role")
    account.update("Ident", template("s3:PutObject"))
    for policy in ("inline", "extra"):
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        assert document["Statement"][0]["Action"] == "s3:PutObject"
    assert account.physical("Ident", "Role") == role
    assert account.delete("Ident")["StackStatus"] == "DELETE_COMPLETE"
    assert iam.list_roles()["Roles"] == []
    assert iam.list_policies(Scope="Local")["Policies"] == []
    assert iam.list_instance_profiles()["InstanceProfiles"] == []


def test_a_bucket_carries_its_settings_and_stays_while_it_holds_something(account: Account) -> None:
    s3 = account.client("s3")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource":
              {"Fn::Sub": "${Bucket.Arn}/*"}}]}  # fmt: skip
    encryption = {"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    account.create("Bucket", {
        "Bucket": res("S3::Bucket", BucketEncryption=encryption,
                      LifecycleConfiguration={"Rules": [{"Status": "Enabled", "ExpirationInDays": 30}]},
                      PublicAccessBlockConfiguration={"BlockPublicAcls": True}),
        "Policy": res("S3::BucketPolicy", Bucket={"Ref": "Bucket"}, PolicyDocument=policy),
    })  # fmt: skip
    name = account.physical("Bucket", "Bucket")
    assert name.startswith("bucket-bucket-")
    rules = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert [(rule["Status"], rule["Expiration"]["Days"]) for rule in rules] == [("Enabled", 30)]
    assert (
        json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"][0]["Resource"] == f"arn:aws:s3:::{name}/*"
    )
    s3.put_object(Bucket=name, Key="k", Body=b"v")
    assert account.delete("Bucket")["StackStatus"] == "DELETE_FAILED"
    (why,) = [event["ResourceStatusReason"] for event in account.events("Bucket")
              if event["ResourceStatus"] == "DELETE_FAILED" and event["LogicalResourceId"] == "Bucket"
              and event["ResourceType"] == "AWS::S3::Bucket"]  # fmt: skip
    assert "BucketNotEmpty" in why
    s3.delete_object(Bucket=name, Key="k")
    assert account.delete("Bucket")["StackStatus"] == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="Not Found"):
        s3.head_bucket(Bucket=name)


def test_a_lifecycle_rule_that_is_not_rehearsed_is_named(account: Account) -> None:
    rule = {"Status": "Enabled", "ObjectSizeLessThan": "5"}
    account.create("Rules", {"Bucket": res("S3::Bucket", LifecycleConfiguration={"Rules": [rule]})})
    assert account.reason("Rules", "CREATE_FAILED") == (
        "AWS::S3::Bucket: property LifecycleConfiguration/ObjectSizeLessThan is not rehearsed")  # fmt: skip


def test_the_watch_is_made_changed_and_leaves_nothing(account: Account) -> None:
    trust = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}  # fmt: skip

    def template(code: str, minutes: int) -> dict[str, Any]:
        return {
            "Role": res("IAM::Role", AssumeRolePolicyDocument=trust),
            "Logs": res("Logs::LogGroup", LogGroupName="/watch", RetentionInDays=minutes),
            "Function": res("Lambda::Function", Code={"ZipFile": code}, Handler="index.handler", Runtime="python3.13",
                            Role={"Fn::GetAtt": ["Role", "Arn"]}, Timeout=minutes),
            "Schedule": res("Scheduler::Schedule", ScheduleExpression=f"rate({minutes} minutes)",
                            FlexibleTimeWindow={"Mode": "OFF"}, Target={
                                "Arn": {"Fn::GetAtt": ["Function", "Arn"]}, "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                                "Input": "{}"}),
            "Permission": res("Lambda::Permission", Action="lambda:InvokeFunction", FunctionName={"Ref": "Function"},
                              Principal="scheduler.amazonaws.com"),
            "Deadline": res("SSM::Parameter", Name="/watch/deadline", Type="String", Value=f"{minutes}"),
            "Topic": res("SNS::Topic", DisplayName=code),
        }  # fmt: skip

    assert account.create("Watch", template("first", 3))["StackStatus"] == "CREATE_COMPLETE"
    function = account.physical("Watch", "Function")
    before = account.client("lambda").get_function_configuration(FunctionName=function)["CodeSha256"]
    assert account.update("Watch", template("second", 5))["StackStatus"] == "UPDATE_COMPLETE"
    after = account.client("lambda").get_function_configuration(FunctionName=function)
    assert (after["CodeSha256"] != before, after["Timeout"]) == (True, 5)
    schedule = account.client("scheduler").get_schedule(Name=account.physical("Watch", "Schedule"))
    assert schedule["ScheduleExpression"] == "rate(5 minutes)"
    assert account.client("ssm").get_parameter(Name="/watch/deadline")["Parameter"]["Value"] == "5"
    groups = account.client("logs").describe_log_groups(logGroupNamePrefix="/watch")["logGroups"]
    assert [group["retentionInDays"] for group in groups] == [5]
    assert account.delete("Watch")["StackStatus"] == "DELETE_COMPLETE"
    assert account.client("lambda").list_functions()["Functions"] == []
    assert account.client("scheduler").list_schedules()["Schedules"] == []
    assert account.client("logs").describe_log_groups(logGroupNamePrefix="/watch")["logGroups"] == []
    assert account.client("sns").list_topics()["Topics"] == []


def test_one_text_gives_one_archive() -> None:
    handler: Any = HANDLERS["AWS::Lambda::Function"]
    given = {"Code": {"ZipFile": "x = 1"}, "Runtime": "python3.13"}
    archive = handler._archive(given)
    assert archive == handler._archive(given)
    assert zipfile.ZipFile(io.BytesIO(archive)).read("index.py") == b"x = 1"


def test_what_is_gone_already_counts_as_deleted(account: Account) -> None:
    account.create("Gone", {"Vpc": res("EC2::VPC", CidrBlock="10.1.0.0/16"), "Topic": res("SNS::Topic"),
                            "Logs": res("Logs::LogGroup"), "Template": res("EC2::LaunchTemplate", LaunchTemplateData={
                                "InstanceType": "t3.micro"})})  # fmt: skip
    ec2 = account.client("ec2")
    ec2.delete_vpc(VpcId=account.physical("Gone", "Vpc"))
    ec2.delete_launch_template(LaunchTemplateId=account.physical("Gone", "Template"))
    account.client("logs").delete_log_group(logGroupName=account.physical("Gone", "Logs"))
    assert account.delete("Gone")["StackStatus"] == "DELETE_COMPLETE"


def res(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{kind}", "Properties": properties}
