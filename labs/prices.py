"""What a lab costs, line by line, by a dated table of list prices.

Every price names its source and date. A price that is not known is None, and with it every sum that needs it: never 0.
The table holds us-east-1; a line of another region says that it is us-east-1's price, unless `rates` brings its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from labs.catalog import Lab
from labs.instances import instance_types, price_source
from labs.storage import SIZES

HOURS_PER_MONTH = 730.0
"""AWS bills a month of storage as 730 hours: https://calculator.aws."""
REGION = "us-east-1"
"""Region of the table."""
_DATE = "as known 2026-11-20, not read from the Price List"
EBS = f"https://aws.amazon.com/ebs/pricing/, {REGION}, {_DATE}"
FSX = f"https://aws.amazon.com/fsx/lustre/pricing/, {REGION}, {_DATE}"
VPC = f"https://aws.amazon.com/vpc/pricing/, {REGION}, {_DATE}"
S3 = f"https://aws.amazon.com/s3/pricing/, {REGION}, {_DATE}"
_LAMBDA = f"https://aws.amazon.com/lambda/pricing/, {REGION}, {_DATE}"
_ENDPOINT = (
    "free: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/connect-with-ec2-instance-connect-endpoint.html, "
    f"{_DATE}"
)

ADDRESS_USD = 0.005
"""A public IPv4 address an hour, in use or idle."""
VOLUME_USD = {"gp3": 0.08, "gp2": 0.10, "st1": 0.045, "sc1": 0.015, "standard": 0.05}
"""A GB-month of a volume. io1 and io2 are not here: their price has further parts."""
FILE_SYSTEM_USD = {"SCRATCH_2": 0.14, "PERSISTENT_2-125": 0.145, "PERSISTENT_2-250": 0.21, "PERSISTENT_2-500": 0.34,
                   "PERSISTENT_2-1000": 0.60}  # fmt: skip
"""A GB-month of FSx for Lustre on SSD, by deployment type and MB/s per TiB."""
BUCKET_USD = 0.023
"""A GB-month in S3 Standard."""
GUARD_USD = 0.20
"""The guard's month at most: 8,640 ticks of 256 MB for 5 s are 10,800 GB-s at $0.0000166667, and their requests. Within
Lambda's free tier, 400,000 GB-s a month, it is nothing."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """One price and where it comes from."""

    usd_per_hour: float | None
    """None: not known. Of what has a range: the most."""
    source: str
    """Page, region and date; or why the price is not known."""
    least_usd_per_hour: float | None = None
    """The least, where the price is a range."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a lab's bill."""

    what: str
    """For example "2 × g6.12xlarge, on-demand"."""
    kind: str
    """What it is in the guard's words: "instance", "volume", "address", "file-system", "instance-connect-endpoint"."""
    usd_per_hour: float | None
    """Of all of them together; the most, where it is a range."""
    source: str
    least_usd_per_hour: float | None = None
    """The least, where it is a range."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a lab costs, before or while it lives."""

    lines: tuple[Line, ...]
    """What the lab adds to the bill while it stands."""
    standing: tuple[Line, ...] = ()
    """What GuardStack costs whether or not a lab stands; in no sum."""
    notes: tuple[str, ...] = ()
    """What a reader must know of these prices."""

    @property
    def usd_per_hour(self) -> float | None:
        """The sum, the most where a line is a range; None where one line is not known."""
        return total(line.usd_per_hour for line in self.lines)

    @property
    def least_usd_per_hour(self) -> float | None:
        """The sum of the least; None where no line is a range, or one is not known."""
        if all(line.least_usd_per_hour is None for line in self.lines):
            return None
        return total(
            line.usd_per_hour if line.least_usd_per_hour is None else line.least_usd_per_hour for line in self.lines
        )

    def usd(self, hours: float) -> float | None:
        """The sum over so many hours."""
        return None if self.usd_per_hour is None else self.usd_per_hour * hours

    def as_json(self) -> dict[str, Any]:
        """For `--json`, and frozen into run.json."""
        sums = {"usd_per_hour": self.usd_per_hour, "least_usd_per_hour": self.least_usd_per_hour}
        return asdict(self) | sums


def cost_of(lab: Lab, *, region: str = REGION, rates: Mapping[str, Price] | None = None) -> Cost:
    """What `lab` costs an hour while it stands: nodes, root volumes, public addresses, endpoint, file system.

    `rates`: the region's own price of one node by instance type, on the market that the lab buys from; a type that is
    not there is priced by the table.
    """
    each, notes = _node(lab, region, rates or {}), []
    if lab.capacity == "spot":
        notes.append("spot: at most this, for spot never costs more than on demand unless asked to")
    elif lab.capacity.startswith("reservation:"):
        notes.append("the reservation bills the nodes' price whether they run or not")
    if len(lab.types) > 1:
        notes.append("the nodes are priced as the dearest of their types")
    if region != REGION:
        notes.append(f"lines that say so have {REGION}'s price")
    lines = [
        Line(what=f"{lab.nodes} × {' or '.join(lab.types)}, {lab.capacity}", kind="instance", source=each.source,
             usd_per_hour=_times(lab.nodes, each.usd_per_hour),
             least_usd_per_hour=_times(lab.nodes, each.least_usd_per_hour)),
        Line(what=f"{lab.nodes} × {lab.volume_gib} GiB root volume, gp3", kind="volume", source=here(EBS, region),
             usd_per_hour=lab.nodes * monthly(lab.volume_gib, VOLUME_USD["gp3"])),
    ]  # fmt: skip
    if lab.way in ("address", "elastic"):
        lines.append(Line(what=f"{lab.nodes} × public IPv4 address", kind="address", source=here(VPC, region),
                          usd_per_hour=lab.nodes * ADDRESS_USD))  # fmt: skip
    elif lab.way == "endpoint":
        lines.append(Line(what="EC2 Instance Connect Endpoint", kind="instance-connect-endpoint", source=_ENDPOINT,
                          usd_per_hour=0.0))  # fmt: skip
    if lab.capacity_gib:
        usd = monthly(lab.capacity_gib, FILE_SYSTEM_USD[file_system_row(lab.storage)])
        lines.append(Line(what=f"FSx for Lustre, {lab.capacity_gib} GiB, {lab.storage}", kind="file-system",
                          usd_per_hour=usd, source=here(FSX, region)))  # fmt: skip
    return Cost(lines=tuple(lines), standing=_standing(region), notes=tuple(notes))


def _node(lab: Lab, region: str, rates: Mapping[str, Price]) -> Price:
    """One node of the lab: of several types the dearest, for the fleet takes the one it gets."""
    if lab.capacity.startswith("block:"):
        why = "a capacity block is paid when it is bought, and EC2 does not tell its price again"
        return Price(usd_per_hour=None, source=why)
    found = [rates.get(name) or type_price(name, region) for name in lab.types]
    unknown = next((price for price in found if price.usd_per_hour is None), None)
    if unknown:
        return unknown
    least = [price.least_usd_per_hour for price in found if price.least_usd_per_hour is not None]
    dearest = max(found, key=lambda price: price.usd_per_hour or 0.0)
    return replace(dearest, least_usd_per_hour=min(least) if len(least) == len(found) else None)


def type_price(name: str, region: str = REGION) -> Price:
    """One instance of that type on demand, by the table."""
    kind = instance_types().get(name)
    if kind is None or kind.usd_per_hour is None:
        return Price(usd_per_hour=None, source=f"not sold on demand in {REGION}, says {price_source()}")
    return Price(usd_per_hour=kind.usd_per_hour, source=here(price_source(), region))


def file_system_row(storage: str) -> str:
    """Row of `FILE_SYSTEM_USD` that a lab's `storage` is priced by."""
    size = SIZES[storage]
    return f"{size.deployment}-{size.mbps_per_tib}" if size.mbps_per_tib else size.deployment


def here(source: str, region: str) -> str:
    """A source of the table's, marked where the price is not the region's own."""
    return source if region == REGION else f"{REGION}'s price, for {region}'s is not known here: {source}"


def _standing(region: str) -> tuple[Line, ...]:
    return (
        Line(what="GuardStack: the guard, at most", kind="guard", usd_per_hour=GUARD_USD / HOURS_PER_MONTH,
             source=here(_LAMBDA, region)),
        Line(what="GuardStack: the results bucket, each GB in it for its 30 days", kind="bucket",
             usd_per_hour=monthly(1, BUCKET_USD), source=here(S3, region)),
    )  # fmt: skip


def total(prices: Iterable[float | None]) -> float | None:
    """The sum of prices; None as soon as one of them is not known."""
    listed = list(prices)
    return None if None in listed else float(sum(filter(None, listed)))


def monthly(size: float, usd_per_month: float) -> float:
    """Dollars an hour of what is priced by the GB-month."""
    return size * usd_per_month / HOURS_PER_MONTH


def _times(count: int, usd: float | None) -> float | None:
    return None if usd is None else count * usd


def dollars(usd: float | None) -> str:
    """For a reader: "$9.20", "$0.0026" where cents would hide it, "under $0.0001", "unknown"."""
    if usd is None:
        return "unknown"
    if 0 < usd < 0.0001:
        return "under $0.0001"
    return f"${usd:.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"
