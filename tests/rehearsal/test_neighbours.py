"""Nodes reach each other's sshd as far as security groups let them, and open no door to the operator by that."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rehearsal import origin, processes
from tests.rehearsal.worlds import Lab

_ALL = {"IpProtocol": "-1"}
_ANYWHERE = {**_ALL, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


class Neighbours:
    """A node that the operator reaches, and one of a group of its own."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.ec2 = lab, lab.ec2
        lab.open_door()
        made = lab.ec2.create_security_group(VpcId=lab.vpc, GroupName="inner", Description="inner")
        self.inner = str(made["GroupId"])
        (self.outer_node,) = lab.run()
        (interface,) = lab.order()["NetworkInterfaces"]
        (self.inner_node,) = lab.run(NetworkInterfaces=[{**interface, "Groups": [self.inner]}])

    def permit(self, **rule: Any) -> None:
        self.ec2.authorize_security_group_ingress(GroupId=self.inner, IpPermissions=[{**_ALL, **rule}])

    @property
    def place(self) -> tuple[str, int]:
        tags = {tag["Key"]: tag["Value"] for tag in self.inner_node["Tags"]}
        return self.inner_node["PrivateIpAddress"], int(tags["rooflab:ssh-port"])

    def from_node(self) -> str:
        """What the inner node's sshd says first to a process on the outer one."""
        address, port = self.place
        return self.lab.ssh(self.outer_node, f"exec 3<>/dev/tcp/{address}/{port}; head -c 8 <&3").stdout

    def from_operator(self) -> str:
        with contextlib.suppress(ConnectionError), socket.create_connection(self.place, 240) as line:
            return line.recv(8).decode()
        return ""


@pytest.fixture
def neighbours(lab: Lab) -> Neighbours:
    return Neighbours(lab)


def test_a_group_that_admits_another_lets_its_nodes_in_and_nobody_else(neighbours: Neighbours) -> None:
    assert (neighbours.from_node(), neighbours.from_operator()) == ("", "")
    neighbours.permit(UserIdGroupPairs=[{"GroupId": neighbours.lab.group}])
    assert (neighbours.from_node(), neighbours.from_operator()) == ("SSH-2.0-", "")
    log = neighbours.lab.world.state / "logs" / f"{neighbours.inner_node['InstanceId']}.log"
    assert "no security group lets in the operator" in log.read_text()
    assert [node["open"] for node in neighbours.lab.world.status()["nodes"]][-2:] == [True, False]


def test_a_forwarded_connection_is_the_nodes_whose_sshd_forwards_it(neighbours: Neighbours) -> None:
    neighbours.permit(UserIdGroupPairs=[{"GroupId": neighbours.lab.group}])
    lab = neighbours.lab
    outer = lab.folder / "jump"
    tags = {tag["Key"]: tag["Value"] for tag in neighbours.outer_node["Tags"]}
    assert lab.ssh(neighbours.outer_node, "true").returncode == 0  # pins its host key
    known = next(lab.folder.glob("known*"))
    outer.write_text(
        f"Host outer\n  HostName {neighbours.outer_node['PublicIpAddress']}\n  Port {tags['rooflab:ssh-port']}\n"
        f"  User {tags['rooflab:ssh-user']}\n  IdentityFile {lab.key}\n  UserKnownHostsFile {known}\n"
    )
    address, port = neighbours.place
    assert _first_line("ssh", "-F", str(outer), "-W", f"{address}:{port}", "outer").startswith("SSH-2.0-")


def test_an_address_range_counts_by_private_addresses_of_the_same_network(neighbours: Neighbours, lab: Lab) -> None:
    private = "10.0.0.0/16"
    neighbours.permit(IpRanges=[{"CidrIp": private}])
    assert (neighbours.from_node(), neighbours.from_operator()) == ("SSH-2.0-", "")
    stranger = Lab(lab.world, lab.folder / "stranger")
    stranger.open_door()
    (node,) = stranger.run()
    address, port = neighbours.place
    assert stranger.ssh(node, f"exec 3<>/dev/tcp/{address}/{port}; head -c 8 <&3").stdout == ""
    stranger.remove()


def test_a_group_that_lets_nothing_out_keeps_its_nodes_from_others(neighbours: Neighbours) -> None:
    neighbours.permit(UserIdGroupPairs=[{"GroupId": neighbours.lab.group}])
    neighbours.ec2.revoke_security_group_egress(GroupId=neighbours.lab.group, IpPermissions=[_ANYWHERE])
    assert neighbours.from_node() == ""
    towards = {**_ALL, "UserIdGroupPairs": [{"GroupId": neighbours.inner}]}
    neighbours.ec2.authorize_security_group_egress(GroupId=neighbours.lab.group, IpPermissions=[towards])
    assert neighbours.from_node() == "SSH-2.0-"


def test_a_node_that_is_refused_is_not_let_in_by_the_operators_rule(lab: Lab) -> None:
    """All share one loopback address; a rule for the operator's is no rule for a node."""
    lab.open_door()
    one, other = lab.run(2)
    tags = {tag["Key"]: tag["Value"] for tag in other["Tags"]}
    reach = f"exec 3<>/dev/tcp/{other['PrivateIpAddress']}/{tags['rooflab:ssh-port']}; head -c 8 <&3"
    assert lab.ssh(one, reach).stdout == ""
    lab.ec2.authorize_security_group_ingress(
        GroupId=lab.group, IpPermissions=[{**_ALL, "UserIdGroupPairs": [{"GroupId": lab.group}]}]
    )
    assert lab.ssh(one, reach).stdout == "SSH-2.0-"


@pytest.mark.parametrize("look", [origin._owner_by_lsof, *([origin._owner_by_proc] if processes.LINUX else [])])
def test_the_process_behind_a_connection_is_found(look: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    here, there = far.getpeername(), far.getsockname()
    with subprocess.Popen(["cat"], stdin=near.fileno()) as child:
        near.close()  # from now on only the child holds that end
        assert look(here, there) == child.pid
        far.close()
    assert look(here, there) is None


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as near:
        far, _ = door.accept()
        with far:
            yield near, far


def _first_line(*words: str) -> str:
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.terminate()
    return said


def test_a_connection_of_no_node_is_nobodys(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    (tmp_path / origin.RECORD).write_text(f"{os.getppid()}\tnever\ti-0123456789abcdef0\n")
    assert origin.node_behind(pair[1], tmp_path) == ""
    (tmp_path / origin.RECORD).write_text(f"{os.getpid()}\t{processes.started(os.getpid())}\ti-0a\n")
    assert origin.node_behind(pair[1], tmp_path) == "i-0a"
