"""One synthesis of every lab on every kind of type, capacity and way to reach it, shared by all policies."""

from pathlib import Path

import pytest

from labs.catalog import LABS
from tests.stacks.synthesis import ACCESS, CAPACITIES, DIFFERENT, TYPES, Synthesis, synthesise, synthesise_apart


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first to ask for `matrix` waits for hundreds of templates, on a machine that may be busy."""
    for item in items:
        if "matrix" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """Labs that differ x types x capacities x ways to reach them, an owner given; the other labs as they are."""
    cases: dict[str, dict[str, object]] = {
        f"lab{number} {kind} {capacity.partition(':')[0]} {access}": {
            "number": number, "instance_type": kind, "capacity": capacity, "access": access, "owner": "ada",
        }
        for number in DIFFERENT
        for kind in TYPES
        for capacity in CAPACITIES
        for access in ACCESS
    }  # fmt: skip
    cases |= {f"lab{number}": {"number": number, "owner": "ada"} for number in LABS if number not in DIFFERENT}
    return synthesise_apart(tmp_path_factory.mktemp("matrix"), cases, processes=2)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """The labs as the catalogue has them, with every kind of storage on lab 3."""
    cases: dict[str, dict[str, object]] = {f"lab{number}": {"number": number} for number in LABS}
    for storage in ("none", "persistent-125", "persistent-1000", "efa"):
        cases[f"lab3 {storage}"] = {"number": 3, "storage": storage}
    cases["lab0 in a zone"] = {"number": 0, "zone": "eu-west-1c", "name": "alice"}
    return synthesise(tmp_path_factory.mktemp("plain"), cases)


@pytest.fixture(scope="session")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """What a lab may ask for besides type, capacity and way."""
    reserved: dict[str, object] = {"instance_type": "p5.48xlarge", "capacity": "reservation:cr-0123456789abcdef0"}
    cases: dict[str, dict[str, object]] = {
        "64 nodes": {"nodes": 64},
        "64 nodes of 32 EFAs": {"nodes": 64, "instance_type": "p5.48xlarge"},
        "64 of them on spot": {"nodes": 64, "instance_type": "p5.48xlarge", "capacity": "spot"},
        "4 nodes with an Elastic IP each": {"nodes": 4, "instance_type": "p6-b200.48xlarge"},
        "alternatives": {"capacity": "spot", "alternatives": "g5.12xlarge+g6e.12xlarge"},
        "alternatives without an address": {"capacity": "spot", "alternatives": "g5.12xlarge", "access": "eice"},
        "a reservation's group": {**reserved, "group": "mine"},
        "an image": {"image": "ami-0123456789abcdef0"},
        "a baked image": {"image": "baked"},
        "data": {"data": "s3://bucket/some/prefix"},
        "results as data": {"data": "results", "storage": "persistent-250", "storage_gib": 4800},
        "Lustre over EFA": {"storage": "efa", "storage_gib": 9600, "instance_type": "p5.48xlarge", "data": "results"},
        "no EFA": {"efa": "off", "instance_type": "p5.48xlarge"},
        "one EFA": {"instance_type": "p5.4xlarge"},
        "two EFAs": {"instance_type": "g6e.24xlarge"},
        "an EFA on every card but the first": {"instance_type": "p6-b300.48xlarge"},
        "many EFAs on spot": {"instance_type": "p5.48xlarge", "capacity": "spot"},
        "a block": {"instance_type": "p5.48xlarge", "capacity": "block:cr-0123456789abcdef0"},
        "a reservation": reserved,
        "no GPU": {"instance_type": "t3.medium"},
        "a baked image without a GPU": {"instance_type": "t3.medium", "image": "baked"},
        "EFA on one node": {"efa": "on", "nodes": 1, "instance_type": "p5.48xlarge"},
        "Session Manager": {"access": "ssm", "storage": "none"},
        "a name and hours": {"name": "alice", "ttl_hours": 0.5, "zone": "us-east-1d"},
    }
    return synthesise(
        tmp_path_factory.mktemp("varied"),
        {title: {"number": 3, "owner": "ada", **given} for title, given in cases.items()},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where one test's app writes."""
    return tmp_path / "cdk.out"
