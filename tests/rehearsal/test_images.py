"""Images made from a node: what they hold, what starts from them, what they leave."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal import control
from tests.rehearsal.worlds import Lab, await_that

ROOT = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 60, "VolumeType": "gp3", "Encrypted": True}}
TAGS = [{"Key": "rooflab:baked", "Value": "3"}]


@pytest.fixture(autouse=True)
def slow(lab: Lab) -> Iterator[None]:
    """An image stays pending until a test has seen it so."""
    control.fault(lab.world.name, "image-slow", root=lab.world.root, seconds=900)
    yield
    control.clear(lab.world.name, root=lab.world.root)


def go_on(lab: Lab, image: str) -> None:
    """Let an image become available."""
    control.clear(lab.world.name, root=lab.world.root)
    await_that(lambda: shown(lab, image)["State"] == "available")


@pytest.fixture
def baked(lab: Lab) -> Iterator[tuple[Lab, str]]:
    (node,) = lab.run(BlockDeviceMappings=[ROOT])
    specified = [{"ResourceType": kind, "Tags": TAGS} for kind in ("image", "snapshot")]
    image = lab.ec2.create_image(InstanceId=node["InstanceId"], Name=f"of {lab.vpc}", TagSpecifications=specified)
    yield lab, image["ImageId"]
    if lab.ec2.describe_images(Filters=[{"Name": "image-id", "Values": [image["ImageId"]]}])["Images"]:
        lab.ec2.deregister_image(ImageId=image["ImageId"])
    for snapshot in lab.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]:
        lab.ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])


def shown(lab: Lab, image: str) -> dict[str, Any]:
    found: dict[str, Any] = lab.ec2.describe_images(ImageIds=[image])["Images"][0]
    return found


def test_an_image_is_pending_then_available_and_a_node_starts_from_it(baked: tuple[Lab, str]) -> None:
    lab, image = baked
    assert shown(lab, image)["State"] == "pending"
    go_on(lab, image)
    (mapping,) = shown(lab, image)["BlockDeviceMappings"]
    assert (mapping["Ebs"]["VolumeSize"], mapping["Ebs"]["Encrypted"]) == (60, True)
    assert TAGS[0] in shown(lab, image)["Tags"]
    assert [row["ImageId"] for row in lab.ec2.describe_images(Owners=["self"])["Images"]] == [image]
    ssm = lab.world.client("ssm")
    name = f"/rooflab/image/{lab.vpc}"
    ssm.put_parameter(Name=name, Type="String", DataType="aws:ec2:image", Value=image)
    (node,) = lab.run(ImageId=f"resolve:ssm:{name}")
    assert node["ImageId"] == image
    volume = node["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert lab.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Size"] == 60
    small = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 40}}]
    with pytest.raises(ClientError, match=r"Volume of size 40GB is smaller than snapshot 'snap-.*', expect size >= 60"):
        lab.run(ImageId=image, BlockDeviceMappings=small)


def test_an_image_that_is_deregistered_leaves_its_snapshot(baked: tuple[Lab, str]) -> None:
    lab, image = baked
    (mapping,) = shown(lab, image)["BlockDeviceMappings"]
    snapshot = mapping["Ebs"]["SnapshotId"]
    with pytest.raises(ClientError, match=rf"InvalidSnapshot\.InUse.*{snapshot} is currently in use by {image}"):
        lab.ec2.delete_snapshot(SnapshotId=snapshot)
    lab.ec2.deregister_image(ImageId=image)
    mine = [row["SnapshotId"] for row in lab.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]]
    assert mine == [snapshot]
    with pytest.raises(ClientError, match=r"InvalidAMIID\.NotFound"):
        lab.run(ImageId=image)
    lab.ec2.delete_snapshot(SnapshotId=snapshot)
    assert lab.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_what_ec2_refuses_of_an_image(lab: Lab) -> None:
    (node,) = lab.run()
    id = node["InstanceId"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"Name": "a*b"}, r"InvalidAMIName\.Malformed"),
        ({"Name": "good", "BlockDeviceMappings": [ROOT]}, "NotRehearsed.*BlockDeviceMappings"),
        ({"Name": "good", "TagSpecifications": [{"ResourceType": "volume", "Tags": TAGS}]}, "valid taggable resource"),
    ]
    for given, text in wrong:
        with pytest.raises(ClientError, match=text):
            lab.ec2.create_image(InstanceId=id, **given)
    made = lab.ec2.create_image(InstanceId=id, Name="twice")["ImageId"]
    with pytest.raises(ClientError, match=rf"InvalidAMIName\.Duplicate.*already in use by AMI {made}"):
        lab.ec2.create_image(InstanceId=id, Name="twice")
    (snapshot,) = [row["Ebs"]["SnapshotId"] for row in shown(lab, made)["BlockDeviceMappings"]]
    with pytest.raises(ClientError, match=r"InvalidAMIID\.Unavailable.*pending"):
        lab.run(ImageId=made)
    lab.ec2.deregister_image(ImageId=made)
    lab.ec2.delete_snapshot(SnapshotId=snapshot)
    lab.end(id)
    with pytest.raises(ClientError, match="IncorrectState"):
        lab.ec2.create_image(InstanceId=id, Name="late")
