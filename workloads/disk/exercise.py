"""Our own exerciser of a file system: whole files with many threads, single pages anywhere, many small files.

What is written cannot be compressed and differs block by block, so that a wrong block is found when it is read.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from workloads.command import CheckFailed
from workloads.disk.blocks import PAGE, Blocks, aligned, each, open_direct
from workloads.disk.pages import evict

BLOCK_BYTES = 4 * 2**20
SMALL_BYTES = 16 * 2**10
_STAMP = 8


class Pattern:
    """The content of a test file: one block of random bytes, its first bytes the block's number."""

    def __init__(self, seed: int) -> None:
        """The same seed gives the same file."""
        self._bytes = random.Random(seed).randbytes(BLOCK_BYTES)

    def fill(self, block: memoryview, number: int) -> None:
        """Make a whole block the one of that number."""
        block[:] = self._bytes
        self.stamp(block, number)

    def stamp(self, block: memoryview, number: int) -> None:
        """Turn a filled block into the one of that number."""
        block[:_STAMP] = number.to_bytes(_STAMP, "little")

    def differs(self, block: memoryview, number: int) -> bool:
        """Whether this is not the block of that number."""
        return block[:_STAMP] != number.to_bytes(_STAMP, "little") or block[_STAMP:] != self._bytes[_STAMP:]


def write_file(path: Path, blocks: int, pattern: Pattern, threads: int) -> None:
    """Write a file of so many blocks, past the page cache where that can be, and wait until it is on the disk."""
    plain = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.ftruncate(plain, blocks * BLOCK_BYTES)
    direct = open_direct(path, os.O_WRONLY)
    target = plain if direct is None else direct

    def work(first: int) -> None:
        with aligned(BLOCK_BYTES) as buffer, memoryview(buffer) as view:
            pattern.fill(view, first)
            for number in range(first, blocks, threads):
                pattern.stamp(view, number)
                done = 0
                while done < BLOCK_BYTES:
                    done += os.pwrite(target, view[done:], number * BLOCK_BYTES + done)

    try:
        each(work, threads)
        os.fsync(plain)
    finally:
        os.close(plain)
        if direct is not None:
            os.close(direct)


def check_file(path: Path, pattern: Pattern) -> str:
    """Read the file back and compare every block.

    Raises:
        CheckFailed: one is not what was written.
    """
    with Blocks(path, BLOCK_BYTES, direct=False) as blocks, aligned(BLOCK_BYTES) as buffer, memoryview(buffer) as view:
        for number in range(blocks.count):
            blocks.read(number, view)
            if pattern.differs(view, number):
                raise CheckFailed(f"{path}: block {number} of {blocks.count} is not what was written")
        return f"all {blocks.count} blocks compared with what was written"


def read_pages(path: Path, count: int, threads: int, seed: int) -> float:
    """Seconds that `count` single pages anywhere in the file take, past the page cache or after it forgot them."""
    pages = path.stat().st_size // PAGE
    direct = open_direct(path)
    descriptor = os.open(path, os.O_RDONLY) if direct is None else direct
    if direct is None and hasattr(os, "posix_fadvise"):
        evict(path)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def work(number: int) -> None:
        source = random.Random(f"{seed} {number}")
        offsets = [source.randrange(pages) * PAGE for _ in range(count // threads)]
        with aligned(PAGE) as page:
            into = [page]
            for offset in offsets:
                os.preadv(descriptor, into, offset)

    try:
        began = time.perf_counter()
        each(work, threads)
        return time.perf_counter() - began
    finally:
        os.close(descriptor)


def small_files(folder: Path, count: int) -> Iterator[Path]:
    """Paths of so many small files, as a data set of single samples has them."""
    return (folder / f"{number:06}" for number in range(count))


def create_small(folder: Path, count: int, pattern: Pattern, threads: int) -> None:
    """Make small files; the last word on the disk is the file system's, as it is for whoever unpacks a data set."""
    folder.mkdir()
    paths, content = list(small_files(folder, count)), bytearray(pattern._bytes[:SMALL_BYTES])

    def work(first: int) -> None:
        for path in paths[first::threads]:
            path.write_bytes(content)

    each(work, threads)


def read_small(folder: Path, count: int, threads: int) -> None:
    """Open, read and close each of them.

    Raises:
        CheckFailed: one is shorter than it was written.
    """
    paths = list(small_files(folder, count))

    def work(first: int) -> None:
        for path in paths[first::threads]:
            if len(path.read_bytes()) != SMALL_BYTES:
                raise CheckFailed(f"{path} is not as long as it was written")

    each(work, threads)
