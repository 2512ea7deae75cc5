"""The belt asks a real CloudFormation and a real Systems Manager, the rehearsal's, for its lab's deadline."""

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.rehearsal.engine_server import ENVIRONMENT, Account, serve
from tests.userdata import metadata
from tests.userdata.node import Node

HOUR = 3600
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def account() -> Iterator[Account]:
    """An account in which the lab's stack stands, with two hours to live."""
    with serve() as made:
        made.create(
            "Lab3Stack",
            {"Log": {"Type": "AWS::Logs::LogGroup", "Properties": {}}},
            Tags=[{"Key": "rooflab:ttl-hours", "Value": "2"}],
        )
        yield made


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path / "root", {"ROOFLAB_TTL_HOURS": "4"})
    python = made.here / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return made


def told(node: Node, account: Account, **more: str) -> tuple[float, str]:
    """Hours from now to the deadline that the belt believes, and what it complained of."""
    environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": account.endpoint, "AWS_EC2_METADATA_SERVICE_ENDPOINT": NOWHERE}
    ended = node.belt(**{**environment, **more})
    assert ended.returncode == 0, ended.stderr
    deadline = datetime.fromisoformat((node.home / "deadline").read_text().strip())
    return (deadline.timestamp() - time.time()) / HOUR, ended.stderr


def extend(account: Account, hours: float) -> None:
    at = datetime.fromtimestamp(int(time.time() + hours * HOUR), UTC)
    account.client("ssm").put_parameter(
        Name="/rooflab/deadline/Lab3Stack", Value=at.isoformat(), Type="String", Overwrite=True
    )


def test_the_stacks_creation_and_its_tag_count(node: Node, account: Account) -> None:
    hours, complaint = told(node, account)
    assert hours == pytest.approx(2, abs=0.1)
    assert complaint == ""


def test_what_was_written_after_the_creation_comes_first(node: Node, account: Account) -> None:
    extend(account, 6)
    assert told(node, account)[0] == pytest.approx(6, abs=0.1)


def test_without_cloudformation_launch_stands_for_creation_and_the_extension_still_counts(
    node: Node, account: Account
) -> None:
    with metadata.serve() as imds:
        imds.launched = datetime.fromtimestamp(time.time() - HOUR, UTC).isoformat()
        silent = {"AWS_ENDPOINT_URL_CLOUDFORMATION": NOWHERE, "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.address}
        hours, complaint = told(node, account, **silent)
        assert hours == pytest.approx(3, abs=0.1)
        assert complaint.startswith("CloudFormation does not answer, launch stands for the stack's creation (")
        extend(account, 6)
        assert told(node, account, **silent)[0] == pytest.approx(6, abs=0.1)


def test_without_systems_manager_the_last_known_deadline_holds(node: Node, account: Account) -> None:
    told(node, account)
    hours, complaint = told(node, account, AWS_ENDPOINT_URL_SSM=NOWHERE)
    assert hours == pytest.approx(2, abs=0.1)
    assert "AWS does not tell the deadline: the last known one holds" in complaint
