"""Weights from safetensors to a device: many threads read, nothing is copied twice, tensors are views of one buffer.

On a CPU the threads read straight to where the tensors stay, or use the page cache's own pages. To a GPU they read into
a few pinned slabs that are used over and over (to pin the whole file would take some 0.3 s a GB), and each slab is
copied on one of two streams while others are being read. Where the page cache holds most of a file it is read from
there, else past it.
"""

import mmap
import queue
from pathlib import Path

import torch
from torch import Tensor

from workloads.disk.blocks import PAGE, Blocks, aligned, each
from workloads.disk.pages import resident
from workloads.disk.safetensors import Layout, files_of, layout
from workloads.processor import cores

BLOCK_BYTES = {True: 64 * 2**20, False: 4 * 2**20}
"""Of one read, by whether the device is a GPU: there a block is a pinned slab, and a large copy is a fast one."""
SLABS = 6
STREAMS = 2
_MOSTLY = 0.5
"""From this share in the page cache on, a file is read from there."""


def default_threads() -> int:
    """Threads that read: 8 to 16 keep a disk or a file server busy; fewer where there are few CPUs to copy."""
    return max(4, min(16, 2 * cores()))


def load(path: Path, device: torch.device, *, threads: int = 0, direct: bool | None = None) -> dict[str, Tensor]:
    """All tensors of a safetensors file or folder by name, on `device`, bit for bit.

    `threads`: 0 takes `default_threads`. `direct`: past the page cache or through it; None: past it where it holds
    less than half of the file.

    Raises:
        ValueError: it is no safetensors, or was cut off.
        OSError: it cannot be read.
    """
    found: dict[str, Tensor] = {}
    for file in files_of(path):
        found |= load_file(layout(file), device, threads=threads or default_threads(), direct=direct)
    return found


def load_file(held: Layout, device: torch.device, *, threads: int, direct: bool | None) -> dict[str, Tensor]:
    """The tensors of one file; as `load`."""
    if direct is None:
        share = resident(held.path)
        direct = share is not None and share < _MOSTLY
    cuda = device.type == "cuda"
    with Blocks(held.path, BLOCK_BYTES[cuda], direct=direct) as blocks:
        bytes_of = (_to_gpu if cuda else _to_cpu)(held, blocks, device, threads)
    return {entry.name: _view(bytes_of[entry.begin : entry.end], entry.dtype, entry.shape) for entry in held.entries}


def _view(part: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if part.data_ptr() % dtype.itemsize or part.storage_offset() % dtype.itemsize:
        part = part.clone()  # a file with an odd header
    return part.view(dtype).view(shape)


def _to_cpu(held: Layout, blocks: Blocks, _device: torch.device, threads: int) -> Tensor:
    """The tensors' bytes in memory: where the page cache has them, its own pages (written to, a page becomes ours);
    else read past it, header and all, so that blocks stay whole pages."""
    numbers = iter(range(blocks.count))
    if not blocks.direct:
        whole = torch.frombuffer(blocks.mapped(), dtype=torch.uint8)
        pages = whole.numpy()

        def work(_: int) -> None:
            while (index := next(numbers, None)) is not None:
                begin, end = blocks.span(index)
                pages[begin:end:PAGE].max()  # touched: several threads wait for pages at once

    else:
        memory = aligned(blocks.bytes)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)  # a fault for 2 MiB and not for 4 KiB
        whole, view = torch.frombuffer(memory, dtype=torch.uint8), memoryview(memory)

        def work(_: int) -> None:
            while (index := next(numbers, None)) is not None:
                begin, _end = blocks.span(index)
                blocks.read(index, view[begin : begin + blocks.block_bytes])

    each(work, threads)
    return whole[held.data_at : blocks.bytes]


def _to_gpu(held: Layout, blocks: Blocks, device: torch.device, threads: int) -> Tensor:
    """The tensors' bytes on the device, aligned as the allocator aligns."""
    target = torch.empty(held.bytes, dtype=torch.uint8, device=device)
    streams = [torch.cuda.Stream(device) for _ in range(STREAMS)]
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream(device))
    free: queue.Queue[tuple[Tensor, torch.cuda.Event | None]] = queue.Queue()
    for _ in range(min(SLABS, blocks.count)):
        free.put((torch.empty(blocks.block_bytes, dtype=torch.uint8, pin_memory=True), None))
    numbers = iter(range(blocks.count))

    def work(_: int) -> None:
        torch.cuda.set_device(device)
        while (index := next(numbers, None)) is not None:
            slab, copied = free.get()
            if copied is not None:
                copied.synchronize()
            try:
                blocks.read(index, memoryview(slab.numpy()))
                begin, end = blocks.span(index)
                first = max(begin, held.data_at)
                copied = torch.cuda.Event()
                if first < end:
                    with torch.cuda.stream(streams[index % STREAMS]):
                        part = slab[first - begin : end - begin]
                        target[first - held.data_at : end - held.data_at].copy_(part, non_blocking=True)
                        copied.record()
            finally:
                free.put((slab, copied))  # else a thread that waits for a slab would wait for ever

    each(work, threads)
    for stream in streams:
        stream.synchronize()  # the slabs go back to the allocator, which does not know of these streams' copies
    return target
