"""The line through times by size: exact where they lie on one, honest where they do not."""

import pytest

from labs.latency import fit

SIZES = [2**power for power in range(10, 31, 2)]


def test_times_on_a_line_give_it_back() -> None:
    """20 µs and 10 GB/s: half of the rate is reached at 200 kB."""
    line = fit(SIZES, [20e-6 + size / 10e9 for size in SIZES])
    assert line is not None
    assert line.alpha_s == pytest.approx(20e-6)
    assert line.bytes_per_s == pytest.approx(10e9)
    assert line.half_bytes == pytest.approx(200_000)
    assert line.worst == pytest.approx(0, abs=1e-9)
    assert line.time_s(1e6) == pytest.approx(120e-6)


def test_at_half_of_the_rate_a_message_travels_at_half_of_it() -> None:
    line = fit([1000.0, 1e6], [1e-5, 1.01e-3])
    assert line is not None
    assert line.half_bytes / line.time_s(line.half_bytes) == pytest.approx(line.bytes_per_s / 2)


def test_small_messages_weigh_as_much_as_large_ones() -> None:
    """The large times are a million times the small; unweighted, they alone would make α."""
    times = [20e-6 + size / 10e9 for size in SIZES]
    times[-1] *= 1.05
    line = fit(SIZES, times)
    assert line is not None
    assert line.alpha_s == pytest.approx(20e-6, rel=0.02)


def test_a_change_of_protocol_shows_in_the_residuals() -> None:
    """To 64 KiB at 10 µs and 1 GB/s, beyond at 60 µs and 10 GB/s: no one line is within a tenth."""
    times = [10e-6 + size / 1e9 if size <= 65536 else 60e-6 + size / 10e9 for size in SIZES]
    line = fit(SIZES, times)
    assert line is not None
    assert line.worst > 0.1
    assert len(line.residuals) == len(SIZES)
    assert line.residuals[0] == pytest.approx(times[0] / line.time_s(SIZES[0]) - 1)


def test_a_latency_is_never_below_nothing() -> None:
    line = fit([1e6, 2e6, 4e6], [1e-3, 2.2e-3, 4.8e-3])
    assert line is not None
    assert line.alpha_s == 0
    assert line.half_bytes == 0


@pytest.mark.parametrize(("sizes", "times"), [([1024.0], [1e-5]), ([1.0, 2.0, 4.0], [3e-5, 2e-5, 1e-5]), ([], [])])
def test_times_that_do_not_grow_have_no_line(sizes: list[float], times: list[float]) -> None:
    assert fit(sizes, times) is None
