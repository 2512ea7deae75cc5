"""torch.compile with the settings that a decode needs, and its products kept for the next run.

One layer is compiled and serves all. What Inductor and Triton made is kept in one file, which another machine of the
same kind may load: on a rented GPU the time to compile is money.
API: https://docs.pytorch.org/tutorials/recipes/torch_compile_caching_tutorial.html
"""

import hashlib
import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from workloads.device import Device


def pieces(device: Device, early: bool = False) -> Callable[[Callable], Callable]:
    """What compiles a part of a step, anew."""
    torch._dynamo.reset()
    options: dict[str, Any] = {}
    if device.cuda:
        # Without it a product with one row stays cuBLAS's GEMV; with it, it becomes a reduction that norms, rotations
        # and residuals are fused into (torch/_inductor/decomposition.py, mm).
        options = {"coordinate_descent_tuning": True, "triton.enable_pdl": early}
    else:
        # Else four programs are compiled to find out what /proc/cpuinfo says.
        options = {"cpp.vec_isa_ok": True}

    def compiled(piece: Callable) -> Callable:
        whole: Callable = torch.compile(piece, fullgraph=True, dynamic=False, options=options)
        return whole

    return compiled


def kept_at(folder: Path, device: Device) -> Path:
    """The file in which a machine of this kind keeps what was compiled."""
    named = f"{torch.__version__} {device.name} {torch.version.cuda}"
    return folder / f"compiled-{hashlib.sha256(named.encode()).hexdigest()[:12]}.bin"


@contextmanager
def kept(path: Path) -> Any:
    """Load what was compiled before, and keep what is compiled within."""
    if path.exists():
        torch.compiler.load_cache_artifacts(path.read_bytes())
    with warnings.catch_warnings():
        # torchao's packed weights are cached by another hash than torch advises; found again they are all the same.
        warnings.filterwarnings("ignore", message=".*_stable_hash_for_caching")
        yield
    made = torch.compiler.save_cache_artifacts()
    if made is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(made[0])
    partial.replace(path)
