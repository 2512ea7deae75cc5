"""The history: a torn line costs one event, and what was done twice is held against itself."""

import errno
from pathlib import Path

import pytest

from workloads.survival.history import History, Life, Save, Start, Step, Story, Told
from workloads.survival.rows import curve, extra_s


def start(resumed: int = 0, *, at: float = 100.0, ranks: int = 4) -> Start:
    return Start(at=at, began=at - 2, ranks=ranks, threads=1, nodes=2, resumed=resumed, load_s=0.5)


def step(
    number: int, *, at: float = 0.0, loss: float | None = None, taken_s: float = 1.0, saving: bool = False
) -> Step:
    return Step(step=number, loss=5.0 / number if loss is None else loss, at=at, taken_s=taken_s, saving=saving)


def story(*lives: tuple[Start, list[Step]]) -> Story:
    return Story(lives=tuple(Life(start=one, steps=tuple(steps)) for one, steps in lives))


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    history = History(path=tmp_path / "history.jsonl")
    assert history.read() == Story()
    history.note(start())
    history.alone((5.0, 2.5))
    history.note(step(1, at=101, loss=5.0 + 2**-40))
    history.note(Save(step=1, blocked_s=0.1, written_s=0.2, bytes=12))
    history.note(Told(at=102.0, step=1, why="spot", notice_s=3.0))
    history.note(start(1, at=200))
    history.finish()
    found = history.read()
    assert found.finished
    assert found.alone == (5.0, 2.5)
    first, second = found.lives
    assert first.steps[0].loss == 5.0 + 2**-40, "to the last bit"
    assert (first.saves[0].bytes, first.told and first.told.why, second.start.resumed) == (12, "spot", 1)


def test_a_line_that_a_death_has_torn_costs_that_event_alone(tmp_path: Path) -> None:
    history = History(path=tmp_path / "history.jsonl")
    history.note(start())
    history.note(step(1))
    with history.path.open("a") as file:
        file.write('\n{"kind": "step", "step": 2, "lo')
    history.note(start(1))
    history.note(step(2))
    assert [[one.step for one in life.steps] for life in history.read().lives] == [[1], [2]]


def test_a_full_disk_costs_no_event_of_a_life_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(path=tmp_path / "history.jsonl")
    history.note(start())

    def full(self: Path, mode: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        history.note(step(1))
    assert len(history.read().lives[0].steps) == 1
    history.note(step(2))
    assert [one.step for one in History(path=history.path).read().lives[0].steps] == [1, 2]


def test_lost_steps_are_counted_once(tmp_path: Path) -> None:
    found = story((start(), [step(n, at=100 + n) for n in range(1, 13)]), (start(10, at=130), []),
                  (start(10, at=140), [step(11, at=142)]))  # fmt: skip
    assert [(one.step, one.lost, one.down_s) for one in found.resumes] == [(10, 2, None), (10, 0, 12.0)]
    assert found.reached == 12


def test_the_same_ranks_must_find_the_same_bits_and_others_nearly() -> None:
    def again(loss: float, ranks: int) -> Story:
        return story((start(), [step(1), step(2, loss=2.5)]), (start(1, ranks=ranks), [step(2, loss=loss)]))

    assert again(2.5, 4).twice() == (1, 0, "")
    assert again(2.5 + 2e-6, 2).twice() == (0, 1, "")
    assert again(2.5 + 2e-6, 4).twice()[2] == (
        "step 2 had loss 2.5, and 2.500002 in life 1: must be the same bit by bit")  # fmt: skip
    assert again(2.51, 2).twice()[2] == "step 2 had loss 2.5, and 2.51 in life 1: may differ by 1e-05 of it"
    assert again(float("nan"), 2).twice()[2]


def test_back_on_as_many_ranks_after_others_need_not_be_the_same_bits() -> None:
    found = story((start(), [step(1), step(2), step(3, loss=2.0)]), (start(1, ranks=2), [step(2)]),
                  (start(2), [step(3, loss=2.0 + 1e-6)]))  # fmt: skip
    assert found.twice() == (0, 2, "")


def test_extra_time_is_what_steps_beside_a_save_take_more() -> None:
    taken = [9.0, 1.0, 1.0, 1.5, 1.25, 1.0]  # the first warms up
    steps = [step(n, taken_s=one, saving=one in (1.5, 1.25)) for n, one in enumerate(taken, start=1)]
    assert extra_s(story((start(), steps))) == pytest.approx(0.75)
    assert extra_s(story((start(), steps[:3]))) is None


def test_losses_stand_against_the_wall_time_since_the_first_start() -> None:
    found = curve(story((start(), [step(1, at=103)]), (start(0, at=130, ranks=2), [step(1, at=131)])))
    assert [(one["begin_s"], one["ready_s"], one["at_s"], one["ranks"]) for one in found] == [
        (0.0, 2.0, [5.0], 4), (30.0, 32.0, [33.0], 2)]  # fmt: skip


def test_parity_is_the_largest_difference_of_the_first_losses() -> None:
    one = Story(lives=story((start(), [step(1, loss=5.0), step(2, loss=4.0)])).lives, alone=(5.0, 4.0004))
    assert one.parity == pytest.approx(1e-4, rel=1e-2)
    assert Story(lives=one.lives).parity is None
