"""The tracked tree of a git clone, as it lies here now, packed to be pushed."""

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from operate.problem import Problem

_CODE = (".py", ".sh", ".json", ".toml", ".yaml", ".yml", ".cu", ".cpp")
_LARGE_BYTES = 100_000_000
_OLD = 315_532_800
"""1980-01-01: one date for all files, so that the same content is the same archive."""


@dataclass(frozen=True)
class Tree:
    """Every tracked file with its present content, modifications included."""

    root: Path
    files: tuple[tuple[str, int, bytes], ...]
    """(path, file mode, content; a link's content is where it points), sorted by path."""
    commit: str
    """HEAD, with "-dirty" where tracked files differ from it; "" before the first commit."""
    untracked: tuple[str, ...]
    """Files that look like code, but git does not track them: not in the tree."""

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that change with any path, mode or content."""
        total = hashlib.sha256()
        for path, mode, content in self.files:
            total.update(f"{path}\0{mode:o}\0{len(content)}\0".encode())
            total.update(content)
        return total.hexdigest()[:16]

    @cached_property
    def archive(self) -> bytes:
        """A gzip-compressed tar of the files."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for path, mode, content in self.files:
                entry = tarfile.TarInfo(path)
                entry.mtime = _OLD
                if stat.S_ISLNK(mode):
                    entry.type, entry.linkname = tarfile.SYMTYPE, os.fsdecode(content)
                    tar.addfile(entry)
                else:
                    entry.mode, entry.size = (0o755 if mode & 0o100 else 0o644), len(content)
                    tar.addfile(entry, io.BytesIO(content))
        return zlib.compress(raw.getvalue(), level=1, wbits=31)


def read_tree(root: Path) -> Tree:
    """The tracked tree at `root`.

    Raises:
        Problem: `root` is no git clone, tracks nothing, or more than 100 MB.
    """
    tracked = _git(root, "ls-files", "-z", "--cached")
    files, size = [], 0
    for name in sorted(set(filter(None, tracked.split("\0")))):
        path = root / name
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue  # deleted here, not yet in git
        if stat.S_ISDIR(mode):
            continue  # a submodule
        content = os.fsencode(path.readlink()) if stat.S_ISLNK(mode) else path.read_bytes()
        size += len(content)
        files.append((name, mode, content))
    if not files:
        raise Problem(f"git tracks no file in {root}", "git add what shall be pushed, then try again")
    if size > _LARGE_BYTES:
        largest = max(files, key=lambda item: len(item[2]))
        raise Problem(
            f"the tracked tree has {size / 1e6:.0f} MB, over {_LARGE_BYTES / 1e6:.0f}",
            f"data does not belong in it (largest: {largest[0]}); bring it to the nodes with fab put",
        )
    return Tree(root=root, files=tuple(files), commit=_commit(root), untracked=_untracked(root))


def _commit(root: Path) -> str:
    try:
        return _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").strip()
    except Problem:  # no commit yet
        return ""


def _untracked(root: Path) -> tuple[str, ...]:
    names = _git(root, "ls-files", "-z", "--others", "--exclude-standard").split("\0")
    return tuple(name for name in names if name.endswith(_CODE))


def _git(root: Path, *words: str) -> str:
    # A clone of another owner (a folder mounted into a container) is one whose code already runs here.
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        raise Problem("git is not installed", "install it: sudo apt install git") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Problem(
            f"git cannot read {root} ({said[0] if said else 'no output'})",
            "Rooflab pushes what git tracks: work in a clone, or git init && git add .",
        )
    return os.fsdecode(done.stdout)
