"""Host keys come from the console of exactly this launch of exactly this instance, and from nowhere else."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from operate import hostkeys
from operate.account import Account
from operate.nodes import Node
from operate.problem import Problem
from operate.sshconfig import ssh_config
from operate.way import Direct

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk"
CONSOLE = f"""boot
ci-info: no authorized SSH keys
-----BEGIN SSH HOST KEY KEYS-----
{KEY} root@ip-10-0-0-7
ecdsa-sha2-nistp256 AAAAE2VjZHNh root@ip-10-0-0-7
-----END SSH HOST KEY KEYS-----
login:
"""


class FakeAccount(Account):
    """An EC2 whose consoles are given; counts the questions."""

    def __init__(self, *consoles: object) -> None:
        self.consoles = list(consoles)
        self.asked: list[dict[str, Any]] = []
        self.ec2 = SimpleNamespace(get_console_output=self.answer, exceptions=SimpleNamespace(ClientError=ClientError))

    def client(self, service: str, region: str = "") -> Any:
        return self.ec2

    def answer(self, **asked):
        self.asked.append(asked)
        console = self.consoles.pop(0)
        if isinstance(console, Exception):
            raise console
        return {"Output": console}


def node(launched: int = 1, **changes) -> Node:
    given = {"name": "node0", "address": "198.51.100.7", "instance_id": "i-1", **changes}
    return Node(launched=datetime(2026, 11, launched, tzinfo=UTC), **given)


def test_only_a_complete_block_counts_and_the_last_one_wins():
    assert hostkeys.keys_in_console(CONSOLE) == (KEY, "ecdsa-sha2-nistp256 AAAAE2VjZHNh")
    assert hostkeys.keys_in_console(CONSOLE.split("-----END")[0]) == ()
    assert hostkeys.keys_in_console(f"{KEY} root@somewhere") == ()
    assert hostkeys.keys_in_console(CONSOLE + CONSOLE.replace("IGk", "new"))[0].endswith("new")


def test_a_pin_is_asked_for_once_a_launch(tmp_path):
    account = FakeAccount(CONSOLE, CONSOLE.replace("IGk", "new"))
    assert hostkeys.pin(account, [node()], tmp_path)["node0"][0] == KEY
    assert hostkeys.pin(account, [node()], tmp_path)["node0"][0] == KEY
    assert len(account.asked) == 1
    assert hostkeys.pin(account, [node(launched=2)], tmp_path)["node0"][0].endswith("new")
    assert (
        (tmp_path / "known_hosts").read_text().startswith("198.51.100.7 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk"[:30])
    )
    assert "IGk" not in (tmp_path / "known_hosts").read_text()


def test_a_port_that_is_not_22_is_written_as_openssh_does(tmp_path):
    hostkeys.pin(FakeAccount(CONSOLE), [node(port=2222)], tmp_path)
    assert (tmp_path / "known_hosts").read_text().splitlines()[0] == f"[198.51.100.7]:2222 {KEY}"


def test_where_the_live_console_is_refused_the_buffered_one_is_asked(tmp_path):
    refused = ClientError({"Error": {"Code": "UnsupportedOperation", "Message": "not on Nitro"}}, "GetConsoleOutput")
    account = FakeAccount(refused, CONSOLE)
    assert hostkeys.pin(account, [node()], tmp_path)["node0"][0] == KEY
    assert account.asked == [{"InstanceId": "i-1", "Latest": True}, {"InstanceId": "i-1"}]


def test_a_console_without_keys_is_waited_for_and_then_named(tmp_path):
    slept: list[float] = []
    with pytest.raises(Problem, match=r"after 10 s the console of node0 \(i-1\) shows no SSH host keys"):
        hostkeys.pin(FakeAccount(*["booting"] * 20), [node()], tmp_path, limit_s=10, sleep=slept.append)
    assert slept == [5, 5]
    assert not (tmp_path / "known_hosts").exists()


def test_the_ssh_config_trusts_nothing_but_the_pins():
    known_hosts, key = Path("/x/known_hosts"), Path("/50%/k")
    text = ssh_config(
        [node(port=2222)], stack="Lab3Stack-alice", known_hosts=known_hosts, key=key, ways={"node0": Direct()}
    )
    assert "Host node0 lab3-alice-node0\n    HostName 198.51.100.7\n    Port 2222\n    User ubuntu\n" in text
    for line in ("StrictHostKeyChecking yes", 'UserKnownHostsFile "/x/known_hosts"', "GlobalKnownHostsFile none",
                 "IdentitiesOnly yes", "ForwardAgent no"):  # fmt: skip
        assert f"    {line}\n" in text
    assert 'IdentityFile "/50%%/k"' in text, "a % is OpenSSH's own sign"
    assert "accept-new" not in text
    assert "ProxyCommand" not in text
