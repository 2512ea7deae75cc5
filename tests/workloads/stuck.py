"""Ranks that go wrong, each scenario in its own way: `python -m tests.workloads.stuck FOLDER SCENARIO...`.

All are forked from one process that has imported torch, so that a rank costs next to nothing.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist

RANKS = 3
ODD = 1
"""The rank that goes wrong."""


def sleep(rank: int, data: torch.Tensor) -> None:
    if rank == ODD:
        time.sleep(1000)
    dist.all_reduce(data)


def order(rank: int, data: torch.Tensor) -> None:
    for step in (dist.all_reduce, dist.barrier) if rank != ODD else (dist.barrier, dist.all_reduce):
        step(data) if step is dist.all_reduce else step()


def shape(rank: int, data: torch.Tensor) -> None:
    dist.all_reduce(data[: 500 if rank == ODD else 1000])


def error(rank: int, data: torch.Tensor) -> None:
    if rank == ODD:
        raise ValueError("the batch is empty")
    dist.all_reduce(data)


def death(rank: int, data: torch.Tensor) -> None:
    if rank == ODD:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(data)


SCENARIOS: dict[str, Callable[[int, torch.Tensor], None]] = {
    "sleep": sleep, "order": order, "shape": shape, "error": error, "death": death,
}  # fmt: skip


def rank_of(folder: Path, name: str, rank: int) -> None:
    """One rank: it meets its peers, then stands by as a witness, then goes wrong."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS), "ROOFLAB_NODE": "node0",
                   "ROOFLAB_WATCH": str(folder / "hang" / name / "node0")}  # fmt: skip
    dist.init_process_group("gloo", init_method=f"file://{folder}/{name}.store", rank=rank, world_size=RANKS)
    data = torch.ones(1000)
    dist.all_reduce(data)
    import_module("rooflab_witness").attend()
    try:
        SCENARIOS[name](rank, data)
    except Exception:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def main(folder: Path, names: list[str]) -> None:
    """Start all ranks and wait for their ends."""
    for name in names:
        for rank in range(RANKS):
            if os.fork() == 0:
                rank_of(folder, name, rank)
    for _ in range(RANKS * len(names)):
        os.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
