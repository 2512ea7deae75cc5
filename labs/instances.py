"""EC2 instance types that a lab may run on: GPUs, network cards, EFA layout, NVMe, list price.

The facts stand in `instances.json`, with their source and date. A type that is not there is refused by name.
"""

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

_FORM = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")


@dataclass(frozen=True, kw_only=True)
class NetworkCard:
    """One physical card of an instance type."""

    interfaces: int
    """Network interfaces that the card holds; a device index is below this."""
    efa: bool
    """Whether one of them may be an EFA."""


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """One EC2 instance type."""

    name: str
    vcpus: int
    memory_mib: int
    gpus: int
    """GPUs, or 1 for a fraction of one (g6f)."""
    gpu: str | None
    """NVIDIA's name of the GPU, for example "L4"; None on a CPU type."""
    gpu_memory_mib: int
    """Memory of one GPU."""
    cards: tuple[NetworkCard, ...]
    efas: int
    """Most EFA interfaces that the type takes."""
    gbps: float
    """Network rate in Gbit/s as AWS names it; a burst where AWS says "up to"."""
    nvme_gb: int
    """Local NVMe in GB (10**9), all disks together."""
    burstable: bool
    """Burstable types cannot enter a cluster placement group."""
    capacity_block: bool
    """Whether the type is sold as capacity blocks."""
    usd_per_hour: float | None
    """On-demand list price in `price_region()`; None where that region does not list it."""


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((files("labs") / "instances.json").read_text())
    return document


@cache
def instance_types() -> dict[str, InstanceType]:
    """Every known type by name."""
    return {name: _read(name, row) for name, row in _document()["types"].items()}


def _read(name: str, row: dict[str, Any]) -> InstanceType:
    cards = tuple(
        NetworkCard(interfaces=interfaces, efa=bool(efa))
        for count, interfaces, efa in row["cards"]
        for _ in range(count)
    )
    return InstanceType(name=name, **{**row, "cards": cards})


def instance_type(name: str) -> InstanceType:
    """The type called `name`.

    Raises:
        ValueError: malformed or unknown name; the message names near ones.
    """
    if not _FORM.fullmatch(name):
        raise ValueError(f"instance_type={name!r} is not an EC2 type: write FAMILY.SIZE, for example g6.12xlarge")
    types = instance_types()
    if name not in types:
        near = get_close_matches(name, types, n=3, cutoff=0.5) or ["g6.xlarge", "g6.12xlarge", "t3.medium"]
        raise ValueError(f"instance_type={name!r} is not in labs/instances.json: did you mean {', '.join(near)}?")
    return types[name]


def price_source() -> str:
    """Where the list prices come from, with their date, for a report's small print."""
    document = _document()
    return f"{document['price_source']}, {document['price_date']}"
