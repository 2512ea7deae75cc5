"""Formulas against numbers computed by hand."""

import pytest

from labs.accelerators import Accelerator, by_driver_name
from labs.models import find_model
from labs.results import Roof
from labs.roofs import (
    Bound,
    all_reduce_bytes,
    bus_factor,
    clock_roof,
    compute_bound,
    gemm_bytes,
    gemm_flops,
    intensity,
    inverse,
    measured_roof,
    memory_bound,
    memory_time_bound,
    mfu,
    per_unit,
    rate_bound,
    ridge,
    roofline,
    time_bound,
    usd_per_million,
)


def device(name: str) -> Accelerator:
    found = by_driver_name(name)
    assert found is not None
    return found


L4, H200 = device("NVIDIA L4"), device("NVIDIA H200")
PRO_6000 = device("NVIDIA RTX PRO 6000 Blackwell Server Edition")


def value(bound: Bound) -> float:
    assert bound.roof is not None
    return bound.roof.value


def test_gemm() -> None:
    assert gemm_flops(2, 3, 5) == 60
    assert gemm_bytes(2, 3, 5, "bf16") == 2 * (10 + 15 + 6)
    assert gemm_bytes(2, 3, 5, "tf32") == 4 * (10 + 15 + 6)
    assert gemm_bytes(2, 3, 5, "fp8", "bf16") == 10 + 15 + 2 * 6


def test_a_square_product_has_a_third_of_its_edge_as_intensity_and_a_row_has_one() -> None:
    assert intensity(gemm_flops(4096, 4096, 4096), gemm_bytes(4096, 4096, 4096, "bf16")) == pytest.approx(4096 / 3)
    assert intensity(gemm_flops(1, 4096, 4096), gemm_bytes(1, 4096, 4096, "bf16")) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(("accelerator", "expected"), [(L4, 403), (H200, 206)])
def test_ridge(accelerator: Accelerator, expected: int) -> None:
    peak, bandwidth = accelerator.peak_flops("bf16"), accelerator.bytes_per_s
    assert peak is not None
    assert bandwidth is not None
    assert round(ridge(peak, bandwidth)) == expected
    assert roofline(peak, bandwidth, expected * 2) == peak
    assert roofline(peak, bandwidth, 1) == bandwidth


def test_the_roof_says_which_limit_it_is() -> None:
    row, square = rate_bound("", L4, "bf16", 10, 10), rate_bound("", L4, "bf16", 1e6, 10)
    assert row == Bound(Roof(value=300e9, source=f"memory rate × intensity, {L4.source}"))
    assert square == Bound(Roof(value=121e12, source=f"dense bf16 peak, {L4.source}"))


@pytest.mark.parametrize(("accelerator", "milliseconds"), [(H200, 14.7), (L4, 120.4)])
def test_prefill_floor_of_7b_at_1024_tokens(accelerator: Accelerator, milliseconds: float) -> None:
    model = find_model("mistral-7b")
    floor = time_bound("", accelerator, "bf16", model.prefill_flops(1024), model.prefill_bytes(1024))
    assert value(floor) * 1e3 == pytest.approx(milliseconds, abs=0.05)


def test_decode_floor_of_7b_on_an_l4() -> None:
    floor = memory_time_bound("", L4, find_model("mistral-7b").decode_bytes(0))
    assert value(floor) * 1e3 == pytest.approx(47.4, abs=0.05)
    assert value(inverse(floor, 1)) == pytest.approx(21.1, abs=0.05)


def test_inverse_turns_a_rate_into_a_time_and_back() -> None:
    rate = compute_bound("", L4, "bf16", 4)
    assert value(rate) == 4 * 121e12
    assert value(inverse(rate, 121e12)) == pytest.approx(0.25)
    assert value(inverse(inverse(rate, 7.0), 7.0)) == pytest.approx(value(rate))
    assert value(per_unit(rate, 121e12)) == pytest.approx(4)


def test_a_clock_gives_the_peak_at_that_clock_and_leaves_the_slope_alone() -> None:
    square = clock_roof(H200, "bf16", 1e9, 10, 1860, "measured clock")
    row = clock_roof(H200, "bf16", 10, 10, 1860, "measured clock")
    assert square is not None
    assert square.value == pytest.approx(132 * 4096 * 1.86e9)
    assert square.source == "bf16 at the measured clock of 1860 MHz"
    assert row == Roof(value=4800e9, source="memory rate × intensity")
    assert clock_roof(None, "bf16", 1, 1, 1860, "measured clock") is None
    assert clock_roof(PRO_6000, "bf16", 1, 1, 1860, "measured clock") is None


def test_measured_ceilings_make_a_roofline_of_their_own() -> None:
    peak, memory = Roof(value=200.0, source="gemm"), Roof(value=10.0, source="read")
    assert measured_roof(peak, memory, 10, 10) == Roof(value=10.0, source="read × intensity")
    assert measured_roof(peak, memory, 1000, 10) == peak


def test_the_memory_rate_is_a_roof_of_its_own() -> None:
    assert memory_bound("", L4) == Bound(Roof(value=300e9, source=f"memory rate, {L4.source}"))
    assert memory_bound("CPU", None) == Bound(None, "CPU is not in labs/accelerators.py")


UNKNOWN = "AMD EPYC 7R13 is not in labs/accelerators.py"


@pytest.mark.parametrize(
    "bound",
    [
        rate_bound("AMD EPYC 7R13", None, "bf16", 1, 1),
        time_bound("AMD EPYC 7R13", None, "bf16", 1, 1),
        memory_time_bound("AMD EPYC 7R13", None, 1),
        compute_bound("AMD EPYC 7R13", None, "bf16"),
        per_unit(compute_bound("AMD EPYC 7R13", None, "bf16"), 2),
        inverse(memory_time_bound("AMD EPYC 7R13", None, 1), 2),
    ],
)
def test_an_unknown_device_has_no_roof_and_a_reason(bound: Bound) -> None:
    assert bound == Bound(None, UNKNOWN)


def test_an_unknown_peak_has_no_roof_but_memory_still_has() -> None:
    reason = "the dense bf16 peak of RTX PRO 6000 is not known"
    assert rate_bound("", PRO_6000, "bf16", 1, 1) == Bound(None, reason)
    assert compute_bound("", PRO_6000, "bf16") == Bound(None, reason)
    assert value(memory_time_bound("", PRO_6000, 1597)) == pytest.approx(1e-9)


def test_mfu_of_7b_at_the_published_rate() -> None:
    """58 % by 6P + 12LDS is 53.3 % when causal attention is counted exactly."""
    model = find_model("mistral-7b")
    assert mfu(model.train_flops_palm(4096), 11_493, 1, 989.43e12) == pytest.approx(0.58, abs=5e-5)
    assert mfu(model.train_flops(4096), 11_493, 1, 989.43e12) == pytest.approx(0.533, abs=5e-4)


@pytest.mark.parametrize(
    ("collective", "factor"),
    [
        ("all-reduce", 1.75), ("all-gather", 0.875), ("reduce-scatter", 0.875), ("all-to-all", 0.875),
        ("broadcast", 1.0), ("reduce", 1.0), ("send-recv", 1.0),
    ],
)  # fmt: skip
def test_bus_factor_of_eight_ranks_is_that_of_nccl_tests(collective: str, factor: float) -> None:
    assert bus_factor(collective, 8) == factor


def test_bus_bandwidth_of_one_gib_in_half_a_second_over_eight_ranks() -> None:
    algbw = 2**30 / 0.5
    assert algbw / 1e9 == pytest.approx(2.147, abs=5e-4)
    assert algbw * bus_factor("all-reduce", 8) / 1e9 == pytest.approx(3.758, abs=5e-4)


def test_one_rank_sends_nothing() -> None:
    assert bus_factor("all-reduce", 1) == 0
    assert all_reduce_bytes(1e9, 1) == 0


def test_unknown_collective_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^collective='scan' is not known: write one of all-reduce, all-gather"):
        bus_factor("scan", 8)


def test_gradient_bytes_of_7b_in_bf16_over_four_ranks() -> None:
    assert all_reduce_bytes(find_model("mistral-7b").weight_bytes(2), 4) / 1e9 == pytest.approx(21.74, abs=5e-3)


@pytest.mark.parametrize(("usd", "rate", "price"), [(0.805, 940, 0.2379), (4.602, 38.3, 33.38)])
def test_price_of_a_million_tokens(usd: float, rate: float, price: float) -> None:
    assert usd_per_million(usd, rate) == pytest.approx(price, rel=2e-4)
