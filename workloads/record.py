"""From measurements to a record: what the launcher told about the run, and the record written whole.

The launcher speaks through the environment: ROOFLAB_RUN, ROOFLAB_LAB, ROOFLAB_NODE, ROOFLAB_NODES,
ROOFLAB_INSTANCE_TYPE, ROOFLAB_USD_PER_HOUR (all nodes together) and ROOFLAB_COMMIT. Alone, a workload does without.
"""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

from labs.instances import instance_types
from labs.results import Machine, Measurement, Record
from workloads.contention import Contention, Turn, turns

_N = TypeVar("_N", int, float)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The run that a workload is part of."""

    run: str = ""
    lab: int | None = None
    node: str = "node0"
    nodes: int = 1
    instance_type: str | None = None
    usd_per_hour: float | None = None
    """Of all nodes together."""
    gpus_absent: bool = False
    """The instance type has GPUs and this machine has none (a rehearsal, a broken driver): the price is another's."""
    commit: str | None = None
    started: float
    """Wall clock when the workload began, seconds since the epoch."""
    turns: Mapping[str, Turn] = field(default_factory=turns, repr=False)
    """What each of this process's threads had of the cores by then."""

    @property
    def price(self) -> float | None:
        """Price per hour of what a workload of scope "cluster" uses; None where work here says nothing about it."""
        return None if self.gpus_absent else self.usd_per_hour

    @property
    def node_price(self) -> float | None:
        """Price per hour of one node, which is what a workload of scope "node" uses."""
        return None if self.price is None else self.price / self.nodes

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the record must know."""
        absent = f"no price per unit of work: this machine has none of the GPUs of a {self.instance_type}"
        return (absent,) if self.gpus_absent else ()


def surroundings(environment: Mapping[str, str] = os.environ) -> Surroundings:
    """Read the launcher's variables.

    Raises:
        ValueError: one of them is not a number where it must be one.
    """
    lab, price = environment.get("ROOFLAB_LAB"), environment.get("ROOFLAB_USD_PER_HOUR")
    instance_type = environment.get("ROOFLAB_INSTANCE_TYPE") or None
    kind = instance_types().get(instance_type or "")
    return Surroundings(
        run=environment.get("ROOFLAB_RUN", ""),
        lab=_number("ROOFLAB_LAB", lab, int) if lab else None,
        node=environment.get("ROOFLAB_NODE") or "node0",
        nodes=_number("ROOFLAB_NODES", environment.get("ROOFLAB_NODES") or "1", int),
        instance_type=instance_type,
        usd_per_hour=_number("ROOFLAB_USD_PER_HOUR", price, float) if price else None,
        gpus_absent=kind is not None and kind.gpus > 0 and not torch.cuda.is_available(),
        commit=environment.get("ROOFLAB_COMMIT") or _git_commit(),
        started=time.time(),
    )


def _number(name: str, text: str, kind: type[_N]) -> _N:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a number: set it as the launcher does, or unset it") from None


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # no git here, or the tree came without its history


def write(
    out: Path, workload: str, measurements: tuple[Measurement, ...], *, within: Surroundings, machine: Machine,
    config: Any, cluster: bool = False, ranks: int = 1, notes: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    """Write the record of a workload of scope "cluster" or of one node, and return its path.

    `config` is the workload's own frozen dataclass. That the machine was busy is said in the log and noted last.
    """
    contention = Contention.since(within.turns)
    for note in contention.notes:
        print(note, flush=True)
    record = Record(
        workload=workload, machine=machine, measurements=measurements, run=within.run, lab=within.lab,
        node="" if cluster else within.node, nodes=within.nodes, ranks=ranks, config=asdict(config),
        git_commit=within.commit, started=datetime.fromtimestamp(within.started, UTC).isoformat(timespec="seconds"),
        wall_s=time.time() - within.started, usd_per_hour=within.usd_per_hour,
        notes=(*within.notes, *notes, *contention.notes),
    )  # fmt: skip
    return record.write(out)
