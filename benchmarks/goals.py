"""What a GPU is to reach, and what it reached: every goal's figure is read from a record, or it is missing."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from labs.results import Measurement, Record

Records = Mapping[str, Record]
"""By the stage that wrote them."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One figure and the least that it is to be."""

    name: str
    stage: str
    least: float
    unit: str
    """"of …" for a share, "×" for a ratio."""
    pick: Callable[[Record, Mapping[str, float]], float | None]
    """The figure from the stage's record and from what the peers said; None where they do not tell it."""

    def reached(self, records: Records, peers: Mapping[str, float]) -> float | None:
        """The figure, or None where the stage left no record or none with it."""
        record = records.get(self.stage)
        return None if record is None else self.pick(record, peers)


def rows(record: Record, **config: object) -> list[Measurement]:
    """Rows whose configuration holds all of this, without measuring errors."""
    return [
        row
        for row in record.measurements
        if not row.suspect and all(row.config.get(name) == value for name, value in config.items())
    ]


def best(found: list[Measurement]) -> Measurement | None:
    """The best of rows of one unit: the least time, the most of anything else."""
    if not found:
        return None
    return min(found, key=lambda row: row.value) if found[0].unit == "s" else max(found, key=lambda row: row.value)


def _of_peak(dtype: str, regime: str) -> Callable[[Record, Mapping[str, float]], float | None]:
    def pick(record: Record, _: Mapping[str, float]) -> float | None:
        peaks = {row.roof.value for row in rows(record, dtype=dtype) if row.roof}
        found = best(rows(record, dtype=dtype, regime=regime))
        return found.value / max(peaks) if found and peaks else None

    return pick


def _over_mamf(record: Record, peers: Mapping[str, float]) -> float | None:
    found, theirs = best(rows(record, dtype="bf16", regime="burst")), peers.get("mamf-finder")
    return found.value / theirs if found and theirs else None


def _read_over_dot(record: Record, _: Mapping[str, float]) -> float | None:
    read, dot = best(rows(record, kernel="read", past_cache=True)), best(rows(record, by="dot", past_cache=True))
    return read.value / dot.value if read and dot else None


def _over_stream(kernel: str, peer: str) -> Callable[[Record, Mapping[str, float]], float | None]:
    """Our best row of that kernel past the cache, in the type that the peer's arrays have, by its best sample too."""

    def pick(record: Record, peers: Mapping[str, float]) -> float | None:
        found, theirs = best(rows(record, kernel=kernel, past_cache=True, dtype="fp32")), peers.get(peer)
        return float(found.config["bytes"]) / min(found.samples_s) / theirs if found and theirs else None

    return pick


def _rung(record: Record) -> Measurement | None:
    """The fastest decode whose weights are in bf16."""
    return best([row for row in rows(record, kind="rung") if row.config.get("weights") == "bf16"])


def _of_read(record: Record, _: Mapping[str, float]) -> float | None:
    found = _rung(record)
    return found.share_of(found.others[0]) if found and found.others else None


def _over_gpt_fast(record: Record, peers: Mapping[str, float]) -> float | None:
    found, theirs = _rung(record), peers.get("gpt-fast")
    return theirs / found.value if found and theirs else None


def _palm(record: Record, _: Mapping[str, float]) -> float | None:
    found = best([row for row in record.measurements if row.unit == "token/s" and not row.suspect])
    palm = [other for other in found.others if "6P" in other.source] if found else []
    return found.share_of(palm[0]) if found and palm else None


def _over_trainer(record: Record, peers: Mapping[str, float]) -> float | None:
    found = best([row for row in record.measurements if row.unit == "token/s" and not row.suspect])
    theirs = peers.get("hf-trainer")
    return found.value / theirs if found and theirs else None


def _value(**config: object) -> Callable[[Record, Mapping[str, float]], float | None]:
    def pick(record: Record, _: Mapping[str, float]) -> float | None:
        found = best(rows(record, **config))
        return found.value if found else None

    return pick


def _over_usual(record: Record, _: Mapping[str, float]) -> float | None:
    found = [row for row in rows(record, cache="warm") if row.unit == "×"]
    return found[0].value if found else None


def _of_disk(record: Record, _: Mapping[str, float]) -> float | None:
    """Ours, cold, beside what the disk alone gave on the same file, to fio where it is installed or to us."""
    found, disk = best(rows(record, way="rooflab", cache="cold")), best(rows(record, link="storage"))
    return found.value / disk.value if found and disk else None


PEAK, READ = "of the datasheet's peak", "of the best read kernel"
GOALS = (
    Goal(name="bf16 GEMM, burst", stage="gemm", least=0.84, unit=PEAK, pick=_of_peak("bf16", "burst")),
    Goal(name="bf16 GEMM, sustained", stage="gemm", least=0.75, unit=PEAK, pick=_of_peak("bf16", "sustained")),
    Goal(name="fp8 GEMM, burst", stage="gemm", least=0.75, unit=PEAK, pick=_of_peak("fp8", "burst")),
    Goal(name="fp8 GEMM, sustained", stage="gemm", least=0.67, unit=PEAK, pick=_of_peak("fp8", "sustained")),
    Goal(name="bf16 GEMM beside mamf-finder", stage="gemm", least=0.99, unit="×", pick=_over_mamf),
    Goal(name="read beside a plain dot product", stage="bandwidth", least=1.0, unit="×", pick=_read_over_dot),
    Goal(name="read beside BabelStream's dot", stage="bandwidth", least=1.0, unit="×",
         pick=_over_stream("read", "stream-dot")),
    Goal(name="triad beside BabelStream's", stage="bandwidth", least=1.0, unit="×",
         pick=_over_stream("triad", "stream-triad")),
    Goal(name="7B bf16 decode, batch 1", stage="optimise-7b", least=0.85, unit=READ, pick=_of_read),
    Goal(name="7B bf16 decode beside gpt-fast", stage="optimise-7b", least=1.0, unit="×", pick=_over_gpt_fast),
    Goal(name="7B training, 6P+12LDS", stage="train-7b", least=0.62, unit="of peak", pick=_palm),
    Goal(name="7B training beside HF Trainer", stage="train-7b", least=1.1, unit="×", pick=_over_trainer),
    Goal(name="fp8 training beside bf16", stage="fp8-training", least=1.2, unit="×", pick=_value(kind="gain")),
    Goal(name="checkpoint, less blocked", stage="checkpoint", least=20, unit="×", pick=_value(kind="gain")),
    Goal(name="weights, warm, beside mmap", stage="weights", least=3.0, unit="×", pick=_over_usual),
    Goal(name="weights, cold", stage="weights", least=0.9, unit="of the disk", pick=_of_disk),
)  # fmt: skip


def outcomes(records: Records, peers: Mapping[str, float]) -> Iterator[tuple[Goal, float | None, str]]:
    """Every goal with its figure and "met", "missed" or why it is open."""
    for goal in GOALS:
        figure = goal.reached(records, peers)
        if figure is None:
            yield goal, None, "no record" if goal.stage not in records else "not told"
        else:
            yield goal, figure, "met" if figure >= goal.least else "missed"
