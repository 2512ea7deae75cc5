"""What the README says of prices and commands is what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from labs.catalog import LABS
from labs.prices import cost_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("number", LABS)
def test_the_table_of_labs_tells_the_price_that_cost_tells(number: int) -> None:
    row = re.search(rf"^\| {number} \|.*\| ([0-9.]+)[^|]*\|$", README, re.MULTILINE)
    assert row, f"README.md has no row for Lab {number}"
    usd = cost_of(LABS[number]).usd_per_hour
    assert usd is not None
    assert float(row[1]) == pytest.approx(usd, abs=0.005)


def test_every_verb_that_is_named_exists() -> None:
    fab = Path(sys.executable).with_name("fab")
    listed = subprocess.run([fab, "--list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^  (\S+)", listed, re.MULTILINE))
    named = set(re.findall(r"\bfab ([a-z][a-z.-]+)", README))
    assert named
    assert named <= known


def test_every_file_that_is_linked_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
