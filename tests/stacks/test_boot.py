"""User data as cloud-init gets it: its parts, and what unpacking them leaves on a node."""

import email
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # as in rehearsal/cloudinit.py

from labs.catalog import LABS
from labs.instances import instance_types
from stacks.boot import LIMIT_BYTES, STALE, ipv6_only, notice_s, pack, packages, spare, steps, user_data
from tests.stacks.synthesis import KEY, ROOT


def text_of(number: int = 3, *, key: str = KEY, **given: object) -> str:
    lab = LABS[number].override(**given)
    mount = None if lab.storage == "none" else ("fs-0.fsx.us-east-1.amazonaws.com", "abcd")
    made = user_data(lab, region="us-east-1", bucket="results-bucket", ssh_public_key=key, mount=mount)
    return made.text(made.packed)


def parts(text: str) -> dict[str, str]:
    message = email.message_from_string(text)
    assert message.is_multipart()
    return {part.get_content_type(): str(part.get_payload()) for part in message.walk() if not part.is_multipart()}


def unpack(text: str, tmp_path: Path) -> Path:
    """Run the script part in a folder of its own, with a systemd-run that only notes its call."""
    target = tmp_path / "rooflab"
    stand_in = tmp_path / "bin/systemd-run"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text(f'#!/bin/bash\necho "$*" >"{tmp_path}/started"\n')
    stand_in.chmod(0o755)
    script = parts(text)["text/x-shellscript"].replace("/opt/rooflab", str(target))
    environment = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=environment, check=True)
    return target


def cloud_config(text: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(parts(text)["text/cloud-config"])
    return read


def test_the_key_is_authorised_if_there_is_one() -> None:
    assert cloud_config(text_of())["ssh_authorized_keys"] == [KEY]
    assert "ssh_authorized_keys" not in cloud_config(text_of(key=""))


def test_a_new_instance_forgets_its_images_life_before_anyone_can_log_in() -> None:
    (command,) = cloud_config(text_of())["bootcmd"]
    assert command[:5] == ["cloud-init-per", "instance", "rooflab", "rm", "-rf"]
    assert tuple(command[5:]) == STALE
    assert {"/home/ubuntu/.rooflab", "/home/ubuntu/.ssh/authorized_keys", "/opt/rooflab/boot.env"} <= set(STALE)


def test_no_timer_upgrades_the_kernel_before_the_first_step() -> None:
    (file,) = cloud_config(text_of())["write_files"]
    assert file == {"path": "/etc/apt/apt.conf.d/99rooflab", "content": 'APT::Periodic::Enable "0";'}


def test_unpacking_leaves_the_files_and_starts_the_boot_in_the_background(tmp_path: Path) -> None:
    """Host keys reach the console only after cloud-init's scripts have ended, so the boot must not hold them up."""
    target = unpack(text_of(), tmp_path)
    for name in ("boot", "belt", "notice", "bake", *steps(LABS[3])):
        assert (target / f"{name}.sh").read_text() == spare((ROOT / "userdata" / f"{name}.sh").read_text())
    assert (tmp_path / "started").read_text() == f"--unit rooflab-boot bash {target}/boot.sh\n"


def test_bash_reads_the_settings_back(tmp_path: Path) -> None:
    target = unpack(text_of(ttl_hours="1.5"), tmp_path)
    script = f'set -a; source "{target}/boot.env"; env'
    out = subprocess.run(["bash", "-c", script], env={}, check=True, capture_output=True, text=True).stdout
    found = dict(line.partition("=")[::2] for line in out.splitlines())
    assert found["ROOFLAB_STEPS"].split() == ["deadline", "system", "nvme", "gpu", "efa", "lustre", "slurm", "python"]
    assert found["ROOFLAB_TTL_HOURS"] == "1.5"
    assert found["ROOFLAB_FSX_HOST"] == "fs-0.fsx.us-east-1.amazonaws.com"
    assert found["ROOFLAB_BUCKET"] == "results-bucket"
    assert (found["ROOFLAB_GPUS"], found["ROOFLAB_EFAS"]) == ("4", "1")
    assert (found["ROOFLAB_STORAGE"], found["ROOFLAB_STORAGE_GIB"]) == ("scratch", "1200")
    assert found["ROOFLAB_PACKAGES"].split() == list(packages((ROOT / "requirements.txt").read_text()))


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        ({"instance_type": "t3.medium", "storage": "none"}, {"gpu", "efa", "lustre"}),
        ({"instance_type": "g6.xlarge"}, {"efa"}),
        ({"efa": "off"}, {"efa"}),
        ({"storage": "none"}, {"lustre"}),
        ({"nodes": "1", "efa": "on"}, {"slurm"}),
        ({"instance_type": "c7i.48xlarge"}, {"gpu", "efa"}),  # its image has no EFA software
    ],
)
def test_a_node_runs_only_the_steps_that_its_lab_needs(given: dict, absent: set[str]) -> None:
    every = set(steps(LABS[3]))
    assert every == {"deadline", "system", "nvme", "gpu", "efa", "lustre", "slurm", "python"}
    assert set(steps(LABS[3].override(**given))) == every - absent


def test_nodes_on_spot_watch_for_their_notice() -> None:
    assert "spot" in steps(LABS[3].override(capacity="spot", efa="off"))
    assert "spot" not in steps(LABS[3])


@pytest.mark.parametrize(("access", "given"), [("auto", False), ("eice", True), ("ssm", True)])
def test_nodes_without_a_public_address_take_ipv6_before_anything_is_fetched(access: str, given: bool) -> None:
    lab = LABS[3].override(access=access)
    assert ipv6_only(lab) == given
    if given:
        assert steps(lab)[:2] == ("deadline", "ipv6")
    else:
        assert "ipv6" not in steps(lab)


@pytest.mark.parametrize(("hours", "seconds"), [("4", 600), ("168", 600), ("1", 600), ("0.5", 300), ("0.1", 60)])
def test_the_notice_is_ten_minutes_or_a_sixth_of_the_hours(hours: str, seconds: int) -> None:
    assert notice_s(LABS[3].override(ttl_hours=hours)) == seconds


LONGEST = {"key": "ssh-rsa " + "A" * 716 + " someone@a-laptop.example.org", "name": "a" * 20}


@pytest.mark.parametrize("access", ["auto", "eice", "ssm"])
@pytest.mark.parametrize("capacity", ["on-demand", "spot"])
def test_user_data_fits_for_every_lab_and_type(capacity: str, access: str) -> None:
    """With the longest key that people have, everything switched on, and room for longer names."""
    sizes = {}
    for number in LABS:
        for kind in instance_types().values():
            lab = LABS[number].override(instance_type=kind.name, capacity=capacity, access=access, name=LONGEST["name"])
            mount = None if lab.storage == "none" else (f"fs-{'0' * 17}.fsx.ap-southeast-1.amazonaws.com", "a" * 8)
            made = user_data(lab, region="ap-southeast-1", bucket="b" * 63, ssh_public_key=LONGEST["key"], mount=mount)
            sizes[number, kind.name] = len(made.text(made.packed).encode())
    longest = max(sizes, key=lambda pair: sizes[pair])
    assert sizes[longest] <= LIMIT_BYTES, f"{longest}: {sizes[longest]} bytes"


def test_the_belt_comes_before_anything_that_can_fail() -> None:
    for lab in LABS.values():
        assert steps(lab)[0] == "deadline"


def test_nodes_install_the_exact_pins_of_this_tree() -> None:
    found = packages((ROOT / "requirements.txt").read_text())
    serving = {"fastapi", "uvicorn", "openai", "accelerate"}
    base = {"torch", "numpy", "transformers", "torchao", "boto3", "py-spy"}
    assert {pin.partition("==")[0] for pin in found} == base | serving
    assert all("==" in pin and " " not in pin for pin in found)


def test_the_same_files_pack_to_the_same_text() -> None:
    files = {"a.sh": "echo a\n", "b.sh": "echo b\n"}
    assert pack(files) == pack(dict(files))
    assert pack(files) != pack({**files, "b.sh": "echo c\n"})


def test_only_lines_of_comment_are_left_behind() -> None:
    script = "#!/bin/bash\n# why\nset -eu\n    # more of it\necho '#' $#\ncat <<X\n#SBATCH --nodes=2\nX\n"
    assert spare(script) == "#!/bin/bash\nset -eu\necho '#' $#\ncat <<X\n#SBATCH --nodes=2\nX\n"
