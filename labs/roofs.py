"""The formulas that put a measurement beside the physical limit that bounds it.

Scalars: FLOPs, bytes, FLOP/s, B/s, seconds, US dollars. A `Bound` is the roof of one measurement, or the reason
why it has none; an unknown device never gets a default.
"""

from typing import NamedTuple

from labs.accelerators import Accelerator
from labs.results import Roof

DTYPE_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1}
"""Bytes of one stored element; tf32 is stored as fp32."""


class Bound(NamedTuple):
    """The two fields of a `Measurement` that say what bounds it; exactly one of them is filled."""

    roof: Roof | None
    no_roof_because: str = ""


def gemm_flops(m: int, n: int, k: int) -> int:
    """C[m,n] = A[m,k]·B[k,n]: a multiply-add is two FLOPs."""
    return 2 * m * n * k


def gemm_bytes(m: int, n: int, k: int, dtype: str, out_dtype: str = "") -> int:
    """Bytes to read A and B once and write C once; C is of `dtype` unless `out_dtype` says otherwise."""
    return (m * k + k * n) * DTYPE_BYTES[dtype] + m * n * DTYPE_BYTES[out_dtype or dtype]


def intensity(flops: float, moved_bytes: float) -> float:
    """Arithmetic intensity in FLOP per byte."""
    return flops / moved_bytes


def ridge(peak_flops: float, bytes_per_s: float) -> float:
    """Intensity in FLOP/B at which a device turns from memory-bound to compute-bound."""
    return peak_flops / bytes_per_s


def roofline(peak_flops: float, bytes_per_s: float, at_intensity: float) -> float:
    """Most FLOP/s at an intensity: min(peak, intensity × bandwidth) (Williams et al., CACM 52(4), 2009)."""
    return min(peak_flops, at_intensity * bytes_per_s)


def rate_bound(device: str, accelerator: Accelerator | None, dtype: str, flops: float, moved_bytes: float) -> Bound:
    """Most FLOP/s for work of `flops` that moves `moved_bytes`. `device` is the name that a reason is given with."""
    if accelerator is None:
        return _unknown(device)
    peak, bandwidth = accelerator.peak_flops(dtype), accelerator.bytes_per_s
    if peak is None or bandwidth is None:
        figure = f"dense {dtype} peak" if peak is None else "memory rate"
        return Bound(None, f"the {figure} of {accelerator.name} is not known")
    most = roofline(peak, bandwidth, intensity(flops, moved_bytes))
    limit = f"dense {dtype} peak" if most == peak else "memory rate × intensity"
    return Bound(Roof(value=most, source=f"{limit}, {accelerator.source}"))


def time_bound(device: str, accelerator: Accelerator | None, dtype: str, flops: float, moved_bytes: float) -> Bound:
    """Fewest seconds for that work, by the same roofline."""
    return inverse(rate_bound(device, accelerator, dtype, flops, moved_bytes), flops)


def clock_roof(accelerator: Accelerator | None, dtype: str, flops: float, moved_bytes: float, clock_mhz: float,
               said: str) -> Roof | None:  # fmt: skip
    """Most FLOP/s for that work with all SMs at `clock_mhz`; `said` names the clock, as in "measured clock".

    None where the device's work per clock is not known.
    """
    peak = accelerator.flops_at(dtype, clock_mhz) if accelerator else None
    bandwidth = accelerator.bytes_per_s if accelerator else None
    if peak is None or bandwidth is None:
        return None
    most = roofline(peak, bandwidth, intensity(flops, moved_bytes))
    limit = f"{dtype} at the {said} of {clock_mhz:.0f} MHz" if most == peak else "memory rate × intensity"
    return Roof(value=most, source=limit)


def measured_roof(peak: Roof, memory: Roof, flops: float, moved_bytes: float) -> Roof:
    """The roofline of two measured ceilings, `peak` in FLOP/s and `memory` in B/s, for that work."""
    most = roofline(peak.value, memory.value, intensity(flops, moved_bytes))
    return Roof(value=most, source=peak.source if most == peak.value else f"{memory.source} × intensity")


def memory_bound(device: str, accelerator: Accelerator | None) -> Bound:
    """Most B/s of the device's own memory."""
    return inverse(memory_time_bound(device, accelerator, 1), 1)


def memory_time_bound(device: str, accelerator: Accelerator | None, moved_bytes: float) -> Bound:
    """Fewest seconds to move `moved_bytes`: the floor of a decode step, whatever its arithmetic."""
    if accelerator is None:
        return _unknown(device)
    if accelerator.bytes_per_s is None:
        return Bound(None, f"the memory rate of {accelerator.name} is not known")
    return Bound(Roof(value=moved_bytes / accelerator.bytes_per_s, source=f"memory rate, {accelerator.source}"))


def compute_bound(device: str, accelerator: Accelerator | None, dtype: str, devices: int = 1) -> Bound:
    """Most FLOP/s of `devices` such devices together, however much the work moves: the denominator of MFU."""
    if accelerator is None:
        return _unknown(device)
    peak = accelerator.peak_flops(dtype)
    if peak is None:
        return Bound(None, f"the dense {dtype} peak of {accelerator.name} is not known")
    return Bound(Roof(value=devices * peak, source=f"{devices} × dense {dtype} peak, {accelerator.source}"))


def per_unit(bound: Bound, work: float) -> Bound:
    """A rate's bound in units of `work` FLOPs each: FLOP/s become tokens/s where a token takes `work` FLOPs."""
    if bound.roof is None:
        return bound
    return Bound(Roof(value=bound.roof.value / work, source=bound.roof.source))


def inverse(bound: Bound, work: float) -> Bound:
    """From a highest rate to the fewest seconds for `work`, or from the fewest seconds for it to its highest rate."""
    if bound.roof is None:
        return bound
    return Bound(Roof(value=work / bound.roof.value, source=bound.roof.source))


def _unknown(device: str) -> Bound:
    return Bound(None, f"{device} is not in labs/accelerators.py")


def mfu(flops_per_token: float, tokens_per_s: float, devices: int, peak_flops: float) -> float:
    """Model FLOPs utilisation: share of the devices' peak that the model's own arithmetic takes."""
    return flops_per_token * tokens_per_s / (devices * peak_flops)


def bus_factor(collective: str, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth, as nccl-tests has it (its doc/PERFORMANCE.md).

    Sizes are of the larger of a rank's two buffers: what a gather gives, what a scatter takes. NCCL's reductions within
    a switch have a factor of their own, (n−1)/(n+1), which nccl-tests does not print.

    Raises:
        ValueError: a collective that is not listed.
    """
    share = (ranks - 1) / ranks
    factors = {
        "all-reduce": 2 * share, "all-gather": share, "reduce-scatter": share, "all-to-all": share,
        "broadcast": 1.0, "reduce": 1.0, "send-recv": 1.0,
    }  # fmt: skip
    if collective not in factors:
        raise ValueError(f"collective={collective!r} is not known: write one of {', '.join(factors)}")
    return factors[collective]


def all_reduce_bytes(buffer_bytes: float, ranks: int) -> float:
    """Bytes that each rank must send to all-reduce a buffer: 2(n−1)/n of it."""
    return bus_factor("all-reduce", ranks) * buffer_bytes


def usd_per_million(usd_per_hour: float, units_per_s: float) -> float:
    """Price of a million units (tokens) that come at `units_per_s` from machines at `usd_per_hour` together."""
    return usd_per_hour / 3600 / units_per_s * 1e6
