"""Sizes of messages: as a flag gives them, as a line names them, and how large one may be on this machine."""

import argparse
import re
from pathlib import Path

from workloads.command import positive
from workloads.device import Device

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
MOST_BYTES = 16 * UNITS["GiB"]
"""Beyond this no curve rises any more."""
_SHARE = 0.3
"""Of the memory that is free: a rank holds two buffers, and for a moment what their comparison tells."""
_MEMORY = Path("/proc/meminfo")


def size(text: str) -> int:
    """Bytes of "64KiB", "4MiB" or "1GiB".

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    match = re.fullmatch(r"([1-9]\d{0,5}) ?(KiB|MiB|GiB)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write for example 64KiB, 4MiB or 1GiB")
    return int(match[1]) * UNITS[match[2]]


def factor(text: str) -> int:
    """A growth factor of at least 2.

    Raises:
        argparse.ArgumentTypeError: it is less, or not a number.
    """
    value = positive(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"{text!r} does not grow: write at least 2")
    return value


def size_name(size_bytes: int) -> str:
    """For example "64 KiB"."""
    unit = next(unit for unit in reversed(UNITS) if size_bytes >= UNITS[unit] or unit == "KiB")
    return f"{size_bytes / UNITS[unit]:g} {unit}"


def ladder(smallest: int, largest: int, growth: int) -> tuple[int, ...]:
    """From the smallest on, each `growth` times the one before, up to the largest."""
    sizes = [smallest]
    while sizes[-1] * growth <= largest:
        sizes.append(sizes[-1] * growth)
    return tuple(sizes)


def room_bytes(device: Device, ranks: int) -> int | None:
    """Largest buffer for which the memory of this rank's device suffices; None where the system does not tell.

    On a CPU `ranks` share the machine's memory.
    """
    if device.cuda:
        return int(_SHARE * device.memory_bytes)
    if not _MEMORY.exists():
        return None
    lines = (line.split() for line in _MEMORY.read_text().splitlines())
    free = next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), None)
    return None if free is None else int(_SHARE * free / ranks)
