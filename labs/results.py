"""One result record <-> JSON. A workload writes one record a run; its measurements are the rows.

The record says who measured what, on which machine, with which versions; each measurement says what came out
and which physical roof bounds it. A roof that is not known is null and says why: never a default.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

SCHEMA = 1
BUSY = "this machine is busy"
"""How the note begins of a record whose machine worked for others too: its values are to be doubted."""


@dataclass(frozen=True, kw_only=True)
class Roof:
    """The physical limit that a measurement stands beside, in the measurement's own unit."""

    value: float
    source: str
    """Where the figure comes from, for example "NVIDIA L4 datasheet, dense bf16"."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """One named share of the time of a sample: what the gap between a measurement and its roof is made of."""

    name: str
    """For example "weights at the measured bandwidth", "exposed all-reduce", "the rest"."""
    seconds: float
    how: str
    """"measured" or "predicted", and by what, for example "predicted: bytes ÷ measured read bandwidth"."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row: one configuration, its samples, and the value they amount to."""

    name: str
    """For example "bf16 4096x4096x4096" or "time to first token"."""
    value: float
    """The achieved value in `unit`, by `estimator`."""
    unit: str
    """For example "FLOP/s", "B/s", "s", "token/s"."""
    estimator: str
    """How `value` comes from the samples, for example "from the median of 20"."""
    config: dict[str, Any] = field(default_factory=dict)
    """What distinguishes this row, for example {"m": 4096, "n": 4096, "k": 4096, "dtype": "bf16"}."""
    samples_s: tuple[float, ...] = ()
    """Every timed iteration, in seconds, in order."""
    roof: Roof | None = None
    no_roof_because: str = ""
    """Filled exactly when `roof` is None."""
    usd_per_unit: float | None = None
    """Price of one unit of work, with `work_unit`; None where the machine's price is not known."""
    work_unit: str = ""
    """For example "million tokens", "PFLOP"."""
    others: tuple[Roof, ...] = ()
    """Further limits worth seeing beside `roof`: the peak at the clock that was measured, a measured ceiling."""
    limit: Roof | None = None
    """What physics allows at most, where that is more than `roof`: a datasheet may state a peak below the top clock.
    None: `roof` is the most."""
    expected: Roof | None = None
    """What a model with its overheads predicted before the measurement, in the measurement's unit; a roof cannot be
    passed, an expectation can be wrong."""
    spans: tuple[Span, ...] = ()
    """What one sample's time is made of, largest cause first; they add up to the median sample."""
    checked: str = ""
    """How the result itself was verified, for example "max |error| 2e-3 against float64"."""

    def __post_init__(self) -> None:
        assert (self.roof is None) == bool(self.no_roof_because), f"{self.name}: a roof, or the reason for none"

    @property
    def fraction(self) -> float | None:
        """Share of the roof: value/roof for a rate, roof/value for a time (unit "s"). None without a roof."""
        return None if self.roof is None else self.share_of(self.roof)

    def share_of(self, roof: Roof) -> float:
        """Share of any limit in this measurement's unit, counted as `fraction` is."""
        return roof.value / self.value if self.unit == "s" else self.value / roof.value

    @property
    def suspect(self) -> bool:
        """Over 100 % of what is physically possible: a measuring error, not a triumph."""
        most = self.limit or self.roof
        return most is not None and self.share_of(most) > 1.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it was measured, as far as the machine tells. None: it does not tell."""

    hostname: str
    device: str
    """Name that the driver gives, for example "NVIDIA L4", or the CPU's model name."""
    devices: int
    """Devices of that kind in the run (ranks, on a CPU)."""
    instance_type: str | None = None
    driver: str | None = None
    clock_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    """Libraries, for example {"torch": "2.13.0", "cuda": "13.0", "nccl": "2.27.7"}."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One workload, run once on one node (`node` = "node0") or over the cluster (`node` = "")."""

    workload: str
    machine: Machine
    measurements: tuple[Measurement, ...]
    run: str = ""
    lab: int | None = None
    node: str = ""
    nodes: int = 1
    ranks: int = 1
    config: dict[str, Any] = field(default_factory=dict)
    """The workload's own configuration, defaults included."""
    git_commit: str | None = None
    started: str = ""
    """ISO 8601 UTC."""
    wall_s: float = 0.0
    usd_per_hour: float | None = None
    """Price of all nodes of the lab together, frozen at launch."""
    notes: tuple[str, ...] = ()
    """What a reader must know, for example a warning that clocks were throttled."""
    schema: int = SCHEMA

    @property
    def filename(self) -> str:
        """Where this record is kept in a run's folder."""
        return f"{self.workload}.{self.node}.json" if self.node else f"{self.workload}.json"

    def write(self, folder: Path) -> Path:
        """Write the record whole or not at all, and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.filename
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(self.as_json(), indent=1) + "\n")
        partial.replace(path)
        return path

    def as_json(self) -> dict[str, Any]:
        """Plain dict for `json.dumps`; fractions are written out for readers without this module."""
        document = asdict(self)
        for row, measurement in zip(document["measurements"], self.measurements, strict=True):
            row["fraction"] = measurement.fraction
            row["suspect"] = measurement.suspect
            row.update(percentiles(measurement.samples_s))
        return document


def read(path: Path) -> Record:
    """Read a record that `Record.write` wrote.

    Raises:
        ValueError: not a record, or of a schema that this version does not know.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a result record: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {document.get('schema') if isinstance(document, dict) else None!r}, "
                         f"this version reads {SCHEMA}")  # fmt: skip
    document["machine"] = Machine(**document["machine"])
    document["measurements"] = tuple(_measurement(row) for row in document["measurements"])
    document["notes"] = tuple(document["notes"])
    return Record(**document)


def _measurement(row: dict[str, Any]) -> Measurement:
    known = {item.name for item in fields(Measurement)}
    kept = {name: value for name, value in row.items() if name in known}
    kept["samples_s"] = tuple(kept["samples_s"])
    for name in ("roof", "limit", "expected"):
        kept[name] = Roof(**kept[name]) if kept.get(name) else None
    kept["others"] = tuple(Roof(**other) for other in kept.get("others", ()))
    kept["spans"] = tuple(Span(**span) for span in kept.get("spans", ()))
    return Measurement(**kept)


def percentile(samples: Sequence[float], share: float) -> float:
    """Percentile by linear interpolation between order statistics (numpy's default, R type 7); 0 ≤ share ≤ 1."""
    assert samples
    assert 0 <= share <= 1
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def percentiles(samples_s: Sequence[float]) -> dict[str, float | None]:
    """The estimators every record names. p99 needs 100 samples; with fewer it is null, not a guess."""
    if not samples_s:
        return {"median_s": None, "mean_s": None, "min_s": None, "p99_s": None}
    return {
        "median_s": statistics.median(samples_s),
        "mean_s": statistics.fmean(samples_s),
        "min_s": min(samples_s),
        "p99_s": percentile(samples_s, 0.99) if len(samples_s) >= 100 else None,
    }
