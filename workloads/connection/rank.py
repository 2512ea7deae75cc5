"""What one rank's process does: compute something whose result is known, then exchange data with one other rank.

It is a process of its own, so that whoever started it can end it whatever the driver does. It answers one message
after another on a pipe, and ends with the process that started it.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from workloads.connection.crew import Answer, first_line
from workloads.processor import cpu_name

_SMALL, _LARGE = 16, 2**18
"""Elements of fp32 that a pair sums: for the latency, and for the bandwidth (1 MiB)."""
_REPEATS = 5


def serve(pipe: Connection, local: int, gpu: bool, environment: Mapping[str, str]) -> None:
    """Answer messages until the other end is closed."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True, name="parent").start()
    os.environ.update(environment)
    torch.set_num_threads(1)
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    work: dict[str, Callable[..., Answer]] = {
        "check": lambda held: check(device), "open": open_store, "meet": lambda **given: meet(device, **given),
    }  # fmt: skip
    held: dict[str, Any] = {}
    pipe.send({"ready": True})
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            os._exit(0)  # threads of gloo may still run: no clean-up
        try:
            given = {name: value for name, value in message.items() if name != "do"}
            answer = work[message["do"]](held=held, **given)
        except Exception as error:  # whatever it raises is what is looked for
            answer = {"outcome": "raised", "said": first_line(error)}
        pipe.send(answer)


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, be it killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def check(device: torch.device, multiply: Callable[[Tensor, Tensor], Tensor] = torch.matmul) -> Answer:
    """Products of small integers, which fp32 holds exactly, and a pattern through the device's memory."""
    size = 1024 if device.type == "cuda" else 256
    generator = torch.Generator().manual_seed(size)
    left, right = (torch.randint(-4, 5, (size, size), generator=generator, dtype=torch.float32) for _ in range(2))
    wanted = left @ right
    told = {"device": _name(device), "versions": _versions(device)}
    moved_left, moved_right = left.to(device), right.to(device)
    for turn in range(3):
        found = multiply(moved_left, moved_right).cpu()
        wrong = int((found != wanted).sum())
        if wrong:
            return {**told, "outcome": "wrong", "said": f"{wrong} of {wanted.numel()} elements of product {turn + 1}"}
    count = 2**26 if device.type == "cuda" else 2**20
    pattern = torch.arange(count, device=device, dtype=torch.int32)
    wrong = int((pattern.clone().cpu() != torch.arange(count, dtype=torch.int32)).sum())
    if wrong:
        return {**told, "outcome": "wrong", "said": f"{wrong} of {count} words of memory"}
    return {**told, "outcome": "ok", "said": ""}


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {cpu_name()}"


def _versions(device: torch.device) -> dict[str, str]:
    found = {"torch": str(torch.__version__)}
    if device.type == "cuda":
        found["cuda"] = str(torch.version.cuda)
        found["nccl"] = ".".join(str(part) for part in torch.cuda.nccl.version())
    return found


def open_store(held: dict[str, Any], limit_s: float) -> Answer:
    """Make the store where a pair meets; its port."""
    held["store"] = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False,
                                  timeout=timedelta(seconds=limit_s))  # fmt: skip
    return {"outcome": "ok", "said": "", "port": held["store"].port}


def meet(device: torch.device, held: dict[str, Any], rank: int, address: str, port: int, limit_s: float) -> Answer:
    """Exchange data with the other rank of a pair; the first of both has the store."""
    limit = timedelta(seconds=limit_s)
    store = held.pop("store", None) if rank == 0 else dist.TCPStore(address, port, 2, is_master=False, timeout=limit)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=2,
                            timeout=limit, device_id=device if device.type == "cuda" else None)  # fmt: skip
    latency_s, wrong = _sum(device, rank, _SMALL)
    large_s, more = _sum(device, rank, _LARGE)
    dist.destroy_process_group()
    if wrong or more:
        return {"outcome": "wrong", "said": f"{wrong + more} wrong elements"}
    return {"outcome": "ok", "said": "", "latency_s": latency_s, "bytes_per_s": 4 * _LARGE / large_s}


def _sum(device: torch.device, rank: int, count: int) -> tuple[float, int]:
    """Seconds of the fastest all-reduce of `count` elements, and how many were wrong in all of them."""
    base = torch.arange(count, dtype=torch.float32) % 1000
    wanted, fastest, wrong = 3 * base, float("inf"), 0
    for _ in range(_REPEATS):
        buffer = ((rank + 1) * base).to(device)
        began = time.perf_counter()
        dist.all_reduce(buffer)
        found = buffer.cpu()  # waits for it
        fastest = min(fastest, time.perf_counter() - began)
        wrong += int((found != wanted).sum())
    return fastest, wrong
