"""What the ranks' link carries, as `collectives` measured it earlier in this run: seconds that traffic should take."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

from labs.results import Record, read
from labs.traffic import Traffic
from workloads.device import Device


@dataclass(frozen=True, kw_only=True)
class Link:
    """Seconds of one all-reduce by size of its buffer, ascending; sizes between are read off in logarithms."""

    ranks: int
    sizes_bytes: tuple[int, ...]
    times_s: tuple[float, ...]

    def all_reduce_s(self, size_bytes: float) -> float:
        """Of one buffer. Below the smallest measured it is latency, above the largest bandwidth."""
        if size_bytes <= self.sizes_bytes[0]:
            return self.times_s[0]
        if size_bytes >= self.sizes_bytes[-1]:
            return self.times_s[-1] * size_bytes / self.sizes_bytes[-1]
        right = bisect_left(self.sizes_bytes, size_bytes)
        low, high = self.sizes_bytes[right - 1], self.sizes_bytes[right]
        place = math.log(size_bytes / low) / math.log(high / low)
        return math.exp((1 - place) * math.log(self.times_s[right - 1]) + place * math.log(self.times_s[right]))

    def seconds(self, traffic: Traffic) -> float | None:
        """For all of it, one after the other with nothing hidden; None for collectives over other ranks.

        An all-gather and a reduce-scatter are each half of an all-reduce of the same buffer.
        """
        whole = 0.0
        for call in traffic.calls:
            if call.ranks == 1:
                continue
            if call.ranks != self.ranks:
                return None
            halves = 1.0 if call.collective == "all-reduce" else 0.5
            whole += call.times * halves * self.all_reduce_s(call.buffer_bytes)
        return whole


def link_of(folder: Path, ranks: int, device: Device) -> Link | None:
    """From the record of `collectives` in that folder; None where there is none of these ranks on this device."""
    path = folder / "collectives.json"
    record = read(path) if path.exists() else None
    return None if record is None else _fold(record, ranks, device)


def _fold(record: Record, ranks: int, device: Device) -> Link | None:
    if record.ranks != ranks or record.machine.device != device.name:
        return None
    rows = {  # where there are several data types, fp32's
        int(row.config["bytes"]): float(row.config["time_s"])
        for row in sorted(record.measurements, key=lambda row: row.config.get("dtype") == "fp32")
        if row.config.get("collective") == "all-reduce" and "time_s" in row.config
    }
    if not rows:
        return None
    sizes = tuple(sorted(rows))
    return Link(ranks=ranks, sizes_bytes=sizes, times_s=tuple(rows[size] for size in sizes))
