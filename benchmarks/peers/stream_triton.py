"""The triad and the dot product of `benchmarks.peers.stream` on a GPU, one block of elements a program."""

import torch
import triton  # type: ignore[import-not-found,unused-ignore]  # comes with torch for CUDA alone
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]  # the same

BLOCK, WARM = 1024, 3
OTHER = 2**26
"""Elements that are read before each sample: more than any L2 cache holds."""


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]  # triton ships no types
def _triad(a, b, c, length, size: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * size + tl.arange(0, size)
    inside = at < length
    tl.store(a + at, tl.load(b + at, mask=inside) + 0.75 * tl.load(c + at, mask=inside), mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]  # the same
def _dot(parts, b, c, length, size: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * size + tl.arange(0, size)
    inside = at < length
    product = tl.load(b + at, mask=inside, other=0.0) * tl.load(c + at, mask=inside, other=0.0)
    tl.store(parts + tl.program_id(0), tl.sum(product))


def best_s(kernel: str, count: int, times: int) -> float:
    """Least seconds of so many samples on arrays of `count` bytes, by the GPU's events.

    Raises:
        ValueError: the result is wrong.
    """
    length = count // 4
    b, c = (torch.rand(length, device="cuda") for _ in range(2))
    programs = triton.cdiv(length, BLOCK)
    target, other = torch.empty(length if kernel == "triad" else programs, device="cuda"), torch.ones(OTHER).cuda()
    run, best = _triad if kernel == "triad" else _dot, float("inf")
    for sample in range(WARM + times):
        other.sum()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run[(programs,)](target, b, c, length, BLOCK)
        found = target if kernel == "triad" else target.sum()
        end.record()
        torch.cuda.synchronize()
        best = min(best, begin.elapsed_time(end) / 1e3) if sample >= WARM else best
    right = b + 0.75 * c if kernel == "triad" else (b.double() * c.double()).sum().float()
    if not torch.allclose(found, right, rtol=1e-4):
        raise ValueError(f"{kernel} is wrong")
    return best
