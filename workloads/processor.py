"""The CPU: its name, which is what a record calls the device where there is no GPU, and how many cores are ours."""

import os
import platform
from pathlib import Path


def cpu_name() -> str:
    """The CPU's model name, or its architecture where the system tells no more."""
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
