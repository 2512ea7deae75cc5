"""From times to rows: bandwidths beside the roof, latency with its fit, NCCL's choices, and what a reader must know."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from labs.instances import InstanceType
from labs.latency import fit
from labs.results import Measurement, Roof
from labs.wire import algbw, bus_bound, busbw, wire_rates
from workloads.collective.nccl import Log
from workloads.collective.sizes import size_name
from workloads.collective.sweep import Series, Timed

_CHECKED = "every element exact on every rank"


@dataclass(frozen=True, kw_only=True)
class Circle:
    """The ranks, and what lies between them."""

    ranks: int
    nodes: int
    network: InstanceType | None
    """The type whose network it is; None where that is not known."""

    @property
    def across(self) -> bool:
        """Whether bytes leave a node."""
        return self.nodes > 1


def rows_of(series: Series, circle: Circle, log: Log, beside: Mapping[int, float]) -> Iterator[Measurement]:
    """A row per size and one of latency. `beside`: nccl-tests' bus bandwidth of an all-reduce in fp32, by bytes."""
    if (series.collective, series.dtype) != ("all-reduce", "fp32"):
        beside = {}
    for timed in series.timed:
        yield row_of(series.collective, series.dtype, timed, circle, log, beside)
    yield _latency(series, circle)


def row_of(collective: str, dtype: str, timed: Timed, circle: Circle, log: Log | None = None,
           beside: Mapping[int, float] | None = None) -> Measurement:  # fmt: skip
    """One size. One rank alone sends nothing: 0 B/s."""
    samples_s, size_bytes = timed.samples_s, timed.size_bytes
    time_s, medians_s = median(samples_s), [median(samples) for samples in timed.by_rank]
    choice = log.choice(collective, size_bytes) if log else None
    value = busbw(collective, size_bytes, circle.ranks, time_s)
    config: dict[str, object] = {
        "collective": collective, "bytes": size_bytes, "dtype": dtype, "ranks": circle.ranks, "time_s": time_s,
        "algbw": algbw(size_bytes, time_s), "busbw": value,
        "rank_median_s": medians_s, "spread": max(medians_s) / min(medians_s),
    }  # fmt: skip
    if choice:
        config |= {"algorithm": choice.algorithm, "protocol": choice.protocol}
    if circle.across:
        algorithm = choice.algorithm if choice else ""
        rates = wire_rates(collective, size_bytes, circle.ranks, circle.nodes, time_s, algorithm)
        config |= dict(zip(("wire_low", "wire_high"), rates, strict=True))
    bound = bus_bound(collective, circle.network, circle.nodes, circle.ranks)
    theirs = (beside or {}).get(size_bytes)
    return Measurement(
        name=f"{collective} {size_name(timed.nominal_bytes)}{_in(dtype)}", value=value, unit="B/s",
        estimator=f"busbw from the median of {len(samples_s)}, slowest rank of each", config=config,
        samples_s=samples_s, roof=bound.roof, no_roof_because=bound.no_roof_because, checked=_CHECKED,
        others=(Roof(value=theirs, source="nccl-tests on the same GPUs"),) if theirs else (),
    )  # fmt: skip


def _in(dtype: str) -> str:
    return "" if dtype == "fp32" else f", {dtype}"


def _latency(series: Series, circle: Circle) -> Measurement:
    """The smallest size's time, and the line through all of them."""
    smallest = series.timed[0].samples_s
    config: dict[str, object] = {"collective": series.collective, "dtype": series.dtype, "ranks": circle.ranks,
                                 "smallest_bytes": series.timed[0].size_bytes}  # fmt: skip
    line = fit([one.size_bytes for one in series.timed], [median(one.samples_s) for one in series.timed])
    said = "times do not grow with the size: no α and β"
    if line is not None:
        said = (f"α {line.alpha_s * 1e6:.1f} µs, β {_rate(line.bytes_per_s)}, n½ {line.half_bytes / 1024:.1f} KiB, "
                f"all sizes within {line.worst:.0%}")  # fmt: skip
        config |= {"alpha_s": line.alpha_s, "beta": line.bytes_per_s, "half_bytes": line.half_bytes,
                   "residuals": list(line.residuals), "worst_residual": line.worst}  # fmt: skip
    return Measurement(
        name=f"{series.collective} latency{_in(series.dtype)}", value=median(smallest), unit="s",
        estimator=f"median of {len(smallest)} of the smallest size, slowest rank of each; {said}", config=config,
        samples_s=smallest, no_roof_because="labs/ holds no latency of links", checked=_CHECKED,
    )  # fmt: skip


def row_line(row: Measurement) -> str:
    """One row, for the log."""
    config = row.config
    if row.unit == "s":
        return f"{row.name:26} {row.value * 1e6:10.1f} µs  {row.estimator.partition('; ')[2]}"
    share = "" if row.fraction is None else f"  {row.fraction:.1%} of roof"
    chosen = f"  {config['algorithm']}/{config['protocol']}" if "algorithm" in config else ""
    return (f"{row.name:26} {config['time_s'] * 1e6:10.1f} µs  algbw {_rate(config['algbw']):>11}  "
            f"busbw {_rate(row.value):>11}  spread {config['spread']:.2f}×{share}{chosen}")  # fmt: skip


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e9:.2f} GB/s" if bytes_per_s >= 1e9 else f"{bytes_per_s / 1e6:.2f} MB/s"


def notes_of(series: Sequence[Series], circle: Circle, rows: Sequence[Measurement], budget_s: float) -> tuple[str, ...]:
    """What was left out and why, what NCCL chose, and what two nodes or gloo mean for the numbers."""
    notes = [
        f"{one.collective}{_in(one.dtype)} ends at {size_name(one.timed[-1].nominal_bytes)}: its share of the budget "
        f"of {budget_s:g} s was used; --budget-s gives more"
        for one in series if one.left_out
    ]  # fmt: skip
    chosen = [(row.config["collective"], row) for row in rows
              if "algorithm" in row.config and row.config["dtype"] == series[0].dtype]  # fmt: skip
    for collective, group in groupby(chosen, key=lambda entry: entry[0]):
        notes.append(f"NCCL chose for {collective}: {_ranges([row for _, row in group])}")
    if circle.across and circle.nodes == 2 and circle.ranks > 2:
        notes.append(
            "two nodes are a case of their own: by tree or NVLSTree each sends the buffer once, so that busbw may "
            f"pass the network's rate up to {2 * (circle.ranks - 1) / circle.ranks:.2f} times; judge the network by "
            "the wire rate (wire_low to wire_high, B/s a GPU), and a larger cluster not by this one"
        )
    return tuple(notes)


def _ranges(rows: Sequence[Measurement]) -> str:
    """Where one choice goes over into the next: "TREE/LL to 64 KiB, RING/SIMPLE to 1 GiB"."""
    parts = []
    for choice, group in groupby(rows, key=lambda row: f"{row.config['algorithm']}/{row.config['protocol']}"):
        parts.append(f"{choice} to {size_name(list(group)[-1].config['bytes'])}")
    return ", ".join(parts)
