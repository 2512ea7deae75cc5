"""What a region asks for a node: the Price List where it answers, spot's market where the lab buys there.

What AWS does not answer is priced by the dated table of `labs.prices`, and a note says so.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from labs.prices import Price, type_price
from operate import laptop
from operate.account import Account

_PRICE_LIST = "us-east-1"
"""Where the Price List is asked, whatever the region: it answers in three only,
https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html."""
_KEPT = timedelta(days=1)
_SAME = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used",
         "marketoption": "OnDemand"}  # fmt: skip


def rates_of(account: Account, types: Iterable[str], *, spot: bool = False) -> tuple[Mapping[str, Price], str]:
    """An instance's price by type in the account's region, for those that AWS tells; and a note on the others, or "".

    On spot a price is a range: from the cheapest zone now to on demand, which spot never exceeds unless asked to.
    """
    types = sorted(set(types))
    found, note = _listed(account, types)
    if not spot:
        return found, note
    least, silent = _market(account, types)
    ranged: dict[str, Price] = {}
    for name, usd in least.items():
        most = found.get(name) or type_price(name, account.region)
        source = f"spot from {dollars_at(usd)} in the cheapest zone now, to on demand: {most.source}"
        ranged[name] = Price(usd_per_hour=most.usd_per_hour, least_usd_per_hour=usd, source=source)
    return {**found, **ranged}, "; ".join(filter(None, (note, silent)))


def dollars_at(usd: float) -> str:
    """A price as its source tells it, to the hundredth of a cent."""
    return f"${usd:.4f}"


def _listed(account: Account, types: list[str]) -> tuple[dict[str, Price], str]:
    path = laptop.state("prices", account.endpoint) / f"{account.region}.json"
    kept = _kept(path.read_text()) if path.exists() else {}
    today = datetime.now(UTC)
    try:
        for name in types:
            row = kept.get(name)
            if row is None or today - datetime.fromisoformat(row["asked"]) > _KEPT:
                kept[name] = _ask(account, name) | {"asked": today.isoformat(timespec="seconds")}
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        return _priced(kept, types, account.region), f"the Price List did not answer ({code}): prices of the table"
    finally:
        laptop.write(path, json.dumps(kept, indent=1) + "\n")
    found = _priced(kept, types, account.region)
    missing = ", ".join(name for name in types if name not in found)
    return found, f"the Price List of {account.region} has no {missing}" if missing else ""


def _kept(text: str) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(text)
    except ValueError:  # cut off, or edited: it is asked anew
        return {}
    return kept


def _priced(kept: Mapping[str, Any], types: list[str], region: str) -> dict[str, Price]:
    rows = ((name, kept[name]) for name in types if kept.get(name, {}).get("usd"))
    return {
        name: Price(
            usd_per_hour=row["usd"], source=f"AWS Price List, {region}, on demand, published {row['published']}"
        )
        for name, row in rows
    }


def _ask(account: Account, name: str) -> dict[str, Any]:
    """One type's price on demand; {"usd": None} where the list has none, or several that differ."""
    wanted = {"instanceType": name, "regionCode": account.region, **_SAME}
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    answer = account.client("pricing", _PRICE_LIST).get_products(
        ServiceCode="AmazonEC2", Filters=filters, FormatVersion="aws_v1"
    )
    rows = [json.loads(text) for text in answer["PriceList"]]
    prices = {
        (float(dimension["pricePerUnit"]["USD"]), row.get("publicationDate", "")[:10])
        for row in rows
        for term in row["terms"].get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
        if dimension["unit"] == "Hrs" and float(dimension["pricePerUnit"].get("USD", 0)) > 0
    }
    if len({usd for usd, _ in prices}) != 1:
        return {"usd": None}
    usd, published = max(prices)
    return {"usd": usd, "published": published or "on a day it does not tell"}


def _market(account: Account, types: list[str]) -> tuple[dict[str, float], str]:
    """The least spot price of each type among the region's zones, as of now."""
    least: dict[str, float] = {}
    try:
        rows = account.client("ec2").describe_spot_price_history(
            InstanceTypes=types, ProductDescriptions=["Linux/UNIX"], StartTime=account.now()
        )["SpotPriceHistory"]  # fmt: skip
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        return {}, f"EC2 does not tell spot's prices ({code})"
    for row in rows:
        usd = float(row["SpotPrice"])
        least[row["InstanceType"]] = min(usd, least.get(row["InstanceType"], usd))
    return least, ""
