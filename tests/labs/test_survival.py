"""Whether a checkpoint fits into a notice, and how often one is begun."""

import pytest

from labs.models import find_model
from labs.survival import NOTICE_S, RESERVE_S, STATE_BYTES, Saving, saved_every

SEVEN = STATE_BYTES * find_model("mistral-7b").parameters


def test_the_7b_models_state_does_not_fit_into_the_notice_at_a_small_file_systems_rate() -> None:
    saving = Saving(bytes=SEVEN, rate=240e6)
    assert saving.seconds == pytest.approx(362.4, abs=0.1)
    assert not saving.fits()
    assert Saving(bytes=SEVEN, rate=1.2e9).fits()


def test_the_rate_needed_leaves_the_reserve_and_no_more() -> None:
    needed = Saving(bytes=SEVEN, rate=1.0).rate_needed()
    assert needed == pytest.approx(SEVEN / (NOTICE_S - RESERVE_S))
    assert Saving(bytes=SEVEN, rate=needed * 1.001).fits()
    assert not Saving(bytes=SEVEN, rate=needed * 0.999).fits()


@pytest.mark.parametrize(
    ("size", "rate", "words"), [(-1, 1.0, "bytes=-1 is no size"), (1, 0.0, "rate=0 writes nothing")]
)
def test_what_is_no_size_and_no_rate_is_refused(size: int, rate: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Saving(bytes=size, rate=rate)


@pytest.mark.parametrize(("most_lost", "every"), [(1, 1), (2, 1), (3, 1), (10, 5), (11, 5)])
def test_a_checkpoint_has_half_of_the_interval_to_be_written(most_lost: int, every: int) -> None:
    assert saved_every(most_lost) == every
