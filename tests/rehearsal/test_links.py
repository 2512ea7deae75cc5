"""Nodes with links of their own: what they see, what reaches them, how fast, and that nothing of it is left."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rehearsal import control, namespaces, processes
from rehearsal.control import RehearsalError
from rehearsal.rates import rate
from tests.rehearsal.worlds import Lab, World, await_that

_ALL = {"IpProtocol": "-1"}
_BYTES = 2_000_000
_RECEIVE = f"""
import socket, time
with socket.create_server(("", 7777)) as door:
    print("open", flush=True)
    line = door.accept()[0]
    line.recv(1)
    begin, left = time.perf_counter(), {_BYTES} - 1
    while left:
        left -= len(line.recv(min(left, 1 << 16)))
    print(time.perf_counter() - begin)
"""


class Linked:
    """A rehearsal with links, where that may be: two nodes, and what the machine's own interfaces are."""

    def __init__(self, folder: Path) -> None:
        self.before = _interfaces()
        self.world = World(folder, "linked", link="1gbit")
        self.lab = Lab(self.world, folder / "lab")
        self.lab.open_door()
        self.nodes = self.lab.run(2)

    def on(self, index: int, command: str) -> str:
        said = self.lab.ssh(self.nodes[index], f". ~/.rooflab/env.sh; {command}")
        assert said.returncode == 0, said.stderr
        return said.stdout

    def carry_s(self, folder: Path) -> float:
        """Seconds that node 1 waits for `_BYTES` from node 0."""
        script = folder / "receive.py"
        script.write_text(_RECEIVE)
        self.on(1, f"nohup python {script} > ~/said 2>&1 < /dev/null &")
        said = self.world.state / "nodes" / self.nodes[1]["InstanceId"] / "home" / "said"
        await_that(lambda: said.exists() and said.read_text() == "open\n")
        there = self.nodes[1]["PrivateIpAddress"]
        self.on(0, f"head -c {_BYTES} /dev/zero > /dev/tcp/{there}/7777")
        await_that(lambda: len(said.read_text().split()) == 2)
        return float(said.read_text().split()[1])


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linked | None]:
    """None where this user may make no namespaces: every test says what holds then."""
    folder = tmp_path_factory.mktemp("linked")
    if namespaces.obstacle():
        yield None
        return
    yield Linked(folder)
    control.stop(everything=True, root=folder)


def _refused(folder: Path) -> None:
    """All that holds where there can be no links."""
    with pytest.raises(RehearsalError, match=r"^link='1gbit' cannot be: .*leave --link out"):
        control.start("linked", link="1gbit", root=folder)
    assert not (folder / "linked" / "server.json").exists()


def test_a_node_has_its_own_address_interface_endpoint_and_metadata(linked: Linked | None, tmp_path: Path) -> None:
    if linked is None:
        return _refused(tmp_path)
    one, other = linked.nodes
    assert one["PublicIpAddress"].startswith("127.77.")
    assert one["PrivateIpAddress"].startswith("10.0.")
    assert one["PrivateIpAddress"] != other["PrivateIpAddress"]
    assert linked.on(0, "ls /sys/class/net; echo $GLOO_SOCKET_IFNAME $TP_SOCKET_IFNAME $ROOFLAB_LINK").split() == [
        "eth0", "lo", "eth0", "eth0", "1gbit",
    ]  # fmt: skip
    assert f"inet {one['PrivateIpAddress']}/16" in linked.on(0, "ip addr show eth0")
    there = f"ip-{other['PrivateIpAddress'].replace('.', '-')}"
    assert linked.on(0, f"getent hosts {there}").split() == [other["PrivateIpAddress"], there], "as VPC's own DNS says"
    metadata = (
        "from urllib.request import Request, urlopen\nimport os\n"
        "at = os.environ['AWS_EC2_METADATA_SERVICE_ENDPOINT'] + '/latest/'\n"
        "ttl = {'X-aws-ec2-metadata-token-ttl-seconds': '60'}\n"
        "token = urlopen(Request(at + 'api/token', headers=ttl, method='PUT')).read().decode()\n"
        "asked = Request(at + 'meta-data/local-ipv4', headers={'X-aws-ec2-metadata-token': token})\n"
        "print(urlopen(asked).read().decode())\n"
        "import boto3\n"
        "print(boto3.client('sts', endpoint_url=os.environ['AWS_ENDPOINT_URL']).get_caller_identity()['Account'])\n"
    )
    script = linked.world.state / "shared" / "metadata.py"  # the shared folder is every node's
    script.write_text(metadata)
    assert linked.on(0, f"python {script}").split() == [one["PrivateIpAddress"], "123456789012"]


def test_a_link_limits_what_passes_between_nodes_and_follows_an_order(linked: Linked | None, tmp_path: Path) -> None:
    if linked is None:
        return _refused(tmp_path)
    at_once = linked.carry_s(tmp_path)
    assert linked.world.status()["link"] == "1gbit"
    assert control.link("linked", "8mbit", root=linked.world.root)["link"] == "8mbit"
    assert linked.on(1, "echo $ROOFLAB_LINK").strip() == "8mbit"
    for where in (0, 1):
        assert "tbf" in linked.on(where, "tc qdisc show dev eth0")
    slow = linked.carry_s(tmp_path)
    # 2 MB over 1 MB/s; what the first token bucket holds passes at once, and no clock is asked for more than a bound
    assert slow >= 1.9
    assert at_once < slow
    assert control.link("linked", "unlimited", root=linked.world.root)["link"] == "unlimited"
    assert "tbf" not in linked.on(0, "tc qdisc show dev eth0")


def test_a_node_reaches_anothers_sshd_as_far_as_security_groups_let_it(linked: Linked | None, tmp_path: Path) -> None:
    if linked is None:
        return _refused(tmp_path)
    tags = {tag["Key"]: tag["Value"] for tag in linked.nodes[1]["Tags"]}
    there = f"/dev/tcp/{linked.nodes[1]['PrivateIpAddress']}/{tags['rooflab:ssh-port']}"
    reach = f"bash -c 'exec 3<>{there}; head -c 8 <&3' 2>&1; true"
    assert "SSH-2.0-" not in linked.on(0, reach)
    lab = linked.lab
    peers = {**_ALL, "UserIdGroupPairs": [{"GroupId": lab.group}]}
    lab.ec2.authorize_security_group_ingress(GroupId=lab.group, IpPermissions=[peers])
    assert linked.on(0, reach) == "SSH-2.0-"


def test_a_node_of_another_network_is_out_of_reach(linked: Linked | None, tmp_path: Path) -> None:
    if linked is None:
        return _refused(tmp_path)
    stranger = Lab(linked.world, tmp_path / "stranger")
    stranger.open_door()
    (node,) = stranger.run()
    assert node["PrivateIpAddress"] == linked.nodes[0]["PrivateIpAddress"], "each network counts for itself"
    there = linked.nodes[1]["PrivateIpAddress"]
    said = stranger.ssh(node, f"exec 3<>/dev/tcp/{there}/2222").stderr
    assert "No route to host" in said, said
    stranger.end(node["InstanceId"])
    stranger.remove()


def test_a_node_that_is_stopped_comes_back_on_its_link(linked: Linked | None, tmp_path: Path) -> None:
    if linked is None:
        return _refused(tmp_path)
    ids = [linked.nodes[0]["InstanceId"]]
    linked.lab.ec2.stop_instances(InstanceIds=ids)
    linked.lab.ec2.start_instances(InstanceIds=ids)
    assert f"inet {linked.nodes[0]['PrivateIpAddress']}/16" in linked.on(0, "ip addr show eth0")


def test_nothing_is_left_of_links_whatever_ends_them(linked: Linked | None, tmp_path: Path) -> None:
    """The last test of the module: it ends one node, then kills the server."""
    if linked is None:
        return _refused(tmp_path)
    found = [linked.on(index, "readlink /proc/self/ns/net").strip() for index in (0, 1)]
    assert len({*found, str(Path("/proc/self/ns/net").readlink())}) == 3
    for index in (0, 1):
        linked.on(index, f"setsid nohup sleep 7151{index} >/dev/null 2>&1 </dev/null &")
    linked.lab.end(linked.nodes[0]["InstanceId"])
    await_that(lambda: not _holders(found[0]))
    assert _holders(found[1]), "the other node's stands"
    assert linked.nodes[0]["InstanceId"] not in (linked.world.state / "wires").read_text()
    os.kill(linked.world.server(), 9)
    await_that(lambda: not _holders(found[1]))
    control.stop("linked", root=linked.world.root)
    assert _interfaces() == linked.before


@pytest.mark.parametrize("text", ["", "fast", "100", "0mbit", "100 mbit", "1kbit", "101gbit", "99999mbit"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^link=.* is not allowed: write a rate such as 100mbit or 1gbit"):
        rate(text)


def test_a_rate_is_shaped_with_a_bucket_that_lets_little_pass_at_once() -> None:
    assert rate("100mbit").shaping == "tbf rate 100000000bit burst 16384b latency 100ms"
    assert rate("1gbit").shaping == "tbf rate 1000000000bit burst 31250b latency 100ms"
    assert rate("unlimited").shaping == "pfifo"


def test_a_link_that_cannot_be_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RehearsalError, match="link='fast' is not allowed: write a rate"):
        control.start("linked", link="fast", root=tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    _refused(tmp_path)
    monkeypatch.setattr(processes, "LINUX", False)
    with pytest.raises(RehearsalError, match=r"namespaces are Linux's: leave --link out"):
        control.start("linked", link="1gbit", root=tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(processes, "LINUX", True)
    monkeypatch.setattr(shutil, "which", lambda _tool: None)
    assert namespaces.obstacle() == "ip and tc cannot be found: apt-get install iproute2"


def test_a_rehearsal_without_links_says_how_to_have_them(world: World) -> None:
    assert world.status()["link"] is None
    with pytest.raises(RehearsalError, match=r"have no links of their own: .*fab rehearsal.start --link 100mbit"):
        control.link(world.name, "1gbit", root=world.root)


def _interfaces() -> set[str]:
    listed = subprocess.run(["ls", "/sys/class/net"], capture_output=True, text=True, check=False).stdout
    return set(listed.split())


def _holders(namespace: str) -> list[Any]:
    """Processes in a network namespace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "ns" / "net").readlink()) == namespace:
                found.append(process.name)
        except OSError:  # gone
            continue
    return found
