"""The same product of zeros and of random numbers: what the numbers themselves cost.

A wire that keeps its value takes next to no power. Zeros flip no bits: at its power cap a GPU then holds a higher
clock, and a benchmark of zeros, or of anything constant, tells a rate that no real data will see. A CPU that is not
at its cap shows nothing. Only the ratio goes into the record: a rate of zeros must never pass for one of data.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from labs.results import Measurement
from workloads.product import Pool
from workloads.regimes import Taken
from workloads.search import Shape

if TYPE_CHECKING:
    from workloads.gemm import Bench, Config


def contrast(config: "Config", bench: "Bench", shape: Shape) -> Measurement:
    """Data, zeros, zeros, data: each half as long as a sustained row, so that a device that warms up favours neither.

    Raises:
        CheckFailed: a product is wrong.
    """
    m, n, k = shape
    short = replace(config, sustain_s=config.sustain_s / 2)
    blank = replace(bench, pool=Pool(bench.device, bench.dtype, m * k + n * k, None))
    turns = [which.take(short, shape, "sustained") for which in (bench, blank, blank, bench)]
    data, zeros = ([turns[place][0] for place in places] for places in ((0, 3), (1, 2)))
    data_s, zeros_s = _samples(data), _samples(zeros)
    told = {f"{name}_{unit}": _mean([taken.told[field] for taken in side])
            for name, side in (("data", data), ("zeros", zeros))
            for unit, field in (("mhz", "clock_mhz"), ("w", "power_w"))}  # fmt: skip
    return Measurement(
        name=f"{bench.dtype} {m}x{n}x{k} sustained, zeros over random data", unit="×",
        value=statistics.median(data_s) / statistics.median(zeros_s), samples_s=zeros_s,
        estimator=f"ratio of the medians of {len(data_s)} and {len(zeros_s)}, in turns; samples: of zeros",
        config={"m": m, "n": n, "k": k, "dtype": bench.dtype, "kind": "zeros", "regime": "sustained", **told},
        no_roof_because="a ratio, 1 where the numbers do not matter", checked=turns[0][1],
    )  # fmt: skip


def _samples(side: Sequence[Taken]) -> tuple[float, ...]:
    return tuple(sample for taken in side for sample in taken.samples_s)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
