"""docs/scale.md: every number of it that the code knows, or that follows from one that is stated, is that number."""

import math
import re
from collections.abc import Callable

import pytest

from labs.catalog import LABS
from labs.instances import instance_type
from operate import output, remote, way
from operate.laptop import ROOT
from operate.tree import read_tree
from tests.docs.test_labs import CONTEXT, blocks, check_fab, commands, inline

PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
NODES = (8, 64, 1000)
KIND = instance_type("p5.48xlarge")
INTERFACES = len(LABS[3].override(instance_type=KIND.name).interfaces)
USD = KIND.usd_per_hour or 0.0
RATE = 419 / (54 * 24 * 16384)
"""Interruptions per hour and GPU."""
TREE_MB, UP_MBIT, HANDSHAKE_S, ALPHA_S = 1.5, 20, 0.005, 20e-6

ROWS: dict[str, Callable[[int], float]] = {
    "ranks": lambda n: KIND.gpus * n,
    "$ an hour": lambda n: USD * n,
    "vCPUs of quota": lambda n: KIND.vcpus * n,
    "network interfaces": lambda n: INTERFACES * n,
    "private addresses": lambda n: n,
    "the same with an address on each": lambda n: INTERFACES * n,
    "tree over SSH, MB": lambda n: TREE_MB * n,
    "the same at 20 Mbit/s up, s": lambda n: 8 * TREE_MB * n / UP_MBIT,
    "SSH's CPU on the laptop, s": lambda n: HANDSHAKE_S * n,
    "hours between interruptions": lambda n: 1 / (KIND.gpus * n * RATE),
    "ring's waiting, ms": lambda n: 2e3 * (n - 1) * ALPHA_S,
    "tree's waiting, ms": lambda n: 2e3 * math.ceil(math.log2(n)) * ALPHA_S,
}


def rows() -> dict[str, list[float]]:
    found = re.findall(r"^\| ([^|]+) \| ([\d.,]+) \| ([\d.,]+) \| ([\d.,]+) \| [^|]+ \|$", PAGE, re.MULTILINE)
    return {name: [float(cell.replace(",", "")) for cell in cells] for name, *cells in found}


def told(pattern: str) -> list[float]:
    """The numbers that stand in a sentence of the page."""
    match = re.search(pattern, " ".join(PAGE.split()))
    assert match, f"the page does not say {pattern!r}"
    return [float(text.replace(",", "")) for text in match.groups()]


def test_it_is_short_and_has_a_diagram() -> None:
    assert len(PAGE.split()) <= 1000
    assert any(block.startswith("mermaid") for block in blocks(PAGE))


def test_the_table_has_these_rows() -> None:
    assert set(rows()) == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_its_formula(row: str) -> None:
    for nodes, cell in zip(NODES, rows()[row], strict=True):
        assert cell == pytest.approx(ROWS[row](nodes), rel=0.01)


def test_what_is_said_of_the_code_is_so() -> None:
    assert told(r"takes 1 to (\d+) nodes") == [64]
    LABS[3].override(nodes=64)
    with pytest.raises(ValueError, match="nodes=65"):
        LABS[3].override(nodes=65)
    assert told(r"p5.48xlarge: (\d+) GPUs, (\d+) vCPUs, (\d+) EFAs, \$([\d.]+) an") == [
        KIND.gpus, KIND.vcpus, KIND.efas, USD,
    ]  # fmt: skip
    assert told(r"; (\d+) handshakes at a time") == [remote.HANDSHAKES]
    assert told(r"SSH, (\d+) handshakes at a time") == [remote.HANDSHAKES]
    assert told(r"Rooflab takes (\d+) and goes through") == [way.Endpoint.most]
    assert told(r"With more than (\d+) nodes only") == [output.MOST]
    (limit_min,) = re.findall(r"timeout=Duration.minutes\((\d+)\)", (ROOT / "stacks" / "guard.py").read_text())
    assert told(r"of its Lambda's (\d+) s") == [60 * int(limit_min)]
    assert len(read_tree(ROOT).archive) / 1e6 == pytest.approx(TREE_MB, rel=0.4)


def test_what_follows_from_a_stated_number_follows() -> None:
    assert told(r"/ 33 is \*\*(\d+) nodes") == [5000 // INTERFACES]
    assert told(r"([\d,]+) − 5 = ([\d,]+) addresses") == [2 ** (32 - 20), 2 ** (32 - 20) - 5]
    assert told(r"each, (\d+) nodes would fill it") == [4091 // INTERFACES]
    assert told(r"s that is ([\d.]+) s for 64 and (\d+) s for 1,000") == [6.4, 100]
    assert told(r"(\d+) more each at 64 nodes, ([\d.]+) at 1,000") == [
        (nodes - way.Endpoint.most) / way.Endpoint.most for nodes in (64, 1000)
    ]
    assert told(r"once, in ([\d.]+) s") == [8 * TREE_MB / UP_MBIT]
    assert told(r"= ([\d.e-]+) an hour and GPU") == [pytest.approx(RATE, rel=0.01)]
    minutes = [math.sqrt(2 * 10 * 3600 * ROWS["hours between interruptions"](n)) / 60 for n in NODES]
    assert told(r"every (\d+) minutes on 8 nodes, (\d+) on 64, (\d+) on 1,000") == [round(each) for each in minutes]
    assert told(r"reads ([\d,]+) interfaces in pages of 1,000: (\d+) requests") == [33 * 1000, 33]


def test_the_template_is_as_large_as_the_measured_one() -> None:
    resources, kib = told(r"64 nodes are (\d+) resources and ([\d.]+) KiB")
    assert f"| 3, 64 × p5.48xlarge | 10.3 KiB | {kib} KiB | {resources:.0f} |" in (
        ROOT / "docs" / "benchmarks.md"
    ).read_text(encoding="utf-8")


def test_every_command_and_link_exists() -> None:
    for words in commands(PAGE, "fab"):
        check_fab(words)
    given = [words for text in inline(PAGE) if (words := text.split())[:1] == ["-c"]]
    assert given
    assert {words[1].partition("=")[0] for words in given} <= CONTEXT
    links = re.findall(r"\]\((?!https:)([^)#]+)[^)]*\)", PAGE)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    cited = set(re.findall(r"\[(\d)\]", PAGE.split("## Sources")[0]))
    assert cited == set(re.findall(r"^- \[(\d)\] \[", PAGE, re.MULTILINE))
