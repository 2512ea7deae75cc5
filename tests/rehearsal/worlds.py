"""Real rehearsals, started for tests: their own processes, ports and folders."""

import base64
import gzip
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from rehearsal import control

IMAGE = "resolve:ssm:/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"


class World:
    """A running rehearsal and what tests need of it."""

    def __init__(self, root: Path, name: str, seed: int = 0, link: str = "") -> None:
        self.root, self.name = root, name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(control, "_START_S", 590.0)  # on a machine that is busier than any user's
            control.start(name, seed, link, root=root)
        self.state = root / name
        self.environment = control.environment(name, root=root)

    def client(self, service: str, **given: Any) -> Any:
        return boto3.client(
            service,
            region_name=given.get("region", "us-east-1"),
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=given.get("key", self.environment["AWS_ACCESS_KEY_ID"]),
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            # patient: what was asked for anew, for the answer took long, would be refused the second time
            config=Config(retries={"max_attempts": 1}, read_timeout=500, connect_timeout=500),
        )

    def status(self) -> dict[str, Any]:
        return control.status(self.name, root=self.root)

    def server(self) -> int:
        return int(self.status()["pid"])


class Lab:
    """A network, a key and launch orders in a rehearsal."""

    def __init__(self, world: World, folder: Path, zone: str = "us-east-1a") -> None:
        self.world, self.folder = world, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.key = folder / "key"
        if not self.key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.ec2 = world.client("ec2")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.add_subnet("10.0.0.0/20", zone)
        self.group = self.ec2.create_security_group(VpcId=self.vpc, GroupName="lab", Description="lab")["GroupId"]

    def add_subnet(self, cidr: str, zone: str) -> str:
        made = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=cidr, AvailabilityZone=zone)
        return str(made["Subnet"]["SubnetId"])

    def user_data(self, text: str = "") -> str:
        config = f"#cloud-config\nssh_authorized_keys:\n  - {self.key.with_suffix('.pub').read_text()}\n# {text}\n"
        return base64.b64encode(gzip.compress(config.encode())).decode()

    def order(self, **given: Any) -> dict[str, Any]:
        """A RunInstances order for one node with a public address."""
        interface = {
            "DeviceIndex": 0,
            "AssociatePublicIpAddress": True,
            "SubnetId": self.subnet,
            "Groups": [self.group],
            "DeleteOnTermination": True,
        }
        return {"ImageId": IMAGE, "InstanceType": "g6.12xlarge", "NetworkInterfaces": [interface], **given}

    def run(self, count: int = 1, **given: Any) -> list[dict[str, Any]]:
        """Launch nodes that let in this lab's key."""
        encoded = given.pop("encoded_user_data", None) or self.user_data()
        template = self.ec2.create_launch_template(
            LaunchTemplateName=uuid.uuid4().hex,
            LaunchTemplateData={**self.order(**given), "UserData": encoded},
        )["LaunchTemplate"]
        made = self.ec2.run_instances(
            LaunchTemplate={"LaunchTemplateId": template["LaunchTemplateId"]}, MinCount=count, MaxCount=count
        )
        ids = [instance["InstanceId"] for instance in made["Instances"]]
        found = self.ec2.describe_instances(InstanceIds=ids)["Reservations"]
        return [instance for reservation in found for instance in reservation["Instances"]]

    def open_door(self) -> None:
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=self.door)

    def close_door(self) -> None:
        self.ec2.revoke_security_group_ingress(GroupId=self.group, IpPermissions=self.door)

    @property
    def door(self) -> list[dict[str, Any]]:
        return [
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]},
        ]

    def ssh(self, instance: dict[str, Any], command: str, **given: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command on a node, its host key pinned from the console's output."""
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        port = tags["rooflab:ssh-port"]
        known = self.folder / f"known-{instance['InstanceId']}"
        if not known.exists():
            output = self.ec2.get_console_output(InstanceId=instance["InstanceId"])["Output"]
            block = output.split("-----BEGIN SSH HOST KEY KEYS-----")[1].split("-----END SSH HOST KEY KEYS-----")[0]
            known.write_text(f"[{instance['PublicIpAddress']}]:{port} {' '.join(block.split()[:2])}\n")
        options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}", "IdentitiesOnly=yes"]
        return subprocess.run(
            [
                "ssh", "-F", "none", "-p", port, "-i", str(given.get("key", self.key)),
                *(part for option in options for part in ("-o", option)),
                f"{tags['rooflab:ssh-user']}@{instance['PublicIpAddress']}", command,
            ],
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def state(self, id: str) -> str:
        """State of an instance."""
        found = self.ec2.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0]["State"]["Name"]
        return str(found)

    def await_state(self, state: str, *ids: str) -> None:
        """Wait until all these instances are in a state."""
        await_that(lambda: {self.state(id) for id in ids} == {state})

    def end(self, *ids: str) -> None:
        """Terminate instances and wait until they are."""
        self.ec2.terminate_instances(InstanceIds=list(ids))
        self.await_state("terminated", *ids)

    def remove(self) -> None:
        """Terminate every instance of this lab and take its network away."""
        found = self.ec2.describe_instances(Filters=[{"Name": "vpc-id", "Values": [self.vpc]}])["Reservations"]
        ids = [instance["InstanceId"] for reservation in found for instance in reservation["Instances"]]
        if ids:
            self.ec2.terminate_instances(InstanceIds=ids)


def await_that(holds: Callable[[], object], within_s: float = 240.0) -> None:
    """Poll until something holds, for as long as a machine that is very busy may need."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def final(cloudformation: Any, stack: str) -> dict[str, Any]:
    """A stack once nothing happens to it any more, by its name, or by its id where it may be gone."""

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        return found

    await_that(lambda: not shown()["StackStatus"].endswith("_IN_PROGRESS"))
    return shown()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_with(mark: str) -> list[int]:
    """Pids of processes whose command line holds a text that no other's does."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [pid for pid in found if alive(pid)]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One rehearsal that tests share."""
    root = tmp_path_factory.mktemp("rehearsals")
    made = World(root, "shared")
    yield made
    control.stop(everything=True, root=root)


@pytest.fixture
def lab(world: World, tmp_path: Path) -> Iterator[Lab]:
    """A lab's network in the shared rehearsal; its nodes end with the test."""
    made = Lab(world, tmp_path / "lab")
    yield made
    made.remove()
