"""Amdahl's and Gustafson's laws: a fit finds the share that made the numbers."""

import pytest

from labs.scaling import fit_amdahl, fit_gustafson, law_speedup


@pytest.mark.parametrize("serial", [0.0, 0.05, 0.5, 1.0])
def test_a_fit_finds_the_serial_share_that_made_the_numbers(serial: float) -> None:
    sizes = (1, 2, 3, 4, 8)
    for law, fit in (("Amdahl", fit_amdahl), ("Gustafson", fit_gustafson)):
        found = fit({ranks: law_speedup(law, serial, ranks) for ranks in sizes})
        assert found.law == law
        assert found.serial == pytest.approx(serial, abs=1e-12)
        assert found.residuals == pytest.approx(dict.fromkeys(sizes[1:], 0.0), abs=1e-12)
        assert not found.exact


def test_by_hand() -> None:
    assert law_speedup("Amdahl", 0.1, 4) == pytest.approx(1 / 0.325)
    assert law_speedup("Gustafson", 0.1, 4) == pytest.approx(3.7)
    # Amdahl, points (1/2, 1/1.6 − 1/2) and (3/4, 1/2 − 1/4): s = (0.0625 + 0.1875) ÷ (0.25 + 0.5625)
    fit = fit_amdahl({1: 1.0, 2: 1.6, 4: 2.0})
    assert fit.serial == pytest.approx(0.25 / 0.8125)
    assert fit.limit == pytest.approx(3.25)
    assert fit.residuals[4] == pytest.approx(2.0 - 1 / (0.25 + 0.75 * 0.25 / 0.8125), abs=1e-9)


def test_one_point_says_nothing_about_the_law() -> None:
    fit = fit_amdahl({1: 1.0, 2: 1.7})
    assert fit.exact
    assert fit.residuals[2] == pytest.approx(0.0, abs=1e-12)


def test_ranks_that_gain_more_than_their_number_have_no_limit() -> None:
    fit = fit_amdahl({1: 1.0, 2: 2.2, 4: 4.6})
    assert fit.serial < 0
    assert fit.limit is None
    assert fit_gustafson({1: 1.0, 2: 1.9}).limit is None
