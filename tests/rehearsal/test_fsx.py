"""FSx for Lustre: AWS's rules of capacity, its life cycle, and links to S3."""

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal import control
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.lustre import check
from rehearsal.repository import Import
from tests.rehearsal.worlds import Lab, await_that


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
    check(_request(capacity, **lustre))


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
        check(_request(capacity, **lustre))


def test_what_would_have_to_be_ignored_is_refused_by_name() -> None:
    for request, text in (
        (_request(1200, ImportPath="s3://x"), "ImportPath"),
        ({**_request(1200), "KmsKeyId": "x"}, "KmsKeyId"),
        ({**_request(1200), "FileSystemType": "WINDOWS"}, "WINDOWS"),
    ):
        with pytest.raises(NotRehearsed, match=text):
            check(request)


class Storage:
    """File systems in a lab's subnet."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.client, self.s3 = lab, lab.world.client("fsx"), lab.world.client("s3")

    def make(self, **lustre: Any) -> str:
        request = {**_request(1200, **lustre), "SubnetIds": [self.lab.subnet], "SecurityGroupIds": [self.lab.group]}
        made = self.client.create_file_system(**request, Tags=[{"Key": "rooflab:lab", "Value": "3"}])["FileSystem"]
        assert made["Lifecycle"] == "CREATING"
        await_that(lambda: self.shown(made["FileSystemId"])["Lifecycle"] == "AVAILABLE")
        return str(made["FileSystemId"])

    def shown(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.describe_file_systems(FileSystemIds=[id])["FileSystems"][0]
        return found

    def gone(self, id: str) -> bool:
        return all(row["FileSystemId"] != id for row in self.client.describe_file_systems()["FileSystems"])

    def link(self, id: str, path: str = "/data", **given: Any) -> str:
        request = {"FileSystemId": id, "FileSystemPath": path, "BatchImportMetaDataOnCreate": True, **given}
        made = self.client.create_data_repository_association(**request)["Association"]
        assert made["Lifecycle"] == "CREATING"
        return str(made["AssociationId"])

    def file(self, id: str, name: str) -> str | None:
        path = self.lab.world.state / "shared" / id / name
        return path.read_text() if path.exists() else None


@pytest.fixture
def storage(lab: Lab) -> Storage:
    return Storage(lab)


def test_a_file_system_is_made_and_leaves_by_way_of_deleting(storage: Storage) -> None:
    id = storage.make()
    shown = storage.shown(id)
    assert shown["DNSName"] == f"{id}.fsx.us-east-1.amazonaws.com"
    assert shown["LustreConfiguration"]["MountName"]
    assert shown["Tags"] == [{"Key": "rooflab:lab", "Value": "3"}]
    world = storage.lab.world
    control.fault(world.name, "fsx-slow", root=world.root, seconds=900)  # else it may be gone before anybody looks
    assert storage.client.delete_file_system(FileSystemId=id)["Lifecycle"] == "DELETING"
    assert storage.shown(id)["Lifecycle"] == "DELETING"
    with pytest.raises(ClientError, match="DependencyViolation"):
        storage.lab.ec2.delete_subnet(SubnetId=storage.lab.subnet)
    control.clear(world.name, root=world.root)
    await_that(lambda: storage.gone(id))
    with pytest.raises(ClientError, match=f"FileSystemNotFound.*File system '{id}' does not exist"):
        storage.client.delete_file_system(FileSystemId=id)
    storage.lab.ec2.delete_subnet(SubnetId=storage.lab.subnet)


def test_a_slow_deletion_is_seen_until_its_fault_is_over(storage: Storage) -> None:
    id, world = storage.make(), storage.lab.world
    control.fault(world.name, "fsx-slow", root=world.root, seconds=600)
    storage.client.delete_file_system(FileSystemId=id)
    control.advance(world.name, 500, root=world.root)
    assert storage.shown(id)["Lifecycle"] == "DELETING"
    control.advance(world.name, 120, root=world.root)
    assert storage.gone(id)
    control.clear(world.name, root=world.root)


def test_objects_become_files_and_follow_the_bucket(storage: Storage) -> None:
    bucket = f"data-{storage.lab.vpc}"
    storage.s3.create_bucket(Bucket=bucket)
    for key in ("set/train/0.txt", "set/readme", "elsewhere"):
        storage.s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    id = storage.make()
    events = {"AutoImportPolicy": {"Events": ["NEW", "CHANGED", "DELETED"]}}
    link = storage.link(id, DataRepositoryPath=f"s3://{bucket}/set/", S3=events)
    assert storage.file(id, "data/train/0.txt") == "set/train/0.txt"
    assert storage.file(id, "data/elsewhere") is None
    storage.s3.put_object(Bucket=bucket, Key="set/new", Body=b"new")
    storage.s3.put_object(Bucket=bucket, Key="set/readme", Body=b"changed")
    storage.s3.delete_object(Bucket=bucket, Key="set/train/0.txt")
    assert [storage.file(id, f"data/{name}") for name in ("new", "readme", "train/0.txt")] == ["new", "changed", None]
    once = storage.link(id, "/once", DataRepositoryPath=f"s3://{bucket}/elsewhere")
    late = storage.link(id, "/late", DataRepositoryPath=f"s3://{bucket}", BatchImportMetaDataOnCreate=False)
    storage.s3.put_object(Bucket=bucket, Key="set/late", Body=b"late")
    assert storage.file(id, "once/new") is None
    assert storage.file(id, "late/set/new") is None
    assert storage.file(id, "data/late") == "late"
    found = storage.client.describe_data_repository_associations(AssociationIds=[link, once, late])["Associations"]
    assert [row["FileSystemPath"] for row in found] == ["/data", "/once", "/late"]
    answer = storage.client.delete_data_repository_association(AssociationId=link)
    assert answer["Lifecycle"] == "DELETING"
    await_that(lambda: link not in str(storage.client.describe_data_repository_associations()["Associations"]))
    with pytest.raises(ClientError, match="DataRepositoryAssociationNotFound"):
        storage.client.delete_data_repository_association(AssociationId=link)
    assert storage.file(id, "data/new") == "new"


def test_a_name_that_leads_out_of_the_folder_is_no_file(tmp_path: Path) -> None:
    item = Import(bucket="b", prefix="p/", folder=tmp_path / "in", events=frozenset())
    with pytest.warns(UserWarning, match="leads out of the folder"):
        assert item._path("p/../../etc") is None


def test_what_fsx_refuses_of_an_association(storage: Storage) -> None:
    bucket = f"links-{storage.lab.vpc}"
    storage.s3.create_bucket(Bucket=bucket)
    id = storage.make()
    storage.link(id, DataRepositoryPath=f"s3://{bucket}")
    changes: list[tuple[dict[str, Any], str]] = [
        ({"path": "/data/more"}, "overlaps with an existing association"),
        ({"path": "more"}, "must start with /"),
        ({"path": "/more", "DataRepositoryPath": "s3://nowhere-at-all"}, "unable to validate access"),
        ({"path": "/more", "DataRepositoryPath": bucket}, "not of the form s3://bucket/prefix"),
        ({"S3": {"AutoExportPolicy": {"Events": ["NEW"]}}}, "NotRehearsed.*AutoExportPolicy"),
    ]
    for change, text in changes:
        with pytest.raises(ClientError, match=text):
            storage.link(id, **{"DataRepositoryPath": f"s3://{bucket}", **change})


def test_a_backup_outlives_its_file_system_and_says_whose_it_was(storage: Storage) -> None:
    client = storage.client
    with pytest.raises(ClientError, match="Backups are not supported on scratch file systems"):
        client.create_backup(FileSystemId=storage.make())
    id = storage.make(DeploymentType="PERSISTENT_2", PerUnitStorageThroughput=125)
    made = client.create_backup(FileSystemId=id, Tags=[{"Key": "a", "Value": "b"}])["Backup"]
    assert (made["Lifecycle"], made["Type"]) == ("CREATING", "USER_INITIATED")
    client.delete_file_system(FileSystemId=id)
    await_that(lambda: storage.gone(id))
    wanted = [{"Name": "file-system-id", "Values": [id]}]
    (shown,) = client.describe_backups(Filters=wanted)["Backups"]
    assert shown["Lifecycle"] == "AVAILABLE"
    assert shown["FileSystem"]["Tags"] == [{"Key": "rooflab:lab", "Value": "3"}]
    client.untag_resource(ResourceARN=shown["ResourceARN"], TagKeys=["a"])
    assert client.list_tags_for_resource(ResourceARN=shown["ResourceARN"])["Tags"] == []
    assert client.delete_backup(BackupId=shown["BackupId"])["Lifecycle"] == "DELETED"
    assert client.describe_backups(Filters=wanted)["Backups"] == []
    with pytest.raises(ClientError, match="BackupNotFound"):
        client.delete_backup(BackupId=shown["BackupId"])


def test_a_final_backup_is_made_where_it_is_asked_for(storage: Storage) -> None:
    id = storage.make(DeploymentType="PERSISTENT_2", PerUnitStorageThroughput=125)
    options = {"SkipFinalBackup": False, "FinalBackupTags": [{"Key": "final", "Value": "1"}]}
    storage.client.delete_file_system(FileSystemId=id, LustreConfiguration=options)
    wanted = [{"Name": "file-system-id", "Values": [id]}]
    (made,) = storage.client.describe_backups(Filters=wanted)["Backups"]
    assert made["Tags"] == [{"Key": "final", "Value": "1"}]
