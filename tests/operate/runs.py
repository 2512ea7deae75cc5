"""A made-up run folder, as operate and the workloads leave one."""

import json
import random
from pathlib import Path
from typing import Any

from labs.results import Machine, Measurement, Record, Roof

RUN = "20261120-141503-lab3"
L4 = Roof(value=121e12, source="NVIDIA L4 datasheet, dense bf16")
NO_ROOF = 'no peak is known for "AMD EPYC 9R45"'


def machine(device: str = "NVIDIA L4") -> Machine:
    return Machine(
        hostname="ip-10-0-1-17", device=device, devices=1, instance_type="g6.12xlarge", driver="580.95.05",
        clock_mhz=2040.0, power_w=71.3, temperature_c=63.0, versions={"torch": "2.13.0", "cuda": "13.0"},
    )  # fmt: skip


def samples(middle_s: float, count: int, seed: int = 0) -> tuple[float, ...]:
    source = random.Random(seed)
    return tuple(middle_s * (1 + source.lognormvariate(-4, 0.8)) for _ in range(count))


def gemm(node: str = "node0", known: bool = True) -> Record:
    rows = []
    for m, n, k, share in ((1, 4096, 4096, 0.8), (16, 4096, 4096, 0.74), (256, 4096, 4096, 0.6), (1024, 1024, 1024, 0.55),
                           (4096, 4096, 4096, 0.71), (8192, 8192, 8192, 0.66)):  # fmt: skip
        intensity = 2 * m * n * k / (2 * (m * k + k * n + m * n))
        bound = min(121e12, 300e9 * intensity)
        source = "NVIDIA L4 datasheet, dense bf16" if bound == 121e12 else "300 GB/s × intensity, NVIDIA L4 datasheet"
        taken = samples(2 * m * n * k / (bound * share), 120, m)
        rows.append(
            Measurement(
                name=f"bf16 {m}×{n}×{k}", value=bound * share, unit="FLOP/s", estimator="from the median of 120",
                config={"m": m, "n": n, "k": k, "dtype": "bf16", "intensity": intensity}, samples_s=taken,
                roof=Roof(value=bound, source=source) if known else None, no_roof_because="" if known else NO_ROOF,
                usd_per_unit=0.0021, work_unit="PFLOP", checked="max |error| 2e-3 against float64",
            )
        )  # fmt: skip
    return Record(workload="gemm", machine=machine(), measurements=tuple(rows), run=RUN, lab=3, node=node, nodes=2,
                  wall_s=41.2, git_commit="01bfd96aa0", usd_per_hour=9.2, config={"iterations": 120})  # fmt: skip


def write_run(
    results: Path, records: list[Record], exits: dict[str, dict[str, int]] | None = None, **facts: Any
) -> Path:
    """results/RUN/ with these records, run.json around them, and a log for each node and workload."""
    folder = results / RUN
    for record in records:
        record.write(folder / "records")
    exits = exits or {record.workload: {"node0": 0, "node1": 0} for record in records}
    for name, codes in exits.items():
        for node in codes:
            log = folder / "logs" / node / f"{name}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"{name} begins\n")
    scopes = {"gemm": "node", "generate": "node"}
    rows = [
        {"name": name, "scope": scopes.get(name, "cluster"), "exit": codes, "seconds": 43.5}
        for name, codes in exits.items()
    ]
    nodes = [
        {"name": f"node{index}", "instance_id": f"i-{index:017}", "instance_type": "g6.12xlarge",
         "private_ip": f"10.0.1.{index + 17}", "public_ip": f"198.51.100.{index + 1}"} for index in range(2)
    ]  # fmt: skip
    document = {
        "schema": 1, "run": RUN, "lab": 3, "stack": "Lab3Stack", "target": "stack", "started": "2026-11-20T14:15:03+00:00",
        "ended": "2026-11-20T14:21:48+00:00", "nodes": nodes, "workloads": rows, "usd_per_hour": 9.204, "usd": 1.0354,
        "commit": "01bfd96aa0c4d1f2", "ok": all(code == 0 for codes in exits.values() for code in codes.values()),
    } | facts  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(document))
    return folder


def generate(node: str = "node0") -> Record:
    rows = (
        Measurement(
            name="time to first token", value=0.121, unit="s", estimator="median", samples_s=samples(0.118, 20),
            config={"prompt_tokens": 1024}, roof=Roof(value=0.0602, source="prefill FLOPs ÷ 242 TFLOP/s"),
            checked="tokens equal greedy decoding without a cache",
        ),
        Measurement(
            name="each further token", value=0.0581, unit="s", estimator="median", samples_s=samples(0.0565, 512, 3),
            config={"batch": 1}, roof=Roof(value=0.0474, source="bytes of the weights ÷ 300 GB/s, NVIDIA L4 datasheet"),
            usd_per_unit=13.02, work_unit="million tokens", checked="tokens equal greedy decoding without a cache",
        ),
    )  # fmt: skip
    return Record(workload="generate", machine=machine(), measurements=rows, run=RUN, lab=3, node=node, nodes=2, wall_s=38.0,
                  notes=("clocks were throttled by power for 11 s",))  # fmt: skip


def collectives() -> Record:
    rows = []
    for power in range(10, 29, 2):
        time_s = 38e-6 + 2**power / 3.1e9
        rows.append(
            Measurement(
                name=f"all-reduce {2**power} B", value=1.75 * 2**power / time_s, unit="B/s",
                estimator="bus bandwidth from the median of 50", config={"op": "all-reduce", "bytes": 2**power, "dtype": "fp32"},
                samples_s=samples(time_s, 50, power), no_roof_because="the rate between these GPUs is not known",
                checked="exact on every rank",
            )
        )  # fmt: skip
    return Record(workload="collectives", machine=machine(), measurements=tuple(rows), run=RUN, lab=3, nodes=2, ranks=8)


def ddp() -> Record:
    rows = (
        Measurement(
            name="step", value=0.171, unit="s", estimator="median of 60", samples_s=samples(0.168, 60, 9),
            no_roof_because="a step mixes arithmetic and network", checked="gradients equal one process's to 3e-7",
        ),
    )  # fmt: skip
    losses = [6.9 - 2.6 * (1 - 0.96**step) for step in range(60)]
    return Record(workload="ddp", machine=machine(), measurements=rows, run=RUN, lab=3, nodes=2, ranks=8,
                  config={"losses": losses})  # fmt: skip
