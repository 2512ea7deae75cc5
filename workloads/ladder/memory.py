"""The most memory that was held while something ran: of the GPU, or of this process."""

import re
from pathlib import Path

import torch

from workloads.device import Device

_RESET = Path("/proc/self/clear_refs")
"""5 resets the peak: https://docs.kernel.org/filesystems/proc.html."""
_STATUS = Path("/proc/self/status")


def reset_peak(device: Device) -> None:
    """Count from here."""
    if device.cuda:
        torch.cuda.reset_peak_memory_stats(device.torch)
    elif _RESET.exists():
        _RESET.write_text("5")


def peak_bytes(device: Device) -> float | None:
    """The most since `reset_peak`: what tensors held on a GPU, what the process held on a CPU; None: not told."""
    if device.cuda:
        return float(torch.cuda.max_memory_allocated(device.torch))
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.exists() else None
    return float(found[1]) * 1024 if found else None
