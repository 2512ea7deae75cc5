"""A made-up run folder, as operate and the workloads leave one."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from labs.results import Machine, Measurement, Record, Roof, Span

RUN = "20261120-141503-lab3"
NO_ROOF = "AMD EPYC 9R45 is not in labs/accelerators.py"


def machine() -> Machine:
    return Machine(
        hostname="ip-10-0-1-17", device="NVIDIA L4", devices=1, instance_type="g6.12xlarge", driver="580.95.05",
        clock_mhz=2040.0, power_w=71.3, temperature_c=63.0, versions={"torch": "2.13.0", "cuda": "13.0"},
    )  # fmt: skip


def record(workload: str, rows: Sequence[Measurement], **given: Any) -> Record:
    return Record(
        workload=workload, machine=machine(), measurements=tuple(rows), run=RUN, lab=3, nodes=2, wall_s=41.2,
        git_commit="01bfd96aa0c4d1f2", usd_per_hour=9.204, config={"seed": 0}, **given,
    )  # fmt: skip


def samples(least_s: float, count: int, seed: int = 0) -> tuple[float, ...]:
    source = random.Random(seed)
    return tuple(least_s * (1 + source.lognormvariate(-4, 0.8)) for _ in range(count))


def gemm(node: str = "node0", known: bool = True) -> Record:
    rows = []
    for m, n, share in ((1, 4096, 0.8), (16, 4096, 0.74), (256, 4096, 0.6), (1024, 1024, 0.55), (8192, 8192, 0.66)):
        flops = 2 * m * n * n
        intensity = flops / (2 * (2 * m * n + n * n))
        bound = min(121e12, 300e9 * intensity)
        limit = "dense bf16 peak" if bound == 121e12 else "memory rate × intensity"
        taken = samples(flops / (bound * share), 120, m)
        rows.append(
            Measurement(
                name=f"bf16 {m}x{n}x{n}", value=flops / median(taken), unit="FLOP/s", samples_s=taken,
                estimator="from the median of 120", checked=f"max |error| {share / 1000:.1e} against float64",
                config={"m": m, "n": n, "k": n, "dtype": "bf16", "intensity": intensity},
                roof=Roof(value=bound, source=f"{limit}, NVIDIA L4 datasheet") if known else None,
                no_roof_because="" if known else NO_ROOF, usd_per_unit=0.0211, work_unit="PFLOP",
            )
        )  # fmt: skip
    return record("gemm", rows, node=node)


def generate(node: str = "node0") -> Record:
    checked = "max |logit difference| to a full forward 6.1e-07 standard deviations, allowed 1e-04"
    prefill = Roof(value=0.0602, source="dense bf16 peak, NVIDIA L4 datasheet")
    decode = Roof(value=0.0474, source="memory rate, NVIDIA L4 datasheet")
    first_s, gaps_s = samples(0.118, 20), samples(0.0565, 512, 3)
    kernels = Roof(value=0.0521, source="bytes at the measured 280 GB/s, and 288 kernels of 4.5 µs")
    spans = (
        Span(name="weights and cache", seconds=0.0508, how="predicted: bytes ÷ measured read bandwidth"),
        Span(name="launches", seconds=0.0043, how="measured: gaps between kernels"),
        Span(name="the rest", seconds=median(gaps_s) - 0.0551, how="the median less the above"),
    )
    rows = (
        Measurement(name="time to first token", value=median(first_s), unit="s", estimator="median of 20",
                    samples_s=first_s, roof=prefill, checked=checked),
        Measurement(name="prefill", value=1024 / median(first_s), unit="token/s", estimator="from the median of 20",
                    samples_s=first_s, roof=Roof(value=1024 / 0.0602, source=prefill.source), checked=checked),
        Measurement(name="time per output token", value=median(gaps_s), unit="s", estimator="median of 512",
                    samples_s=gaps_s, roof=decode, checked=checked, expected=kernels, spans=spans),
        Measurement(name="decode", value=1 / median(gaps_s), unit="token/s", estimator="from the median of 512",
                    samples_s=gaps_s, roof=Roof(value=1 / 0.0474, source=decode.source), checked=checked,
                    usd_per_unit=72.36, work_unit="million tokens"),
    )  # fmt: skip
    return record("generate", rows, node=node, notes=("clocks were throttled by power for 11 s",))


def collectives() -> Record:
    rows = []
    for power in range(10, 29, 2):
        time_s = 38e-6 + 2**power / 3.1e9
        taken = samples(time_s, 50, power)
        config = {"collective": "all-reduce", "bytes": 2**power, "dtype": "fp32", "ranks": 8,
                  "rank_median_s": [time_s * (1 + 0.02 * rank) for rank in range(8)]}  # fmt: skip
        rows.append(
            Measurement(
                name=f"all-reduce {2**power >> 10} KiB", value=1.75 * 2**power / median(taken), unit="B/s",
                estimator="busbw from the median of 50, slowest rank of each", samples_s=taken, config=config,
                roof=Roof(value=8.75e9, source="40 Gbit/s of g6.12xlarge"), checked="every sum exact on every rank",
            )
        )  # fmt: skip
    return record("collectives", rows, ranks=8)


def ddp() -> Record:
    taken = samples(0.168, 60, 9)
    config = {"alone_s": 0.151, "losses": [6.9 - 2.6 * (1 - 0.9**step) for step in range(80)],
              "predicted_bytes_per_rank": 27_541_248}  # fmt: skip
    checked = "gradients within 3.1e-07 of one process's, allowed 1e-03; parameters bitwise equal; loss 6.90 to 4.31"
    rows = (
        Measurement(name="step", value=median(taken), unit="s", estimator="median of 60, slowest rank of each",
                    samples_s=taken, config=config, checked=checked,
                    roof=Roof(value=0.0331, source="dense bf16 peak, NVIDIA L4 datasheet")),
        Measurement(name="weak scaling", value=7.1, unit="× one rank", estimator="from medians of both",
                    checked=checked, no_roof_because="its ideal is measured, not physical: one rank times the ranks"),
    )  # fmt: skip
    return record("ddp", rows, ranks=8)


def write_run(
    results: Path, records: Sequence[Record], exits: Mapping[str, Mapping[str, int | None]] | None = None, **facts: Any
) -> Path:
    """results/RUN/ with these records, run.json around them, and a log for each node and workload."""
    folder = results / RUN
    for made in records:
        made.write(folder / "records")
    exits = exits or {made.workload: {"node0": 0, "node1": 0} for made in records}
    for name, codes in exits.items():
        for node in codes:
            log = folder / "logs" / node / f"{name}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"{name} begins\n")
    rows = [
        {"name": name, "scope": "node" if name in ("gemm", "generate") else "cluster", "exit": codes, "seconds": 43.5}
        for name, codes in exits.items()
    ]
    nodes = [
        {"name": f"node{index}", "instance_id": f"i-{index:017}", "instance_type": "g6.12xlarge",
         "private_ip": f"10.0.1.{index + 17}", "public_ip": f"198.51.100.{index + 1}"} for index in range(2)
    ]  # fmt: skip
    document = {
        "schema": 1, "run": RUN, "lab": 3, "stack": "Lab3Stack", "target": "stack",
        "started": "2026-11-20T14:15:03+00:00", "ended": "2026-11-20T14:21:48+00:00", "nodes": nodes, "workloads": rows,
        "usd_per_hour": 9.204, "usd": 1.0354, "commit": "01bfd96aa0c4d1f2",
        "ok": all(code == 0 for codes in exits.values() for code in codes.values()),
    } | facts  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(document))
    return folder
