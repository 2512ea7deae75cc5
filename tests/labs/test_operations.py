"""A model's products add up to the model, exactly."""

import pytest

from labs.models import MODELS, Model, find_model
from labs.operations import decode_operations, prefill_operations


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
@pytest.mark.parametrize(("context", "batch"), [(1, 1), (1024, 1), (4096, 7)])
def test_flops_of_all_products_are_those_of_the_step(model: Model, context: int, batch: int) -> None:
    decode = decode_operations(model, context, batch)
    prefill = prefill_operations(model, context, batch)
    assert sum(part.times * part.flops for part in decode) == batch * model.decode_flops(context)
    assert sum(part.times * part.flops for part in prefill) == batch * model.prefill_flops(context)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_every_weight_that_multiplies_and_every_cached_element_is_read_once(model: Model) -> None:
    decode = decode_operations(model, 1024, 3)
    assert sum(part.times * part.columns * part.inner for part in decode) == model.multiplying_weights
    assert sum(part.times * part.cached for part in decode) == 3 * 1024 * model.kv_bytes(1)


def test_a_7b_decode_row_by_hand() -> None:
    qkv, attention, o, gate_up, down, head = decode_operations(find_model("mistral-7b"), 1024)
    assert [part.name for part in (qkv, attention, o, gate_up, down, head)] == [
        "qkv", "attention", "o", "gate-up", "down", "lm head",
    ]  # fmt: skip
    assert [(part.columns, part.inner) for part in (qkv, o, gate_up, down, head)] == [
        (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (32768, 4096),
    ]  # fmt: skip
    assert attention.flops == 4 * 4096 * 1024
    assert attention.moved_bytes(2) == 2 * (1024 * 2 * 1024 + 2 * 4096)
    assert qkv.moved_bytes(2) == 2 * (6144 * 4096 + 6144 + 4096)
    assert (qkv.times, head.times, attention.attention, qkv.attention) == (32, 1, True, False)
