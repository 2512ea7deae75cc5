"""The ladder's rungs: what each changes, on which other one it stands, and why a device may not have it."""

import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch

from workloads.device import Device

DEPENDENT_LAUNCH_SINCE = (9, 0)
"""CUDA compute capability from which a kernel may start before the one ahead of it has ended."""
INT4_SINCE = (8, 0)
"""From which torch's int4 kernel exists (aten::_weight_int4pack_mm, bf16)."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One complete way to decode; it differs from the rung it stands on in one thing."""

    name: str
    on: str
    """The rung that its gain is counted from; "" for the first."""
    does: str
    """What it changes, in a few words."""
    dtype: str
    """Of activations and KV cache, and of weights that are not packed."""
    grouped: bool = True
    """Attention reads each key and value once for the query heads that share it; else both are repeated for them."""
    static: bool = True
    """The KV cache has its full length from the start; else it grows by a copy."""
    fused: bool = True
    """Query, key and value are one product, gate and up another."""
    compiled: bool = False
    graph: bool = False
    """A whole step is one CUDA graph."""
    early: bool = False
    """Programmatic dependent launch."""
    weights: str = ""
    """"int8", "int4" or "fp8"; "" as they are."""
    absent: str = ""
    """Why this device cannot do it; "" where it can."""

    @property
    def exact(self) -> bool:
        """Whether its tokens must be those of the rung it stands on, one for one: it runs the same kernels."""
        return self.graph and not self.weights


def rungs(device: Device) -> tuple[Rung, ...]:
    """The ladder on this device, from the bottom; rungs that it cannot do say why."""
    half = "bf16" if "bf16" in device.dtypes else "fp16"
    plain = Rung(name="eager fp32", on="", does="the model as it comes, plain attention, a cache that grows",
                 dtype="fp32", grouped=False, static=False, fused=False)  # fmt: skip
    short = replace(plain, name=half, on=plain.name, dtype=half, does="half the bytes of every weight")
    grouped = replace(short, name="fused attention", on=short.name, grouped=True,
                      does="one kernel, keys and values read once for the heads that share them")  # fmt: skip
    static = replace(grouped, name="static cache", on=grouped.name, static=True, does="the cache is written in place")
    fused = replace(static, name="fused projections", on=static.name, fused=True,
                    does="q, k, v in one product, gate and up in one")  # fmt: skip
    compiled = replace(fused, name="compile", on=fused.name, compiled=True, absent=_no_compiler(device),
                       does="torch.compile: fewer and larger kernels")  # fmt: skip
    graph = replace(compiled, name="CUDA graph", on=compiled.name, graph=True, does="one launch for the whole step",
                    absent=compiled.absent or ("" if device.cuda else "a CPU has no launches to save"))  # fmt: skip
    early = replace(graph, name="dependent launch", on=graph.name, early=True, absent=graph.absent or _not_since(
        device, DEPENDENT_LAUNCH_SINCE, "programmatic dependent launch"),
        does="a kernel starts while the one ahead still ends")  # fmt: skip
    top = compiled if graph.absent else graph
    top = fused if top.absent else top
    eager = replace(fused, name="int8 weights, not compiled", on=fused.name, weights="int8", absent=_no_torchao(),
                    does="what fewer bytes are worth without a kernel for them")  # fmt: skip
    int8, int4, fp8 = (
        replace(top, name=f"{weights} weights", on=top.name, weights=weights, does=does, absent=compiled.absent or why)
        for weights, does, why in (
            ("int8", "a scale for each row", _no_torchao()),
            ("int4", "a scale and a zero for each 128 of a row", _no_torchao() or _no_int4(device, half)),
            ("fp8", "a scale for each row, e4m3", _no_torchao() or _no_fp8(device)),
        )
    )
    return (plain, short, grouped, static, fused, compiled, graph, early, eager, int8, int4, fp8)


def _no_compiler(device: Device) -> str:
    """torch.compile writes C++ for a CPU and Triton for a GPU; Triton compiles a little C as well."""
    if device.cuda and find_spec("triton") is None:
        return "Triton is not installed"
    names = ("gcc", "clang", "cc") if device.cuda else ("g++", "clang++")
    return "" if any(shutil.which(name) for name in names) else f"no {'C' if device.cuda else 'C++'} compiler"


def _no_torchao() -> str:
    return "" if find_spec("torchao") else "torchao is not installed"


def _no_int4(device: Device, half: str) -> str:
    if not device.cuda:
        return "torchao packs no int4 that a CPU has a kernel for"
    return _not_since(device, INT4_SINCE, "the int4 kernel") if half == "bf16" else "the int4 kernel takes bf16 only"


def _no_fp8(device: Device) -> str:
    return "" if "fp8" in device.dtypes else f"{device.name} has no fp8"


def _not_since(device: Device, since: tuple[int, int], what: str) -> str:
    have = torch.cuda.get_device_capability(device.torch) if device.cuda else (0, 0)
    return "" if have >= since else f"{device.name} lacks {what} (compute capability {since[0]}.{since[1]} and later)"
