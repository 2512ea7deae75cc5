"""Advice's arithmetic, by hand: what a type trains and serves, and what the bounds cost."""

import pytest

from labs.accelerators import Accelerator, by_instance
from labs.advice import ASSUMED, Share, Traffic, money_lines, serve_plan, train_plan
from labs.instances import InstanceType, instance_type
from labs.models import find_model
from labs.roofs import usd_per_million

SEVEN, TINY = find_model("mistral-7b"), find_model("mistral-tiny")
HALF = {name: Share(value=0.5, source="assumed: half") for name in ("train", "prefill", "decode")}


def of(name: str) -> tuple[InstanceType, Accelerator]:
    kind = instance_type(name)
    accelerator = by_instance(kind)
    assert accelerator is not None
    return kind, accelerator


def test_the_references_examples_of_a_price_per_million() -> None:
    assert usd_per_million(0.805, 940) == pytest.approx(0.2379, abs=5e-5)
    assert usd_per_million(4.602, 38.3) == pytest.approx(33.38, abs=0.005)
    assert money_lines(1e9, 940, 0.805, "a table") == (
        "time: 1,000,000,000 tokens ÷ 940 token/s = 295.5 h on one instance",
        "price: 295.5 h × $0.8050/h = $237.88, $0.2379 per million tokens (a table)",
    )


def test_an_unknown_price_is_said_and_is_not_zero() -> None:
    assert money_lines(1e9, 940, None, "no account told its market")[1] == "price: unknown, no account told its market"


def test_training_is_peak_times_share_over_flops() -> None:
    plan = train_plan(SEVEN, *of("p5.48xlarge"), 4096, HALF["train"])
    assert plan.tokens_per_s == pytest.approx(8 * 989.4e12 * 0.5 / 45_903_249_408)
    assert plan.why.startswith("fsdp over 8, fp32 states")
    assert plan.lines[1] == "a trained token: 45,903,249,408 FLOPs at 4,096 tokens of context, causal-exact"


def test_activations_that_are_made_again_cost_flops_where_the_share_is_assumed() -> None:
    kind, accelerator = of("g6.12xlarge")
    assumed = train_plan(SEVEN, kind, accelerator, 4096, ASSUMED["train"])
    measured = train_plan(SEVEN, kind, accelerator, 4096, Share(value=0.40, source="measured: here"))
    assert "recomputed" in assumed.why
    assert assumed.tokens_per_s == pytest.approx(4 * 121e12 * 0.4 / 60_935_897_088)
    assert measured.tokens_per_s == pytest.approx(4 * 121e12 * 0.4 / 45_903_249_408)


def test_what_does_not_fit_is_no_way_and_an_offloaded_one_has_no_speed() -> None:
    small = train_plan(SEVEN, *of("g4dn.xlarge"), 4096, HALF["train"])
    assert (small.possible, small.why) == (False, "the model does not fit")
    offloaded = train_plan(SEVEN, *of("g6.16xlarge"), 4096, HALF["train"])
    assert (offloaded.possible, offloaded.tokens_per_s) == (True, None)
    assert offloaded.why.startswith("one device, fp32 states on the host")
    assert offloaded.why.endswith("how fast that is depends on the host")


def test_a_peak_that_no_datasheet_states_gives_no_speed_and_is_named() -> None:
    plan = train_plan(SEVEN, *of("g7e.2xlarge"), 4096, HALF["train"])
    assert (plan.possible, plan.tokens_per_s) == (True, None)
    assert plan.why.endswith("the dense bf16 peak of RTX PRO 6000 is not known")
    served = serve_plan(SEVEN, *of("g7e.2xlarge"), Traffic(), HALF)
    assert served.why == "fits on 1 GPU; the dense bf16 peak of RTX PRO 6000 is not known"


def test_serving_alone_is_bounded_by_bytes() -> None:
    """One sequence: 14.4 GB a token over half of 300 GB/s, and the prompt's FLOPs over half of 121 TFLOP/s."""
    traffic = Traffic(prompt=512, answer=128, tpot_s=0.0970)
    plan = serve_plan(SEVEN, *of("g6.xlarge"), traffic, HALF)
    moved = SEVEN.decode_bytes(512 + 64, batch=1)
    prefill_s, step_s = SEVEN.prefill_flops(512) / 60.5e12, moved / 150e9
    assert plan.batch == 1
    assert plan.tokens_per_s == pytest.approx(128 / (prefill_s + 128 * step_s))
    assert plan.ttft_s == pytest.approx(prefill_s + step_s)
    assert plan.tpot_s == pytest.approx((prefill_s + 128 * step_s) / 128)


def test_a_looser_bound_allows_a_larger_batch_and_never_fewer_tokens() -> None:
    kind, accelerator = of("g6e.xlarge")
    plans = [serve_plan(SEVEN, kind, accelerator, Traffic(tpot_s=bound), HALF) for bound in (0.05, 0.1, 0.4, None)]
    batches, rates = [plan.batch for plan in plans], [plan.tokens_per_s or 0.0 for plan in plans]
    assert batches == sorted(batches)
    assert rates == sorted(rates)
    assert batches[0] < batches[-1]
    for plan, bound in zip(plans, (0.05, 0.1, 0.4), strict=False):
        assert plan.tpot_s is not None
        assert plan.tpot_s <= bound


def test_bounds_that_no_batch_keeps_say_how_slow_one_alone_is() -> None:
    plan = serve_plan(SEVEN, *of("g6.xlarge"), Traffic(tpot_s=0.01), HALF)
    assert not plan.possible
    assert plan.why.startswith("too slow even alone: first token after ")
    assert serve_plan(SEVEN, *of("g6.xlarge"), Traffic(ttft_s=0.01), HALF).possible is False


def test_memory_bounds_the_batch_and_replicas_share_nothing() -> None:
    one = serve_plan(TINY, *of("g6.xlarge"), Traffic(), HALF)
    four = serve_plan(TINY, *of("g6.12xlarge"), Traffic(), HALF)
    assert four.tokens_per_s == pytest.approx(4 * (one.tokens_per_s or 0.0))
    long = serve_plan(SEVEN, *of("g6.xlarge"), Traffic(prompt=8192, answer=128), HALF)
    assert 0 < long.batch < 8


def test_seven_billion_with_a_long_prompt_do_not_serve_from_one_t4_and_do_from_four() -> None:
    long = Traffic(prompt=16384)
    assert serve_plan(SEVEN, *of("g4dn.xlarge"), long, HALF).why == "the model does not fit"
    plan = serve_plan(SEVEN, *of("g4dn.12xlarge"), long, HALF)
    assert plan.possible
    assert " GPUs" in plan.why


def test_every_assumption_says_that_it_is_one() -> None:
    assert all(share.source.startswith("assumed: ") and 0 < share.value < 1 for share in ASSUMED.values())
