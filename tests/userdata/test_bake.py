"""A node becomes an image, and another lab's node starts from it: quickly, and believing nothing of the first."""

import shutil
import subprocess
from pathlib import Path

import pytest

from stacks.boot import STALE
from tests.userdata.node import Node
from tests.userdata.test_steps import calls, with_uv

STEPS = ("deadline", "nvme", "python")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A ready node, on which a run took place."""
    made = Node(tmp_path / "root")
    with_uv(made, 4)
    (made.root / "etc/fstab").write_text("UUID=1 / ext4 defaults 0 1\nfs-0@tcp:/x /fsx lustre noauto 0 0\n")
    assert made.boot(*STEPS) == "ok"
    for name in ("home/ubuntu/rooflab-runs/20261121-030500-lab3/run.log", "home/ubuntu/.bash_history",
                 "home/ubuntu/.cache/huggingface/token", "home/ubuntu/.ssh/authorized_keys",
                 "var/lib/rooflab/deadline", "var/lib/rooflab/notice", "etc/machine-id"):  # fmt: skip
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        (made.root / name).write_text("1\n")
    made.command("mount", 'touch "$ROOT/etc/mounted"')
    made.command("mountpoint", '[ -e "$ROOT/etc/mounted" ]')
    return made


def bake(node: Node) -> "subprocess.CompletedProcess[str]":
    command = ["bash", str(node.here / "bake.sh")]
    return subprocess.run(command, env=node.environment({}), check=False, capture_output=True, text=True)


def launch_another(node: Node) -> None:
    """What a new instance of that image is before its boot files run: without scratch disk, and with bootcmd done."""
    shutil.rmtree(node.root / "var/lib/rooflab/scratch")
    for path in STALE:
        subprocess.run(["rm", "-rf", f"{node.root}{path}"], check=True)
    (node.root / "calls").unlink()


def test_the_environment_of_a_baked_image_is_used_as_it_is(node: Node) -> None:
    assert bake(node).returncode == 0
    launch_another(node)
    node.settings["ROOFLAB_STACK"] = "Lab1Stack-bob"
    assert node.boot(*STEPS) == "ok"
    assert calls(node, "uv") + calls(node, "apt-get") == []
    assert node.env()["ROOFLAB_STACK"] == "Lab1Stack-bob"
    python = Path(node.env()["PATH"].split(":")[0]) / "python"
    assert python.resolve().is_relative_to(node.root / "opt/rooflab/python"), "all of it lies on the root volume"


def test_other_pins_are_brought_into_a_baked_image(node: Node) -> None:
    bake(node)
    launch_another(node)
    node.settings["ROOFLAB_PACKAGES"] = "torch==2.14.0"
    assert node.boot(*STEPS) == "ok"
    assert calls(node, "uv venv") == []
    assert calls(node, "uv pip install")[0].endswith(" torch==2.14.0")
    assert not (node.root / "opt/rooflab/python").is_symlink()


def test_a_new_instance_believes_nothing_of_the_node_it_was_baked_from(node: Node) -> None:
    bake(node)
    launch_another(node)
    for gone in (node.home / "ready", node.home / "env.sh", node.home / "boot/seconds", node.here / "boot.env"):
        assert not gone.exists()
    assert not (node.root / "home/ubuntu/.ssh/authorized_keys").exists(), "its user's key admits nobody"
    assert node.belt_again().returncode != 0, "the belt waits for its own lab's settings"
    assert "shutdown -P now" not in node.calls


def test_a_bake_removes_what_is_the_users_and_leaves_the_node_usable(node: Node) -> None:
    assert bake(node).returncode == 0
    home = node.root / "home/ubuntu"
    assert sorted(path.name for path in home.iterdir()) == [".cache", ".rooflab", ".ssh"]
    assert not (home / ".cache/huggingface/token").exists()
    assert (node.root / "etc/fstab").read_text() == "UUID=1 / ext4 defaults 0 1\n"
    assert node.boot(*STEPS) == "ok"
    assert calls(node, "uv venv") == calls(node, "uv venv")[:1]


def test_instances_of_an_image_make_machine_ids_of_their_own_and_the_node_keeps_its_own(node: Node) -> None:
    assert bake(node).returncode == 0
    held, id = node.root / "run/rooflab/machine-id", node.root / "etc/machine-id"
    assert id.read_text() == "", "missing, it would be a first start to systemd, which enables units anew"
    assert held.read_text() == "1\n"
    assert f"mount --bind {held} {id}" in node.calls


def test_baking_twice_is_harmless(node: Node) -> None:
    assert bake(node).returncode == 0
    assert bake(node).returncode == 0
    assert (node.root / "run/rooflab/machine-id").read_text() == "1\n"
    assert len(calls(node, "mount --bind")) == 1


def test_a_node_that_is_not_ready_is_not_baked(node: Node) -> None:
    (node.home / "ready").write_text("failed: python: no space left on device\n")
    refused = bake(node)
    assert refused.returncode == 1
    assert refused.stdout == "this node is not ready: failed: python: no space left on device\n"
