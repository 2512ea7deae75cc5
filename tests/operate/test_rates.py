"""What a region asks for a node: the Price List, spot's market, and the table where neither answers."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from operate import laptop, rates
from operate.rates import rates_of
from tests.operate.ended_lab import moto_account


@pytest.fixture
def account(monkeypatch, tmp_path):
    monkeypatch.setattr(laptop, "ROOT", tmp_path)
    with moto_account(monkeypatch) as made:
        made.bench.answers["ec2:DescribeSpotPriceHistory"] = {"SpotPriceHistory": []}
        yield made


def listing(*usd: str, unit: str = "Hrs") -> str:
    """One product of the Price List, with so many terms on demand."""
    terms = {
        f"term{index}": {"priceDimensions": {"one": {"unit": unit, "pricePerUnit": {"USD": price}}}}
        for index, price in enumerate(usd)
    }
    return json.dumps({"publicationDate": "2026-11-19T00:00:00Z", "terms": {"OnDemand": terms}})


def products(account, *rows: str) -> None:
    account.bench.answers["pricing:GetProducts"] = {"PriceList": list(rows)}


def test_the_price_list_wins_over_the_table_and_is_asked_once_a_day(account, monkeypatch) -> None:
    products(account, listing("0.9000"))
    found, note = rates_of(account, ["g6.xlarge", "g6.xlarge"])
    assert found["g6.xlarge"].usd_per_hour == 0.9
    assert found["g6.xlarge"].source == "AWS Price List, us-east-1, on demand, published 2026-11-19"
    assert note == ""
    rates_of(account, ["g6.xlarge"])
    assert account.bench.asked.count("pricing:GetProducts") == 1
    (path,) = laptop.ROOT.rglob("us-east-1.json")
    old = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    path.write_text(json.dumps({"g6.xlarge": {"usd": 0.8, "published": "2026-11-01", "asked": old}}))
    assert rates_of(account, ["g6.xlarge"])[0]["g6.xlarge"].usd_per_hour == 0.9


@pytest.mark.parametrize("rows", [(), (listing("0.9", "1.1"),), (listing("0.0"),), (listing("0.9", unit="Quantity"),)])
def test_what_the_price_list_does_not_say_clearly_is_left_to_the_table(account, rows) -> None:
    products(account, *rows)
    assert rates_of(account, ["g6.xlarge"]) == ({}, "the Price List of us-east-1 has no g6.xlarge")


def test_where_the_price_list_is_denied_a_note_says_so(account) -> None:
    account.bench.refuse("pricing:GetProducts", "AccessDeniedException")
    assert rates_of(account, ["g6.xlarge"]) == (
        {}, "the Price List did not answer (AccessDeniedException): prices of the table",
    )  # fmt: skip


def test_a_cache_that_was_cut_off_is_asked_anew(account) -> None:
    products(account, listing("0.9"))
    (laptop.state("prices") / "us-east-1.json").write_text('{"g6.xl')
    assert rates_of(account, ["g6.xlarge"])[0]["g6.xlarge"].usd_per_hour == 0.9


def test_spot_is_a_range_from_the_cheapest_zone_to_on_demand(account) -> None:
    products(account, listing("0.9"))
    rows = [{"InstanceType": "g6.xlarge", "SpotPrice": price} for price in ("0.41", "0.32", "0.50")]
    account.bench.answers["ec2:DescribeSpotPriceHistory"] = {"SpotPriceHistory": rows}
    price = rates_of(account, ["g6.xlarge"], spot=True)[0]["g6.xlarge"]
    assert (price.least_usd_per_hour, price.usd_per_hour) == (0.32, 0.9)
    assert price.source.startswith("spot from $0.3200 in the cheapest zone now, to on demand: AWS Price List")


def test_where_the_market_is_silent_spot_is_at_most_on_demand_and_a_note_says_so(account) -> None:
    products(account, listing("0.9"))
    account.bench.refuse("ec2:DescribeSpotPriceHistory")
    found, note = rates_of(account, ["g6.xlarge"], spot=True)
    assert found["g6.xlarge"].least_usd_per_hour is None
    assert note == "EC2 does not tell spot's prices (UnauthorizedOperation)"


def test_another_region_has_a_cache_of_its_own(account) -> None:
    products(account, listing("0.9"))
    rates_of(account, ["g6.xlarge"])
    account.region = "eu-west-1"
    products(account, listing("1.0"))
    assert rates_of(account, ["g6.xlarge"])[0]["g6.xlarge"].usd_per_hour == 1.0
    assert rates._PRICE_LIST == "us-east-1"
