"""docs/lab3.md: its numbers are those that the code predicts and prints."""

import re

import pytest

from labs.catalog import LABS
from labs.models import find_model
from labs.prices import cost_of
from labs.roofs import bus_factor
from operate.hang import DEFAULT_S
from rehearsal.rates import rate
from tests.docs.test_labs import commands, page, said_by_code
from workloads.exchange.paths import least_crossing

RANKS, NODES = 4, 2
GRADIENTS = 4 * find_model("mistral-nano").parameters
RING = 2 * (RANKS - 1) / RANKS * GRADIENTS
ON_THE_WIRE = {
    "all ranks": RING,
    "all ranks, in bf16": RING / 2,
    "node by node": least_crossing(GRADIENTS, NODES),
    "within the node": 0.0,
}
RATES = (100e6, 1e9, LABS[3].instance.gbps * 1e9)
"""Bit/s of the table's columns."""


def rows() -> dict[str, list[float]]:
    found = re.findall(r"^\| `([^`]+)`[^|]*((?:\| [\d.]+ )+)\|$", page(3), re.MULTILINE)
    return {name: [float(cell) for cell in cells.split("|") if cell.strip()] for name, cells in found}


def test_the_table_has_the_paths_by_the_names_that_the_workload_prints() -> None:
    assert set(rows()) == set(ON_THE_WIRE)
    assert all(said_by_code(name) or name == "all ranks" for name in ON_THE_WIRE)


@pytest.mark.parametrize("path", ON_THE_WIRE)
def test_bytes_and_seconds_follow(path: str) -> None:
    size, *times, measured = rows()[path]
    assert size == pytest.approx(ON_THE_WIRE[path] / 1e6, abs=0.006)
    for bits, told in zip(RATES, times, strict=True):
        assert told == pytest.approx(8 * ON_THE_WIRE[path] / bits, rel=0.02)
    assert measured >= 0.9 * times[0], "what was measured is not below the wire's own time by more than was hidden"


def test_what_is_said_beside_the_table_is_so() -> None:
    text = " ".join(page(3).split())
    assert f"gradients are {GRADIENTS / 1e6:.2f} MB in fp32" in text
    assert f"EFA, {LABS[3].instance.gbps:g} Gbit/s" in text
    assert f"{bus_factor('all-reduce', 8):g} times with eight ranks" in text
    assert f"without a sign of life for {DEFAULT_S} s" in text
    usd = {line.kind: line.usd_per_hour for line in cost_of(LABS[3]).lines}
    assert f"two nodes ${usd['instance']:.2f}, FSx ${usd['file-system']:.2f}" in text


def test_the_links_that_it_names_are_rates_that_the_rehearsal_takes() -> None:
    given = [words for words in commands(page(3), "fab") if words[1].startswith("rehearsal.")]
    for words in given:
        if words[1] == "rehearsal.link":
            rate(words[2])
        if "--link" in words and len(words) > words.index("--link") + 1:
            rate(words[words.index("--link") + 1])
    assert sum(words[1] == "rehearsal.link" for words in given) == 1
