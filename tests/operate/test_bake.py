"""An image of a ready node: what is asked of the node and of EC2, and what is taken away again."""

import json
from typing import Any

import pytest

from labs.catalog import LABS
from operate.bake import check_kind, find_baked, prepare, remove, take_image
from operate.launch import Place
from operate.nodes import Node
from operate.problem import Problem
from operate.screen import Screen
from operate.shell import Outcome
from tests.operate.scripted import Refusal, ScriptedAccount

NODE = Node(name="node0", address="192.0.2.1", instance_id="i-0123", instance_type="g6.xlarge")
SOME = LABS[1].override(owner="ada")


def image(ident: str, state: str = "available", name: str = "rooflab-gpu-20261120-110000") -> dict[str, Any]:
    return {
        "ImageId": ident, "State": state, "Name": name, "CreationDate": "2026-11-20",
        "StateReason": {"Message": "no room"}, "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": f"snap-{ident}", "VolumeSize": 150}},
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        ],
    }  # fmt: skip


class Images:
    """EC2's images: the new one is pending at first."""

    def __init__(self, *older: str, fate: str = "available") -> None:
        self.found = {ident: image(ident) for ident in older}
        self.fate, self.looks = fate, 0
        self.account = ScriptedAccount({
            "ec2:CreateImage": self.create, "ec2:DescribeImages": self.describe,
            "ec2:DescribeSnapshots": {"Snapshots": [{"SnapshotId": "s", "VolumeSize": 150, "Progress": "40%"}]},
            "ec2:DeregisterImage": self.deregister, "ec2:DeleteSnapshot": {},
            "ssm:PutParameter": {"Version": 1}, "ssm:AddTagsToResource": {}, "ssm:DeleteParameter": {},
        })  # fmt: skip

    def create(self, params: dict[str, Any]) -> dict[str, Any]:
        self.found["ami-new"] = image("ami-new", "pending", params["Name"])
        return {"ImageId": "ami-new"}

    def describe(self, params: dict[str, Any]) -> dict[str, Any]:
        self.looks += 1
        if self.looks == 3 and "ami-new" in self.found:
            self.found["ami-new"]["State"] = self.fate
        asked = params.get("ImageIds") or list(self.found)
        return {"Images": [self.found[ident] for ident in asked]}

    def deregister(self, params: dict[str, Any]) -> dict[str, Any]:
        del self.found[params["ImageId"]]
        return {}


def test_the_image_is_made_without_a_reboot_and_carries_no_stack(capsys) -> None:
    images = Images()
    made = take_image(images.account, SOME, NODE, Screen(), pause=lambda _: None)
    (asked,) = images.account.requests("ec2:CreateImage")
    tags = [{"Key": "rooflab:baked", "Value": "1"}, {"Key": "rooflab:owner", "Value": "ada"}]
    assert asked == {
        "InstanceId": "i-0123", "Name": "rooflab-gpu-20261120-120000", "NoReboot": True,
        "Description": "Rooflab: g6.xlarge of lab 1, set up and ready",
        "TagSpecifications": [{"ResourceType": what, "Tags": tags} for what in ("image", "snapshot")],
    }  # fmt: skip
    assert images.account.requests("ssm:PutParameter") == [
        {"Name": "/rooflab/image/gpu", "Value": "ami-new", "Type": "String", "DataType": "aws:ec2:image",
         "Overwrite": True}
    ]  # fmt: skip
    assert made.line() == (
        "ami-new is baked, for -c image=baked on types with GPUs; at most $7.50 a month (150 GiB of snapshots) until "
        "fab bake --remove gpu"
    )
    assert "baking ami-new: 150 GiB 40%" in capsys.readouterr().out


def test_the_image_that_it_replaces_goes_when_the_new_one_is_there() -> None:
    images = Images("ami-old")
    take_image(images.account, SOME, NODE, Screen(), pause=lambda _: None)
    order = [asked for asked, _ in images.account.asked if asked in ("ssm:PutParameter", "ec2:DeregisterImage")]
    assert order == ["ssm:PutParameter", "ec2:DeregisterImage"]
    assert images.account.requests("ec2:DeleteSnapshot") == [{"SnapshotId": "snap-ami-old"}]
    assert list(images.found) == ["ami-new"]


def test_an_image_that_ec2_cannot_make_names_nothing() -> None:
    images = Images("ami-old", fate="failed")
    with pytest.raises(Problem, match=r"EC2 could not make ami-new \(failed: no room\): bake again"):
        take_image(images.account, SOME, NODE, Screen(), pause=lambda _: None)
    assert images.account.requests("ssm:PutParameter") == []
    assert "ami-old" in images.found


def test_a_node_without_gpus_makes_the_other_kind() -> None:
    images = Images("ami-gpu")
    node = Node(name="node0", address="192.0.2.1", instance_id="i-0123", instance_type="t3.medium")
    assert take_image(images.account, SOME, node, Screen(), pause=lambda _: None).kind == "cpu"
    assert "ami-gpu" in images.found


def test_removing_takes_images_snapshots_and_parameter(capsys) -> None:
    images = Images("ami-1", "ami-2")
    images.found["ami-2"]["Name"] = "rooflab-cpu-1"
    remove(images.account, "gpu", Screen(), json=False)
    assert list(images.found) == ["ami-2"]
    assert images.account.requests("ec2:DeleteSnapshot") == [{"SnapshotId": "snap-ami-1"}]
    assert images.account.requests("ssm:DeleteParameter") == [{"Name": "/rooflab/image/gpu"}]
    assert capsys.readouterr().out == "ami-1 and snap-ami-1 are removed\n"


def test_removing_twice_is_harmless(capsys) -> None:
    images = Images()
    images.account.answers["ssm:DeleteParameter"] = Refusal("ParameterNotFound")
    remove(images.account, "cpu", Screen(), json=False)
    assert capsys.readouterr().out == "no cpu image was baked in us-east-1: nothing was removed\n"
    remove(images.account, "cpu", Screen(json=True), json=True)
    assert json.loads(capsys.readouterr().out) == {"removed": [], "parameter": None}


def test_a_snapshot_that_is_gone_already_is_no_failure() -> None:
    images = Images("ami-1")
    images.account.answers["ec2:DeleteSnapshot"] = Refusal("InvalidSnapshot.NotFound")
    remove(images.account, "gpu", Screen(), json=False)
    images = Images("ami-1")
    images.account.answers["ec2:DeleteSnapshot"] = Refusal("InvalidSnapshot.InUse")
    with pytest.raises(Exception, match="InUse"):
        remove(images.account, "gpu", Screen(), json=False)


def test_only_images_of_ones_own_that_were_baked_are_looked_at() -> None:
    images = Images("ami-1")
    find_baked(images.account, "gpu")
    assert images.account.requests("ec2:DescribeImages") == [
        {"Owners": ["self"], "Filters": [{"Name": "tag-key", "Values": ["rooflab:baked"]}]}
    ]


def test_a_kind_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="remove='tpu' is no kind of image: write --remove gpu or --remove cpu"):
        check_kind("tpu")


class FakeCluster:
    """A cluster whose one node answers as the test says."""

    place = Place()

    def __init__(self, running: str = "", code: int = 0) -> None:
        self.shells, self.asked = self, list[str]()
        self.running, self.code = running, code

    def each(self, command: str, **_: object) -> dict[str, Outcome]:
        self.asked.append(command)
        text = self.running if "rooflab-runs" in command else "no space left on device\n"
        code = 0 if "rooflab-runs" in command else self.code
        return {"node0": Outcome(code=code, stdout=text.encode(), stderr=b"")}


def test_the_node_prepares_itself_by_its_own_file() -> None:
    cluster = FakeCluster()
    prepare(cluster, NODE, Screen())  # type: ignore[arg-type]
    assert cluster.asked[1:] == ["sudo -n bash /opt/rooflab/bake.sh"]


def test_a_node_that_cannot_prepare_itself_says_why() -> None:
    with pytest.raises(Problem) as problem:
        prepare(FakeCluster(code=1), NODE, Screen())  # type: ignore[arg-type]
    assert str(problem.value) == (
        "node0 could not be made ready for an image (exit code 1: no space left on device): fab ssh --node node0, "
        "and look at /opt/rooflab/bake.sh"
    )


def test_a_node_that_still_runs_something_is_not_baked() -> None:
    with pytest.raises(Problem, match="node0 still runs 20261120-110000-lab1, and an image takes a node's runs away"):
        prepare(FakeCluster("20261120-110000-lab1\n"), NODE, Screen())  # type: ignore[arg-type]


def test_nothing_is_prepared_on_a_machine_that_is_not_the_nodes_own(capsys) -> None:
    """Where nodes are processes of one machine, its files are nobody's to clean."""
    cluster = FakeCluster()
    here = Node(name="node0", address="127.77.0.1", instance_id="i-0123", instance_type="t3.medium")
    prepare(cluster, here, Screen())  # type: ignore[arg-type]
    assert len(cluster.asked) == 1
    assert capsys.readouterr().err == (
        "warning: node0 shares this machine with others, so nothing on it was prepared for an image\n"
    )
