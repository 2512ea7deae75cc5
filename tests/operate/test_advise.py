"""fab advise: ranked by dollars, unknown is last and never 0, measured shares win, wrong flags in one line."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labs.accelerators import ACCELERATORS, by_driver_name
from labs.advice import ASSUMED
from labs.instances import instance_type
from labs.prices import Price
from labs.results import Measurement, Record, Roof
from operate import advise, laptop
from operate.options import Option, options, plans, shares_of, spot_prices
from operate.problem import Problem
from operate.screen import Screen
from tests.operate.made_run import generate, record, write_run

NAMES = ("g6.xlarge", "g6.2xlarge", "g6e.xlarge", "g5.xlarge", "g6f.xlarge", "p5.48xlarge", "c7i.large")
SERVE = {"train_tokens": "", "serve_tokens": "1e9"}


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No account, and no run of this machine."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    monkeypatch.setattr(laptop, "ROOT", tmp_path)


def ways(prices: dict[str, float], spot: dict[tuple[str, str], float], names: Sequence[str] = NAMES) -> list[Option]:
    wish = advise.read_wish("mistral-7b", **SERVE)
    found = list(plans(wish, [instance_type(name) for name in names], []))
    listed = {name: Price(usd_per_hour=usd, source="made up") for name, usd in prices.items()}
    market = {key: Price(usd_per_hour=usd, source="the market") for key, usd in spot.items()}
    return options(wish, found, listed, market, "us-east-1")


def test_the_cheapest_comes_first_and_its_hours_and_dollars_follow_from_its_speed() -> None:
    best, *rest = ways({"g6.xlarge": 0.8}, {("g6.xlarge", "us-east-1d"): 0.25, ("g6.xlarge", "us-east-1a"): 0.40})
    assert (best.type, best.market, best.price_source) == ("g6.xlarge", "spot in us-east-1d", "the market")
    rate = best.plan.tokens_per_s
    assert rate is not None
    assert best.hours == pytest.approx(1e9 / rate / 3600)
    assert best.usd == pytest.approx(0.25 * 1e9 / rate / 3600)
    assert best.usd_per_million == pytest.approx(0.25 / 3600 / rate * 1e6)
    priced = [way.usd for way in (best, *rest) if way.usd is not None]
    assert priced == sorted(priced)
    assert ("g6.xlarge", "spot in us-east-1a") in [(way.type, way.market) for way in rest]


def test_what_has_no_price_stands_last_and_is_not_free() -> None:
    found = ways({}, {})
    unknown = [way for way in found if way.usd is None]
    assert unknown
    assert found[-len(unknown) :] == unknown
    assert all(way.usd_per_million is None for way in unknown)
    assert {way.market for way in unknown} == {"spot", "capacity block"}
    assert unknown[0].plan.lines[-1].startswith("price: unknown, ")


def test_a_type_without_a_roof_is_no_way_and_says_why() -> None:
    wish = advise.read_wish("mistral-7b", **SERVE)
    found = {kind.name: plan for kind, plan in plans(wish, [instance_type(name) for name in NAMES], [])}
    assert found["c7i.large"].why == "a type without GPUs is not in labs/accelerators.py"
    assert found["g6f.xlarge"].why.startswith("L4 of ")
    assert not found["g6f.xlarge"].possible


def test_larger_sizes_around_the_same_gpus_are_left_out_of_the_table() -> None:
    found = ways({"g6.xlarge": 0.8, "g6.2xlarge": 0.9}, {("p5.48xlarge", "us-east-1a"): 20.0})
    kept = [way.type for way in advise.sensible(found) if way.market == "on-demand"]
    assert "g6.xlarge" in kept
    assert "g6.2xlarge" not in kept


def rated(workload: str, name: str, fraction: float) -> Record:
    row = Measurement(name=name, value=100 * fraction, unit="token/s", estimator="median", samples_s=(1.0,),
                      roof=Roof(value=100.0, source="a datasheet"))  # fmt: skip
    return record(workload, [row], node="node0")


def test_a_measured_share_of_the_same_device_wins_and_names_its_run() -> None:
    l4, h100 = by_driver_name("NVIDIA L4"), by_driver_name("NVIDIA H100 80GB HBM3")
    assert l4 is not None
    assert h100 is not None
    records = [("new", rated("generate", "decode", 0.8)), ("old", rated("generate", "decode", 0.9)),
               ("old", rated("train-step", "batch 4 × 1024", 0.31))]  # fmt: skip
    found = shares_of(l4, records)
    assert (found["decode"].value, found["decode"].source) == (0.8, "measured: generate, decode, of new")
    assert found["train"].source == "measured: train-step, batch 4 × 1024, of old"
    assert found["prefill"] == ASSUMED["prefill"]
    assert shares_of(h100, records) == ASSUMED


def test_a_measuring_error_tells_no_share() -> None:
    assert shares_of(ACCELERATORS[4], [("new", rated("generate", "decode", 1.2))]) == ASSUMED


def test_the_verb_reads_this_machines_own_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_run(tmp_path / "results", [generate()])
    advise.show_advice(advise.read_wish("mistral-7b", **SERVE), "g6.xlarge", Screen(json=True), json=True)
    told = json.loads(capsys.readouterr().out)
    assert "measured: generate, decode, of 20261120-141503-lab3" in told["options"][0]["plan"]["lines"][2]


def test_without_an_account_the_table_prices_and_a_note_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    advise.show_advice(advise.read_wish("mistral-7b", **SERVE), "g6.xlarge,g6f", Screen(), json=False)
    out = capsys.readouterr().out
    assert "mistral-7b: serve 1,000,000,000 tokens" in out
    assert "The cheapest, g6.xlarge on-demand, line by line:" in out
    assert "prices of the dated table, spot unknown, for no account was asked: no AWS region is set" in out
    assert "L4 of 2861 MiB is not in labs/accelerators.py" in out
    assert "not counted: volumes, addresses" in out


def test_nothing_that_can_do_it_is_a_problem_with_its_reason() -> None:
    wish = advise.read_wish("mistral-7b", **SERVE, tpot="0.0001")
    with pytest.raises(
        Problem, match=r"none of 1 types can do it: g6.xlarge: too slow even alone: .*: choose a smaller"
    ):
        advise.show_advice(wish, "g6.xlarge", Screen(), json=False)


def test_spots_newest_price_counts_in_each_zone() -> None:
    rows = [
        {"InstanceType": "g6.xlarge", "AvailabilityZone": zone, "SpotPrice": usd,
         "Timestamp": datetime(2026, 11, day, tzinfo=UTC)}
        for zone, usd, day in (("a", "0.30", 19), ("a", "0.20", 20), ("b", "0.50", 20))
    ]  # fmt: skip

    class Stub:
        """An account whose EC2 tells those rows."""

        def now(self) -> datetime:
            return datetime(2026, 11, 21, 7, tzinfo=UTC)

        def client(self, _service: str) -> "Stub":
            return self

        def get_paginator(self, _name: str) -> "Stub":
            return self

        def paginate(self, **_given: object) -> list[dict[str, object]]:
            return [{"SpotPriceHistory": rows[:1]}, {"SpotPriceHistory": rows[1:]}]

    found = spot_prices(Stub(), ["g6.xlarge"])  # type: ignore[arg-type]
    assert {key: price.usd_per_hour for key, price in found.items()} == {
        ("g6.xlarge", "a"): 0.2,
        ("g6.xlarge", "b"): 0.5,
    }
    assert "2026-11-21 07:00 UTC" in found["g6.xlarge", "a"].source


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_tokens": "", "serve_tokens": ""}, "what the tokens are for was not said: write --train-tokens 2e9 or"),
        ({"train_tokens": "1", "serve_tokens": "1"}, "two kinds of tokens were asked for: write"),
        ({"train_tokens": "many", "serve_tokens": ""}, "train_tokens='many' is not a whole number above 0: write for"),
        ({"train_tokens": "0", "serve_tokens": ""}, "train_tokens='0' is not a whole number above 0"),
        ({"train_tokens": "nan", "serve_tokens": ""}, "train_tokens='nan' is not a whole number above 0"),
        ({"train_tokens": "1e9", "serve_tokens": "", "ttft": "1"}, "ttft='1' says nothing of training: write it with"),
        ({"train_tokens": "", "serve_tokens": "1e9", "sequence": "9"}, "sequence='9' says nothing of serving: write"),
        ({"train_tokens": "", "serve_tokens": "1e9", "tpot": "-1"}, "tpot='-1' is not seconds above 0: write for"),
    ],
)
def test_wrong_flags_say_what_to_write(given: dict[str, str], message: str) -> None:
    with pytest.raises((Problem, ValueError)) as refused:
        advise.read_wish("mistral-7b", **given)
    assert str(refused.value).startswith(message)


def test_types_may_be_named_by_family_and_an_unknown_one_is_refused() -> None:
    assert advise.candidates("p5.48xlarge, g6f")[0].name == "p5.48xlarge"
    assert {kind.name.partition(".")[0] for kind in advise.candidates("g6,g5")} == {"g5", "g6"}
    assert all(kind.gpus for kind in advise.candidates(""))
    with pytest.raises(ValueError, match=r"^instance_type='g66' is not an EC2 type: write FAMILY\.SIZE"):
        advise.candidates("g66")
