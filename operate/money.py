"""What a single thing found in the account costs, as it is now, and what a lab has cost so far.

The prices are those of `labs.prices`; a price that is not known is None, and with it every sum that needs it: never 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from rich.table import Table

from guard.inventory import Item
from labs.prices import (
    ADDRESS_USD,
    EBS,
    FILE_SYSTEM_USD,
    FSX,
    HOURS_PER_MONTH,
    REGION,
    VOLUME_USD,
    VPC,
    Cost,
    Line,
    Price,
    dollars,
    monthly,
    type_price,
)  # fmt: skip

_DATE = "as known 2026-11-20, not read from the Price List"
_BALANCERS = f"https://aws.amazon.com/elasticloadbalancing/pricing/, {REGION}, {_DATE}"
_LOGS = f"https://aws.amazon.com/cloudwatch/pricing/, {REGION}, {_DATE}"
FREE = ("stack", "vpc", "subnet", "security-group", "route-table", "internet-gateway", "network-acl",
        "placement-group", "launch-template", "instance-connect-endpoint", "egress-only-internet-gateway",
        "spot-instance-request", "fleet", "image")  # fmt: skip
"""Kinds that do not bill themselves; a fleet's instances and an image's snapshots do, and are found apart."""


def table(cost: Cost, hours: float) -> Table:
    """A lab's cost for the terminal: an hour of it, and so many hours."""
    shown = Table("", "$/h", f"$ in {hours:g} h", "source")
    for line in cost.lines:
        shown.add_row(line.what, _span(line.least_usd_per_hour, line.usd_per_hour), _over(line, hours), line.source)
    shown.add_section()
    whole = Line(what="together", kind="", usd_per_hour=cost.usd_per_hour, source="; ".join(cost.notes),
                 least_usd_per_hour=cost.least_usd_per_hour)  # fmt: skip
    shown.add_row(whole.what, _span(whole.least_usd_per_hour, whole.usd_per_hour), _over(whole, hours), whole.source,
                  style="bold")  # fmt: skip
    shown.add_section()
    for line in cost.standing:  # in no sum: it stands whether or not a lab does
        shown.add_row(
            line.what, dollars(line.usd_per_hour), f"{dollars(_month(line))} a month", line.source, style="dim"
        )
    return shown


def _over(line: Line, hours: float) -> str:
    least, most = line.least_usd_per_hour, line.usd_per_hour
    return _span(None if least is None else least * hours, None if most is None else most * hours)


def _month(line: Line) -> float | None:
    return None if line.usd_per_hour is None else line.usd_per_hour * HOURS_PER_MONTH


def _span(least: float | None, most: float | None) -> str:
    return dollars(most) if least is None else f"{dollars(least)} to {dollars(most)}"


def price_of(item: Item, rates: Mapping[str, Price] | None = None) -> Price:
    """What one thing found in the account costs an hour, as it is now.

    `rates`: an instance's price by its type, where the region's own are known.
    """
    if item.kind in FREE:
        return Price(usd_per_hour=0.0, source="does not bill")
    known = _PRICES.get(item.kind)
    if known is None:
        return Price(usd_per_hour=None, source=f"no price is known for a {item.kind}")
    return _instance(item, rates) if rates and item.kind == "instance" else known(item)


def _instance(item: Item, rates: Mapping[str, Price] | None = None) -> Price:
    if item.state in ("stopped", "stopping", "shutting-down"):
        return Price(usd_per_hour=0.0, source=f"does not bill while it is {item.state}; its volumes do")
    kind, lifecycle = item.facts.get("InstanceType", "?"), item.facts.get("InstanceLifecycle")
    if lifecycle == "capacity-block":
        return Price(usd_per_hour=None, source="in a capacity block, paid when it was bought")
    price = (rates or {}).get(kind) or type_price(kind)
    if lifecycle == "spot":
        return replace(price, source=f"at most, for it is spot: {price.source}")
    return replace(price, least_usd_per_hour=None)


def _reservation(item: Item) -> Price:
    if item.facts.get("ReservationType") == "capacity-block":
        return Price(usd_per_hour=None, source="a capacity block, paid when it was bought")
    price = type_price(item.facts.get("InstanceType", "?"))
    count = item.facts.get("TotalInstanceCount", 0)
    usd = None if price.usd_per_hour is None else price.usd_per_hour * count
    return Price(usd_per_hour=usd, source=f"{price.source}; bills whether instances run in it or not")


def _volume(item: Item) -> Price:
    kind, facts = item.facts.get("VolumeType", "?"), item.facts
    usd = VOLUME_USD.get(kind)
    if usd is None or "Size" not in facts:
        return Price(usd_per_hour=None, source=f"no price is known for a volume of type {kind}")
    month = facts["Size"] * usd
    if kind == "gp3":  # 3000 IOPS and 125 MiB/s are included
        month += max(0, facts.get("Iops", 3000) - 3000) * 0.005 + max(0, facts.get("Throughput", 125) - 125) * 0.04
    return Price(usd_per_hour=month / HOURS_PER_MONTH, source=EBS)


def _snapshot(item: Item) -> Price:
    usd = 0.0125 if item.facts.get("StorageTier") == "archive" else 0.05
    return _sized(item.facts.get("VolumeSize"), usd, f"at most, as if the volume had been full: {EBS}")


def _file_system(item: Item) -> Price:
    facts = item.facts
    deployment = facts.get("LustreConfiguration.DeploymentType", "")
    rate = facts.get("LustreConfiguration.PerUnitStorageThroughput")
    row = deployment if deployment.startswith("SCRATCH") else f"{deployment}-{rate}"
    usd = FILE_SYSTEM_USD.get(row) if facts.get("StorageType", "SSD") == "SSD" else None
    if usd is None:
        what = f"{facts.get('FileSystemType', '?')} {row} on {facts.get('StorageType', '?')}"
        return Price(usd_per_hour=None, source=f"no price is known for FSx {what}")
    return _sized(facts.get("StorageCapacity"), usd, FSX)


def _interface(item: Item) -> Price:
    if item.facts.get("Association.IpOwnerId") == "amazon":  # an Elastic IP is an item of its own
        return Price(usd_per_hour=ADDRESS_USD, source=f"its public IPv4 address: {VPC}")
    return Price(usd_per_hour=0.0, source="does not bill")


def _endpoint(item: Item) -> Price:
    kind = item.facts.get("VpcEndpointType", "?")
    if kind == "Gateway":
        return Price(usd_per_hour=0.0, source="a gateway endpoint does not bill")
    if kind != "Interface":
        return Price(usd_per_hour=None, source=f"no price is known for a {kind} endpoint")
    return Price(usd_per_hour=0.01 * len(item.facts.get("SubnetIds", ())), source=VPC)


def _balancer(item: Item) -> Price:
    if item.facts.get("Type") in ("application", "network"):
        return Price(usd_per_hour=0.0225, source=f"without the traffic: {_BALANCERS}")
    return Price(usd_per_hour=None, source=f"no price is known for a {item.facts.get('Type', '?')} load balancer")


def _log_group(item: Item) -> Price:
    return _sized(item.facts.get("storedBytes", 0) / 1e9, 0.03, _LOGS)


_PRICES: dict[str, Callable[[Item], Price]] = {
    "instance": _instance,
    "capacity-reservation": _reservation,
    "volume": _volume,
    "snapshot": _snapshot,
    "file-system": _file_system,
    "network-interface": _interface,
    "address": lambda item: Price(usd_per_hour=ADDRESS_USD, source=VPC),
    "nat-gateway": lambda item: Price(usd_per_hour=0.045, source=f"without the traffic: {VPC}"),
    "vpc-endpoint": _endpoint,
    "load-balancer": _balancer,
    "log-group": _log_group,
    "backup": lambda item: _sized(_gb(item.facts.get("SizeInBytes")), 0.05, FSX),
}


def _gb(size: int | None) -> float | None:
    return None if size is None else size / 2**30


def _sized(size: float | None, usd_per_month: float, source: str) -> Price:
    if size is None:
        return Price(usd_per_hour=None, source="AWS does not say how large it is")
    return Price(usd_per_hour=monthly(size, usd_per_month), source=source)


def region_note(region: str) -> tuple[str, ...]:
    """What to say of prices in `region`: nothing, or that they are another region's."""
    return () if region == REGION else (f"{region} is priced as {REGION}",)


def so_far(usd_per_hour: float | None, *, created: datetime, now: datetime) -> float | None:
    """Dollars since `created`, both times by the account's clock; None where the price is not known."""
    hours = max(0.0, (now - created).total_seconds() / 3600)
    return None if usd_per_hour is None else usd_per_hour * hours
