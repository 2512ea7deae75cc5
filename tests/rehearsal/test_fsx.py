"""FSx for Lustre: AWS's rules of capacity, its life cycle, and links to S3."""

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal import fsx
from rehearsal.errors import AwsError, NotRehearsed
from tests.rehearsal.worlds import Lab


def _request(capacity: int, **lustre: Any) -> dict[str, Any]:
    return {
        "FileSystemType": "LUSTRE", "FileSystemTypeVersion": "2.15", "StorageCapacity": capacity,
        "SubnetIds": ["subnet-1"], "LustreConfiguration": {"DeploymentType": "SCRATCH_2", **lustre},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("capacity", "lustre"),
    [
        (1200, {}),
        (2400, {}),
        (4800, {}),
        (1200, {"DeploymentType": "PERSISTENT_2", "PerUnitStorageThroughput": 125}),
        (
            4800,
            {
                "DeploymentType": "PERSISTENT_2",
                "PerUnitStorageThroughput": 1000,
                "EfaEnabled": True,
                "MetadataConfiguration": {"Mode": "AUTOMATIC"},
            },
        ),
    ],
)
def test_capacities_that_aws_sells(capacity: int, lustre: dict[str, Any]) -> None:
    fsx.check(_request(capacity, **lustre))


@pytest.mark.parametrize(
    ("capacity", "lustre", "text"),
    [
        (1000, {}, "use 1200, 2400 or multiples of 2400"),
        (3600, {}, "use 1200, 2400 or multiples of 2400"),
        (0, {}, "use 1200"),
        (1200, {"PerUnitStorageThroughput": 125}, "must not be given for SCRATCH_2"),
        (1200, {"DeploymentType": "PERSISTENT_2"}, r"use one of \(125, 250, 500, 1000\)"),
        (1200, {"DeploymentType": "PERSISTENT_1", "PerUnitStorageThroughput": 125}, r"use one of \(50, 100, 200\)"),
        (1200, {"EfaEnabled": True}, "EfaEnabled needs PERSISTENT_2"),
        (
            4800,
            {
                "DeploymentType": "PERSISTENT_2",
                "PerUnitStorageThroughput": 125,
                "EfaEnabled": True,
                "MetadataConfiguration": {"Mode": "AUTOMATIC"},
            },
            "multiples of 38400",
        ),
    ],
)
def test_capacities_that_aws_refuses(capacity: int, lustre: dict[str, Any], text: str) -> None:
    with pytest.raises(AwsError, match=text):
        fsx.check(_request(capacity, **lustre))


def test_what_would_have_to_be_ignored_is_refused_by_name() -> None:
    for request, text in (
        (_request(1200, ImportPath="s3://x"), "ImportPath"),
        ({**_request(1200), "KmsKeyId": "x"}, "KmsKeyId"),
        ({**_request(1200), "FileSystemType": "WINDOWS"}, "WINDOWS"),
    ):
        with pytest.raises(NotRehearsed, match=text):
            fsx.check(request)


def test_a_file_system_is_made_linked_and_deleted(lab: Lab) -> None:
    client = lab.world.client("fsx")
    request = {**_request(1200), "SubnetIds": [lab.subnet], "SecurityGroupIds": [lab.group]}
    made = client.create_file_system(**request, Tags=[{"Key": "rooflab:lab", "Value": "3"}])["FileSystem"]
    assert made["Lifecycle"] == "CREATING"
    id = made["FileSystemId"]
    deadline = time.monotonic() + 10
    while (shown := client.describe_file_systems(FileSystemIds=[id])["FileSystems"][0])["Lifecycle"] == "CREATING":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert shown["Lifecycle"] == "AVAILABLE"
    assert shown["DNSName"] == f"{id}.fsx.us-east-1.amazonaws.com"
    assert shown["LustreConfiguration"]["MountName"]
    assert shown["Tags"] == [{"Key": "rooflab:lab", "Value": "3"}]
    with pytest.raises(ClientError, match="DependencyViolation"):
        lab.ec2.delete_subnet(SubnetId=lab.subnet)

    link = {"FileSystemId": id, "FileSystemPath": "/data", "DataRepositoryPath": "s3://bucket/data"}
    association = client.create_data_repository_association(**link)["Association"]["AssociationId"]
    with pytest.raises(ClientError, match="overlaps"):
        client.create_data_repository_association(**{**link, "FileSystemPath": "/data/more"})
    assert client.describe_data_repository_associations(AssociationIds=[association])["Associations"]
    client.delete_data_repository_association(AssociationId=association)

    client.delete_file_system(FileSystemId=id)
    for call in (
        client.delete_file_system,
        lambda FileSystemId: client.describe_file_systems(FileSystemIds=[FileSystemId]),
    ):
        with pytest.raises(ClientError, match="FileSystemNotFound"):
            call(FileSystemId=id)
    lab.ec2.delete_subnet(SubnetId=lab.subnet)
