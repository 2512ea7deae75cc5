"""Ways to so many tokens: each type's speed, by measured shares of its roofs where there are any, at each price.

A price that is not known is None and stands last; it is never 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from labs.accelerators import Accelerator, by_instance
from labs.advice import ASSUMED, Plan, Share, Traffic, money_lines, serve_plan, train_plan
from labs.instances import InstanceType
from labs.models import Model
from labs.prices import Price, type_price
from labs.results import Record, read
from labs.roofs import usd_per_million
from operate.account import Account
from operate.runs import newest_first

_BY_WORKLOAD = {"train-step": {"batch": "train"}, "generate": {"decode": "decode", "prefill": "prefill"}}
"""Which share a workload's rows tell, by how a row's name begins."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user wants."""

    model: Model
    tokens: float
    """To train on, or to make."""
    train: bool
    sequence: int = 4096
    """Of training: tokens of a sequence."""
    traffic: Traffic = field(default_factory=Traffic)
    """Of serving."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way: a type on a market."""

    type: str
    gpus: str
    """For example "4 × L4"."""
    market: str
    """"on-demand", or "spot in us-east-1d"."""
    usd_per_hour: float | None
    price_source: str
    """Where the price comes from and when, or why it is unknown."""
    plan: Plan
    hours: float | None
    """On one instance."""
    usd: float | None
    """For all tokens."""
    usd_per_million: float | None

    @property
    def rank(self) -> tuple[Any, ...]:
        """Cheapest first; then what has no price, fastest first; then what has no speed."""
        far = float("inf")
        return (self.usd is None, far if self.usd is None else self.usd,
                far if self.hours is None else self.hours, self.type, self.market)  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def shares_of(accelerator: Accelerator, records: Iterable[tuple[str, Record]]) -> dict[str, Share]:
    """What of its roofs this device reaches: by the newest run that tells, its best row; else what is assumed."""
    found = dict(ASSUMED)
    for run, record in records:
        for begin, what in _BY_WORKLOAD.get(record.workload, {}).items():
            if found[what] is not ASSUMED[what] or record.machine.device not in accelerator.driver_names:
                continue
            rows = [row for row in record.measurements if row.unit == "token/s" and row.name.startswith(begin)
                    and row.fraction is not None and not row.suspect]  # fmt: skip
            if rows:
                best = max(rows, key=lambda row: row.fraction or 0.0)
                found[what] = Share(
                    value=best.fraction or 0.0, source=f"measured: {record.workload}, {best.name}, of {run}"
                )
    return found


def records_here() -> list[tuple[str, Record]]:
    """This machine's records that tell a share, the newest run first."""
    found = []
    for folder in newest_first():
        for path in sorted((folder / "records").glob("*.json")):
            if path.name.partition(".")[0] in _BY_WORKLOAD:
                try:
                    found.append((folder.name, read(path)))
                except (ValueError, TypeError, KeyError):
                    continue  # the report says what is wrong with it
    return found


def plans(wish: Wish, kinds: Sequence[InstanceType], records: Sequence[tuple[str, Record]]
          ) -> Iterator[tuple[InstanceType, Plan]]:  # fmt: skip
    """What one instance of each type does."""
    for kind in kinds:
        accelerator = by_instance(kind)
        if accelerator is None:
            what = f"{kind.gpu} of {kind.gpu_memory_mib} MiB" if kind.gpus else "a type without GPUs"
            why = f"{what} is not in labs/accelerators.py"
            yield kind, Plan(tokens_per_s=None, possible=False, why=why)
            continue
        shares = shares_of(accelerator, records)
        if wish.train:
            yield kind, train_plan(wish.model, kind, accelerator, wish.sequence, shares["train"])
        else:
            yield kind, serve_plan(wish.model, kind, accelerator, wish.traffic, shares)


def option(wish: Wish, kind: InstanceType, plan: Plan, market: str, price: Price) -> Option:
    """A type's plan at a market's price."""
    rate, usd_per_hour = plan.tokens_per_s, price.usd_per_hour
    hours = None if rate is None else wish.tokens / rate / 3600
    known = None if rate is None or usd_per_hour is None else usd_per_million(usd_per_hour, rate)
    lines = plan.lines if rate is None else (*plan.lines, *money_lines(wish.tokens, rate, usd_per_hour, price.source))
    return Option(
        type=kind.name, gpus=f"{kind.gpus} × {kind.gpu}", market=market, usd_per_hour=usd_per_hour,
        price_source=price.source, plan=replace(plan, lines=lines), hours=hours,
        usd=None if hours is None or usd_per_hour is None else hours * usd_per_hour, usd_per_million=known,
    )  # fmt: skip


def options(wish: Wish, found: Sequence[tuple[InstanceType, Plan]], listed: Mapping[str, Price],
            spot: Mapping[tuple[str, str], Price], region: str) -> list[Option]:  # fmt: skip
    """Every possible way, the cheapest first. `spot`: by type and zone, where EC2 told."""
    ways = []
    for kind, plan in found:
        if not plan.possible:
            continue
        ways.append(option(wish, kind, plan, "on-demand", listed.get(kind.name) or type_price(kind.name, region)))
        zones = {zone: price for (name, zone), price in spot.items() if name == kind.name}
        ways += [option(wish, kind, plan, f"spot in {zone}", price) for zone, price in zones.items()]
        if not zones and not spot:
            ways.append(option(wish, kind, plan, "spot", Price(usd_per_hour=None, source="no account told its market")))
        if kind.capacity_block:
            price = Price(usd_per_hour=None, source="EC2 tells a block's price when it is offered: docs/capacity.md")
            ways.append(option(wish, kind, plan, "capacity block", price))
    return sorted(ways, key=lambda way: way.rank)


def spot_prices(account: Account, types: Sequence[str]) -> dict[tuple[str, str], Price]:
    """Spot's price now by type and zone, of the account's region.

    Raises:
        BotoCoreError, ClientError: EC2 does not answer.
    """
    now = account.now()
    pages = account.client("ec2").get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=list(types), ProductDescriptions=["Linux/UNIX"], StartTime=now, EndTime=now)  # fmt: skip
    newest: dict[tuple[str, str], tuple[Any, float]] = {}
    for row in (row for page in pages for row in page["SpotPriceHistory"]):
        key, told = (row["InstanceType"], row["AvailabilityZone"]), (row["Timestamp"], float(row["SpotPrice"]))
        newest[key] = max(newest.get(key, told), told)
    source = f"EC2's spot market, {now:%Y-%m-%d %H:%M} UTC; what an interruption costs is not in it"
    return {key: Price(usd_per_hour=usd, source=source) for key, (_, usd) in newest.items()}
