"""What others have published for the same device: a number with its source and date, to stand beside ours.

Shown only where the device is exactly the same, and where the network counts, the instance type and the number of nodes
as well. What others measured, they measured by their own method, with the versions of their day: a reference is an
orientation, not a goal. The figures stand in `published.json`.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from labs.accelerators import by_driver_name
from labs.results import Measurement, Record


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One published number."""

    device: str
    """A name in `labs.accelerators`, for example "A100-80"."""
    workload: str
    """Ours that measures the like."""
    what: str
    """What they measured, for example "bf16, best shape found, 1536x2816x40960"."""
    value: float
    unit: str
    """As our rows have it: FLOP/s, B/s, token/s, s."""
    rows: dict[str, Any]
    """Our rows that measure the same: their configuration holds all of this. Empty: none does, it is orientation."""
    instance_type: str | None
    """Given where the number is the network's too: shown for this type only."""
    nodes: int | None
    """As `instance_type`."""
    note: str
    """How it was measured, or in what it differs; may be empty."""
    source: str
    date: str
    """When it was published, or read where the source tells no date."""

    def measures(self, row: Measurement) -> bool:
        """Whether `row` is the same measurement."""
        same = all(name in row.config and row.config[name] == value for name, value in self.rows.items())
        return bool(self.rows) and row.unit == self.unit and same and not row.suspect

    def beside(self, record: Record) -> Measurement | None:
        """The best of our rows that measure the same; None where there is none."""
        mine = [row for row in record.measurements if self.measures(row)]
        best = min if self.unit == "s" else max
        return best(mine, key=lambda row: row.value) if mine else None

    def applies(self, record: Record) -> bool:
        """Whether it is of this record's workload, on the same device."""
        device = by_driver_name(record.machine.device)
        if device is None or (device.name, record.workload) != (self.device, self.workload):
            return False
        return self.instance_type is None or (
            (self.instance_type, self.nodes) == (record.machine.instance_type, record.nodes)
        )


@cache
def all_references() -> tuple[Reference, ...]:
    """Every reference there is."""
    text = (files("labs") / "published.json").read_text(encoding="utf-8")
    return tuple(Reference(**entry) for entry in json.loads(text))


def references(record: Record) -> tuple[Reference, ...]:
    """Those of this record's workload on its very device; none for a device that is not listed."""
    return tuple(reference for reference in all_references() if reference.applies(record))
