"""The CPU's name: what a record calls the device where there is no GPU."""

import platform
from pathlib import Path


def cpu_name() -> str:
    """The CPU's model name, or its architecture where the system tells no more."""
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
