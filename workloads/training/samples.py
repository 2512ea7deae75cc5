"""The same training samples kept in four ways, from cheapest to dearest to fetch.

In memory; in one file of tokens that is mapped (2 bytes a token, a sample is a slice); in many small files, one a
sample; as text, which is turned into tokens by byte-pair merging in Python while the training waits for it.
"""

# mypy follows no imports into torch, so that Dataset is Any to it.
# mypy: allow-subclassing-any

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset

from workloads.disk.pages import evict

# Shape suffixes: N samples, T tokens of a sample.

FIRST, SECOND = b"abcdefgh", b"ijklmnop"
"""A token of the chain's 64 is written as two letters, one of each."""
MERGES = {(first, second): 256 + 8 * high + low
          for high, first in enumerate(FIRST) for low, second in enumerate(SECOND)}  # fmt: skip
"""The tokeniser: which two bytes become one token, in order of rank."""


class Samples(Dataset):
    """Samples by number, each a tensor [T]."""

    def __init__(self, name: str, count: int, fetch: Callable[[int], Tensor], paths: tuple[Path, ...] = ()) -> None:
        """`fetch` reads one; `paths` are the files it reads."""
        self.name, self._count, self._fetch, self._paths = name, count, fetch, paths

    def __len__(self) -> int:
        """Samples there are."""
        return self._count

    def __getitem__(self, index: int) -> Tensor:
        """One sample, fetched now."""
        return self._fetch(index)

    def forget(self) -> None:
        """Drop what the system's page cache holds of the files: the next reads come from the disk."""
        for path in self._paths:
            evict(path)


def in_memory(tokens_NT: Tensor) -> Samples:
    """Nothing is left to do."""
    return Samples("memory", len(tokens_NT), lambda index: tokens_NT[index])


def one_file(tokens_NT: Tensor, folder: Path) -> Samples:
    """A file of 16-bit tokens, mapped into memory."""
    path, length = folder / "tokens.bin", tokens_NT.shape[1]
    path.write_bytes(tokens_NT.to(torch.uint16).numpy().tobytes())

    def fetch(index: int) -> Tensor:
        mapped = numpy.memmap(path, numpy.uint16, "r", offset=2 * length * index, shape=(length,))
        return torch.from_numpy(mapped.astype(numpy.int64))

    return Samples("one file", len(tokens_NT), fetch, (path,))


def small_files(tokens_NT: Tensor, folder: Path) -> Samples:
    """A file a sample."""
    paths = tuple(folder / f"{index:06}.bin" for index in range(len(tokens_NT)))
    for path, tokens_T in zip(paths, tokens_NT, strict=True):
        path.write_bytes(tokens_T.to(torch.uint16).numpy().tobytes())
    return Samples("small files", len(paths), lambda index: read_tokens(paths[index]), paths)


def read_tokens(path: Path) -> Tensor:
    """The tokens of one small file."""
    return torch.from_numpy(numpy.frombuffer(path.read_bytes(), numpy.uint16).astype(numpy.int64))


def text(tokens_NT: Tensor, folder: Path) -> Samples:
    """A file of text, two letters a token, tokenised when it is fetched."""
    path, length = folder / "text.txt", tokens_NT.shape[1]
    path.write_bytes(b"".join(bytes((FIRST[token // 8], SECOND[token % 8])) for token in tokens_NT.flatten().tolist()))

    def fetch(index: int) -> Tensor:
        with path.open("rb") as file:
            file.seek(2 * length * index)
            return torch.tensor([token - 256 for token in merge(file.read(2 * length))])

    return Samples("text", len(tokens_NT), fetch, (path,))


def merge(written: bytes) -> list[int]:
    """Byte-pair encoding: the pair of lowest rank that is there becomes one token, everywhere, until none is left."""
    found = list(written)
    while True:
        there = [MERGES[pair] for pair in pairwise(found) if pair in MERGES]
        if not there:
            return found
        best, merged, index = min(there), [], 0
        while index < len(found):
            if index + 1 < len(found) and MERGES.get((found[index], found[index + 1])) == best:
                merged.append(best)
                index += 2
            else:
                merged.append(found[index])
                index += 1
        found = merged
