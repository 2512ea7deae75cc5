"""The page cache: how much of a file the memory holds, and how to make it hold nothing of it.

A load from the page cache and one from the disk are two measurements. Which of them took place is asked of the kernel
(mincore), not assumed.
"""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np


def evict(path: Path) -> None:
    """Let the page cache forget a file; what is not written yet is written first."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # dirty pages are not given up
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def resident(path: Path) -> float | None:
    """Share of a file's pages that are in the page cache; None where the system does not tell."""
    size = path.stat().st_size
    libc = ctypes.CDLL(None, use_errno=True)
    if size == 0 or not hasattr(libc, "mincore"):
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
        pages = np.zeros(-(-size // mmap.PAGESIZE), dtype=np.uint8)
        view = np.frombuffer(mapped, dtype=np.uint8)
        failed = libc.mincore(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size),
                              ctypes.c_void_p(pages.ctypes.data))  # fmt: skip
        del view  # else the map cannot be closed
    return None if failed else float(np.mean(pages & 1))
