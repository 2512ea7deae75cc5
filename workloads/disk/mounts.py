"""What is mounted, and on what: an instance's NVMe, EBS, FSx for Lustre, EFS, S3, memory, or a disk nobody knows.

/proc/mounts names file systems and their sources, lsblk the disks below a source with their models; EC2's disks bear
"Amazon EC2 NVMe Instance Storage" or "Amazon Elastic Block Store" as theirs.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MODELS = {"Amazon EC2 NVMe Instance Storage": "nvme", "Amazon Elastic Block Store": "ebs"}
_ESCAPED = re.compile(r"\\([0-7]{3})")
_LISTING = ("lsblk", "--json", "--output", "PATH,MODEL,TYPE")
_NOTABLE = ("nvme", "lustre", "efs", "s3", "nfs")
"""Kinds that are measured wherever they are mounted; others only where a lab keeps files."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One mounted file system."""

    point: Path
    source: str
    """A device, a server's export, or a word."""
    type: str
    """The file system's, as the kernel names it."""
    kind: str
    """"nvme", "ebs", "lustre", "efs", "nfs", "s3", "memory" or "disk"."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder whose storage is to be measured."""

    folder: Path
    mount: Mount

    @property
    def name(self) -> str:
        """For tables: kind and mount point."""
        return f"{self.mount.kind} {self.mount.point}"


def parse_mounts(text: str, models: Mapping[str, Iterable[str]]) -> tuple[Mount, ...]:
    """The lines of /proc/mounts, in order. `models` are those of the disks below each source, by `parse_disks`."""
    found = []
    for line in text.splitlines():
        source, point, type, *_ = (_plain(word) for word in line.split(" "))
        found.append(Mount(point=Path(point), source=source, type=type, kind=kind_of(source, type, models)))
    return tuple(found)


def _plain(word: str) -> str:
    """A word of /proc/mounts with its \\040 and the like read."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), word)


def kind_of(source: str, type: str, models: Mapping[str, Iterable[str]]) -> str:
    """What a mount stands on."""
    if type == "lustre":
        return "lustre"
    if type in ("nfs", "nfs4"):  # efs-utils mounts through a local TLS proxy at 127.0.0.1
        return "efs" if ".efs." in source or source.startswith("127.0.0.1:") else "nfs"
    if type.startswith("fuse") and ("mountpoint-s3" in source or "s3fs" in f"{source} {type}"):
        return "s3"
    if type in ("tmpfs", "ramfs"):
        return "memory"
    kinds = {_MODELS.get(model.strip(), "disk") for model in models.get(source, ())}
    return kinds.pop() if len(kinds) == 1 else "disk"


def parse_disks(text: str) -> dict[str, tuple[str, ...]]:
    """From lsblk's JSON: device -> models of the disks that it lies on; a striped device lies on several."""
    found: dict[str, tuple[str, ...]] = {}

    def walk(rows: Sequence[Mapping], above: str) -> None:
        for row in rows:
            model = (row.get("model") or "").strip() or above
            found[row["path"]] = (*found.get(row["path"], ()), *((model,) if model else ()))
            walk(row.get("children", ()), model)

    try:
        walk(json.loads(text)["blockdevices"], "")
    except (ValueError, KeyError, TypeError):
        return {}
    return found


def mounts() -> tuple[Mount, ...]:
    """What is mounted here; nothing where there is no /proc/mounts."""
    table = Path("/proc/mounts")
    if not table.exists():
        return ()
    try:
        listing = subprocess.run(_LISTING, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listing = ""
    return parse_mounts(table.read_text(), parse_disks(listing))


def mount_of(folder: Path, table: Sequence[Mount]) -> Mount:
    """The mount that `folder` lies on: the longest point above it, the last of several at one point."""
    real = folder.resolve()
    best = Mount(point=Path(real.anchor), source="unknown", type="unknown", kind="disk")
    for mount in table:
        if real.is_relative_to(mount.point) and len(mount.point.parts) >= len(best.point.parts):
            best = mount
    return best


def places(table: Sequence[Mount], wanted: Sequence[Path], given: bool) -> Iterator[Place]:
    """Folders to measure, one a file system: `wanted` in order, then wherever a notable kind is mounted.

    `given`: the user named them, so only they are measured, and memory too.
    """
    seen: set[int] = set()
    others = () if given else (mount.point for mount in table if mount.kind in _NOTABLE)
    for folder in (*wanted, *others):
        nearest = next((path for path in (folder, *folder.parents) if path.exists()), None)
        if nearest is None or not os.access(nearest, os.W_OK | os.X_OK):
            continue
        device, mount = nearest.stat().st_dev, mount_of(nearest, table)
        if device not in seen and (given or mount.kind != "memory"):
            seen.add(device)
            yield Place(folder=folder, mount=mount)
