"""What this run measured before on the same device: ceilings, read from the records among which the next is written.

A device that no datasheet lists has no roof, but the lab has just shown what it can do: the fastest read of memory and
the fastest product are limits worth seeing beside a number. Another device's records are not read.
"""

from collections.abc import Iterator
from pathlib import Path

from labs.results import Measurement, Record, Roof, read
from workloads.device import Device


def memory_ceiling(folder: Path, node: str, device: Device) -> Roof | None:
    """The fastest rate in B/s at which this device's memory was read, past the cache; None where nothing tells."""
    rows = [
        row
        for _, row in _rows(folder, node, device, ("bandwidth", "roofline"))
        if row.name == "ceiling: memory" or (row.config.get("kernel") == "read" and row.config.get("past_cache"))
    ]
    best = max(rows, key=lambda row: row.value, default=None)
    if best is None:
        return None
    return Roof(value=best.value, source=f"measured before in this run, memory by {best.config['by']}")


def product_ceiling(folder: Path, node: str, device: Device, dtype: str) -> Roof | None:
    """The fastest matrix product in FLOP/s that this device showed in that data type; None where nothing tells."""
    rows = [
        (record, row)
        for record, row in _rows(folder, node, device, ("gemm", "roofline"))
        if row.config.get("dtype") == dtype and (record.workload == "gemm" or row.config.get("kind") == "ceiling")
    ]
    found = max(rows, key=lambda pair: pair[1].value, default=None)
    if found is None:
        return None
    return Roof(value=found[1].value, source=f"measured before in this run, {found[1].name}")


def _rows(folder: Path, node: str, device: Device, workloads: tuple[str, ...]) -> Iterator[tuple[Record, Measurement]]:
    for name in workloads:
        path = folder / f"{name}.{node}.json"
        record = read(path) if path.exists() else None
        if record and record.machine.device == device.name:
            yield from ((record, row) for row in record.measurements if not row.suspect)
