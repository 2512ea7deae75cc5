"""A folder of checkpoints, of which each is whole or does not count. Files only: what they hold is the saver's.

A checkpoint is written as `step-00000020.partial-3` (3: the life that writes it). Each rank syncs its files to the disk
and leaves their SHA-256 beside them; when all have, the first rank gathers the sums in a manifest, syncs that too and
renames the folder to `step-00000020`. A rename is whole or not at all: whatever dies before it leaves a name that is
never read. Before a checkpoint is loaded, every byte is held against the manifest.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SCHEMA = 1
_WHOLE = re.compile(r"step-(\d{8})")
_PARTIAL = re.compile(r"step-\d{8}\.(partial|old)-\d+")
_CHUNK = 1 << 20


def sum_of(path: Path) -> dict[str, object]:
    """Size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, document: object) -> None:
    """A JSON file that is on the disk when this returns."""
    with path.open("w") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


@dataclass(frozen=True, kw_only=True)
class Store:
    """The checkpoints of one training, in a folder that all ranks see."""

    folder: Path
    keep: int = 2
    """Whole checkpoints that stay; the newest may turn out to be broken when it is needed."""

    def __post_init__(self) -> None:
        """Check the number. Raises: ValueError that names field, value and what is allowed."""
        if self.keep < 1:
            raise ValueError(f"keep={self.keep} would keep no checkpoint: write at least 1")

    def open(self) -> None:
        """Make the folder. Raises: ValueError, it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ValueError(f"checkpoints={str(self.folder)!r} cannot be written ({error.strerror}): name a folder "
                             "that can") from None  # fmt: skip

    def path(self, step: int) -> Path:
        """Of the checkpoint after so many steps, once it is whole."""
        return self.folder / f"step-{step:08}"

    def partial(self, step: int, life: int) -> Path:
        """Where it is written before."""
        return self.folder / f"step-{step:08}.partial-{life}"

    def steps(self) -> list[int]:
        """Of all that were committed, the newest first."""
        found = (_WHOLE.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def seal(self, partial: Path, rank: int, names: Iterable[str]) -> None:
        """This rank has written these files and synced them: leave their sums."""
        sums = {name: sum_of(partial / name) for name in sorted(set(names))}
        write_synced(partial / _piece(rank), sums)

    def commit(self, partial: Path, step: int, ranks: int, facts: Mapping[str, Any], also: Iterable[str] = ()) -> None:
        """All ranks have sealed: make it whole, then remove what is older than is kept, or was found broken.

        `also` are files of the first rank that were written after it sealed.
        """
        files: dict[str, Any] = {}
        for rank in range(ranks):
            files |= json.loads((partial / _piece(rank)).read_text())
        files |= {name: sum_of(partial / name) for name in also}
        write_synced(partial / MANIFEST, {"schema": SCHEMA, "step": step, "ranks": ranks, **facts, "files": files})
        for rank in range(ranks):
            (partial / _piece(rank)).unlink()
        sync(partial)
        whole = self.path(step)
        if whole.exists():  # it was found broken, and these steps were done again
            old = partial.with_name(partial.name.replace("partial", "old"))
            whole.rename(old)
            partial.rename(whole)
            shutil.rmtree(old, ignore_errors=True)
        else:
            partial.rename(whole)
        sync(self.folder)
        found = self.steps()
        # One of a later step was found broken, or this training would have gone on from it.
        for stale in [later for later in found if later > step] + [one for one in found if one <= step][self.keep :]:
            self._remove(stale)

    def _remove(self, step: int) -> None:
        """Under another name first: half of a checkpoint must not look like a whole one."""
        old = self.folder / f"step-{step:08}.old-0"
        try:
            self.path(step).rename(old)
        except FileNotFoundError:
            return
        shutil.rmtree(old, ignore_errors=True)

    def thin(self) -> None:
        """Remove all but the newest: the training is over, and nothing goes on from an older one."""
        for stale in self.steps()[1:]:
            self._remove(stale)

    def sweep(self) -> None:
        """Remove what earlier lives have left half-written."""
        for path in self.folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def clear(self) -> None:
        """Remove all checkpoints, whole ones too."""
        self.sweep()
        for step in self.steps():
            self._remove(step)

    def manifest(self, step: int) -> dict[str, Any]:
        """What was committed.

        Raises:
            ValueError: it cannot be read, or is another's.
        """
        try:
            found = json.loads((self.path(step) / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{MANIFEST}: {error.strerror if isinstance(error, OSError) else 'torn'}") from None
        if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
            raise ValueError(f"{MANIFEST}: not a list of files")
        if (found.get("schema"), found.get("step")) != (SCHEMA, step):
            raise ValueError(f"{MANIFEST}: schema {found.get('schema')} of step {found.get('step')}, not {SCHEMA} of "
                             f"step {step}")  # fmt: skip
        return found

    def fault(self, step: int, part: tuple[int, int] = (0, 1)) -> str:
        """What is wrong with a checkpoint (empty: nothing); of every n-th file only, where ranks share the looking."""
        try:
            files = self.manifest(step)["files"]
        except ValueError as error:
            return str(error)
        for index, (name, wanted) in enumerate(sorted(files.items())):
            if index % part[1] == part[0] and (wrong := self._differs(self.path(step) / name, wanted)):
                return f"{name}: {wrong}"
        return ""

    @staticmethod
    def _differs(path: Path, wanted: Mapping[str, Any]) -> str:
        try:
            found = sum_of(path)
        except OSError as error:
            return error.strerror or "cannot be read"
        if found["bytes"] != wanted["bytes"]:
            return f"{found['bytes']} bytes, not {wanted['bytes']}"
        return "" if found["sha256"] == wanted["sha256"] else "its SHA-256 differs"


def _piece(rank: int) -> str:
    return f"sums-{rank:05}.json"
