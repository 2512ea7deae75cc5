"""What a step should take, by hand."""

import pytest

from labs.models import find_model
from labs.results import Roof
from workloads.device import Device
from workloads.training.prediction import Rates, rates, step_parts

AT = Rates(products=Roof(value=7e14, source="products"), memory=Roof(value=4e12, source="memory"))


def test_a_step_of_the_7b_model_over_32_k_tokens_on_an_h200() -> None:
    parts = step_parts(find_model("mistral-7b"), "bf16", 4096, 8 * 4096, 8, AT)
    assert parts["products"] == pytest.approx(6 * 7_113_539_584 * 32768 / 7e14)
    assert parts["attention"] == pytest.approx(6 * 32 * 4096 * 4097 * 32768 / 4.2e14)
    assert parts["Adam"] == pytest.approx(28 * 7_248_023_552 / 4e12)  # 51 ms
    assert parts["casts to bf16 and back"] == pytest.approx(8 * 12 * 7_248_023_552 / 4e12)
    assert parts["small kernels"] == pytest.approx((4 * 32 * 139_264 + 24 * 32768) * 32768 / 4e12)


def test_in_fp32_nothing_is_cast() -> None:
    assert list(step_parts(find_model("mistral-nano"), "fp32", 64, 64, 1, AT)) == [
        "products", "attention", "small kernels", "Adam"
    ]  # fmt: skip


def test_a_listed_device_has_assumed_rates_and_an_unknown_one_none(tmp_path, l4: Device, cpu: Device) -> None:
    found = rates(tmp_path, "node0", l4, "bf16")
    assert found is not None
    assert found.products.value == pytest.approx(0.72 * 121e12)
    assert found.products.source == "assumed, 72% of the datasheet's peak"
    assert found.memory.value == pytest.approx(0.9 * 300e9)
    assert rates(tmp_path, "node0", cpu, "fp32") is None
