"""No lab's template outgrows the 50 KiB that the CDK CLI sends without a bucket, with the longest names allowed.

A template's length depends on the type by its interfaces, its software and its name only, so one type stands for all
that share them; `test_every_type_is_stood_for` holds that to be so.
"""

import pytest

from labs.catalog import ELASTIC_NODES, LABS, Lab
from labs.instances import instance_types
from stacks.cluster import NAMED_NODES
from tests.stacks.synthesis import Synthesis, synthesise_apart, yaml_bytes

LIMIT_BYTES = 50 * 1024
LONGEST: dict[str, object] = {"number": 3, "name": "a" * 20, "owner": "o" * 64, "data": "results", "zone": "us-east-1a"}
COUNTS = (2, 3, ELASTIC_NODES, NAMED_NODES, 64)
STORAGE = ("scratch", "efa")


def shape(lab: Lab) -> tuple[object, ...]:
    """What a template's length depends on besides the letters of a type's name."""
    return (len(lab.interfaces), lab.instance.gpus > 0, lab.way)


def lab_of(kind: str, nodes: int, capacity: str) -> Lab:
    return LABS[3].override(instance_type=kind, nodes=nodes, capacity=capacity)


def stand_ins(nodes: int, capacity: str) -> dict[tuple[object, ...], str]:
    """For every shape the type of the longest name."""
    kinds = sorted(instance_types(), key=len)
    return {shape(lab_of(kind, nodes, capacity)): kind for kind in kinds}


@pytest.fixture(scope="module")
def longest(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    wanted: dict[str, dict[str, object]] = {}
    for nodes in COUNTS:
        for capacity in ("on-demand", "spot") if nodes == 64 else ("on-demand",):
            for kind in stand_ins(nodes, capacity).values():
                given = {**LONGEST, "instance_type": kind, "nodes": nodes, "capacity": capacity}
                for storage in STORAGE if nodes in (ELASTIC_NODES, 64) else STORAGE[:1]:
                    wanted[f"{nodes} x {kind} {capacity} {storage}"] = {**given, "storage": storage}
    return synthesise_apart(tmp_path_factory.mktemp("longest"), wanted, processes=2)


def test_every_type_is_stood_for() -> None:
    for nodes in COUNTS:
        chosen = stand_ins(nodes, "on-demand")
        for kind in instance_types():
            assert len(kind) <= len(chosen[shape(lab_of(kind, nodes, "on-demand"))])


def test_every_template_fits(longest: Synthesis) -> None:
    assert not longest.refused
    assert {lab.way for lab, _ in longest.labs.values()} == {"address", "elastic", "endpoint"}
    sizes = {title: yaml_bytes(template) for title, (_, template) in longest.labs.items()}
    assert {title: size for title, size in sizes.items() if size > LIMIT_BYTES} == {}


def test_the_file_is_written_without_indentation(longest: Synthesis) -> None:
    """For who hands it to CloudFormation by another way than the CLI."""
    paths = list(longest.folder.rglob("Case*.template.json"))
    assert len(paths) == len(longest.labs)
    for path in paths:
        assert path.stat().st_size <= LIMIT_BYTES
        assert path.read_text().count("\n") == 0


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"A": 1}, "A: 1\n"),
        (
            {"A": {"B": True, "C": ["x", {"D": "y", "E": []}]}},
            "A:\n  B: true\n  C:\n    - x\n    - D: y\n      E: []\n",
        ),
        ({"A": [["x", "y"]], "B": "3"}, 'A:\n  - - x\n    - y\nB: "3"\n'),
        ({"A": "one\ntwo\n"}, "A: |\n  one\n  two\n"),
    ],
)
def test_length_is_counted_as_the_cli_writes_yaml(value: dict, written: str) -> None:
    assert len(written) <= yaml_bytes(value) <= len(written) + 2
