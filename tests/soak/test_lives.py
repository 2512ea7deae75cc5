"""A few whole lives, and that the soak would see what it is there to see."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import home
from tests.soak.life import unnamed
from tests.soak.plan import plan
from tests.soak.soak import Soak

_SEED = 8
_LIVES = 6


@pytest.mark.timeout(3600)
def test_a_few_lives_end_at_nothing_left_and_nothing_lost(tmp_path: Path) -> None:
    command = ["-m", "tests.soak", "--seed", str(_SEED), "--lives", str(_LIVES), "--folder", str(tmp_path / "soak"),
               "--workers", "2"]  # fmt: skip
    done = subprocess.run([sys.executable, *command], cwd=home.ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [f"lives {_LIVES}, survived {_LIVES}, leftovers 0, lost 0"], (
        done.stdout + done.stderr
    )
    assert done.returncode == 0, done.stderr


def test_a_life_follows_from_seed_and_number_alone() -> None:
    assert plan(5, 17) == plan(5, 17)
    assert plan(5, 17) != plan(5, 18)
    assert plan(5, 17) != plan(6, 17)


def test_a_third_of_the_lives_and_more_have_their_client_killed_at_a_step() -> None:
    lives = [plan(1, number) for number in range(1000)]
    assert sum(life.killed_at > 0 for life in lives) > 500
    assert {len(life.troubles) for life in lives} == {1, 2, 3}


def test_a_failure_without_a_cause_is_seen() -> None:
    named = "problem: Lab1Stack has 0 of its 1 nodes; the others were stopped: cdk destroy Lab1Stack"
    assert list(unnamed(["--- nodes", named])) == []
    unforeseen = "problem: unexpected KeyError: 'x': the traceback is in /tmp/x; please report it with that"
    bare = ["problem: nothing to do about it", "Traceback (most recent call last):", "Exception in thread x:"]
    assert list(unnamed([named, unforeseen, *bare])) == [unforeseen, *bare]


def test_two_soaks_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    first = Soak(tmp_path, 1)
    with pytest.raises(SystemExit, match=f"another soak is at work in {tmp_path}: wait for it, or choose another"):
        Soak(tmp_path, 1)
    first.close()
    Soak(tmp_path, 1).close()
