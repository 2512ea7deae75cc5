"""docs/benchmarks.md names every goal of a GPU, with its figure."""

from pathlib import Path

import pytest

from benchmarks.goals import GOALS, Goal

TEXT = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.name)
def test_every_goal_stands_in_the_table(goal: Goal) -> None:
    assert f"| {goal.name} | ≥ {goal.least:g} {goal.unit} | `{goal.stage}` |" in TEXT
