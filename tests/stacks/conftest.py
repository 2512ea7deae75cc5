"""One synthesis of every lab on every kind of type and capacity, shared by all policies."""

from pathlib import Path

import pytest

from labs.catalog import LABS
from tests.stacks.synthesis import CAPACITIES, TYPES, Synthesis, synthesise


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """All labs x all types x all capacities, an owner given."""
    cases = {
        f"lab{number} {kind} {capacity.partition(':')[0]}": {
            "number": number, "instance_type": kind, "capacity": capacity, "owner": "ada",
        }
        for number in LABS
        for kind in TYPES
        for capacity in CAPACITIES
    }  # fmt: skip
    return synthesise(tmp_path_factory.mktemp("matrix"), cases)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """The labs as the catalogue has them, with every kind of storage on lab 3."""
    cases: dict[str, dict[str, object]] = {f"lab{number}": {"number": number} for number in LABS}
    for storage in ("none", "persistent-125", "persistent-1000", "efa"):
        cases[f"lab3 {storage}"] = {"number": 3, "storage": storage}
    cases["lab3 64 nodes"] = {"number": 3, "nodes": 64}
    cases["lab0 in a zone"] = {"number": 0, "zone": "eu-west-1c", "name": "alice"}
    return synthesise(tmp_path_factory.mktemp("plain"), cases)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where one test's app writes."""
    return tmp_path / "cdk.out"
