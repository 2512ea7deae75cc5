"""The safetensors format: which tensors a file holds and where, and how one is written tensor by tensor.

A file is the header's length in 8 bytes (little endian), a JSON header, and the tensors' bytes one after another:
https://huggingface.co/docs/safetensors/index#format. A folder holds model.safetensors, or the parts that
model.safetensors.index.json names.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""The format's names of data types."""
_HEADER_MOST = 100_000_000
"""Bytes of header that the format allows."""
_ALIGNED = 64
"""The header is filled up with spaces so that the tensors begin at a multiple of this; the format itself says 8."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor of a file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    """First byte, counted from where the tensors begin."""
    end: int
    """One past the last."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a file holds."""

    path: Path
    data_at: int
    """Byte of the file where the tensors begin."""
    entries: tuple[Entry, ...]
    """In the order of the file."""
    file_bytes: int

    @property
    def bytes(self) -> int:
        """Of all tensors, with gaps between them."""
        return self.file_bytes - self.data_at


def layout(path: Path) -> Layout:
    """Read a file's header.

    Raises:
        ValueError: it is no safetensors file, or one that was cut off.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            found = _header(path, file, size)
    except OSError as error:
        raise ValueError(f"weights={str(path)!r} cannot be read ({error.strerror}): name a file or folder of "
                         "safetensors") from None  # fmt: skip
    data_at, header = found
    header.pop("__metadata__", None)
    try:
        entries = tuple(sorted((_entry(name, row) for name, row in header.items()), key=lambda entry: entry.begin))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"weights={str(path)!r} has a header that is not of the format ({error!r}): download it "
                         "again") from None  # fmt: skip
    end = data_at + max((entry.end for entry in entries), default=0)
    if end > size:
        raise ValueError(f"weights={str(path)!r} was cut off: {size} bytes of {end}; download it again")
    return Layout(path=path, data_at=data_at, entries=entries, file_bytes=size)


def _header(path: Path, file: BinaryIO, size: int) -> tuple[int, dict]:
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_HEADER_MOST, size - 8):
        raise ValueError(f"weights={str(path)!r} is no safetensors file: name one, or a folder of them")
    try:
        header = json.loads(file.read(length))
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"weights={str(path)!r} is no safetensors file: its header is not JSON")
    return 8 + length, header


def _entry(name: str, row: Mapping) -> Entry:
    shape, (begin, end) = tuple(row["shape"]), row["data_offsets"]
    entry = Entry(name=name, dtype=DTYPES[row["dtype"]], shape=shape, begin=begin, end=end)
    if not 0 <= begin <= end or prod(shape) * entry.dtype.itemsize != end - begin:
        raise ValueError(f"{name} takes {end - begin} bytes")
    return entry


def files_of(path: Path) -> tuple[Path, ...]:
    """The safetensors files that `path` means: itself, a folder's model.safetensors, or the parts of its index.

    Raises:
        ValueError: there are none.
    """
    if path.is_file():
        return (path,)
    index, single = path / "model.safetensors.index.json", path / "model.safetensors"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ValueError(f"weights={str(path)!r}: {index.name} is not an index: download it again") from None
        if absent := [name for name in names if not (path / name).is_file()]:
            raise ValueError(f"weights={str(path)!r} lacks {absent[0]}, which its index names: download it again")
        return tuple(path / name for name in names)
    if single.is_file():
        return (single,)
    raise ValueError(f"weights={str(path)!r} holds no safetensors: name a file, or a folder with model.safetensors")


def write(path: Path, plan: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], make: Callable[[str], Tensor]) -> int:
    """Write the tensors of `plan` (name -> data type, shape), each made when its turn comes; the file's bytes.

    No more than one tensor is held at a time, so that a file may be larger than the memory.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, at = {}, 0
    for name, (dtype, shape) in plan.items():
        end = at + prod(shape) * dtype.itemsize
        header[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNED)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (dtype, shape) in plan.items():
            tensor = make(name)
            assert (tensor.dtype, tuple(tensor.shape)) == (dtype, tuple(shape)), name
            file.write(memoryview(tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy()))
    return 8 + len(text) + at
