"""A file read by several threads in blocks of one size, past the page cache where the file system allows it.

Threads and not one reader: a disk or a file server answers many requests at once, and one `read` waits for one of
them. `os.preadv` lets go of Python's lock meanwhile. Past the page cache (O_DIRECT) the disk writes straight into our
memory; offsets, lengths and addresses are then multiples of `PAGE`.
"""

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

PAGE = 4096
"""What O_DIRECT wants everything to be a multiple of; a disk with larger sectors is not known to us."""


class Blocks:
    """One open file, read block by block; closed by `with`."""

    def __init__(self, path: Path, block_bytes: int, *, direct: bool) -> None:
        """`direct`: past the page cache, where the file system allows it; `self.direct` says whether it does."""
        assert block_bytes % PAGE == 0, block_bytes
        self.path = path
        self.block_bytes = block_bytes
        self.bytes = path.stat().st_size
        self._plain = os.open(path, os.O_RDONLY)
        self._direct = open_direct(path) if direct else None
        self.direct = self._direct is not None

    def __enter__(self) -> "Blocks":
        """The file is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        os.close(self._plain)
        if self._direct is not None:
            os.close(self._direct)

    @property
    def count(self) -> int:
        """Blocks of the file, the last one shorter."""
        return -(-self.bytes // self.block_bytes)

    def span(self, index: int) -> tuple[int, int]:
        """First byte of a block in the file, and one past its last."""
        begin = index * self.block_bytes
        return begin, min(begin + self.block_bytes, self.bytes)

    def mapped(self) -> mmap.mmap:
        """The file as memory of ours: what is written there changes no file."""
        return mmap.mmap(self._plain, self.bytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)

    def read(self, index: int, into: memoryview) -> None:
        """Read one block to the front of `into`, which is as long as a whole block or ends with the file's last page.

        Raises:
            OSError: the file ends early, or cannot be read.
        """
        begin, end = self.span(index)
        done = 0
        if self._direct is not None:
            wanted = -(-(end - begin) // PAGE) * PAGE
            done = os.preadv(self._direct, [into[:wanted]], begin)
        while done < end - begin:  # what a direct read left over, or all
            got = os.preadv(self._plain, [into[done : end - begin]], begin + done)
            if got == 0:
                raise OSError(f"{self.path} ends at byte {begin + done}, expected {self.bytes}")
            done += got


def open_direct(path: Path, flags: int = os.O_RDONLY) -> int | None:
    """Open past the page cache; None where the file system has no such thing (tmpfs, many FUSE ones)."""
    wanted = getattr(os, "O_DIRECT", 0)
    if not wanted:
        return None
    try:
        descriptor = os.open(path, flags | wanted)
    except OSError:
        return None
    if flags != os.O_RDONLY:
        return descriptor
    try:
        with aligned(PAGE) as page:
            os.preadv(descriptor, [page], 0)
    except OSError:  # opened, and then refused to read so
        os.close(descriptor)
        return None
    return descriptor


def bypassed(path: Path) -> bool:
    """Whether a file can be read past the page cache."""
    descriptor = open_direct(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def aligned(size: int) -> mmap.mmap:
    """Memory of its own that begins at a page."""
    return mmap.mmap(-1, -(-size // PAGE) * PAGE)


@contextmanager
def buffers(count: int, block_bytes: int) -> Iterator[list[memoryview]]:
    """So many blocks of memory that begin at a page and have been touched: the kernel has nothing to clear later."""
    memory = [aligned(block_bytes) for _ in range(count)]
    for block in memory:
        block[::PAGE] = bytes(block_bytes // PAGE)
    views = [memoryview(block) for block in memory]
    try:
        yield views
    finally:
        for view, block in zip(views, memory, strict=True):
            view.release()
            block.close()


def read_through(path: Path, into: Sequence[memoryview], *, direct: bool) -> None:
    """Read a whole file, a thread for each block of memory in `into`, and keep nothing: what its storage can do."""
    with Blocks(path, len(into[0]), direct=direct) as blocks:
        numbers = iter(range(blocks.count))

        def work(thread: int) -> None:
            while (number := next(numbers, None)) is not None:
                blocks.read(number, into[thread])

        each(work, len(into))


def each(work: Callable[[int], object], threads: int) -> None:
    """Run `work` once a thread, by the thread's number; the first exception is raised when all have ended."""
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work, number) for number in range(threads)]:
            future.result()
