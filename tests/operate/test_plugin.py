"""A node behind Session Manager: AWS's plugin, here a stand-in of it, carries Fabric's and ssh's bytes."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from operate import hostkeys, plugin
from operate.account import Account
from operate.nodes import Node
from operate.problem import Problem
from operate.remote import RemoteShell
from operate.shell import Unreachable
from operate.sshconfig import write_ssh_config
from operate.way import SessionManager

STAND_IN = """\
#!{python}
import contextlib, json, os, pathlib, socket, sys, threading
folder = pathlib.Path(__file__).parent
if sys.argv[1:] == ["--version"]:
    print((folder / "version").read_text())
    raise SystemExit
told = {{"words": sys.argv[1:], "response": os.environ.get("AWS_SSM_START_SESSION_RESPONSE")}}
(folder / "told.json").write_text(json.dumps(told))
if (folder / "fails").exists():
    print("", file=sys.stderr)
    raise SystemExit((folder / "fails").read_text())
node = socket.create_connection(("127.0.0.1", int((folder / "port").read_text())))
def up():
    with contextlib.suppress(OSError): # either side may hang up first
        while data := os.read(0, 65536):
            node.sendall(data)
        node.shutdown(socket.SHUT_RDWR)
threading.Thread(target=up, daemon=True).start()
with contextlib.suppress(OSError):
    while data := node.recv(65536):
        while data:
            data = data[os.write(1, data):]
"""
ASKED = {"Target": "i-1", "DocumentName": "AWS-StartSSHSession", "Parameters": {"portNumber": ["22"]}}
ANSWER = {"SessionId": "me-0123", "TokenValue": "very-secret", "StreamUrl": "wss://ssmmessages.example/me-0123"}


@dataclass
class StandIn:
    """A session-manager-plugin of the test's own, first on the PATH."""

    folder: Path

    def lead_to(self, port: int) -> None:
        (self.folder / "port").write_text(str(port))

    def be(self, version: str) -> None:
        (self.folder / "version").write_text(version)
        plugin._check.cache_clear()

    def fail(self, why: str) -> None:
        (self.folder / "fails").write_text(why)

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "told.json").read_text())
        return found


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    folder = tmp_path / "plugin"
    folder.mkdir()
    program = folder / plugin.PROGRAM
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    made = StandIn(folder)
    made.be("1.2.694.0\n")
    return made


class Answering(Account):
    """An account whose Session Manager answers as it is told."""

    def __init__(self, answer: dict[str, str] | ClientError = ANSWER) -> None:
        self.region, self.endpoint = "us-east-1", None
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        meta = SimpleNamespace(region_name="us-east-1", endpoint_url="https://ssm.us-east-1.amazonaws.com")
        self.ssm = SimpleNamespace(start_session=self.start, meta=meta)

    def client(self, service: str, region: str = "") -> Any:
        return self.ssm

    def start(self, **asked: Any) -> dict[str, str]:
        self.asked.append(asked)
        if isinstance(self.answer, ClientError):
            raise self.answer
        return self.answer


Reach = Callable[..., RemoteShell]


@pytest.fixture
def reach(machines, stand_in: StandIn, key: Path, monkeypatch) -> Iterator[Reach]:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    made: list[RemoteShell] = []

    def make(account: Account) -> RemoteShell:
        (machine,) = machines(1)
        stand_in.lead_to(machine.node.port)
        node = replace(machine.node, address="10.0.0.7", port=22, instance_id="i-1")
        way = SessionManager(account=account)
        made.append(RemoteShell.to_node(node, host_keys=[machine.host_key], key=key, way=way))
        return made[0]

    yield make
    for shell in made:
        shell.close()


def test_commands_go_through_the_plugin_which_gets_what_the_aws_cli_gives_it(reach: Reach, stand_in: StandIn):
    account = Answering()
    shell = reach(account)
    data = os.urandom(3_000_000)
    assert shell.run("cat", stdin=data, timeout_s=500).stdout == data
    assert account.asked == [ASKED]
    words = stand_in.told["words"]
    assert words[:4] == ["AWS_SSM_START_SESSION_RESPONSE", "us-east-1", "StartSession", ""]
    assert json.loads(words[4]) == ASKED
    assert words[5:] == ["https://ssm.us-east-1.amazonaws.com"]
    assert json.loads(stand_in.told["response"]) == ANSWER
    assert "very-secret" not in " ".join(words), "a command line is for all to read"


def test_a_plugin_that_gives_up_is_quoted(reach: Reach, stand_in: StandIn, monkeypatch):
    monkeypatch.setattr("operate.remote._PAUSES_S", (0, 0))
    stand_in.fail("Cannot perform start session: EOF")
    told = (
        r"^node0 \(10.0.0.7 port 22 through Session Manager\) cannot be reached \(Cannot perform start session: EOF\)"
    )
    with pytest.raises(Unreachable, match=told):
        reach(Answering()).run("true")


def test_an_agent_that_has_not_reported_is_worth_another_try(reach: Reach):
    refused = ClientError({"Error": {"Code": "TargetNotConnected", "Message": "i-1 is not connected."}}, "StartSession")
    with pytest.raises(Unreachable, match=r"^the SSM agent of i-1 has not reported to Session Manager: is it still"):
        reach(Answering(refused)).run("true")


def test_a_refusal_of_aws_is_a_problem_in_its_words(reach: Reach):
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not authorized to perform: "
                                    "ssm:StartSession on resource"}}, "StartSession")  # fmt: skip
    with pytest.raises(Problem, match=r"^AWS denies ssm:StartSession to these credentials: ask") as caught:
        reach(Answering(denied)).run("true")
    assert not isinstance(caught.value, Unreachable)


def test_a_missing_plugin_is_one_line_with_the_page_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Problem) as caught:
        plugin.find_plugin()
    assert str(caught.value) == (
        "session-manager-plugin is not installed, and this lab is reached through it alone: install it: https://docs."
        "aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"
    )


@pytest.mark.parametrize("version", ["1.2.497.0", "1.1.23", "no idea"])
def test_a_plugin_that_wants_its_token_on_the_command_line_is_refused(stand_in: StandIn, version):
    stand_in.be(version)
    with pytest.raises(Problem, match=rf"is of version {version}, older than 1.2.498: install it"):
        plugin.find_plugin()


def test_the_response_is_what_botocores_own_model_says():
    ssm = boto3.client("ssm", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(ssm) as stub:
        stub.add_response("start_session", ANSWER, ASKED)
        assert ssm.start_session(**ASKED)["TokenValue"] == "very-secret"


def test_plain_ssh_goes_through_the_plugin(machines, stand_in: StandIn, key, tmp_path, monkeypatch, ssm_server):
    (machine,) = machines(1)
    stand_in.lead_to(machine.node.port)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", ssm_server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    node = Node(name="node0", address="10.0.0.7", user=machine.node.user, instance_id="i-1")
    (tmp_path / "known_hosts").write_text(hostkeys.known_hosts([(node, [machine.host_key])]))
    ways = {"node0": SessionManager(account=Account())}
    path = write_ssh_config([node], stack="Lab3Stack", folder=tmp_path, key=key, ways=ways)
    data = os.urandom(100_000)
    done = subprocess.run(["ssh", "-F", path, "node0", "cat; exit 4"], input=data, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (4, data, b"")
    assert json.loads(stand_in.told["response"])["TokenValue"] == "very-secret"
    stand_in.be("1.2.0.0")
    done = subprocess.run(["ssh", "-F", path, "node0", "true"], capture_output=True, check=False)
    assert done.returncode == 255
    assert b"older than 1.2.498" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.fixture
def ssm_server() -> Iterator[str]:
    """A Session Manager on loopback that answers every call with ANSWER."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(ANSWER).encode())

        def log_message(self, *words: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
