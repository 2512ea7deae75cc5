"""Five trainings that lose a node, with real ranks: all finish with the losses of one that lost none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.survival import EVERY, NODES, Outcome, case, summary

ROOT = Path(__file__).parents[2]
SEED = 7


@pytest.mark.timeout(900)
def test_five_trainings_survive_the_loss_of_a_node(tmp_path: Path) -> None:
    kept = tmp_path / "outcomes.json"
    line = [sys.executable, "-m", "benchmarks.survival", "--trainings", "5", "--seed", str(SEED), "--json", str(kept)]
    told = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=850, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    outcomes = json.loads(kept.read_text())
    assert [one["fault"] for one in outcomes] == [""] * 5
    assert all(one["lives"] >= 2 for one in outcomes if one["resume_s"])
    assert sum(len(one["resume_s"]) for one in outcomes) >= 4, "hardly a node was lost, so that nothing was shown"
    assert max(lost for one in outcomes for lost in one["lost"]) <= EVERY
    assert {one["exact"] for one in outcomes} == {True, False}, "on as many ranks, and on others"
    assert all(one["differ"] == 0 for one in outcomes if one["exact"])
    assert "trainings 5, seed 7: 5 finished with the uninterrupted run's losses" in told.stdout


def test_the_seed_fixes_what_befalls_each() -> None:
    drawn = [case(SEED, number) for number in range(200)]
    assert drawn == [case(SEED, number) for number in range(200)]
    assert {node for one in drawn for _, node in one.strikes} == set(range(NODES))
    assert {(one.replaced, one.strategy) for one in drawn} == {
        (replaced, strategy) for replaced in (True, False) for strategy in ("fsdp", "ddp")}  # fmt: skip
    assert {len(one.strikes) for one in drawn} == {1, 2}


def test_one_that_did_not_survive_is_not_counted() -> None:
    def outcome(fault: str) -> Outcome:
        return Outcome(number=0, lives=2, lost=(3,), resume_s=(1.5,), found_out=2, told=0, start_s=0.5, exact=True,
                       differ=0.0, fault=fault, text="")  # fmt: skip

    told = summary([outcome(""), outcome("losses differ")], 7)
    assert told.startswith("trainings 2, seed 7: 1 finished with the uninterrupted run's losses (1 on as many ranks")
    assert "2 resumes in 1.50 s (median), at most 3 steps lost of an interval of 6" in told
