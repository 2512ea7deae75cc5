"""roofline: where each of a model's operations stands under this device's own roof, predicted before it is measured.

Most FLOP/s at an intensity of I FLOP per byte: min(peak, I × bandwidth). Two roofs of that form: the datasheet's, and
one measured in this very process, by the best kernel that reads or writes memory and the best matrix product that a
short search finds. Where its two lines meet is the ridge. Under it:

- rows: 1 … n rows times the model's gate-up weight. One row reads every weight for one multiply-add: GEMV, on the
  slope. More rows use the same bytes again, so up to the ridge they are nearly free.
- chains: k times y = a·y + b over an array. Unfused each step goes through memory and the dot stays where it is;
  fused the intensity grows with k.
- the model: every product of a decode step and of a prefill (labs/operations.py), with its predicted time.

Method: operands arrive from memory, N(0,1); every run is timed in bursts; results are checked in full against float64.
The sum over a step's products says how fast the step could be: what a whole model takes beyond it is overhead.

Output: FLOP/s beside both roofs, predicted and measured time of each operation and of a step, the ridge; one record.

    python -m workloads.roofline
    python -m workloads.roofline --model mistral-7b --dtype bf16 --context 4096
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from labs.models import find_model
from labs.results import Measurement, Roof
from labs.roofs import DTYPE_BYTES, clock_roof, intensity, memory_time_bound, rate_bound, ridge, time_bound
from workloads import gemm
from workloads.ceilings import Ceilings, fold, measure_ceilings
from workloads.command import Parser, positive, refuse_absent, seconds, start
from workloads.device import Device
from workloads.dots import Bench, Dot, chain_dots, model_dots, row_dots
from workloads.elementwise import Chain
from workloads.nvml import Gauge
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe

CEILING_SLACK = 1.05
"""A dot this far above the measured roof is more than noise: the ceiling was measured too low."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    model: str
    """A name in labs/models.py."""
    dtype: str
    """Of the model's products; chains run in fp32."""
    rows: tuple[int, ...]
    """Rows that meet the gate-up weight."""
    chains: tuple[int, ...]
    """Steps of each chain."""
    context: int
    """Tokens that a decode step attends to."""
    prompt: int
    """Tokens of the prefill."""
    iterations: int
    """Timed runs of each operation, at least."""
    search_s: float
    """Budget for finding the fastest product, per data type."""
    seed: int
    threads: int
    """CPU threads that torch may use."""

    @property
    def products(self) -> gemm.Config:
        """How products are measured and searched for."""
        widest = (1, self.columns, find_model(self.model).hidden)
        return gemm.Config(shapes=(widest,), dtypes=tuple(dict.fromkeys((self.dtype, "fp32"))), warmup=2,
                           iterations=self.iterations, search_s=self.search_s, sustain_s=0.0, seed=self.seed,
                           threads=self.threads)  # fmt: skip

    @property
    def columns(self) -> int:
        """Rows of the widest weight."""
        return find_model(self.model).vocabulary


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    dtype = flags.dtype or device.half
    refuse_absent((dtype,), device)
    if dtype == "fp8":
        raise ValueError("dtype='fp8' has no attention here: write bf16, fp16, tf32 or fp32")
    model = flags.model or ("mistral-7b" if device.cuda else "mistral-mini")
    find_model(model)
    search_s = (10.0 if device.cuda else 0.8) if flags.search_s is None else flags.search_s
    most = flags.rows or (2048 if device.cuda else 256)
    return Config(
        model=model, dtype=dtype, rows=tuple(2**power for power in range(most.bit_length())),
        chains=(1, 4, 16, 64) if device.cuda else (1, 4, 8),
        context=flags.context or 1024, prompt=flags.prompt or (1024 if device.cuda else 128),
        iterations=flags.iterations or (50 if device.cuda else 5), search_s=search_s,
        seed=flags.seed, threads=torch.get_num_threads(),
    )  # fmt: skip


def plan(config: Config, chain: Chain) -> tuple[Dot, ...]:
    """All operations under the roof, in the order they are measured."""
    model = find_model(config.model)
    return (*row_dots(model, config.dtype, config.rows), *chain_dots(chain, config.chains),
            *model_dots(model, config.dtype, config.context, config.prompt))  # fmt: skip


def measure(config: Config, device: Device, gauge: Gauge, ceilings: Ceilings, chain: Chain) -> Iterator[Measurement]:
    """Every dot beside the datasheet's roof and the measured one, then the steps that the model's dots add up to."""
    rows = []
    with gemm.opened(device, config.dtype, gauge, config.products) as products:
        bench = Bench(model=find_model(config.model), context=config.context, prompt=config.prompt, chain=chain,
                      products=products, settings=config.products)  # fmt: skip
        for dot in plan(config, chain):
            taken, checked = bench.take(dot)
            bound = rate_bound(device.name, device.accelerator, dot.dtype, dot.flops, dot.moved)
            over = ceilings.over(dot.dtype, dot.flops, dot.moved)
            at = intensity(dot.flops, dot.moved)
            rows.append(Measurement(
                name=dot.name, value=dot.flops / taken.median_s, unit="FLOP/s",
                estimator=f"from the median of {len(taken.samples_s)}",
                config={"kind": dot.kind, "dtype": dot.dtype, "intensity": at, "flops": dot.flops,
                        "bytes": dot.moved, "times": dot.operation.times if dot.operation else 1,
                        "predicted_s": dot.flops / over.value,
                        "bound_by": "memory" if at < ceilings.ridge(dot.dtype) else "arithmetic", **taken.told},
                samples_s=taken.samples_s, roof=bound.roof, no_roof_because=bound.no_roof_because, others=(over,),
                limit=top_roof(dot, device, gauge) if bound.roof else None, checked=checked,
            ))  # fmt: skip
            yield rows[-1]
    yield from steps(config, device, rows)


def top_roof(dot: Dot, device: Device, gauge: Gauge) -> Roof | None:
    """What the top clock allows; None where the device's is not known."""
    known = device.accelerator.top_mhz if device.accelerator else None
    top_mhz = gauge.top_mhz or known
    return clock_roof(device.accelerator, dot.dtype, dot.flops, dot.moved, top_mhz, "top clock") if top_mhz else None


def steps(config: Config, device: Device, rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """A decode step and a prefill, as the sum of their products: what a model takes beyond that is overhead."""
    model, size = find_model(config.model), DTYPE_BYTES[config.dtype]
    decode = memory_time_bound(
        device.name, device.accelerator, model.decode_bytes(config.context, weight_size=size, kv_size=size)
    )
    prefill = time_bound(device.name, device.accelerator, config.dtype, model.prefill_flops(config.prompt),
                         model.prefill_bytes(config.prompt, weight_size=size, kv_size=size))  # fmt: skip
    for kind, tokens, bound in (("decode", config.context, decode), ("prefill", config.prompt, prefill)):
        parts = [row for row in rows if row.config["kind"] == kind]
        taken_s = sum(row.config["times"] * row.config["flops"] / row.value for row in parts)
        predicted_s = sum(row.config["times"] * row.config["predicted_s"] for row in parts)
        yield Measurement(
            name=f"{config.model} {kind} step, {tokens} tokens", value=taken_s, unit="s",
            estimator="sum of its products' medians, each as often as it runs",
            config={"kind": "step", "of": kind, "dtype": config.dtype, "tokens": tokens, "predicted_s": predicted_s},
            roof=bound.roof, no_roof_because=bound.no_roof_because,
            others=(Roof(value=predicted_s, source="measured here, the ceilings over each product"),),
            checked="every product in it",
        )  # fmt: skip


def ridge_row(device: Device, ceilings: Ceilings, dtype: str) -> Measurement:
    """Where the measured roof bends; the datasheet's bend in its config."""
    accelerator = device.accelerator
    peak = accelerator.peak_flops(dtype) if accelerator else None
    bandwidth = accelerator.bytes_per_s if accelerator else None
    datasheet = None if peak is None or bandwidth is None else ridge(peak, bandwidth)
    return Measurement(
        name=f"ridge: {dtype}", value=ceilings.ridge(dtype), unit="FLOP/B",
        estimator="measured peak ÷ measured memory rate",
        config={"kind": "ridge", "dtype": dtype, "datasheet": datasheet},
        no_roof_because="the ridge is where two roofs meet, and has none itself",
    )  # fmt: skip


def ceiling_lines(device: Device, ceilings: Ceilings) -> Iterator[str]:
    """Both roofs and their ridges, before any operation is measured under them."""
    yield f"memory {ceilings.memory.value / 1e9:.1f} GB/s ({ceilings.memory.source})"
    for dtype, peak in ceilings.peaks.items():
        ridge_of = ridge_row(device, ceilings, dtype)
        sheet = ridge_of.config["datasheet"]
        beside = "the datasheet's is unknown" if sheet is None else f"by the datasheet at {sheet:.1f}"
        yield f"{dtype} {peak.value / 1e9:.1f} GFLOP/s ({peak.source}), ridge at {ridge_of.value:.1f} FLOP/B, {beside}"


def prediction_line(dot: Dot, ceilings: Ceilings) -> str:
    """What the measured roof says about an operation, before it runs."""
    at, over = intensity(dot.flops, dot.moved), ceilings.over(dot.dtype, dot.flops, dot.moved)
    by = "memory" if at < ceilings.ridge(dot.dtype) else "arithmetic"
    return f"predicted {dot.name:24} {at:9.2f} FLOP/B  at least {dot.flops / over.value * 1e3:10.4f} ms, bound by {by}"


def row_line(row: Measurement) -> str:
    """One row, for the log: measured time beside the predicted one."""
    predicted_s = row.config["predicted_s"]
    taken_s = row.value if row.unit == "s" else row.config["flops"] / row.value
    share = "" if row.fraction is None else f"  {row.fraction:6.1%} of the datasheet's roof"
    return (f"measured {row.name:36} {taken_s * 1e3:10.4f} ms, {predicted_s / taken_s:6.1%} of the measured roof"
            f"{share}")  # fmt: skip


def notes(rows: Sequence[Measurement]) -> Iterator[str]:
    """What a reader of the numbers must know."""
    above = [row.name for row in rows if row.unit == "FLOP/s" and row.share_of(row.others[0]) > CEILING_SLACK]
    if above:
        yield (f"above the measured roof: {', '.join(above)}. The ceilings were measured too low: the machine was busy "
               "then, or the search too short")  # fmt: skip


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Measure the ceilings, print what they predict, measure every operation, print and write what came out."""
    gauge, chain, rows = Gauge(device), Chain(device, config.seed), []
    with Sensors(device) as sensors:
        tops = tuple(measure_ceilings(device, gauge, config.products))
        ceilings = fold(tops)
        for line in ceiling_lines(device, ceilings):
            print(line, flush=True)
        for dot in plan(config, chain):
            print(prediction_line(dot, ceilings), flush=True)
        for row in measure(config, device, gauge, ceilings, chain):
            print(row_line(row), flush=True)
            rows.append(row)
    ridges = tuple(ridge_row(device, ceilings, dtype) for dtype in ceilings.peaks)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type, libraries=())
    path = write(flags.out, "roofline", (*tops, *ridges, *rows), within=within, machine=machine, config=config,
                 notes=tuple(notes(rows)))  # fmt: skip
    print(f"ridge at {ridges[0].value:.1f} FLOP/B; {len(rows)} operations, all checked: {path}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a result is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("roofline", __doc__)
    parser.add_argument("--model", help="a shape of labs/models.py; default: mistral-7b, on a CPU mistral-mini")
    parser.add_argument("--dtype", help="fp32, tf32, fp16 or bf16; default: bf16 on a GPU that has it, fp32 on a CPU")
    parser.add_argument("--rows", type=positive, help="most rows that meet the gate-up weight")
    parser.add_argument("--context", type=positive, help="tokens that a decode step attends to")
    parser.add_argument("--prompt", type=positive, help="tokens of the prefill")
    parser.add_argument("--iterations", type=positive, help="timed runs of each operation")
    parser.add_argument("--search-s", type=seconds, help="budget per data type for finding the fastest product")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("roofline", main)
