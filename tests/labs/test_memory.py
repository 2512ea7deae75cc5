"""What a model takes of a device: exact integers, and the sums that decide where mistral-7b trains."""

import pytest

from labs.memory import Footprint, Recipe, Strategy, activation_parts, host_bytes, layer_saved_bytes, serve, train
from labs.models import Model, find_model

GIB = 2**30
LARGE, TINY, NANO = (find_model(name) for name in ("mistral-7b", "mistral-tiny", "mistral-nano"))
STATES = ("weights", "gradients", "optimiser")


def states(model: Model, recipe: Recipe) -> int:
    return train(model, recipe, batch=1, context=1).of(*STATES)


@pytest.mark.parametrize(
    ("saving", "exact"), [("eager", 168_072), ("fused", 139_392), ("min-cut", 94_336), ("recomputed", 8_192)]
)
def test_activations_of_one_token_in_one_layer_of_7b(saving, exact: int) -> None:
    assert layer_saved_bytes(LARGE, saving, 2) == exact


def test_activations_of_a_step_by_hand() -> None:
    (kept,) = activation_parts(LARGE, "min-cut", 2, 4096)
    assert kept.bytes == 94_336 * 32 * 4096 == 12_364_808_192  # 11.5 GiB
    thin, again = activation_parts(LARGE, "recomputed", 2, 4096)
    assert thin.bytes == 262_144 * 4096, "0.26 MB a token"
    assert again.bytes == 94_336 * 4096, "one layer is whole while it is made again"


def test_tensor_parallel_ranks_share_heads_and_feed_forward_but_not_what_passes_between() -> None:
    alone, four = (layer_saved_bytes(LARGE, "min-cut", 2, ranks) for ranks in (1, 4))
    between = 2 * 2 * 4096
    assert alone - between == 4 * (four - between)


@pytest.mark.parametrize(
    ("model", "recipe", "exact"),
    [
        (LARGE, Recipe(), 115_968_376_832),  # 108.0 GiB
        (TINY, Recipe(strategy="ddp", ranks=4), 16_107_208_704),  # 15.0 GiB
        (LARGE, Recipe(states="bf16"), 57_984_188_416),  # 54.0 GiB
        (LARGE, Recipe(states="8-bit"), 43_488_141_312),  # 40.5 GiB
        (LARGE, Recipe(strategy="fsdp", ranks=4, states="bf16"), 57_984_188_416 // 4),  # 13.5 GiB
        (LARGE, Recipe(strategy="fsdp", ranks=4, states="8-bit"), 43_488_141_312 // 4),  # 10.1 GiB
        (LARGE, Recipe(strategy="fsdp", ranks=8), 115_968_376_832 // 8),  # 13.5 GiB
        (LARGE, Recipe(strategy="fsdp", ranks=8, shards=4), 115_968_376_832 // 4),  # 27.0 GiB
        (LARGE, Recipe(strategy="fsdp", ranks=4, states="offload"), 0),
    ],
)
def test_states_of_one_device(model: Model, recipe: Recipe, exact: int) -> None:
    assert states(model, recipe) == exact


def test_a_tensor_parallel_rank_keeps_its_share_of_the_matrices_and_all_norms() -> None:
    held = (LARGE.parameters - LARGE.norm_weights) // 4 + LARGE.norm_weights
    assert states(LARGE, Recipe(strategy="tensor", ranks=4)) == 16 * held


def test_states_on_the_host_are_the_hosts() -> None:
    recipe = Recipe(strategy="fsdp", ranks=4, states="offload")
    assert 4 * host_bytes(LARGE, recipe) == 16 * LARGE.parameters
    assert host_bytes(LARGE, Recipe()) == 0


def test_7b_with_fp32_states_fills_an_h200() -> None:
    whole = train(LARGE, Recipe(), batch=1, context=4096)
    assert whole.of("logits") == 4096 * 32768 * (2 + 4 + 4)
    assert whole.bytes / GIB == pytest.approx(124, abs=1), "states, activations, logits, and copies that come and go"


def test_copies_in_flight() -> None:
    def flight(recipe: Recipe) -> int:
        return train(TINY, recipe, batch=1, context=1).of("in flight")

    assert flight(Recipe(states="bf16")) == 0, "one device that computes in what it stores casts nothing"
    assert flight(Recipe(compute_size=4)) == 0
    assert flight(Recipe(strategy="ddp", ranks=2)) == 2 * TINY.multiplying_weights, "autocast keeps a copy of each"
    gathered = 2 * (2 * TINY.layer_weights + 2 * TINY.table_weights + TINY.hidden)
    gradients = TINY.layer_weights * (2 + 4) + 2 * TINY.table_weights
    assert flight(Recipe(strategy="fsdp", ranks=4)) == gathered + gradients


def test_serving_7b_is_weights_and_a_cache_of_half_a_gib_for_4096_tokens() -> None:
    whole = serve(LARGE, batch=1, context=4096)
    assert whole.of("weights") == 14_496_047_104
    assert whole.of("KV cache") == 512 * 2**20
    assert serve(LARGE, batch=1, context=32768).of("KV cache") == 4 * GIB
    assert serve(LARGE, batch=3, context=4096).of("KV cache") == 3 * 512 * 2**20
    split = serve(LARGE, batch=1, context=4096, ranks=4)
    assert split.of("KV cache") == 128 * 2**20
    assert split.bytes < whole.bytes / 3


def test_every_part_shows_its_arithmetic() -> None:
    for footprint in (train(LARGE, Recipe(), batch=1, context=8), serve(LARGE, batch=1, context=8)):
        assert footprint.bytes == sum(part.bytes for part in footprint.parts)
        assert all(part.how for part in footprint.parts)
    assert train(NANO, Recipe(), batch=2, context=8).parts[0].how == "3,934,464 parameters × 4 B"
    assert Footprint(parts=()).bytes == 0


@pytest.mark.parametrize(
    ("strategy", "ranks", "shards", "message"),
    [
        ("one", 2, 0, "ranks=2 is not allowed with strategy='one': write 1"),
        ("ddp", 1, 0, "ranks=1 is not allowed with strategy='ddp': write 2 or more"),
        ("fsdp", 8, 3, "shards=3 is not allowed with fsdp over 8 ranks: write a divisor"),
        ("ddp", 8, 4, "shards=4 is not allowed with ddp over 8 ranks: write a divisor of the ranks, with strategy"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(strategy: Strategy, ranks: int, shards: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Recipe(strategy=strategy, ranks=ranks, shards=shards)


def test_heads_that_ranks_cannot_split_are_refused_with_what_can() -> None:
    with pytest.raises(ValueError, match=r"^ranks=8 cannot split the 4 KV heads of mistral-tiny: write 1, 2, 4$"):
        train(TINY, Recipe(strategy="tensor", ranks=8), batch=1, context=1)
    with pytest.raises(ValueError, match=r"^ranks=3 cannot split the 8 KV heads of mistral-7b: write 1, 2, 4, 8$"):
        serve(LARGE, batch=1, context=1, ranks=3)
