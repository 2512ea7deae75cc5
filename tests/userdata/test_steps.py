"""The nodes' boot files, run for real in a root of their own; stand-ins only for commands that need hardware or AWS."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.userdata.node import SCRIPTS, Node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "root")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    found = subprocess.run([checker, script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_file_says_what_it_is_for_and_stops_at_the_first_failure(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert lines[1].startswith("# ")
    assert "set -euo pipefail" in lines


def test_ready_says_ok_after_every_step(node: Node) -> None:
    for name in ("one", "two"):
        (node.here / f"{name}.sh").write_text("echo done\n")
    assert node.boot("one", "two") == "ok"
    took = dict(line.split() for line in (node.home / "boot/seconds").read_text().splitlines())
    assert list(took) == ["start", "one", "two"]
    assert float(took["start"]) > 0, "how long this system had been up"
    assert all(0 <= float(took[step]) < 60 for step in ("one", "two"))


def test_a_second_boot_is_timed_by_itself(node: Node) -> None:
    (node.here / "one.sh").write_text("echo done\n")
    (node.here / "two.sh").write_text("echo done\n")
    node.boot("one", "two")
    node.boot("two")
    assert [line.split()[0] for line in (node.home / "boot/seconds").read_text().splitlines()] == ["start", "two"]
    assert not (node.home / "boot/one.log").exists()


def test_ready_names_the_step_that_failed_and_its_last_line(node: Node) -> None:
    (node.here / "one.sh").write_text("echo trying\necho 'no GPU was found'\necho ''\nexit 1\n")
    (node.here / "two.sh").write_text(f"touch {node.root}/two-ran\n")
    assert node.boot("one", "two") == "failed: one: no GPU was found"
    assert not (node.root / "two-ran").exists()


def test_a_command_that_fails_in_a_step_ends_it(node: Node) -> None:
    (node.here / "one.sh").write_text("echo before\nfalse\necho after\n")
    assert node.boot("one") == "failed: one: before"


def test_a_silent_failure_has_a_reason_too(node: Node) -> None:
    (node.here / "one.sh").write_text("exit 3\n")
    assert node.boot("one") == "failed: one: it printed nothing"


def test_the_environment_is_there_even_when_a_step_fails(node: Node) -> None:
    (node.here / "one.sh").write_text("exit 1\n")
    node.boot("one")
    found = node.env()
    assert (found["AWS_REGION"], found["ROOFLAB_BUCKET"]) == ("us-east-1", "results-bucket")


def test_booting_again_changes_nothing(node: Node) -> None:
    node.command("findmnt", "exit 1")
    node.command("lsblk", "")
    node.command("modinfo", "")
    (node.root / "etc/fstab").write_text("")
    steps = ("nvme", "lustre")
    assert node.boot(*steps) == "ok"
    before = (node.home / "env.sh").read_text(), (node.root / "etc/fstab").read_text()
    assert node.boot(*steps) == "ok"
    assert before == ((node.home / "env.sh").read_text(), (node.root / "etc/fstab").read_text())


def test_deadline_arms_the_belt(node: Node) -> None:
    assert node.boot("deadline") == "ok"
    assert os.access(node.root / "usr/local/sbin/rooflab-belt", os.X_OK)
    assert (
        "ExecStart=/usr/local/sbin/rooflab-belt" in (node.root / "etc/systemd/system/rooflab-belt.service").read_text()
    )
    assert node.calls[:2] == ["systemctl daemon-reload", "systemctl enable --now rooflab-belt.timer"]


def test_system_holds_the_kernel_and_admits_keys_only(node: Node) -> None:
    node.command("dpkg-query", "printf 'ii  linux-image-aws\\nun  linux-doc\\nii  linux-modules-6.8.0\\n'")
    assert node.boot("system") == "ok"
    assert "apt-mark hold linux-image-aws linux-modules-6.8.0" in node.calls
    assert "PasswordAuthentication no" in (node.root / "etc/ssh/sshd_config.d/10-rooflab.conf").read_text()
    assert node.calls.index("sshd -t") < node.calls.index("systemctl reload ssh"), "a bad file must not lock us out"


DISKS = "/dev/nvme0n1 Amazon Elastic Block Store\n/dev/nvme1n1 Amazon EC2 NVMe Instance Storage\n"


def lsblk(disks: str) -> str:
    """A stand-in: `-dno PATH,MODEL` lists the disks, `-no FSTYPE` finds none, `-no NAME` finds the disk alone."""
    return f"case $2 in PATH,MODEL) printf '{disks}' ;; FSTYPE) echo ;; NAME) echo disk ;; esac"


def test_one_nvme_disk_is_formatted_and_mounted(node: Node) -> None:
    node.command("findmnt", "exit 1")
    node.command("lsblk", lsblk(DISKS))
    assert node.boot("nvme") == "ok"
    assert "mkfs.ext4 -q -E nodiscard /dev/nvme1n1" in node.calls
    assert f"mount -o noatime /dev/nvme1n1 {node.root}/var/lib/rooflab/scratch" in node.calls


def test_several_nvme_disks_are_striped(node: Node) -> None:
    node.command("findmnt", "exit 1")
    node.command("lsblk", lsblk(f"{DISKS}/dev/nvme2n1 Amazon EC2 NVMe Instance Storage\\n"))
    assert node.boot("nvme") == "ok"
    (made,) = [call for call in node.calls if call.startswith("mdadm")]
    assert made == "mdadm --create /dev/md/rooflab --run --level=0 --raid-devices=2 /dev/nvme1n1 /dev/nvme2n1"
    assert "mkfs.ext4 -q -E nodiscard /dev/md/rooflab" in node.calls


def test_a_disk_that_holds_something_is_left_alone(node: Node) -> None:
    node.command("findmnt", "exit 1")
    node.command("lsblk", lsblk(DISKS).replace("FSTYPE) echo", "FSTYPE) echo xfs"))
    assert node.boot("nvme") == "ok"
    assert not [call for call in node.calls if call.startswith("mkfs")]


def test_the_images_own_nvme_mount_is_used(node: Node) -> None:
    (node.root / "opt/dlami/nvme").mkdir(parents=True)
    node.command("findmnt", "exit 0")
    node.command("lsblk", "")
    assert node.boot("nvme") == "ok"
    assert node.env()["ROOFLAB_SCRATCH"] == f"{node.root}/opt/dlami/nvme"
    assert not [call for call in node.calls if call.startswith("mkfs")]


def test_a_node_without_nvme_uses_its_root_volume(node: Node) -> None:
    node.command("findmnt", "exit 1")
    node.command("lsblk", lsblk("/dev/nvme0n1 Amazon Elastic Block Store\\n"))
    assert node.boot("nvme") == "ok"
    assert Path(node.env()["HF_HOME"]).is_dir()


SMI = "case $* in *query-gpu*) printf 'L4\\n%.0s' {{1..{gpus}}} ;; -q) echo '{fabric}' ;; esac"


def test_all_gpus_of_the_type_have_to_be_there(node: Node) -> None:
    node.command("nvidia-smi", SMI.format(gpus=4, fabric=""))
    assert node.boot("gpu") == "ok"
    assert "nvidia-smi -pm 1" in node.calls
    node.command("nvidia-smi", SMI.format(gpus=3, fabric=""))
    assert node.boot("gpu") == "failed: gpu: nvidia-smi shows 3 GPUs after 0 s, this instance type has 4"


def test_a_driver_that_does_not_load_is_named(node: Node) -> None:
    node.command("nvidia-smi", "exit 9")
    assert node.boot("gpu") == "failed: gpu: nvidia-smi shows 0 GPUs after 0 s, this instance type has 4"


def test_gpus_wait_for_their_fabric(node: Node) -> None:
    node.command("nvidia-smi", SMI.format(gpus=4, fabric="    Fabric\n        State : In Progress"))
    assert node.boot("gpu") == (
        "failed: gpu: the NVSwitch fabric is not ready after 0 s: see journalctl -u nvidia-fabricmanager"
    )


def test_slurm_is_installed_asleep_and_held(node: Node) -> None:
    assert node.boot("slurm") == "ok"
    units = "slurmctld.service slurmd.service munge.service"
    done = [call for call in node.calls if not call.startswith(("dpkg-query", "chown"))]
    assert done == [
        f"systemctl mask {units}", "apt-get update -q", "apt-get install -qy slurmctld slurmd slurm-client munge",
        f"systemctl unmask {units}", f"systemctl disable --now {units}",
        "apt-mark hold slurmctld slurmd slurm-client munge",
    ]  # fmt: skip


def test_slurm_of_a_baked_image_is_not_installed_again(node: Node) -> None:
    node.command("dpkg-query", "exit 0")
    assert node.boot("slurm") == "ok"
    assert not [call for call in node.calls if call.startswith("apt-get")]


def test_a_slurm_that_cannot_be_had_is_named(node: Node) -> None:
    node.command("apt-get", "[ $1 != install ] || { echo 'E: Unable to locate package slurmd'; exit 100; }")
    assert node.boot("slurm") == "failed: slurm: E: Unable to locate package slurmd"


def with_efa(node: Node, devices: int, fi_info: str = "exit 0", plugin: bool = True) -> None:
    for index in range(devices):
        (node.root / f"sys/class/infiniband/rdmap{index}s0").mkdir(parents=True)
    (node.root / "sys/class/infiniband").mkdir(parents=True, exist_ok=True)
    (node.root / "opt/amazon/efa/bin").mkdir(parents=True)
    (node.root / "opt/amazon/ofi-nccl/lib").mkdir(parents=True)
    if plugin:
        (node.root / "opt/amazon/ofi-nccl/lib/libnccl-net.so").touch()
    path = node.root / "opt/amazon/efa/bin/fi_info"
    path.write_text(f"#!/bin/bash\n{fi_info}\n")
    path.chmod(0o755)


def test_efa_tells_nccl_where_its_plugin_is(node: Node) -> None:
    with_efa(node, 1)
    assert node.boot("efa") == "ok"
    found = node.env()
    assert found["LD_LIBRARY_PATH"] == f"{node.root}/opt/amazon/ofi-nccl/lib:{node.root}/opt/amazon/efa/lib"
    assert (found["FI_PROVIDER"], found["ROOFLAB_EFAS"]) == ("efa", "1")


def test_each_thing_that_efa_lacks_is_named(tmp_path: Path) -> None:
    for name, given, reason in (
        ("devices", {"devices": 0}, "0 EFA devices are there, the lab asked for 1"),
        (
            "provider",
            {"devices": 1, "fi_info": "exit 61"},
            "libfabric does not open the EFA devices: fi_info -p efa failed",
        ),
        ("plugin", {"devices": 1, "plugin": False}, "NCCL's plugin for EFA is not in"),
    ):
        node = Node(tmp_path / name)
        with_efa(node, **given)
        assert node.boot("efa").startswith(f"failed: efa: {reason}")


def with_lustre(node: Node, client: str) -> None:
    (node.root / "etc/os-release").write_text("NAME=Ubuntu\nVERSION_CODENAME=jammy\n")
    (node.root / "etc/fstab").write_text("")
    node.command("modinfo", "exit 1")
    node.command("findmnt", "exit 1")
    node.command("uname", "echo 6.8.0-1063-aws")
    node.command("curl", "echo key")
    node.command("gpg", "cat >/dev/null")
    node.command("apt-cache", client)


def test_lustre_takes_the_client_of_the_running_kernel(node: Node) -> None:
    with_lustre(node, "exit 0")
    assert node.boot("lustre") == "ok"
    assert "apt-get install -qy lustre-client-modules-6.8.0-1063-aws" in node.calls
    assert " jammy main" in (node.root / "etc/apt/sources.list.d/fsx-lustre.list").read_text()
    assert (node.root / "etc/fstab").read_text() == (
        "fs-0.fsx.us-east-1.amazonaws.com@tcp:/fsx /fsx lustre defaults,_netdev,noatime,flock,user_xattr,noauto,"
        "x-systemd.automount 0 0\n"
    )
    assert "mount /fsx" in node.calls
    told = {name: node.env()[name] for name in ("ROOFLAB_SHARED", "ROOFLAB_STORAGE", "ROOFLAB_STORAGE_GIB")}
    assert told == {"ROOFLAB_SHARED": "/fsx", "ROOFLAB_STORAGE": "scratch", "ROOFLAB_STORAGE_GIB": "1200"}


def test_the_file_system_of_a_former_lab_is_not_mounted_again(node: Node) -> None:
    with_lustre(node, "exit 0")
    other = "UUID=1 / ext4 defaults 0 1\n"
    (node.root / "etc/fstab").write_text(f"{other}fs-9.fsx.us-east-1.amazonaws.com@tcp:/x /fsx lustre noauto 0 0\n")
    assert node.boot("lustre") == "ok"
    kept, added = (node.root / "etc/fstab").read_text().splitlines()
    assert kept == other.strip()
    assert added.startswith("fs-0.fsx.us-east-1.amazonaws.com@tcp:/fsx ")


def test_a_file_system_that_cannot_be_mounted_says_where_to_look(node: Node) -> None:
    with_lustre(node, "exit 0")
    node.command("mount", "exit 5")
    assert node.boot("lustre") == (
        "failed: lustre: fs-0.fsx.us-east-1.amazonaws.com cannot be mounted: does its security group let the nodes in "
        "on 988 and 1018-1023?"
    )


def test_without_ipv4_the_lustre_client_comes_by_a_name_with_ipv6_in_its_buckets_region(node: Node) -> None:
    node.settings["ROOFLAB_IPV6_ONLY"] = "1"
    with_lustre(node, "exit 0")
    head = "HTTP/1.1 403 Forbidden\\r\\nx-amz-bucket-region: eu-west-1\\r\\n\\r\\n"
    node.command("curl", f"case $* in -sSI*) printf '{head}' ;; *) echo key ;; esac")
    assert node.boot("lustre") == "ok"
    list_ = (node.root / "etc/apt/sources.list.d/fsx-lustre.list").read_text()
    assert " https://fsx-lustre-client-repo.s3.dualstack.eu-west-1.amazonaws.com/ubuntu jammy main" in list_


def test_a_kernel_without_a_lustre_client_says_what_to_do(node: Node) -> None:
    with_lustre(node, "exit 100")
    assert node.boot("lustre") == (
        "failed: lustre: AWS has no Lustre client for kernel 6.8.0-1063-aws: deploy with -c storage=none, or bake an "
        "older image"
    )


def with_uv(node: Node, gpus_seen: int) -> None:
    """`pip` brings a uv that makes a venv whose Python sees that many GPUs, and that resolves links as uv may."""
    node.command("lsblk", "")
    node.command("findmnt", "exit 1")
    uv = node.root / "opt/rooflab/uv/bin/uv"
    uv.parent.mkdir(parents=True)
    python = node.root / "stand-in-python"
    python.write_text(
        f"#!/bin/bash\n"
        f'case "$1 $2" in "- {gpus_seen}" | "-c import torch") exit ;; esac\n'
        f'echo "torch 2.13.0 sees {gpus_seen} GPUs" >&2\nexit 1\n'
    )
    uv.write_text(f"""\
#!/bin/bash
echo "uv $*" >>"{node.root}/calls"
case $1 in
--version) echo "uv 0.13.6 (x86_64)" ;;
venv)
    [ ! -e "{node.root}/no-python" ] || [[ $* == *python3.11* ]] || exit 1
    bin=$(readlink -m "$UV_PYTHON_INSTALL_DIR")/bin
    mkdir -p "$bin" "${{!#}}/bin" && cp "{python}" "$bin/python3.12"
    ln -sf "$bin/python3.12" "${{!#}}/bin/python"
    printf 'home = %s\\nversion_info = 3.12.4\\n' "$bin" >"${{!#}}/pyvenv.cfg" ;;
esac
""")
    python.chmod(0o755)
    uv.chmod(0o755)
    node.command("python3", "")


def calls(node: Node, start: str) -> list[str]:
    return [call for call in node.calls if call.startswith(start)]


def test_python_installs_the_pins_and_comes_first_on_the_path(node: Node) -> None:
    with_uv(node, 4)
    assert node.boot("nvme", "python") == "ok"
    (installed,) = calls(node, "uv pip install")
    assert installed.endswith("/bin/python torch==2.13.0 numpy==2.4.6")
    assert node.env()["PATH"].startswith(f"{node.root}/opt/rooflab/venv/bin:")
    scratch = node.root / "var/lib/rooflab/scratch"
    assert (node.root / "opt/rooflab/venv").resolve() == scratch / "python/venv", "never on Lustre"


def test_the_same_pins_are_not_installed_again(node: Node) -> None:
    with_uv(node, 4)
    assert node.boot("nvme", "python") == "ok"
    before = node.calls
    assert node.boot("nvme", "python") == "ok"
    assert [call for call in node.calls[len(before) :] if call.startswith(("uv", "apt-get", "python3"))] == []


def test_other_pins_are_brought_into_the_environment_that_is_there(node: Node) -> None:
    with_uv(node, 4)
    assert node.boot("nvme", "python") == "ok"
    node.settings["ROOFLAB_PACKAGES"] = "torch==2.14.0 numpy==2.4.6"
    assert node.boot("nvme", "python") == "ok"
    assert len(calls(node, "uv venv")) == 1
    assert calls(node, "uv pip install")[-1].endswith(" torch==2.14.0 numpy==2.4.6")


def test_an_environment_that_lost_its_scratch_disk_is_made_anew(node: Node) -> None:
    with_uv(node, 4)
    assert node.boot("nvme", "python") == "ok"
    shutil.rmtree(node.root / "var/lib/rooflab/scratch")
    assert node.boot("nvme", "python") == "ok"
    assert len(calls(node, "uv venv")) == 2


def test_a_cpu_node_takes_torch_without_cuda(node: Node) -> None:
    node.settings["ROOFLAB_GPUS"] = "0"
    with_uv(node, 0)
    assert node.boot("nvme", "python") == "ok"
    (installed,) = calls(node, "uv pip install")
    assert "--torch-backend cpu" in installed


def test_torch_has_to_see_the_gpus(node: Node) -> None:
    with_uv(node, 0)
    assert node.boot("nvme", "python") == "failed: python: torch 2.13.0 sees 0 GPUs"


def test_a_python_that_cannot_be_had_is_a_failure(node: Node) -> None:
    with_uv(node, 4)
    (node.root / "no-python").touch()
    assert node.boot("nvme", "python").startswith("failed: python: ")


def test_without_ipv4_ubuntus_python_takes_its_place_with_a_warning(node: Node) -> None:
    node.settings["ROOFLAB_IPV6_ONLY"] = "1"
    with_uv(node, 4)
    (node.root / "no-python").touch()
    assert node.boot("nvme", "python") == "ok"
    assert "apt-get install -qy python3.11-venv python3.11-dev" in node.calls
    warning = "warning: https://releases.astral.sh has no Python 3.12 for us: Ubuntu's own 3.11 takes its place"
    assert warning in (node.home / "boot/python.log").read_text()


def test_without_ipv4_everything_goes_by_names_with_ipv6(node: Node) -> None:
    node.settings["ROOFLAB_IPV6_ONLY"] = "1"
    node.command("curl", "")
    sources = node.root / "etc/apt/sources.list"
    sources.parent.mkdir()
    sources.write_text(
        "deb http://us-east-1.ec2.archive.ubuntu.com/ubuntu/ jammy main\n"
        "deb http://security.ubuntu.com/ubuntu jammy-security main\n"
    )
    assert node.boot("ipv6") == "ok"
    assert sources.read_text() == (
        "deb http://archive.ubuntu.com/ubuntu/ jammy main\ndeb http://security.ubuntu.com/ubuntu jammy-security main\n"
    )
    assert 'Acquire::ForceIPv6 "true";' in (node.root / "etc/apt/apt.conf.d/91rooflab-ipv6").read_text()
    agent = json.loads((node.root / "etc/amazon/ssm/amazon-ssm-agent.json").read_text())
    assert agent == {
        "Ssm": {"Endpoint": "https://ssm.us-east-1.api.aws"},
        "Mgs": {"Endpoint": "https://ssmmessages.us-east-1.api.aws"},
        "Mds": {"Endpoint": "https://ec2messages.us-east-1.api.aws"},
    }
    assert "systemctl restart amazon-ssm-agent.service" in node.calls
    assert node.env()["AWS_USE_DUALSTACK_ENDPOINT"] == "true"


def test_no_way_out_is_named(node: Node) -> None:
    node.command("curl", "exit 7")
    assert node.boot("ipv6") == (
        "failed: ipv6: pypi.org does not answer over IPv6 after 0 s: does ::/0 of the subnet lead to an egress-only "
        "gateway?"
    )
