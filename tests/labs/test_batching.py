"""What a batch can and cannot do: integers that were computed by hand, and formulas that agree with each other."""

import math

import pytest

from labs.accelerators import by_driver_name
from labs.batching import batch_at_ridge, decode_intensity, intensity_limit, longest_context
from labs.models import MODELS, find_model

SEVEN = find_model("mistral-7b")


def ridge(driver_name: str) -> float:
    found = by_driver_name(driver_name)
    assert found is not None
    peak, rate = found.peak_flops("bf16"), found.bytes_per_s
    assert peak is not None
    assert rate is not None
    return peak / rate


@pytest.mark.parametrize(("batch", "expected"), [(64, 50), (256, 118), (512, 153)])
def test_intensity_of_7b_at_512_tokens(batch: int, expected: int) -> None:
    assert round(decode_intensity(SEVEN, 512, batch)) == expected


def test_at_4096_tokens_no_batch_comes_near_a_ridge() -> None:
    assert intensity_limit(SEVEN, 4096) == pytest.approx(30.5, abs=0.02)
    assert batch_at_ridge(SEVEN, 4096, ridge("NVIDIA H200")) == math.inf
    assert decode_intensity(SEVEN, 4096, 10**6) < 30.5


def test_the_longest_context_that_reaches_each_ridge() -> None:
    assert math.floor(longest_context(SEVEN, ridge("NVIDIA H200"))) == 537
    assert round(longest_context(SEVEN, ridge("NVIDIA L4"))) == 272
    assert math.floor(longest_context(SEVEN, 156)) == 714
    assert longest_context(SEVEN, 4) == math.inf


def test_at_128_tokens_an_h200_turns_compute_bound_at_271_sequences() -> None:
    assert round(batch_at_ridge(SEVEN, 128, ridge("NVIDIA H200"))) == 271
    assert batch_at_ridge(SEVEN, 512, ridge("NVIDIA H200")) == pytest.approx(4413, rel=0.01)
    assert batch_at_ridge(SEVEN, 512, ridge("NVIDIA L4")) == math.inf


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("size", [2, 4])
def test_the_batch_at_the_ridge_has_the_ridges_intensity(model, size: int) -> None:
    wanted = intensity_limit(model, 128, size) / 2
    batch = batch_at_ridge(model, 128, wanted, size)
    low, high = (decode_intensity(model, 128, whole, size) for whole in (math.floor(batch), math.ceil(batch)))
    assert low <= wanted * (1 + 1e-9)
    assert wanted <= high * (1 + 1e-9)


def test_intensity_grows_with_the_batch_to_two_terms_of_its_limit() -> None:
    limit = intensity_limit(SEVEN, 1024)
    assert limit == pytest.approx(2 * SEVEN.multiplying_weights / (1024 * 131072) + 32 / 8)
    grown = [decode_intensity(SEVEN, 1024, 2**power) for power in range(20)]
    assert grown == sorted(grown)
    assert grown[-1] == pytest.approx(limit, rel=2e-3)
