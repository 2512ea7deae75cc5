"""The roof of this machine as measured: the memory's rate and the fastest product, each by the best that was found.

A ceiling is what the machine showed that it can do: the fastest sample of the fastest kernel, not the median. What
stands under it is a median, so that a busy moment of a shared machine shows as a gap and not as 120 % of a roof.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from labs.results import Measurement, Roof
from labs.roofs import compute_bound, gemm_flops, measured_roof
from workloads import bandwidth, gemm
from workloads.device import Device
from workloads.nvml import Gauge
from workloads.stream import WRITES, Arrays, reads

MEMORY_SAMPLES = 5
_TOLD = ("regime", "clock_mhz", "boost_verified", "searched")


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """The measured roof: memory in B/s, and the peak in FLOP/s per data type."""

    memory: Roof
    peaks: dict[str, Roof]

    def over(self, dtype: str, flops: float, moved: float) -> Roof:
        """The roof of that work."""
        return measured_roof(self.peaks[dtype], self.memory, flops, moved)

    def ridge(self, dtype: str) -> float:
        """FLOP/B where memory stops being the bound."""
        return self.peaks[dtype].value / self.memory.value


def measure_ceilings(device: Device, gauge: Gauge, settings: gemm.Config) -> Iterator[Measurement]:
    """Memory in fp32, by the fastest of all kernels, and the fastest product of each of the settings' data types.

    Config's kind is "ceiling" and `by` names what reached it; `fold` makes a roof of them.
    """
    size = bandwidth.past_bytes(device)
    bench = bandwidth.Bench(device=device, dtype="fp32", arrays=Arrays(device, "fp32", size // 4, settings.seed),
                            past_cache=True)  # fmt: skip
    once = bandwidth.Config(dtypes=("fp32",), sizes_bytes=(size,), iterations=MEMORY_SAMPLES, warmup=1,
                            seed=settings.seed, threads=settings.threads)  # fmt: skip
    best = max((bench.measure(kernel, once, kernel.name) for kernel in (*reads(device, True), *WRITES)),
               key=lambda row: row.value)  # fmt: skip
    yield _fastest(best, "ceiling: memory", best.config["bytes"], {**best.config, "kind": "ceiling"})
    for dtype in settings.dtypes:
        with gemm.opened(device, dtype, gauge, settings) as products:
            found = next(gemm.best(settings, products))
            plain = products.measure(settings, gemm.PROBE[device.cuda], "burst", searched=found.config["searched"])
        row = max(found, plain, key=_top_rate)
        by = "{m}x{n}x{k}".format(**row.config)
        config = {"kind": "ceiling", "dtype": dtype, "by": by, **{name: row.config[name] for name in _TOLD}}
        bound = compute_bound(device.name, device.accelerator, dtype)
        yield replace(_fastest(row, f"ceiling: {dtype} products", _work(row), config), roof=bound.roof,
                      no_roof_because=bound.no_roof_because)  # fmt: skip


def _work(row: Measurement) -> int:
    """FLOPs of a product's row."""
    return gemm_flops(row.config["m"], row.config["n"], row.config["k"])


def _top_rate(row: Measurement) -> float:
    return _work(row) / min(row.samples_s)


def _fastest(row: Measurement, name: str, work: float, config: dict[str, Any]) -> Measurement:
    """`row` by its fastest sample, which did `work`."""
    return replace(row, name=name, value=work / min(row.samples_s), config=config,
                   estimator=f"from the fastest of {len(row.samples_s)}")  # fmt: skip


def fold(rows: Sequence[Measurement]) -> Ceilings:
    """The roof that those rows make."""
    memory, *products = rows
    return Ceilings(
        memory=Roof(value=memory.value, source=f"measured here, memory by {memory.config['by']}"),
        peaks={
            str(row.config["dtype"]): Roof(
                value=row.value, source=f"measured here, {row.config['dtype']} {row.config['by']}"
            )
            for row in products
        },
    )
