"""The figure of a training's lives marks where one was lost, and says in words what it shows."""

from xml.etree import ElementTree

import pytest

from labs.results import Machine, Measurement, Record
from operate.report.figures import _FIGURES
from operate.report.survival import survival


def life(first: int, last: int, began: float, *, ranks: int = 4, told: bool = False) -> dict[str, object]:
    steps = list(range(first, last + 1))
    return {"ranks": ranks, "resumed": first - 1, "begin_s": began, "ready_s": began + 1, "told": told, "steps": steps,
            "at_s": [began + 1 + n - first for n in steps], "losses": [5.0 - 0.1 * n for n in steps],
            "saved": []}  # fmt: skip


def record(*lives: dict[str, object]) -> Record:
    row = Measurement(name="training", value=1.0, unit="token/s", estimator="from 1", no_roof_because="a CPU",
                      config={"kind": "training", "curve": list(lives)})  # fmt: skip
    machine = Machine(hostname="node0", device="CPU", devices=4)
    return Record(workload="train", machine=machine, measurements=(row,))


def drawn(*lives: dict[str, object]) -> str:
    (figure,) = survival([record(*lives)])
    return ElementTree.tostring(figure, encoding="unicode")


def test_a_life_that_was_lost_is_marked_red_and_one_that_saved_grey() -> None:
    lost = drawn(life(1, 12, 0), life(11, 20, 40, ranks=2))
    saved = drawn(life(1, 12, 0, told=True), life(13, 20, 40))
    assert "var(--bad)" in lost
    assert "var(--bad)" not in saved
    assert "Loss from 4.90 to 3.00 in 50.0 s, in 2 lives: the later ones went on from step 10 on 2 ranks." in lost
    assert "steps were done again" in lost


def test_one_life_needs_no_legend_of_lives() -> None:
    text = drawn(life(1, 8, 0))
    assert "in one life" in text
    assert "ranks" not in text
    assert "done again" not in text


@pytest.mark.parametrize("lives", [(), (life(1, 0, 0),)])
def test_no_steps_are_no_figure(lives: tuple[dict[str, object], ...]) -> None:
    assert survival([record(*lives)]) == []


def test_a_life_that_ended_before_its_first_step_is_drawn_too() -> None:
    assert "in 3 lives" in drawn(life(1, 6, 0), life(6, 5, 20), life(6, 8, 30))


def test_the_report_draws_it() -> None:
    assert _FIGURES["train"] is survival
