"""What the rehearsal's endpoint answers besides EC2: errors that an SDK understands, its own time, its own keys."""

import json
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from botocore.exceptions import ClientError

from rehearsal import control
from rehearsal.control import RehearsalError
from rehearsal.settings import IMAGES, image_id
from tests.rehearsal.worlds import World


def test_a_stranger_is_refused(world: World) -> None:
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        world.client("sts", key="AKIA0000000000000000").get_caller_identity()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(world.environment["AWS_ENDPOINT_URL"] + "/rehearsal/status")
    assert world.client("sts").get_caller_identity()["Account"] == "123456789012"


@pytest.mark.parametrize(
    ("service", "call", "given"),
    [
        ("pricing", "get_products", {"ServiceCode": "AmazonEC2"}),
        ("ec2", "describe_scheduled_instances", {}),
        ("resourcegroupstaggingapi", "get_resources", {}),
        ("fsx", "update_file_system", {"FileSystemId": "fs-0123456789abcdef0"}),
        ("budgets", "describe_budget_performance_history", {"AccountId": "123456789012", "BudgetName": "x"}),
    ],
)
def test_a_call_that_is_not_rehearsed_is_refused_by_name(
    world: World, service: str, call: str, given: dict[str, str]
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(world.client(service), call)(**given)
    assert caught.value.response["Error"]["Code"] == "NotRehearsed"
    assert "the rehearsal does not know" in caught.value.response["Error"]["Message"]


def test_every_answer_tells_the_rehearsals_time(world: World) -> None:
    before = _served(world)
    now = datetime.fromisoformat(control.advance(world.name, 90 * 60, root=world.root)["now"])
    after = _served(world)
    # it is ahead of this machine's by much more than any of these calls takes
    assert 5395 < (after - before).total_seconds() < 6000
    assert abs((now - after).total_seconds()) < 600
    made = world.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    world.client("ec2").delete_vpc(VpcId=made)
    world.client("s3").create_bucket(Bucket="dated")
    world.client("s3").put_object(Bucket="dated", Key="x", Body=b"x")
    (shown,) = world.client("s3").list_objects_v2(Bucket="dated")["Contents"]
    assert abs((shown["LastModified"] - after).total_seconds()) < 600
    buckets = {bucket["Name"]: bucket["CreationDate"] for bucket in world.client("s3").list_buckets()["Buckets"]}
    assert abs((buckets["dated"] - after).total_seconds()) < 600


def test_time_only_moves_forward(world: World) -> None:
    with pytest.raises(RehearsalError, match="time only moves forward"):
        control.advance(world.name, -1, root=world.root)


def _served(world: World) -> datetime:
    answer = world.client("sts").get_caller_identity()
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).astimezone(UTC)


def test_a_bucket_that_demands_tls_takes_objects(world: World) -> None:
    s3 = world.client("s3")
    s3.create_bucket(Bucket="enforced")
    deny = {
        "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::enforced/*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }  # fmt: skip
    s3.put_bucket_policy(Bucket="enforced", Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    s3.put_object(Bucket="enforced", Key="x", Body=b"kept")
    assert s3.get_object(Bucket="enforced", Key="x")["Body"].read() == b"kept"
    hard = {**deny, "Action": "s3:PutObject"}
    del hard["Condition"]
    s3.put_bucket_policy(Bucket="enforced", Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny, hard]}))
    with pytest.raises(ClientError, match="403"):
        s3.put_object(Bucket="enforced", Key="y", Body=b"refused")


def test_the_images_of_the_public_parameters_exist(world: World) -> None:
    for name in IMAGES:
        (found,) = world.client("ssm").get_parameters(Names=[name])["Parameters"]
        assert found["Value"] == image_id(name)
    shown = world.client("ec2").describe_images(ImageIds=[image_id(name) for name in IMAGES])["Images"]
    assert {image["RootDeviceName"] for image in shown} == {"/dev/sda1"}


def test_every_region_has_the_images(world: World) -> None:
    found = world.client("ssm", region="eu-north-1").get_parameters(Names=list(IMAGES))["Parameters"]
    ids = [image["Value"] for image in found]
    assert len(world.client("ec2", region="eu-north-1").describe_images(ImageIds=ids)["Images"]) == len(IMAGES)


def test_managed_policies_can_be_attached(world: World) -> None:
    iam = world.client("iam")
    policy = {"Version": "2012-10-17", "Statement": []}
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=json.dumps(policy))
    iam.attach_role_policy(RoleName="node", PolicyArn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore")
    iam.detach_role_policy(RoleName="node", PolicyArn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore")
    iam.delete_role(RoleName="node")
