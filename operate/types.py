"""Instance types: the file that the labs know them by, beside what EC2 says of them today.

`fab types --refresh` asks DescribeInstanceTypes for every type that a lab could run on: NVIDIA GPUs on x86-64 Nitro,
and the families without GPUs that the file holds. Prices are refreshed where the Price List answers.
"""

import json as documents
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.table import Table

from labs.instances import InstanceType, instance_types, price_source
from operate import laptop
from operate.account import Account
from operate.rates import rates_of
from operate.screen import Screen

_RATE = re.compile(r"(?:(\d+)x )?(?:Up to )?([\d.]+) (Gigabit|Megabit)")
_FEW_GBPS = 5.0
"""What a type counts as whose network EC2 tells in words only, such as "Low to Moderate"."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference between the file and EC2."""

    name: str
    field: str
    """A field of the file's rows; "" where the whole type is new or gone."""
    was: Any
    """In the file; None where the type is new."""
    now: Any
    """At EC2; None where the type is gone."""

    def __str__(self) -> str:
        if not self.field:
            return f"{self.name} {'is new' if self.was is None else 'is not offered in this region'}"
        return f"{self.name} {self.field}: {self.was} -> {self.now}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The file beside EC2."""

    region: str
    date: str
    """Of the look, by the account's clock."""
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    """What could not be refreshed, and why."""
    document: Mapping[str, Any]
    """What the file would hold: rows of EC2, rows that EC2 does not offer here as they were."""

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"region": self.region, "date": self.date, "changes": [asdict(change) for change in self.changes],
                "notes": list(self.notes)}  # fmt: skip


def file() -> Path:
    """Where the facts lie."""
    return laptop.ROOT / "labs" / "instances.json"


def compare(account: Account) -> Comparison:
    """The file beside what EC2 offers in the account's region. Reads only.

    A type that the region does not offer stays in the file: another region may have it.
    """
    document = documents.loads(file().read_text())
    old: dict[str, dict[str, Any]] = document["types"]
    families = {name.partition(".")[0] for name, row in old.items() if not row["gpus"]}
    offered = {item["InstanceType"]: item for item in _described(account) if _wanted(item, families)}
    rates, note = rates_of(account, offered)
    rows, changes = dict(old), []
    for name in sorted({*old, *offered}):
        if name not in offered:
            changes.append(Change(name=name, field="", was=old[name], now=None))
            continue
        row = row_of(offered[name])
        # The file's prices are one region's: another region's would mix with them.
        told = rates.get(name) if account.region == document["price_region"] else None
        row["usd_per_hour"] = told.usd_per_hour if told else old.get(name, {}).get("usd_per_hour")
        rows[name] = row
        if name not in old:
            changes.append(Change(name=name, field="", was=None, now=row))
            continue
        changes += [
            Change(name=name, field=field, was=old[name].get(field), now=value)
            for field, value in row.items()
            if old[name].get(field) != value
        ]
    date = f"{account.now():%Y-%m-%d}"
    where = f", at {account.endpoint}" if account.endpoint else ""
    fresh = {"source": f"EC2 DescribeInstanceTypes in {account.region}{where}", "date": date}
    notes = [note] if note else []
    if account.region != document["price_region"]:
        notes.append(f"prices are {document['price_region']}'s and were left: export AWS_REGION to refresh them")
    elif set(offered) <= set(rates):
        fresh |= {"price_source": f"AWS Price List, {account.region}, on demand, Linux", "price_date": date}
    return Comparison(
        region=account.region,
        date=date,
        changes=tuple(changes),
        notes=tuple(notes),
        document={**document, **fresh, "types": dict(sorted(rows.items()))},
    )


def write(document: Mapping[str, Any]) -> Path:
    """Put the document into the file, a line a type, and return its path."""
    head = {name: value for name, value in document.items() if name != "types"}
    rows = ",\n".join(f"  {documents.dumps(name)}: {documents.dumps(row)}" for name, row in document["types"].items())
    text = documents.dumps(head, indent=1).removesuffix("\n}") + f',\n "types": {{\n{rows}\n }}\n}}\n'
    laptop.write(file(), text)
    return file()


def row_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """What the file holds of one type of DescribeInstanceTypes, all but its price.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceTypeInfo.html
    """
    network, gpus = item["NetworkInfo"], item.get("GpuInfo", {}).get("Gpus", [])
    first = gpus[0] if gpus else None
    cards = [
        (card["MaximumNetworkInterfaces"], int("efa" in card.get("InterfaceTypes", ())))
        for card in network["NetworkCards"]
    ]
    return {
        "vcpus": item["VCpuInfo"]["DefaultVCpus"],
        "memory_mib": item["MemoryInfo"]["SizeInMiB"],
        # A fraction of a GPU has Count 0, and its share of the memory.
        "gpus": sum(gpu["Count"] or 1 for gpu in gpus),
        "gpu": first["Name"] if first else None,
        "gpu_memory_mib": first["MemoryInfo"]["SizeInMiB"] if first else 0,
        "cards": [[len(list(run)), *card] for card, run in groupby(cards)],
        "efas": network.get("EfaInfo", {}).get("MaximumEfaInterfaces", 0) if network.get("EfaSupported") else 0,
        "gbps": _gbps(network["NetworkPerformance"]),
        "nvme_gb": item.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0),
        "burstable": bool(item.get("BurstablePerformanceSupported")),
        "capacity_block": "capacity-block" in item.get("SupportedUsageClasses", ()),
    }


def _gbps(words: str) -> float:
    found = _RATE.fullmatch(words)
    if found is None:
        return _FEW_GBPS
    return int(found[1] or 1) * float(found[2]) / (1000 if found[3] == "Megabit" else 1)


def _described(account: Account) -> Iterable[dict[str, Any]]:
    for page in account.client("ec2").get_paginator("describe_instance_types").paginate():
        yield from page["InstanceTypes"]


def _wanted(item: Mapping[str, Any], families: set[str]) -> bool:
    gpus = item.get("GpuInfo", {}).get("Gpus", [])
    nitro = item.get("Hypervisor") == "nitro" or item.get("BareMetal", False)
    nvidia = any(gpu.get("Manufacturer") == "NVIDIA" for gpu in gpus)
    return item["InstanceType"].partition(".")[0] in families or (
        nvidia and nitro and "x86_64" in item["ProcessorInfo"]["SupportedArchitectures"]
    )


def show_types(screen: Screen, *, json: bool) -> None:
    """Print every type that the file holds; needs no account."""
    kinds = instance_types()
    if json:
        print(documents.dumps({name: asdict(kind) for name, kind in kinds.items()}, indent=1))
        return
    screen.console.print(table(kinds.values()))
    screen.note(f"{len(kinds)} types; prices on demand in us-east-1: {price_source()}")


def refresh(account: Account, screen: Screen, *, keep: bool, json: bool) -> None:
    """Compare the file with EC2 and print what differs; with `keep`, write it into the file."""
    with screen.stage("asking EC2 for all its instance types"):
        found = compare(account)
    path = write(found.document) if keep else None
    if json:
        print(documents.dumps(found.as_json() | {"written": str(path) if path else None}, indent=1))
        return
    for change in found.changes:
        screen.note(str(change))
    for note in found.notes:
        screen.note(f"note: {note}")
    count = len(found.changes)
    told = "nothing differs from" if not count else f"{count} {'difference' if count == 1 else 'differences'} to"
    screen.note(f"{told} EC2 in {found.region}, {found.date}: {path or 'not written, for --write was not given'}")


def table(kinds: Iterable[InstanceType]) -> Table:
    """Types for the terminal: those with GPUs first, cheapest first, unknown prices last."""
    shown = Table("type", "GPUs", "GPU memory", "vCPUs", "memory", "EFA", "network", "NVMe", "$/h")
    for kind in sorted(kinds, key=lambda kind: (not kind.gpus, kind.usd_per_hour or float("inf"), kind.name)):
        shown.add_row(
            kind.name,
            f"{kind.gpus} × {kind.gpu}" if kind.gpus else "–",
            f"{kind.gpu_memory_mib / 1024:.0f} GiB" if kind.gpus else "–",
            str(kind.vcpus),
            f"{kind.memory_mib / 1024:g} GiB",
            str(kind.efas or "–"),
            f"{kind.gbps:g} Gbit/s",
            f"{kind.nvme_gb} GB" if kind.nvme_gb else "–",
            "unknown" if kind.usd_per_hour is None else f"{kind.usd_per_hour:.3f}",
        )
    return shown
