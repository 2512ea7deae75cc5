"""Two sets of runs: what the interval, the noise floor and the verdict promise."""

import random
from statistics import median

import pytest

from labs.comparison import compare, in_turn, interval, medians_of_resamples, more_needed, noise_floor

SLOWEST = [1.00, 1.02, 0.99, 1.01, 1.00]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9])
def test_the_medians_of_resamples_are_those_that_drawing_finds(count: int) -> None:
    source = random.Random(count)
    values = [source.uniform(1, 2) for _ in range(count)]
    exact = medians_of_resamples(values)
    assert sum(chance for _, chance in exact) == pytest.approx(1)
    drawn = [median(source.choices(values, k=count)) for _ in range(4000)]
    for threshold in sorted(values):
        told = sum(chance for value, chance in exact if value <= threshold + 1e-12)
        seen = sum(value <= threshold + 1e-12 for value in drawn) / len(drawn)
        assert told == pytest.approx(seen, abs=0.04)


def test_the_smallest_of_five_is_a_resamples_median_in_181_of_3125() -> None:
    """At least three of five draws: C(5,3)·4² + C(5,4)·4 + 1 = 181 of 5⁵."""
    found = dict(medians_of_resamples([1, 2, 3, 4, 5]))
    assert found[1] == pytest.approx(181 / 3125)
    assert found[3] == pytest.approx(1 - 2 * (found[1] + found[2]))


def test_the_interval_turns_over_with_the_sides() -> None:
    other = [1.1, 1.3, 1.2, 1.25, 1.15]
    low, high = interval(SLOWEST, other)
    assert low < 1.2 < high
    assert interval(other, SLOWEST) == pytest.approx((1 / high, 1 / low), rel=0.02)


def test_a_plain_difference_is_found_and_named_by_its_side() -> None:
    twice = [2 * value for value in SLOWEST]
    found = compare(SLOWEST, twice)
    assert found.verdict == "higher"
    assert found.ratio == pytest.approx(2)
    assert compare(twice, SLOWEST).verdict == "lower"
    assert compare(SLOWEST, SLOWEST).verdict == "same"


@pytest.mark.parametrize(("base", "other"), [(1, 1), (4, 5), (5, 4)])
def test_fewer_than_five_runs_on_a_side_tell_nothing_but_the_ratio(base: int, other: int) -> None:
    found = compare([1.0] * base, [9.0] * other)
    assert found.verdict == "not enough runs"
    assert (found.ratio, found.low, found.high, found.floor) == (9.0, None, None, None)
    assert more_needed(base, other) == (5 - base, 5 - other)


def test_a_difference_below_the_machines_own_noise_is_none() -> None:
    """The interval alone would say 1.5 % faster; runs of one thing differ by 10 % on this machine."""
    base, other = [1.000, 1.001, 1.002, 1.001, 1.000], [1.015, 1.016, 1.017, 1.016, 1.015]
    assert compare(base, other).verdict == "higher"
    restless = [0.90, 1.10, 0.91, 1.12, 0.89, 1.11]
    found = compare(base, other, restless)
    assert found.low is not None
    assert found.low > 1, "by the interval alone it would be a difference"
    assert found.floor is not None
    assert found.floor > 0.05
    assert found.verdict == "same"


def test_the_floor_of_equal_runs_is_nothing_and_grows_with_their_noise() -> None:
    assert noise_floor([3.0] * 10, most=5) == 0
    source = random.Random(1)
    floors = [noise_floor([1 + source.gauss(0, noise) for _ in range(10)], most=5) for noise in (0.001, 0.01, 0.05)]
    assert floors == sorted(floors)
    assert floors[0] < floors[2] / 5


def _steady(source: random.Random) -> float:
    return 1 + source.gauss(0, 0.01)


def _tailed(source: random.Random) -> float:
    return 1 + source.lognormvariate(-4, 0.8)


def _disturbed(source: random.Random) -> float:
    return 1 + abs(source.gauss(0, 0.01)) + (0.2 if source.random() < 0.15 else 0)


@pytest.mark.parametrize("noise", [_steady, _tailed, _disturbed])
def test_of_runs_of_one_thing_at_most_one_pair_in_twenty_is_called_different(noise) -> None:
    source, trials = random.Random(5), 400
    called = sum(
        compare([noise(source) for _ in range(5)], [noise(source) for _ in range(5)]).verdict != "same"
        for _ in range(trials)
    )
    assert called / trials <= 0.05


def test_five_runs_a_side_find_three_per_cent_in_one_per_cent_of_noise() -> None:
    source, trials = random.Random(6), 200
    found = sum(
        compare([_steady(source) for _ in range(5)], [1.03 * _steady(source) for _ in range(5)]).verdict == "higher"
        for _ in range(trials)
    )
    assert found / trials >= 0.8


@pytest.mark.parametrize(
    ("order", "turns"),
    [("ABABABABAB", True), ("ABBAABBAAB", True), ("AAAAABBBBB", False), ("ABABAAABBB", False), ("AB", True)],
)
def test_runs_are_in_turn_where_no_side_has_three_in_a_row(order: str, turns: bool) -> None:
    assert in_turn(order) is turns
