"""Users who come by themselves: a seeded Poisson process, and what they wait for a server that takes them in turn."""

from itertools import pairwise

import pytest

from workloads.serving.arrivals import poisson, waits


def test_gaps_are_exponential_with_the_rates_mean() -> None:
    times = poisson(50.0, 400.0, seed=3)
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 50, rel=0.03)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.05), "an exponential's standard deviation is its mean"
    assert times == tuple(sorted(times))
    assert times[-1] < 400


def test_a_seed_draws_the_same_users_at_every_rate() -> None:
    slow, fast = poisson(1.0, 100.0, seed=7), poisson(10.0, 10.0, seed=7)
    assert fast == pytest.approx([time / 10 for time in slow])
    assert poisson(1.0, 100.0, seed=8) != slow


def test_waits_by_hand() -> None:
    """Served 2 s each: the second comes at 1 and waits 1, the third at 1.5 and waits 2.5, the last finds it free."""
    assert waits((0.0, 1.0, 1.5, 20.0), 2.0) == (0.0, 1.0, 2.5, 0.0)
    assert waits((), 1.0) == ()


def test_the_mean_wait_of_random_users_is_pollaczek_and_khinchines() -> None:
    """M/D/1: ρ·S / (2·(1 − ρ)), at ρ = 0.5 half a service."""
    found = waits(poisson(0.5, 200_000.0, seed=1), 1.0)
    assert sum(found) / len(found) == pytest.approx(0.5, rel=0.05)
