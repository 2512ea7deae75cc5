"""Where mistral-7b trains and serves: the decisions that Labs 0 and 2 rest on."""

from dataclasses import replace

import pytest

from labs.instances import instance_type
from labs.models import find_model
from labs.placement import Place, Verdict, cheapest, choose, choose_recipe, place_of, serve_verdicts, train_verdicts

LARGE, TINY, NANO = (find_model(name) for name in ("mistral-7b", "mistral-tiny", "mistral-nano"))
FOUR_L4 = place_of(instance_type("g6.12xlarge"))
FOUR_L40S = place_of(instance_type("g6e.12xlarge"))


def verdict(model, place: Place, way: str, **more) -> Verdict:
    found = train_verdicts(model, place, **({"batch": 1, "context": 4096} | more))
    (one,) = [verdict for verdict in found if verdict.way.startswith(way)]
    return one


def test_7b_with_fp32_states_is_more_than_four_l4_have() -> None:
    assert FOUR_L4.devices * FOUR_L4.device_bytes / 2**30 == pytest.approx(89.4, abs=0.05)
    assert 16 * LARGE.parameters > FOUR_L4.devices * FOUR_L4.device_bytes
    for way in ("ddp over 4, fp32", "fsdp over 4, fp32 states,", "tensor over 4, fp32"):
        assert verdict(LARGE, FOUR_L4, way).answer == "no"


@pytest.mark.parametrize(
    "way", ["fsdp over 4, bf16 states", "fsdp over 4, 8-bit states", "fsdp over 4, fp32 states on the host"]
)
def test_7b_trains_on_four_l4_with_states_that_are_small_or_elsewhere(way: str) -> None:
    assert verdict(LARGE, FOUR_L4, way).answer == "fits"


def test_g6e_12xlarge_holds_fp32_states() -> None:
    assert verdict(LARGE, FOUR_L40S, "ddp").answer == "no"
    assert verdict(LARGE, FOUR_L40S, "fsdp over 4, fp32 states,").answer == "fits"


def test_eight_l4_hold_fp32_states_over_all_but_not_in_two_groups() -> None:
    two_nodes = place_of(instance_type("g6.12xlarge"), nodes=2)
    assert verdict(LARGE, two_nodes, "fsdp over 8 in groups of 4").answer == "no"
    assert verdict(LARGE, two_nodes, "fsdp over 8, fp32 states,").answer == "fits"
    one_node = place_of(instance_type("g6.48xlarge"))
    assert verdict(LARGE, one_node, "fsdp over 8, fp32 states,").answer == "fits"


def test_one_h200_holds_fp32_states_and_activations_of_4096_tokens() -> None:
    h200 = replace(place_of(instance_type("p5en.48xlarge")), devices=1)
    chosen = choose_recipe(LARGE, h200, batch=1, context=4096)
    assert (chosen.strategy, chosen.states, chosen.saving) == ("one", "fp32", "min-cut")
    twice = choose_recipe(LARGE, h200, batch=2, context=4096)
    assert (twice.states, twice.saving) == ("fp32", "recomputed"), "twice as many do not fit without"


@pytest.mark.parametrize(
    ("model", "place", "expected"),
    [
        (LARGE, FOUR_L4, ("fsdp", "bf16", "recomputed")),
        (LARGE, FOUR_L40S, ("fsdp", "fp32", "recomputed")),
        (TINY, FOUR_L4, ("ddp", "fp32", "recomputed")),
        (NANO, FOUR_L4, ("ddp", "fp32", "min-cut")),
    ],
)
def test_the_choice_changes_the_numbers_least_then_communicates_least(model, place: Place, expected: tuple) -> None:
    chosen = choose_recipe(model, place, batch=1, context=4096)
    assert (chosen.strategy, chosen.states, chosen.saving) == expected


def test_where_nothing_fits_the_message_names_the_nearest_way() -> None:
    one_l4 = place_of(instance_type("g6.xlarge"))
    with pytest.raises(ValueError, match=r"^model='mistral-7b' does not train on 1 × L4 of a g6.xlarge with 1 × 4096 "
                       r"tokens a device \(at best one device, fp32 states on the host, recomputed: .* on the host\): "
                       "write a smaller model or fewer tokens$"):  # fmt: skip
        choose_recipe(LARGE, one_l4, batch=1, context=4096)


def test_states_on_the_host_need_the_hosts_memory() -> None:
    small = verdict(LARGE, place_of(instance_type("g6.xlarge")), "one device, fp32 states on the host")
    assert small.answer == "no"
    assert small.why.endswith("108.0 GiB of 16.0 GiB on the host")


def test_7b_serves_on_one_l4_and_is_shared_by_four() -> None:
    one, four = serve_verdicts(LARGE, FOUR_L4, batch=1, context=4096)
    assert (one.way, one.answer) == ("one device, 16 bits a weight", "fits")
    assert (four.way, four.answer) == ("tensor over 4, 16 bits a weight", "fits")
    assert four.footprint.of("weights") < one.footprint.of("weights") / 3.9
    crowd = serve_verdicts(LARGE, FOUR_L4, batch=32, context=4096)
    assert [verdict.answer for verdict in crowd] == ["no", "fits"], "16 GiB of KV cache"


def test_heads_that_do_not_divide_are_a_verdict_and_not_an_error() -> None:
    eight = place_of(instance_type("g6.48xlarge"))
    _, split = serve_verdicts(TINY, eight, batch=1, context=1024)
    assert (split.answer, split.why) == ("no", "ranks=8 cannot split the 4 KV heads of mistral-tiny")


def test_a_gpu_without_bf16_trains_with_fp32_states_alone() -> None:
    four_t4 = place_of(instance_type("g4dn.12xlarge"))
    found = verdict(TINY, four_t4, "fsdp over 4, bf16 states")
    assert (found.answer, found.why) == ("no", "4 × T4 of a g4dn.12xlarge: no bf16 there")
    assert choose_recipe(TINY, four_t4, batch=1, context=1024).states == "fp32"


def test_an_answer_leaves_room_for_what_no_formula_counts() -> None:
    (one, *_) = serve_verdicts(LARGE, place_of(instance_type("g4dn.xlarge")), batch=1, context=4096)
    assert one.footprint.bytes < one.place.device_bytes
    assert one.answer == "tight"
    assert choose([one]) is one
    assert choose([verdict(LARGE, FOUR_L4, "ddp")]) is None


def test_a_cpu_computes_in_fp32_and_has_no_host_beside_it() -> None:
    place = place_of(instance_type("c7i.large"))
    assert (place.devices, place.compute_size, place.host_bytes) == (1, 4, 0)
    assert [verdict.way for verdict in train_verdicts(NANO, place, batch=1, context=64)] == [
        "one device, fp32 states, min-cut"
    ]


def test_the_cheapest_type_is_one_that_fits() -> None:
    serving = cheapest(LARGE, "serve", batch=1, context=4096)
    training = cheapest(LARGE, "train", batch=1, context=4096)
    assert serving is not None
    assert training is not None
    assert serving.name == "g6.xlarge"
    chosen = choose(train_verdicts(LARGE, place_of(training), batch=1, context=4096))
    assert chosen is not None
    assert chosen.answer == "fits"
    assert (training.usd_per_hour or 0) < (instance_type("g6.12xlarge").usd_per_hour or 0)
    assert cheapest(LARGE, "serve", batch=10**6, context=4096) is None
