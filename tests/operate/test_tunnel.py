"""A node behind an Instance Connect Endpoint is one like any other, to Fabric and to plain ssh."""

import hashlib
import hmac
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from botocore.credentials import Credentials

from operate import hostkeys, tunnel
from operate.account import Account
from operate.nodes import Node
from operate.problem import Problem
from operate.remote import RemoteShell, open_shells
from operate.shell import Unreachable
from operate.sshconfig import write_ssh_config
from operate.tunnel import Target
from operate.way import Endpoint
from tests.operate.conftest import Machine
from tests.operate.gate import Gate

ROOT = Path(__file__).parents[2]
EICE = "eice-0123456789abcdef0"
TARGET = Target(server="wss://gate.example", endpoint=EICE, region="us-east-1", address="10.0.0.7")
KEYS = Credentials("AKIDEXAMPLE", "secret", "token")


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return Account()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate(machines={})
    yield made
    made.stop()


def behind(gate: Gate, machine: Machine) -> Node:
    """`machine` as a node that has a private address alone."""
    gate.machines["10.0.0.7", 22] = ("127.0.0.1", machine.node.port)
    return replace(machine.node, address="10.0.0.7", private_ip="10.0.0.7", port=22, instance_id="i-1")


def by(account: Account, server: str, scheme: str = "ws") -> Endpoint:
    return Endpoint(account=account, endpoint=EICE, server=f"{scheme}://{server}")


Reach = Callable[[], tuple[RemoteShell, Machine]]


@pytest.fixture
def reach(machines, gate: Gate, account: Account, key: Path) -> Iterator[Reach]:
    """Makes a shell to a machine behind the gate."""
    made: list[RemoteShell] = []

    def make() -> tuple[RemoteShell, Machine]:
        (machine,) = machines(1)
        way = by(account, gate.start())
        made.append(RemoteShell.to_node(behind(gate, machine), host_keys=[machine.host_key], key=key, way=way))
        return made[0], machine

    yield make
    for shell in made:
        shell.close()


def test_the_url_asks_for_one_port_of_one_address_and_is_signed_for_a_minute():
    url = urlsplit(tunnel.signed_url(TARGET, KEYS))
    asked = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (url.scheme, url.netloc, url.path) == ("wss", "gate.example", "/openTunnel")
    signature = asked.pop("X-Amz-Signature")
    stamp = asked["X-Amz-Date"]
    scope = f"{stamp[:8]}/us-east-1/ec2-instance-connect/aws4_request"
    assert asked == {
        "instanceConnectEndpointId": EICE, "maxTunnelDuration": "3599", "privateIpAddress": "10.0.0.7",
        "remotePort": "22", "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"AKIDEXAMPLE/{scope}",
        "X-Amz-Date": stamp, "X-Amz-Expires": "60", "X-Amz-SignedHeaders": "host", "X-Amz-Security-Token": "token",
    }  # fmt: skip
    query = "&".join(f"{quote(name, safe='')}={quote(asked[name], safe='')}" for name in sorted(asked))
    empty = hashlib.sha256(b"").hexdigest()
    canonical = f"GET\n/openTunnel\n{query}\nhost:gate.example\n\nhost\n{empty}"
    key = b"AWS4secret"
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    told = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    assert signature == hmac.new(key, told.encode(), hashlib.sha256).hexdigest()


def test_commands_streams_and_many_bytes_go_through_the_tunnel(reach: Reach, gate: Gate):
    shell, machine = reach()
    assert shell.run("pwd").text == str(machine.home)
    data = os.urandom(3_000_000)
    assert shell.run("cat", stdin=data, timeout_s=500).stdout == data
    assert b"".join(shell.stream("seq 3", idle_s=500)) == b"1\n2\n3\n"
    assert len(gate.asked) == 1, "one tunnel carries all of a node's commands"
    assert gate.hosts[0].startswith("localhost:"), "the Host header is the one that was signed"


def test_a_tunnel_that_is_cut_is_told_and_the_next_command_opens_another(reach: Reach, gate: Gate):
    shell, _ = reach()
    assert shell.run("echo 1").text == "1"
    stream = shell.stream("echo begun; sleep 60", idle_s=500)
    assert next(stream) == b"begun\n"
    gate.cut()
    with pytest.raises(Unreachable, match=r"^node0 \(10.0.0.7\) lost its connection \(it broke off\): a detached run"):
        list(stream)
    assert shell.run("echo 2").text == "2"


def test_at_the_end_of_its_hour_a_tunnel_is_said_to_have_been_cut_by_rule(reach: Reach, gate: Gate, monkeypatch):
    shell, _ = reach()
    stream = shell.stream("echo begun; sleep 60", idle_s=500)
    next(stream)
    later = time.monotonic() + tunnel.LIFETIME_S
    monkeypatch.setattr("operate.remote.time", SimpleNamespace(monotonic=lambda: later, sleep=time.sleep))
    gate.cut()
    with pytest.raises(Unreachable, match=f"was cut off, as every connection through {EICE} is after 60 min"):
        list(stream)


def test_no_thread_and_no_tunnel_outlives_the_shell(reach: Reach, gate: Gate):
    shell, machine = reach()
    shell.run("true")
    shell.close()
    while machine.sessions() or "tunnel-10.0.0.7" in [thread.name for thread in threading.enumerate()]:
        time.sleep(0.02)  # a test that never ends fails


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (403, {"ErrorCode": "AccessDenied", "Message": "not authorized"}, r"HTTP 403, AccessDenied: not authorized\): "
         "are the AWS credentials of this shell valid, and do they allow ec2-instance-connect:OpenTunnel there"),
        (400, {"ErrorCode": "InvalidParameter", "Message": "no such address"},
         r"HTTP 400, InvalidParameter: no such address\): fab nodes shows whether"),
        (500, {}, r"HTTP 500, \{\}\)"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_awss_words(reach: Reach, gate: Gate, status, body, said):
    shell, _ = reach()
    gate.refusal = (status, body)
    with pytest.raises(Problem, match=rf"{EICE} refuses a tunnel to 10.0.0.7 port 22 \({said}") as caught:
        shell.run("true")
    assert isinstance(caught.value, Unreachable) == (status != 403), "what will not pass is not tried again"


def test_a_node_that_the_endpoint_cannot_reach_is_tried_again_and_then_told_in_awss_words(
    reach: Reach, gate: Gate, monkeypatch
):
    monkeypatch.setattr("operate.remote._PAUSES_S", (0, 0))
    shell, _ = reach()
    gate.hang_up = (1011, "Unable to connect to target")
    told = rf"^node0 \(10.0.0.7 port 22 through {EICE}\) cannot be reached \(Unable to connect to target\): is it still"
    with pytest.raises(Unreachable, match=told):
        shell.run("true")
    assert len(gate.asked) == 3
    gate.hang_up = None
    assert shell.run("echo up").text == "up"


def test_an_endpoint_that_is_not_there_is_unreachable(account: Account, key: Path):
    node = Node(name="node0", address="10.0.0.7", instance_id="i-1")
    shell = RemoteShell.to_node(node, host_keys=[], key=key, way=by(account, "127.0.0.1:1"))
    with pytest.raises(Unreachable, match=rf"^{EICE} does not answer at ws://127.0.0.1:1 \(.*refused"):
        shell.run("true")


@pytest.fixture
def crowd(machines, gate: Gate, account: Account, key: Path) -> Iterator[Callable[..., dict[str, RemoteShell]]]:
    """Makes shells to machines of which the gate leads to the first `most` alone."""
    made: dict[str, RemoteShell] = {}

    def make(started: list[Machine], most: int) -> dict[str, RemoteShell]:
        nodes = []
        for index, machine in enumerate(started):
            if index < most:
                gate.machines[f"10.0.0.{index}", 22] = ("127.0.0.1", machine.node.port)
                nodes.append(replace(machine.node, address=f"10.0.0.{index}", port=22))
            else:
                nodes.append(machine.node)
        keys = {machine.node.name: [machine.host_key] for machine in started}
        way = replace(by(account, gate.start()), most=most)
        made.update(open_shells(nodes, host_keys=keys, key=key, way=way))
        return made

    yield make
    for shell in made.values():
        shell.close()


def test_nodes_beyond_what_an_endpoint_carries_are_reached_through_the_first_ones(machines, crowd, gate, key, tmp_path):
    started = machines(4)
    shells = crowd(started, 2)
    homes = {name: shell.run("pwd").text for name, shell in shells.items()}
    assert homes == {machine.node.name: str(machine.home) for machine in started}
    assert len(gate.asked) == 2, "two tunnels for four nodes"
    nodes = [shell.node for shell in shells.values()]
    keys = [(node, [machine.host_key]) for node, machine in zip(nodes, started, strict=True)]
    (tmp_path / "known_hosts").write_text(hostkeys.known_hosts(keys))
    ways = {name: shell.way for name, shell in shells.items()}
    path = write_ssh_config(nodes, stack="Lab3Stack", folder=tmp_path, key=key, ways=ways)
    assert [line.strip() for line in path.read_text().splitlines() if "ProxyJump" in line] == [
        "ProxyJump node0", "ProxyJump node1",
    ]  # fmt: skip
    done = subprocess.run(["ssh", "-F", path, "node3", "pwd"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{started[3].home}\n", "")


def test_where_a_node_on_the_way_is_gone_the_next_one_leads_there(machines, crowd, monkeypatch):
    monkeypatch.setattr("operate.remote._PAUSES_S", (0, 0))
    started = machines(3)
    shells = crowd(started, 2)
    started[0].stop()
    assert shells["node2"].run("pwd").text == str(started[2].home)
    started[2].stop()
    shells["node2"].close()
    with pytest.raises(
        Unreachable, match=r"^node2 \(127.0.0.1 port \d+\) cannot be reached from node1 \(Connect failed\)"
    ):
        shells["node2"].run("true")


def config(gate: Gate, machine: Machine, account: Account, key: Path, folder: Path, server: str) -> Path:
    node = behind(gate, machine)
    folder.mkdir()
    (folder / "known_hosts").write_text(hostkeys.known_hosts([(node, [machine.host_key])]))
    return write_ssh_config([node], stack="Lab3Stack", folder=folder, key=key, ways={"node0": by(account, server)})


def test_plain_ssh_goes_through_the_tunnel_from_any_folder(machines, gate, account, key, tmp_path, monkeypatch):
    (machine,) = machines(1)
    path = config(gate, machine, account, key, tmp_path / "100% a state", gate.start())
    (tmp_path / "operate").mkdir()
    (tmp_path / "operate" / "__init__.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)
    data = os.urandom(1_000_000)
    done = subprocess.run(
        ["ssh", "-F", path, "lab3-node0", "cat; exit 7"], input=data, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, data, b"")


@pytest.mark.parametrize(
    ("refusal", "hang_up", "said"),
    [
        ((403, {"ErrorCode": "AccessDenied", "Message": "no"}), None, f"problem: {EICE} refuses a tunnel to 10.0.0.7 "
         "port 22 (HTTP 403, AccessDenied: no): are the AWS credentials"),
        (None, (1011, "Unable to connect to target"),
         f"problem: {EICE} ended the tunnel to 10.0.0.7 (Unable to connect to target): fab nodes shows the node"),
    ],
)  # fmt: skip
def test_plain_ssh_is_told_why_in_one_line(machines, gate, account, key, tmp_path, refusal, hang_up, said):
    (machine,) = machines(1)
    path = config(gate, machine, account, key, tmp_path / "state", gate.start())
    gate.refusal, gate.hang_up = refusal, hang_up
    done = subprocess.run(["ssh", "-F", path, "node0", "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_credentials_the_proxy_says_so(account, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    words = by(account, "127.0.0.1:1").proxy_command(Node(name="node0", address="10.0.0.7"))
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "problem: no AWS credentials were found: "
        "run `aws sso login`, or export AWS_PROFILE or the keys that fab was run with\n",
    )


def test_the_proxy_names_the_profile_that_fab_was_run_with(account, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert by(account, "x").proxy_command(Node(name="node0", address="10.0.0.7"))[-2:] == ("--profile", "lab")


def test_on_aws_the_endpoints_certificate_is_checked(machines, gate, account, key, tmp_path, monkeypatch):
    (machine,) = machines(1)
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", private, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    way = by(account, gate.start(context), "wss")
    shell = RemoteShell.to_node(behind(gate, machine), host_keys=[machine.host_key], key=key, way=way)
    with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
        shell.run("true")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    assert shell.run("echo secure").text == "secure"
    shell.close()


def test_the_proxy_starts_without_what_the_verbs_need():
    hidden = ("boto3", "fabric", "paramiko", "rich", "matplotlib", "invoke")
    hide = f"import sys; sys.modules.update(dict.fromkeys({hidden!r})); import operate.tunnel"
    done = subprocess.run([sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
