"""One place for files, measured: a large file, single pages, small files; cold and warm apart, by us and by fio."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from labs.disks import Limits
from labs.results import Measurement, Roof
from labs.roofs import Bound
from workloads.disk import fio
from workloads.disk.blocks import buffers, bypassed, read_through
from workloads.disk.exercise import (
    BLOCK_BYTES,
    SMALL_BYTES,
    Pattern,
    check_file,
    create_small,
    read_pages,
    read_small,
    small_files,
    write_file,
)
from workloads.disk.mounts import Place
from workloads.disk.pages import evict
from workloads.disk.scratch import demand_room, scratch

THREADS = 8
"""That write and read large files, and small ones."""
PAGE_THREADS = 32
"""That read single pages: as many requests as stand in line at once."""
FIO_SECONDS = 3.0
_WARM = Bound(None, "the page cache is memory: what bounds it is the memory's rate, not a disk's")
_SMALL = Bound(None, "no source tells what a file system's own work for each file allows")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is moved."""

    large_bytes: int
    """Of the large file, whole blocks of `BLOCK_BYTES`."""
    files: int
    """Small files."""
    pages: int
    """Single pages that are read in one sample."""
    repeats: int
    """Samples of each row."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measures one place."""

    place: Place
    sizes: Sizes
    seed: int
    limits: Limits
    memory: Roof | None
    """What this machine's memory was seen to do, beside which a warm read stands."""
    fio: bool
    """Whether fio measures too."""

    def measure(self) -> Iterator[Measurement]:
        """All rows of this place; no file stays.

        Raises:
            CheckFailed: a file does not hold what was written.
            ValueError: there is no room.
        """
        size = self.sizes.large_bytes
        with scratch(self.place.folder) as folder:
            demand_room(folder, size * (2 if self.fio else 1) + self.sizes.repeats * self.sizes.files * SMALL_BYTES)
            yield from self._large(folder / "large")
            if self.fio:
                yield from self._by_fio(folder / "fio")
            yield from self._small(folder)

    def _large(self, path: Path) -> Iterator[Measurement]:
        pattern, blocks = Pattern(self.seed), self.sizes.large_bytes // BLOCK_BYTES
        samples = self._timed(lambda: write_file(path, blocks, pattern, THREADS), lambda: path.unlink(missing_ok=True))
        checked, direct = check_file(path, pattern), bypassed(path)
        yield self._rate("write", "durable", samples, direct, checked)
        with buffers(THREADS, BLOCK_BYTES) as into:
            samples = self._timed(lambda: read_through(path, into, direct=direct), lambda: evict(path))
            yield self._rate("read", "cold", samples, direct, checked)
            read_through(path, into, direct=False)
            samples = self._timed(lambda: read_through(path, into, direct=False))
            yield self._rate("read", "warm", samples, False, checked)
        evict(path)
        samples = [read_pages(path, self.sizes.pages, PAGE_THREADS, self.seed + repeat)
                   for repeat in range(self.sizes.repeats)]  # fmt: skip
        yield self._row("random 4 KiB reads, cold", self.sizes.pages, "read/s", samples, self.limits.random_reads,
                        checked, op="random read", cache="cold", direct=direct, threads=PAGE_THREADS)  # fmt: skip

    def _by_fio(self, path: Path) -> Iterator[Measurement]:
        """The same by fio."""
        size, checked = self.sizes.large_bytes, "fio's own count of what it moved"
        path.touch()
        direct = bypassed(path)
        for op, cache in (("write", "durable"), ("read", "cold")):
            rates = []
            for _ in range(self.sizes.repeats):
                evict(path)
                rates.append(fio.run(op, path, size, direct=direct).bytes_per_s)
            yield self._rate(op, cache, [size / rate for rate in rates], direct, checked, by="fio")
        told = fio.run("randread", path, size, direct=direct, seconds=FIO_SECONDS)
        yield self._row("random 4 KiB reads, cold, by fio", told.iops * told.seconds, "read/s", [told.seconds],
                        self.limits.random_reads, checked, op="random read", cache="cold", direct=direct,
                        threads=fio.JOBS * fio.DEPTH, by="fio")  # fmt: skip

    def _small(self, folder: Path) -> Iterator[Measurement]:
        count, pattern = self.sizes.files, Pattern(self.seed)
        taken: dict[tuple[str, str], list[float]] = {}
        for repeat in range(self.sizes.repeats):
            inside = folder / f"small{repeat}"

            def timed(op: str, cache: str, step: Callable[[], object]) -> None:
                began = time.perf_counter()
                step()
                taken.setdefault((op, cache), []).append(time.perf_counter() - began)

            timed("create", "not synced", partial(create_small, inside, count, pattern, THREADS))
            for path in small_files(inside, count):
                evict(path)
            timed("read", "cold", partial(read_small, inside, count, THREADS))
            timed("read", "warm", partial(read_small, inside, count, THREADS))
        for (op, cache), samples in taken.items():
            yield self._row(f"{op} {count} files of {SMALL_BYTES >> 10} KiB, {cache}", count, "file/s", samples, _SMALL,
                            f"each read back with its {SMALL_BYTES >> 10} KiB", op=f"{op} small", cache=cache,
                            direct=False, threads=THREADS)  # fmt: skip

    def _timed(self, step: Callable[[], object], before: Callable[[], object] = lambda: None) -> list[float]:
        samples = []
        for _ in range(self.sizes.repeats):
            before()
            began = time.perf_counter()
            step()
            samples.append(time.perf_counter() - began)
        return samples

    def _rate(self, op: str, cache: str, samples: Sequence[float], direct: bool, checked: str,
              by: str = "rooflab") -> Measurement:  # fmt: skip
        """A row of the large file."""
        bound, limit = ((self.limits.read, self.limits.read_limit) if op == "read" else
                        (self.limits.write, self.limits.write_limit))  # fmt: skip
        if cache == "warm":
            bound, limit = _WARM, None
        name = f"{op}, {cache}" if by == "rooflab" else f"{op}, {cache}, by {by}"
        return self._row(name, self.sizes.large_bytes, "B/s", samples, bound, checked, limit=limit, op=op, cache=cache,
                         direct=direct, threads=THREADS, by=by)  # fmt: skip

    def _row(self, name: str, work: float, unit: str, samples: Sequence[float], bound: Bound, checked: str, *,
             limit: Roof | None = None, **config: object) -> Measurement:  # fmt: skip
        beside = self.memory is not None and config["cache"] == "warm" and unit == "B/s"
        mount = self.place.mount
        return Measurement(
            name=f"{self.place.name}: {name}", value=work / statistics.median(samples), unit=unit,
            estimator=f"from the median of {len(samples)}", samples_s=tuple(samples), roof=bound.roof,
            no_roof_because=bound.no_roof_because, limit=limit if bound.roof else None, checked=checked,
            others=(self.memory,) if self.memory and beside else (),
            config={"by": "rooflab", "place": self.place.name, "kind": mount.kind, "type": mount.type, "work": work,
                    **config},
        )  # fmt: skip
