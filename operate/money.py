"""What a lab costs an hour, line by line, and what a single thing found in the account costs.

Every price names its source and date. A price that is not known is None, and with it every sum that needs it:
never 0. The table holds list prices of us-east-1; another region is priced as us-east-1 and said to be.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rich.table import Table

from guard.inventory import Item
from labs.catalog import Lab
from labs.instances import instance_types, price_source
from labs.storage import SIZES

HOURS_PER_MONTH = 730.0
"""AWS bills a month of storage as 730 hours: https://calculator.aws."""
REGION = "us-east-1"
_DATE = "as known 2026-11-20, not read from the Price List"
_EBS = f"https://aws.amazon.com/ebs/pricing/, {REGION}, {_DATE}"
_FSX = f"https://aws.amazon.com/fsx/lustre/pricing/, {REGION}, {_DATE}"
_VPC = f"https://aws.amazon.com/vpc/pricing/, {REGION}, {_DATE}"
_BALANCERS = f"https://aws.amazon.com/elasticloadbalancing/pricing/, {REGION}, {_DATE}"
_LOGS = f"https://aws.amazon.com/cloudwatch/pricing/, {REGION}, {_DATE}"

ADDRESS_USD = 0.005
"""A public IPv4 address an hour, in use or idle."""
VOLUME_USD = {"gp3": 0.08, "gp2": 0.10, "st1": 0.045, "sc1": 0.015, "standard": 0.05}
"""A GB-month of a volume. io1 and io2 are not here: their price has further parts."""
FILE_SYSTEM_USD = {"SCRATCH_2": 0.14, "PERSISTENT_2-125": 0.145, "PERSISTENT_2-250": 0.21, "PERSISTENT_2-500": 0.34,
                   "PERSISTENT_2-1000": 0.60}  # fmt: skip
"""A GB-month of FSx for Lustre on SSD, by deployment type and MB/s per TiB."""
FREE = ("stack", "vpc", "subnet", "security-group", "route-table", "internet-gateway", "network-acl",
        "placement-group", "launch-template", "spot-instance-request", "fleet", "image")  # fmt: skip
"""Kinds that do not bill themselves; a fleet's instances and an image's snapshots do, and are found apart."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """One price and where it comes from."""

    usd_per_hour: float | None
    """None: not known."""
    source: str
    """Page, region and date; or why the price is not known."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a lab's bill."""

    what: str
    """For example "2 × g6.12xlarge, on-demand"."""
    usd_per_hour: float | None
    """Of all of them together."""
    source: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a lab costs, before or while it lives."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    """What a reader must know of these prices."""

    @property
    def usd_per_hour(self) -> float | None:
        """The sum; None where one line is not known."""
        return total(line.usd_per_hour for line in self.lines)

    def usd(self, hours: float) -> float | None:
        """The sum over so many hours."""
        return None if self.usd_per_hour is None else self.usd_per_hour * hours

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"usd_per_hour": self.usd_per_hour}

    def table(self) -> Table:
        """For the terminal."""
        shown = Table("", "$/h", "source")
        for line in self.lines:
            shown.add_row(line.what, dollars(line.usd_per_hour), line.source)
        shown.add_section()
        shown.add_row("together", dollars(self.usd_per_hour), "; ".join(self.notes), style="bold")
        return shown


def cost_of(lab: Lab, *, region: str = REGION) -> Cost:
    """What `lab` costs an hour while it stands: nodes, root volumes, public addresses, file system."""
    nodes, notes = lab.instance.usd_per_hour, []
    source = price_source()
    if lab.capacity == "spot":
        notes.append("spot: at most this, for spot never costs more than on demand unless asked to")
    elif lab.capacity.startswith("block:"):
        nodes, source = None, "a capacity block is paid when it is bought, and EC2 does not tell its price again"
    elif lab.capacity.startswith("reservation:"):
        notes.append("the reservation bills the nodes' price whether they run or not")
    if nodes is None and not lab.capacity.startswith("block:"):
        source = f"not sold on demand in {REGION}, says {source}"
    gib = lab.capacity_gib
    lines = [
        Line(what=f"{lab.nodes} × {lab.instance_type}, {lab.capacity}", source=source,
             usd_per_hour=None if nodes is None else nodes * lab.nodes),
        Line(what=f"{lab.nodes} × {lab.volume_gib} GiB root volume, gp3", source=_EBS,
             usd_per_hour=lab.nodes * _monthly(lab.volume_gib, VOLUME_USD["gp3"])),
        Line(what=f"{lab.nodes} × public IPv4 address", source=_VPC, usd_per_hour=lab.nodes * ADDRESS_USD),
    ]  # fmt: skip
    if gib:
        size = SIZES[lab.storage]
        row = f"{size.deployment}-{size.mbps_per_tib}" if size.mbps_per_tib else size.deployment
        usd = _monthly(gib, FILE_SYSTEM_USD[row])
        lines.append(Line(what=f"FSx for Lustre, {gib} GiB, {lab.storage}", usd_per_hour=usd, source=_FSX))
    return Cost(lines=tuple(lines), notes=(*notes, *region_note(region)))


def price_of(item: Item) -> Price:
    """What one thing found in the account costs an hour, as it is now."""
    if item.kind in FREE:
        return Price(usd_per_hour=0.0, source="does not bill")
    known = _PRICES.get(item.kind)
    if known is None:
        return Price(usd_per_hour=None, source=f"no price is known for a {item.kind}")
    return known(item)


def _instance(item: Item) -> Price:
    if item.state in ("stopped", "stopping", "shutting-down"):
        return Price(usd_per_hour=0.0, source=f"does not bill while it is {item.state}; its volumes do")
    spot = "at most, for it is spot: " if item.facts.get("InstanceLifecycle") == "spot" else ""
    price = _type_price(item.facts.get("InstanceType", "?"))
    return Price(usd_per_hour=price.usd_per_hour, source=spot + price.source)


def _type_price(name: str) -> Price:
    kind = instance_types().get(name)
    if kind is None or kind.usd_per_hour is None:
        return Price(usd_per_hour=None, source=f"no list price for {name} in {price_source()}")
    return Price(usd_per_hour=kind.usd_per_hour, source=price_source())


def _reservation(item: Item) -> Price:
    if item.facts.get("ReservationType") == "capacity-block":
        return Price(usd_per_hour=None, source="a capacity block, paid when it was bought")
    price = _type_price(item.facts.get("InstanceType", "?"))
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
    return Price(usd_per_hour=month / HOURS_PER_MONTH, source=_EBS)


def _snapshot(item: Item) -> Price:
    usd = 0.0125 if item.facts.get("StorageTier") == "archive" else 0.05
    return _sized(item.facts.get("VolumeSize"), usd, f"at most, as if the volume had been full: {_EBS}")


def _file_system(item: Item) -> Price:
    facts = item.facts
    deployment = facts.get("LustreConfiguration.DeploymentType", "")
    rate = facts.get("LustreConfiguration.PerUnitStorageThroughput")
    row = deployment if deployment.startswith("SCRATCH") else f"{deployment}-{rate}"
    usd = FILE_SYSTEM_USD.get(row) if facts.get("StorageType", "SSD") == "SSD" else None
    if usd is None:
        what = f"{facts.get('FileSystemType', '?')} {row} on {facts.get('StorageType', '?')}"
        return Price(usd_per_hour=None, source=f"no price is known for FSx {what}")
    return _sized(facts.get("StorageCapacity"), usd, _FSX)


def _interface(item: Item) -> Price:
    if item.facts.get("Association.IpOwnerId") == "amazon":  # an Elastic IP is an item of its own
        return Price(usd_per_hour=ADDRESS_USD, source=f"its public IPv4 address: {_VPC}")
    return Price(usd_per_hour=0.0, source="does not bill")


def _endpoint(item: Item) -> Price:
    kind = item.facts.get("VpcEndpointType", "?")
    if kind == "Gateway":
        return Price(usd_per_hour=0.0, source="a gateway endpoint does not bill")
    if kind != "Interface":
        return Price(usd_per_hour=None, source=f"no price is known for a {kind} endpoint")
    return Price(usd_per_hour=0.01 * len(item.facts.get("SubnetIds", ())), source=_VPC)


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
    "address": lambda item: Price(usd_per_hour=ADDRESS_USD, source=_VPC),
    "nat-gateway": lambda item: Price(usd_per_hour=0.045, source=f"without the traffic: {_VPC}"),
    "vpc-endpoint": _endpoint,
    "load-balancer": _balancer,
    "log-group": _log_group,
    "backup": lambda item: Price(usd_per_hour=None, source="FSx does not say how large a backup is"),
}


def _sized(size: float | None, usd_per_month: float, source: str) -> Price:
    if size is None:
        return Price(usd_per_hour=None, source="AWS does not say how large it is")
    return Price(usd_per_hour=_monthly(size, usd_per_month), source=source)


def _monthly(size: float, usd_per_month: float) -> float:
    return size * usd_per_month / HOURS_PER_MONTH


def total(prices: Any) -> float | None:
    """The sum of prices; None as soon as one of them is not known."""
    listed = list(prices)
    return None if None in listed else float(sum(listed))


def region_note(region: str) -> tuple[str, ...]:
    """What to say of prices in `region`: nothing, or that they are another region's."""
    return () if region == REGION else (f"{region} is priced as {REGION}",)


def so_far(usd_per_hour: float | None, *, created: datetime, now: datetime) -> float | None:
    """Dollars since `created`, both times by the account's clock; None where the price is not known."""
    hours = max(0.0, (now - created).total_seconds() / 3600)
    return None if usd_per_hour is None else usd_per_hour * hours


def dollars(usd: float | None) -> str:
    """For a reader: "$9.20", "$0.0026" where cents would hide it, "under $0.0001", "unknown"."""
    if usd is None:
        return "unknown"
    if 0 < usd < 0.0001:
        return "under $0.0001"
    return f"${usd:.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"
