"""The device that a workload runs on: which it is, what it can do, and how time is taken on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from labs.accelerators import Accelerator, by_driver_name
from workloads.heartbeat import beat
from workloads.processor import cpu_name

TORCH_DTYPES = {
    "fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
}  # fmt: skip
"""How the elements of each data type are stored."""

_SINCE = {"fp32": (0, 0), "fp16": (7, 0), "tf32": (8, 0), "bf16": (8, 0), "fp8": (8, 9)}
"""CUDA compute capability from which tensor cores (for fp32: any core) take the type."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """One rank's device."""

    torch: torch.device
    name: str
    """As the driver reports it, or the CPU's model name."""
    accelerator: Accelerator | None
    """Its figures; None for a CPU and for a GPU that is not listed."""

    @property
    def cuda(self) -> bool:
        """Whether this is a GPU."""
        return bool(self.torch.type == "cuda")

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Data types that matrix products have here, in hardware on a GPU."""
        if not self.cuda:
            return ("fp32", "bf16")
        capability = torch.cuda.get_device_capability(self.torch)
        return tuple(dtype for dtype, since in _SINCE.items() if capability >= since)

    @property
    def half(self) -> str:
        """The type that models run in: bf16, fp16 on a GPU before Ampere, fp32 on a CPU."""
        if not self.cuda:
            return "fp32"
        return "bf16" if "bf16" in self.dtypes else "fp16"

    @property
    def memory_bytes(self) -> int:
        """Memory of the GPU that is free now; 0 on a CPU, where nobody should fill it."""
        return torch.cuda.mem_get_info(self.torch)[0] if self.cuda else 0

    def synchronize(self) -> None:
        """Wait until everything that was queued is done."""
        if self.cuda:
            torch.cuda.synchronize(self.torch)


def find_device(choice: str = "auto", local_rank: int = 0) -> Device:
    """The device for a rank, made current. `choice` is "auto", "cpu" or "cuda".

    Raises:
        ValueError: cuda is asked for and there is none, or there are more ranks than GPUs.
    """
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return Device(torch=torch.device("cpu"), name=cpu_name(), accelerator=None)
    if not torch.cuda.is_available():
        raise ValueError("device='cuda' is not there: write --device cpu, or see nvidia-smi and torch.version.cuda")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(f"local rank {local_rank} has no GPU: start at most {torch.cuda.device_count()} on this node")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    name = torch.cuda.get_device_name(device)
    return Device(torch=device, name=name, accelerator=by_driver_name(name))


def cache_bytes(device: Device) -> int:
    """Size of the cache next to memory: a GPU's L2, a CPU's last level (32 MiB where the system does not tell)."""
    if device.cuda:
        return int(torch.cuda.get_device_properties(device.torch).L2_cache_size)
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes), default=32 * 2**20)


def _nothing() -> None:
    return None


def time_each(device: Device, step: Callable[[], object], iterations: int, *, before: Callable[[], object] = _nothing,
              after: Callable[[], object] = _nothing, lead: int = 0, meanwhile: Callable[[], object] = _nothing
              ) -> tuple[float, ...]:  # fmt: skip
    """Seconds of each of `iterations` calls of `step`: CUDA events on a GPU, the wall clock on a CPU.

    `before` and `after` run around each call and are not timed; `lead` calls go ahead untimed, so that the first
    timed one finds the queue full. `meanwhile` runs once when all calls are queued (on a CPU: when they are done).
    On a GPU the host runs ahead and waits only at the end, so that launches do not count; of what is called here
    only `meanwhile` may wait for the device.
    """
    device.synchronize()
    for _ in range(lead):
        step()
    if not device.cuda:
        samples = []
        for _ in range(iterations):
            beat()
            before()
            begin = time.perf_counter()
            step()
            samples.append(time.perf_counter() - begin)
            after()
        meanwhile()
        return tuple(samples)
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(iterations)]
    for begin_event, end_event in pairs:
        beat()
        before()
        begin_event.record()
        step()
        end_event.record()
        after()
    meanwhile()
    device.synchronize()
    return tuple(begin_event.elapsed_time(end_event) / 1e3 for begin_event, end_event in pairs)
