"""Ways to bring weights from a file to a device: ours, safetensors' two, transformers' own."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import MistralForCausalLM
from transformers.utils import logging

from workloads.command import CheckFailed
from workloads.device import Device
from workloads.disk.blocks import PAGE
from workloads.disk.loader import load
from workloads.disk.safetensors import files_of

OURS = "rooflab"
USUAL = "safetensors mmap"
"""What `load_file` does unless it is told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to load."""

    name: str
    load: Callable[[Path, Device], Mapping[str, Tensor]]
    """From a safetensors folder or file to tensors on the device, by name."""


def ways(path: Path) -> tuple[Way, ...]:
    """Those that can load `path`: transformers wants a folder with a config.json."""
    found = [
        Way(name=OURS, load=lambda path, device: load(path, device.torch)),
        Way(name=USUAL, load=lambda path, device: _library(path, device, backend="mmap")),
    ]
    if _has_pread(path):
        found.append(Way(name="safetensors pread", load=lambda path, device: _library(path, device, backend="pread")))
    if (path / "config.json").is_file():
        found.append(Way(name="transformers", load=_transformers))
    return tuple(found)


def _library(path: Path, device: Device, **backend: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in files_of(path):
        found |= load_file(file, device=str(device.torch), **backend)
    return found


def _has_pread(path: Path) -> bool:
    """Whether the installed safetensors has it; it came with 0.8."""
    from inspect import signature

    return "backend" in signature(load_file).parameters


def _transformers(path: Path, device: Device) -> dict[str, Tensor]:
    """`from_pretrained`, and to the device from there: without accelerate it loads to the host."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    dtype = getattr(torch, json.loads((path / "config.json").read_text())["dtype"])
    model = MistralForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
    return dict(model.to(device.torch).state_dict())


def present(tensors: Mapping[str, Tensor]) -> None:
    """Touch a byte of every page on the host: what is only mapped has not been loaded yet. A GPU's are all there."""
    for tensor in tensors.values():
        if tensor.device.type == "cpu":
            # numpy reads one byte of each page; torch would copy them first
            tensor.detach().reshape(-1).view(torch.uint8).numpy()[::PAGE].max(initial=0)


def compare(name: str, found: Mapping[str, Tensor], expected: Callable[[str], Tensor], names: list[str]) -> str:
    """Hold every tensor against what it must be, bit for bit.

    Raises:
        CheckFailed: one is absent or differs.
    """
    if sorted(found) != sorted(names):
        strange = sorted(set(found) ^ set(names))[0]
        raise CheckFailed(f"{name}: {strange} is in one of file and result, and not in the other")
    for key in names:
        got, right = found[key].detach().cpu(), expected(key)
        if (got.dtype, got.shape) != (right.dtype, right.shape) or not _bits(got).equal(_bits(right)):
            raise CheckFailed(f"{name}: {key} is not bit for bit what the file holds")
    return f"all {len(names)} tensors bit for bit"


def _bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)
