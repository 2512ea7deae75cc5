"""The belt: a node ends itself once its lab's deadline is past, whatever it can still ask."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.userdata.metadata import serve
from tests.userdata.node import Node

HOUR = 3600
NOWHERE = "http://127.0.0.1:1"


def iso(moment: float) -> str:
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(autouse=True)
def no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that need the metadata service name one; no other may be asked."""
    monkeypatch.setattr(
        Node, "environment",
        lambda node, more, made=Node.environment: made(node, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": NOWHERE, **more}),
    )  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "root")


@pytest.fixture
def imds() -> Iterator[str]:
    """Address of a metadata service; the node was launched three hours ago."""
    with serve() as said:
        said.launched = iso(time.time() - 3 * HOUR)
        yield said.address


def account_says(node: Node, body: str) -> None:
    """Put the Python that asks the account in place; `body` stands for what it prints."""
    path = node.here / "venv/bin/python"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/bash\necho "$*" >>"{node.root}/asked"\n{body}\n')
    path.chmod(0o755)


def shut_down(node: Node) -> bool:
    return "shutdown -P now" in node.calls


def test_before_python_is_there_launch_and_hours_count(node: Node, imds: str) -> None:
    ended = node.belt(AWS_EC2_METADATA_SERVICE_ENDPOINT=imds)
    assert ended.returncode == 0, ended.stderr
    told = datetime.fromisoformat((node.home / "deadline").read_text().strip())
    assert told.timestamp() == pytest.approx(time.time() + HOUR, abs=600)
    assert not shut_down(node)


def test_a_node_that_cannot_tell_its_launch_is_not_shut_down(node: Node) -> None:
    ended = node.belt(AWS_EC2_METADATA_SERVICE_ENDPOINT=NOWHERE)
    assert ended.returncode != 0
    assert "does not tell when this node was launched" in ended.stderr
    assert not (node.home / "deadline").exists()
    assert not shut_down(node)


def test_a_node_whose_boot_failed_ends_as_well(node: Node, imds: str) -> None:
    node.settings["ROOFLAB_TTL_HOURS"] = "0.5"
    node.belt(AWS_EC2_METADATA_SERVICE_ENDPOINT=imds)
    assert shut_down(node)


def test_the_account_is_asked_for_the_stack(node: Node) -> None:
    account_says(node, f"echo {int(time.time()) + HOUR}")
    node.belt()
    assert (node.root / "asked").read_text() == "- us-east-1 Lab3Stack 4 \n"
    assert not shut_down(node)


@pytest.mark.parametrize(("past_s", "ends"), [(0, False), (300, False), (700, True)])
def test_the_guard_has_ten_minutes_before_the_belt(node: Node, past_s: int, ends: bool) -> None:
    account_says(node, f"echo {int(time.time()) - past_s}")
    node.belt()
    assert shut_down(node) == ends


def test_an_extension_is_followed(node: Node) -> None:
    account_says(node, f"echo {int(time.time()) - 300}")
    node.belt()
    account_says(node, f"echo {int(time.time()) + HOUR}")
    node.belt()
    told = datetime.fromisoformat((node.home / "deadline").read_text().strip())
    assert told.timestamp() == pytest.approx(time.time() + HOUR, abs=600)


def test_while_aws_is_silent_the_last_known_deadline_holds(node: Node) -> None:
    account_says(node, f"echo {int(time.time()) + HOUR}")
    node.belt()
    known = (node.home / "deadline").read_text()
    account_says(node, "exit 1")
    ended = node.belt()
    assert "AWS does not tell the deadline: the last known one holds" in ended.stderr
    assert (node.home / "deadline").read_text() == known


def test_an_account_that_never_answered_leaves_launch_and_hours(node: Node, imds: str) -> None:
    account_says(node, "exit 1")
    node.settings["ROOFLAB_TTL_HOURS"] = "1"
    ended = node.belt(AWS_EC2_METADATA_SERVICE_ENDPOINT=imds)
    assert "AWS does not tell the deadline: launch + ttl-hours holds" in ended.stderr
    assert shut_down(node)


def test_most_minutes_ask_nobody(node: Node) -> None:
    account_says(node, f"echo {int(time.time()) + HOUR}")
    node.belt()
    node.belt_again()
    node.belt_again()
    assert len((node.root / "asked").read_text().splitlines()) == 1


def test_in_the_last_minutes_the_account_is_asked_each_time_for_it_may_have_been_extended(node: Node) -> None:
    account_says(node, f"echo {int(time.time()) + 300}")
    node.belt()
    account_says(node, f"echo {int(time.time()) + HOUR}")
    node.belt_again()
    assert len((node.root / "asked").read_text().splitlines()) == 2
    told = datetime.fromisoformat((node.home / "deadline").read_text().strip())
    assert told.timestamp() == pytest.approx(time.time() + HOUR, abs=600)


def notices(node: Node) -> list[str]:
    """What rooflab-notice was called with, by the belts that ran since `count_notices`."""
    path = node.root / "notices"
    return path.read_text().splitlines() if path.exists() else []


def count_notices(node: Node) -> None:
    """Let rooflab-notice only note its call."""
    (node.here / "notice.sh").write_text(f'#!/bin/bash\n# a stand-in\necho "$*" >>"{node.root}/notices"\n')


@pytest.mark.parametrize(("left_s", "given"), [(HOUR, 0), (900, 0), (599, 1), (30, 1), (-300, 1)])
def test_workloads_are_told_ten_minutes_before_the_deadline(node: Node, left_s: int, given: int) -> None:
    count_notices(node)
    at = int(time.time()) + left_s
    account_says(node, f"echo {at}")
    node.belt()
    assert notices(node) == [f"the lab ends at {iso(at)}"] * given
    assert not shut_down(node)


def test_a_short_lab_tells_them_later(node: Node) -> None:
    count_notices(node)
    node.settings["ROOFLAB_NOTICE_S"] = "60"
    account_says(node, f"echo {int(time.time()) + 300}")
    node.belt()
    assert notices(node) == []


def test_they_are_told_once_and_again_before_an_extended_deadline(node: Node) -> None:
    count_notices(node)
    first, second = int(time.time()) + 300, int(time.time()) + 500
    for at in (first, first, second, second):
        account_says(node, f"echo {at}")
        node.belt()
    assert notices(node) == [f"the lab ends at {iso(first)}", f"the lab ends at {iso(second)}"]


def test_a_notice_that_fails_does_not_keep_the_node(node: Node) -> None:
    (node.here / "notice.sh").write_text("#!/bin/bash\n# a stand-in\nexit 1\n")
    account_says(node, f"echo {int(time.time()) - 700}")
    assert "the workloads could not be told" in node.belt().stderr
    assert shut_down(node)
