"""storage: how fast files are written and read on whatever is mounted: NVMe, EBS, FSx for Lustre, EFS, S3.

A job that loads weights, reads samples or writes checkpoints waits for storage, and four numbers say how long: the
rate of large files (weights, checkpoints), the rate of single 4 KiB pages (an index, a memory-mapped data set), small
files a second (a data set of single samples, a Python environment), and what the page cache makes of all three. AWS
sells rates: a gp3 volume gives 125 MiB/s, FSx for Lustre so many MB/s for each TiB, whatever the GPU beside it costs.

Method: one place for each file system that a lab uses, found in /proc/mounts. Random bytes, which nothing compresses;
several threads; cold means past the page cache (O_DIRECT), or where the file system has no such thing after it was
told to forget the file (posix_fadvise); warm means a second read through it. A write ends when the disk has it
(fsync). fio does the same where it is installed; the faster of both is what the storage can do. File servers have
caches of their own, which nobody outside can empty. Every block is compared with what was written, and no file stays,
however this ends.

Output: B/s, reads/s and files/s by place, cold and warm apart, beside what AWS documents; how long a 7B model's weights
would take from there.

    python -m workloads.storage
    python -m workloads.storage --path /fsx --path /opt/dlami/nvme --mib 4096
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labs.disks import Limits, limits
from labs.instances import instance_types
from labs.models import find_model
from labs.results import Measurement
from workloads.command import Parser, positive, start
from workloads.device import Device
from workloads.disk import fio
from workloads.disk.bench import Bench, Sizes
from workloads.disk.exercise import BLOCK_BYTES
from workloads.disk.mounts import Mount, Place, mounts, places
from workloads.earlier import memory_ceiling
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe

MODEL = "mistral-7b"
"""Whose weights a rate is told in."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    paths: tuple[str, ...]
    """Folders that were asked for; empty: those that labs use, and wherever a notable file system is mounted."""
    mib: int
    """MiB of the large file."""
    files: int
    """Small files."""
    pages: int
    """Single pages that are read in one sample."""
    repeats: int
    """Samples of each row."""
    seed: int
    fio: bool
    """Whether fio is installed and asked too."""


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a path that is not there.
    """
    for path in flags.path or ():
        if not Path(path).is_dir():
            raise ValueError(f"path={path!r} is no folder: name one that is there, or leave --path out")
    mib = flags.mib or (1024 if device.cuda else 64)
    if mib * 2**20 < BLOCK_BYTES:
        raise ValueError(f"mib={mib} is less than one block: write at least {BLOCK_BYTES >> 20}")
    return Config(
        paths=tuple(flags.path or ()), mib=mib, files=flags.files or (2048 if device.cuda else 256),
        pages=16384 if device.cuda else 1024, repeats=flags.repeats or 3, seed=flags.seed, fio=fio.installed(),
    )  # fmt: skip


def wanted(config: Config) -> tuple[tuple[Path, ...], bool]:
    """Folders to look at, in order, and whether the user named them."""
    if config.paths:
        return tuple(Path(path) for path in config.paths), True
    named = (os.environ.get("ROOFLAB_SHARED"), os.environ.get("ROOFLAB_SCRATCH"), tempfile.gettempdir(), ".")
    return tuple(Path(path).resolve() for path in named if path), False


def limits_of(mount: Mount, within: Surroundings) -> Limits:
    """What AWS documents for it."""
    told = os.environ.get
    return limits(mount.kind, instance=instance_types().get(within.instance_type or ""),
                  ours="ROOFLAB_STACK" in os.environ and not within.gpus_absent, storage=told("ROOFLAB_STORAGE", ""),
                  storage_gib=int(told("ROOFLAB_STORAGE_GIB") or 0))  # fmt: skip


def roof_lines(place: Place, known: Limits) -> Iterator[str]:
    """What is documented for a place, for a reader who has not seen a number yet."""
    rows = (("read", known.read, 1e6, "MB/s"), ("write", known.write, 1e6, "MB/s"),
            ("random reads", known.random_reads, 1, "a second"))  # fmt: skip
    reasons = dict.fromkeys(bound.no_roof_because for _, bound, _, _ in rows if bound.roof is None)
    for what, bound, unit, word in rows:
        if bound.roof:
            yield f"roof {place.name}, {what}: {bound.roof.value / unit:,.0f} {word} ({bound.roof.source})"
    for reason in reasons:
        yield f"roof {place.name}: none, {reason}"


def row_line(row: Measurement) -> str:
    """One row, for the log."""
    value = f"{row.value / 1e6:10,.0f} MB/s" if row.unit == "B/s" else f"{row.value:10,.0f} {row.unit}"
    share = "" if row.fraction is None else f"  {row.fraction:.1%} of roof"
    past = "  past the page cache" if row.config["direct"] else ""
    return f"{row.name:52} {value}{share}{past}"


def notes(rows: Sequence[Measurement], table: Sequence[Place]) -> Iterator[str]:
    """What a reader of the numbers must know."""
    weights = find_model(MODEL).weight_bytes(2)
    for place in table:
        cold = [row for row in rows if row.config["place"] == place.name and row.name.endswith(("cold", "by fio"))
                and row.config["op"] == "read"]  # fmt: skip
        if cold:
            best = max(cold, key=lambda row: row.value)
            yield (f"{place.name}: {MODEL}'s {weights / 1e9:.1f} GB in bf16 would take {weights / best.value:.0f} s "
                   f"from here, cold")  # fmt: skip
        if not all(row.config["direct"] for row in cold if row.config["by"] == "rooflab"):
            yield f"{place.name}: {place.mount.type} has no way past the page cache; cold is what it was told to forget"
        if place.mount.kind in ("lustre", "efs", "nfs", "s3"):
            yield f"{place.name}: its servers have caches of their own, which no client empties"
    if not any(place.mount.kind == "s3" for place in table):
        yield ("S3 is measured where a bucket is mounted (/fsx/data, mount-s3); not by requests, for a lab's node may "
               "put records into its bucket and may not delete them")  # fmt: skip
    if not fio.installed():
        yield "fio is not installed: our own exerciser alone; apt-get install fio"


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print the roofs, measure every place, print and write what came out.

    Raises:
        ValueError: no place can be written.
    """
    folders, given = wanted(config)
    found = list(places(mounts(), folders, given))
    if not found:
        raise ValueError("path: none of the usual folders can be written: name one with --path")
    rows: list[Measurement] = []
    sizes = Sizes(large_bytes=config.mib * 2**20 // BLOCK_BYTES * BLOCK_BYTES, files=config.files, pages=config.pages,
                  repeats=config.repeats)  # fmt: skip
    memory = memory_ceiling(flags.out, within.node, device)
    with Sensors(device) as sensors:
        for place in found:
            known = limits_of(place.mount, within)
            for line in roof_lines(place, known):
                print(line, flush=True)
            bench = Bench(place=place, sizes=sizes, seed=config.seed, limits=known, memory=memory, fio=config.fio)
            for row in bench.measure():
                print(row_line(row), flush=True)
                rows.append(row)
    told = tuple(notes(rows, found))
    for line in told:
        print(line, flush=True)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type, libraries=())
    path = write(flags.out, "storage", tuple(rows), within=within, machine=machine, config=config, notes=told)
    print(f"{len(rows)} rows of {len(found)} file systems, no file left: {path}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a file does not hold what was written.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("storage", __doc__)
    parser.add_argument("--path", action="append", help="folder to measure; may be repeated; default: what labs use")
    parser.add_argument("--mib", type=positive, help="MiB of the large file")
    parser.add_argument("--files", type=positive, help="small files")
    parser.add_argument("--repeats", type=positive, help="samples of each row")
    flags, device, config, within = parser.read(arguments, configure)
    with parser.refusing():
        run(config, device, flags, within)


if __name__ == "__main__":
    start("storage", main)
