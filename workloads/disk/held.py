"""Weights in files for a loader to load: a model's shapes filled and written, or somebody's own."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import MistralForCausalLM

from labs.models import find_model
from workloads.disk.safetensors import files_of, layout, write
from workloads.disk.scratch import demand_room
from workloads.mistral import architecture

_POOL = 2**22


@dataclass(frozen=True, kw_only=True)
class Held:
    """The weights that are loaded."""

    path: Path
    """Folder or file, as a loader takes it."""
    files: tuple[Path, ...]
    names: list[str]
    bytes: int
    """Of all files."""
    right: Callable[[str], Tensor]
    """What a tensor must be, made or read apart from every loader."""


class Made:
    """A model's weights, each of which can be made again: bf16, N(0, 0.02) from one pool, each from its own place."""

    def __init__(self, name: str, seed: int) -> None:
        """The shapes of a model of labs/models.py."""
        self.configuration = architecture(find_model(name))
        with torch.device("meta"):
            state = MistralForCausalLM(self.configuration).state_dict()
        self.plan = {name: (torch.bfloat16, tuple(tensor.shape)) for name, tensor in state.items()}
        source = torch.Generator().manual_seed(seed)
        self._pool = torch.empty(_POOL).normal_(0, 0.02, generator=source).bfloat16()

    def tensor(self, name: str) -> Tensor:
        """One of them."""
        shape = self.plan[name][1]
        count, begin = torch.Size(shape).numel(), zlib.crc32(name.encode()) % _POOL
        return self._pool.repeat(-(-(begin + count) // _POOL))[begin : begin + count].view(shape)

    def write(self, folder: Path) -> Held:
        """All of them in one file of `folder`, with the configuration that transformers wants.

        Raises:
            ValueError: there is no room.
        """
        demand_room(folder, sum(2 * torch.Size(shape).numel() for _, shape in self.plan.values()))
        path = folder / "model.safetensors"
        size = write(path, self.plan, self.tensor)
        self.configuration.dtype = "bfloat16"
        self.configuration.architectures = ["MistralForCausalLM"]
        self.configuration.save_pretrained(folder)
        return Held(path=folder, files=(path,), names=list(self.plan), bytes=size, right=self.tensor)


def given(path: Path) -> Held:
    """Weights that somebody else wrote; what they must be is read tensor by tensor, by nothing but `read`."""
    files = files_of(path)
    where = {entry.name: (held, entry) for held in map(layout, files) for entry in held.entries}

    def right(name: str) -> Tensor:
        held, entry = where[name]
        with held.path.open("rb") as file:
            file.seek(held.data_at + entry.begin)
            content = bytearray(file.read(entry.end - entry.begin))
        empty = torch.empty(entry.shape, dtype=entry.dtype)
        return torch.frombuffer(content, dtype=torch.uint8).view(entry.dtype).view(entry.shape) if content else empty

    return Held(
        path=path, files=files, names=list(where), bytes=sum(file.stat().st_size for file in files), right=right
    )
