"""One /32 on one group, and each operator's machine answers for its own rules."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from operate import admission
from operate.problem import Problem
from operate.stack import Stack


@pytest.fixture
def group(account):
    return account.client("ec2").create_security_group(GroupName="g", Description="d")["GroupId"]


def opened(account, group):
    rules = account.client("ec2").describe_security_group_rules()["SecurityGroupRules"]
    ours = [rule for rule in rules if rule["GroupId"] == group and not rule["IsEgress"]]
    return sorted((rule["CidrIpv4"], rule["FromPort"], rule["Description"]) for rule in ours)


def test_the_operator_is_let_in_once_and_taken_out_again(account, group):
    assert admission.admit(account, group, [22, 2222], "203.0.113.9", who="alice@laptop")
    assert not admission.admit(account, group, [2222, 22], "203.0.113.9", who="alice@laptop"), "nothing is made twice"
    assert opened(account, group) == [
        ("203.0.113.9/32", 22, "rooflab operator alice@laptop"),
        ("203.0.113.9/32", 2222, "rooflab operator alice@laptop"),
    ]
    assert admission.withdraw(account, group) == 2
    assert admission.withdraw(account, group) == 0
    assert admission.withdraw(account, "sg-0123456789abcdef0") == 0, "a group that is gone has no rule"


def test_an_operator_who_moved_leaves_no_door_open_and_closes_nobody_elses(account, group):
    admission.admit(account, group, [22], "203.0.113.9", who="alice@laptop")
    admission.admit(account, group, [22], "198.51.100.4", who="bob@desk")
    assert admission.admit(account, group, [22], "192.0.2.77", who="alice@laptop")
    assert opened(account, group) == [
        ("192.0.2.77/32", 22, "rooflab operator alice@laptop"),
        ("198.51.100.4/32", 22, "rooflab operator bob@desk"),
    ]


def test_two_operators_behind_one_address_share_its_rule(account, group):
    assert admission.admit(account, group, [22], "203.0.113.9", who="alice@laptop")
    assert not admission.admit(account, group, [22], "203.0.113.9", who="bob@desk")


def test_a_teardown_withdraws_for_everyone_but_only_what_is_rooflabs(account, group):
    theirs = {"CidrIp": "192.0.2.1/32", "Description": "someone else"}
    account.client("ec2").authorize_security_group_ingress(
        GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [theirs]}]
    )
    admission.admit(account, group, [22], "203.0.113.9", who="alice@laptop")
    admission.admit(account, group, [22], "198.51.100.4", who="bob@desk")
    assert admission.withdraw(account, group) == 2
    assert opened(account, group) == [("192.0.2.1/32", 22, "someone else")]


def test_the_operator_is_named_in_letters_that_ec2_takes(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "zoë o'neil")
    monkeypatch.setattr("socket.gethostname", lambda: "mac<book>.local")
    assert admission.operator_name() == "zo--o-neil@mac-book-.local"


def stack(**outputs):
    return Stack(name="Lab3Stack", status="CREATE_COMPLETE", created=datetime.now(UTC), outputs=outputs, tags={})


def test_only_the_stacks_own_group_is_opened(account, group, monkeypatch):
    monkeypatch.setattr(admission, "operator_address", lambda endpoint: "203.0.113.9")
    other = account.client("ec2").create_security_group(GroupName="other", Description="d")["GroupId"]
    admission.admit_operator(account, stack(SecurityGroupId=group), {22})
    assert [cidr for cidr, _, _ in opened(account, group)] == ["203.0.113.9/32"]
    assert opened(account, other) == []


def test_a_stack_without_a_group_says_how_to_get_one(account):
    with pytest.raises(Problem, match=r"^Lab3Stack names no security group: cdk deploy Lab3Stack$"):
        admission.admit_operator(account, stack(), {22})


@pytest.fixture
def echo() -> Iterator[HTTPServer]:
    """Says what `answer` holds to whoever asks."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(server.answer)  # type: ignore[attr-defined]

        def log_message(self, *words: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_echo_services_answer_is_the_address(echo):
    echo.answer = b"203.0.113.9\n"
    assert admission.operator_address(None, echo=f"http://127.0.0.1:{echo.server_port}") == "203.0.113.9"


def test_an_operator_without_ipv4_is_told_what_else_there_is(echo):
    echo.answer = b"2001:db8::7\n"
    url = f"http://127.0.0.1:{echo.server_port}"
    with pytest.raises(Problem) as caught:
        admission.operator_address(None, echo=url)
    assert str(caught.value) == (
        f"{url} says your address is '2001:db8::7', which is no IPv4 address: this lab is reached by IPv4 alone: "
        "connect from a network that has it, or deploy with -c access=eice"
    )


def test_an_echo_service_that_cannot_be_reached_is_named():
    with pytest.raises(Problem, match=r"^http://127.0.0.1:1 does not answer .*deploy with -c access=eice$"):
        admission.operator_address(None, echo="http://127.0.0.1:1")
