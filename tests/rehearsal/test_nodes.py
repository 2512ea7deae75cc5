"""An instance is a machine one can reach by SSH, for as long as its security group and its life allow."""

import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.rehearsal.worlds import Lab, await_that, processes_with


def test_a_node_is_reached_with_the_key_of_its_user_data_and_its_pinned_host_key(lab: Lab) -> None:
    lab.open_door()
    (node,) = lab.run()
    said = lab.ssh(node, "pwd; cat ~/.rooflab/ready; . ~/.rooflab/env.sh; command -v python; echo $AWS_ENDPOINT_URL")
    assert said.returncode == 0, said.stderr
    home, ready, python, endpoint = said.stdout.split()
    assert home == str(lab.world.state / "nodes" / node["InstanceId"] / "home")
    assert ready == "ok"
    assert Path(python).parent.joinpath("python").exists()
    assert endpoint == lab.world.environment["AWS_ENDPOINT_URL"]
    assert node["PublicIpAddress"] == node["PrivateIpAddress"]
    assert node["PublicIpAddress"].startswith("127.")


def test_another_key_is_refused(lab: Lab, tmp_path: Path) -> None:
    lab.open_door()
    (node,) = lab.run()
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    said = lab.ssh(node, "true", key=other)
    assert said.returncode == 255
    assert "Permission denied (publickey)" in said.stderr


def test_a_node_answers_only_while_its_security_group_admits_the_operator(lab: Lab) -> None:
    (node,) = lab.run()
    assert "Connection refused" in lab.ssh(node, "true").stderr
    lab.open_door()
    assert lab.ssh(node, "true").returncode == 0
    lab.close_door()
    assert "Connection refused" in lab.ssh(node, "true").stderr
    lab.ec2.authorize_security_group_ingress(
        GroupId=lab.group,
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}],
    )
    assert "Connection refused" in lab.ssh(node, "true").stderr


def test_a_session_outlives_the_closing_of_the_door(lab: Lab, tmp_path: Path) -> None:
    lab.open_door()
    (node,) = lab.run()
    wait = "until [ -e ~/closed ]; do sleep 0.05; done; echo done > ~/said"
    assert lab.ssh(node, f"setsid nohup sh -c '{wait}' >/dev/null 2>&1 </dev/null &").returncode == 0
    lab.close_door()
    home = lab.world.state / "nodes" / node["InstanceId"] / "home"
    (home / "closed").touch()
    await_that((home / "said").exists)


def test_a_node_has_a_short_tmp_of_its_own_that_goes_with_it(lab: Lab) -> None:
    lab.open_door()
    (node,) = lab.run()
    folder = Path(lab.ssh(node, "echo $TMPDIR; touch $TMPDIR/x").stdout.strip())
    assert (folder / "x").exists()
    assert len(str(folder)) < 50
    lab.end(node["InstanceId"])
    assert not folder.exists()


def test_terminating_ends_every_process_of_the_node_and_erases_its_disk(lab: Lab) -> None:
    lab.open_door()
    node, other = lab.run(2)
    for machine, seconds in ((node, "7141"), (other, "7142")):
        quiet = ">/dev/null 2>&1 </dev/null &"
        said = lab.ssh(
            machine,
            f"setsid nohup sleep {seconds}1 {quiet}\n(setsid sleep {seconds}2 {quiet})\n"
            f"(env -i setsid sleep {seconds}3 {quiet})\ntmux new -d sleep {seconds}4",
        )
        assert said.returncode == 0, said.stderr
    await_that(lambda: all(processes_with(f"sleep\x00{s}{n}") for s in ("7141", "7142") for n in range(1, 5)))
    lab.end(node["InstanceId"])
    assert [n for n in range(1, 5) if processes_with(f"sleep\x007141{n}")] == []
    assert [n for n in range(1, 5) if processes_with(f"sleep\x007142{n}")] == [1, 2, 3, 4]
    assert not (lab.world.state / "nodes" / node["InstanceId"]).exists()


def test_the_shared_directory_is_that_of_the_file_system_which_user_data_names(lab: Lab) -> None:
    fsx, s3 = lab.world.client("fsx"), lab.world.client("s3")
    made = fsx.create_file_system(
        FileSystemType="LUSTRE", StorageCapacity=1200, SubnetIds=[lab.subnet], SecurityGroupIds=[lab.group],
        LustreConfiguration={"DeploymentType": "SCRATCH_2"},
    )["FileSystem"]  # fmt: skip
    s3.create_bucket(Bucket="results-of-tests")
    lab.open_door()
    encoded = lab.user_data(f"{made['DNSName']} results-of-tests")
    one, other = lab.run(2, encoded_user_data=encoded)
    (plain,) = lab.run()
    assert lab.ssh(one, ". ~/.rooflab/env.sh; echo seen > $ROOFLAB_SHARED/mark").returncode == 0
    said = lab.ssh(other, ". ~/.rooflab/env.sh; cat $ROOFLAB_SHARED/mark; echo $ROOFLAB_BUCKET")
    assert said.stdout.split() == ["seen", "results-of-tests"]
    assert lab.ssh(plain, ". ~/.rooflab/env.sh; echo ${ROOFLAB_SHARED-unset}").stdout.strip() == "unset"
    (lost,) = lab.run(encoded_user_data=lab.user_data("fs-0123456789abcdef0.fsx.us-east-1.amazonaws.com"))
    said = lab.ssh(lost, "cat ~/.rooflab/ready")
    assert said.stdout.strip() == "failed: mount: fs-0123456789abcdef0 does not exist"
    s3.delete_bucket(Bucket="results-of-tests")
    fsx.delete_file_system(FileSystemId=made["FileSystemId"])


def test_metadata_needs_a_token_of_the_same_node(lab: Lab) -> None:
    one, other = lab.run(2)
    base = f"{lab.world.environment['AWS_ENDPOINT_URL']}/imds"
    token = _metadata(f"{base}/{one['InstanceId']}/latest/api/token", ttl="60")
    item = f"{base}/{one['InstanceId']}/latest/meta-data/instance-type"
    assert _metadata(item, token=token) == "g6.12xlarge"
    for refused in ({}, {"token": "x"}):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            _metadata(item, **refused)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        _metadata(f"{base}/{other['InstanceId']}/latest/meta-data/instance-id", token=token)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        _metadata(f"{base}/{one['InstanceId']}/latest/meta-data/spot/instance-action", token=token)


def test_a_stopped_node_keeps_its_disk(lab: Lab) -> None:
    lab.open_door()
    (node,) = lab.run()
    ids = [node["InstanceId"]]
    assert lab.ssh(node, "echo kept > file").returncode == 0
    lab.ec2.stop_instances(InstanceIds=ids)
    assert lab.ssh(node, "true").returncode == 255
    lab.ec2.start_instances(InstanceIds=ids)
    assert lab.ssh(node, "cat file").stdout == "kept\n"


def test_an_elastic_address_leads_to_the_node(lab: Lab) -> None:
    lab.open_door()
    (node,) = lab.run()
    address = lab.ec2.allocate_address(Domain="vpc")
    with pytest.raises(ClientError, match="InvalidAllocationID"):
        lab.ec2.associate_address(AllocationId="eipalloc-0", InstanceId=node["InstanceId"])
    lab.ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=node["InstanceId"])
    found = lab.ec2.describe_instances(InstanceIds=[node["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert found["PublicIpAddress"] == address["PublicIp"]
    assert lab.ssh(found, "true").returncode == 0
    with pytest.raises(ClientError, match=r"InvalidIPAddress\.InUse"):
        lab.ec2.release_address(AllocationId=address["AllocationId"])
    lab.end(node["InstanceId"])
    lab.ec2.release_address(AllocationId=address["AllocationId"])


def _metadata(url: str, token: str = "", ttl: str = "") -> str:
    headers = {"X-aws-ec2-metadata-token": token} if token else {}
    headers |= {"X-aws-ec2-metadata-token-ttl-seconds": ttl} if ttl else {}
    request = urllib.request.Request(url, headers=headers, method="PUT" if ttl else "GET")
    with urllib.request.urlopen(request) as reply:
        return str(reply.read().decode())
