"""weights: from a file to the device: the time before a model can say its first word.

A replica that starts, a node that comes back after a spot notice, a second model on the same GPU: each waits for
weights, and the GPU is paid meanwhile. The floor is bytes ÷ the slowest link on the way: the storage, the network to
it, the host's link to the GPU. What loaders lose is all the rest: one thread that waits for each page fault, a copy in
between, a transfer that waits for the read before it.

Method: a model's weights in a safetensors file (random bits in the exact shapes, or --weights PATH), loaded by us
(many threads, no page faults, one buffer, copies beside reads), by safetensors (`load_file`: mmap, its default, and
pread) and by transformers (`from_pretrained`), warm and cold apart. Cold: the page cache was told to forget the file,
and the kernel confirms it (mincore). Done is when every tensor is on the device and every page of it is there; a
mapped file is not loaded yet. In the same run the same file is read with nothing done to it: that is what its storage
can do. Every tensor is compared bit for bit.

Output: B/s by loader, cold and warm; shares of the storage's own rate; how many times the usual loader's.

    python -m workloads.weights
    python -m workloads.weights --model mistral-7b --path /fsx
    python -m workloads.weights --weights /fsx/Mistral-7B-v0.3
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from labs.models import find_model
from labs.results import Measurement, Roof, Span
from labs.roofs import Bound
from workloads.command import Parser, positive, start
from workloads.device import Device, time_each
from workloads.disk import fio
from workloads.disk.blocks import buffers, bypassed, read_through
from workloads.disk.held import Held, Made, given
from workloads.disk.loader import BLOCK_BYTES, default_threads
from workloads.disk.mounts import mount_of, mounts
from workloads.disk.pages import evict, resident
from workloads.disk.safetensors import files_of
from workloads.disk.scratch import scratch
from workloads.disk.ways import OURS, USUAL, Way, compare, present, ways
from workloads.draft import Draft
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe
from workloads.storage import limits_of

_WARM = "the page cache is memory: what bounds a warm load is measured beside it"
_MOST_RESIDENT = 0.01


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    weights: str
    """Safetensors file or folder that was named; empty: a model's shapes are written."""
    model: str
    """Whose shapes, in bf16; a name in labs/models.py."""
    path: str
    """Folder below which they are written."""
    repeats: int
    """Loads that are timed, each way, cold and warm."""
    seed: int
    threads: int
    """That our own way reads with."""
    fio: bool
    """Whether fio is installed and asked too."""


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    model = flags.model or ("mistral-tiny" if device.cuda else "mistral-mini")
    find_model(model)
    if flags.weights:
        if flags.model or flags.path:
            raise ValueError(f"weights={flags.weights!r} lie where they lie: leave out --model and --path")
        files_of(Path(flags.weights))
    usual = os.environ.get("ROOFLAB_SHARED") or os.environ.get("ROOFLAB_SCRATCH") or tempfile.gettempdir()
    return Config(
        weights=flags.weights or "", model=model, path=flags.path or usual,
        repeats=flags.repeats or (3 if device.cuda else 2), seed=flags.seed, threads=default_threads(),
        fio=fio.installed(),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Links:
    """What each link on the way was seen to do with nothing else going on, in B/s."""

    storage: Roof
    """The file, past the page cache; by the faster of fio and us."""
    cache: Roof
    """The file from the page cache to the host's memory."""
    device: Roof | None
    """The host's pinned memory to the GPU; None on a CPU."""

    def slowest(self, cache: str) -> Roof:
        """The link that bounds a load."""
        first = self.storage if cache == "cold" else self.cache
        return min((first, self.device) if self.device else (first,), key=lambda roof: roof.value)


def links(config: Config, device: Device, held: Held, bound: Bound) -> Iterator[Measurement]:
    """A row for each link; `fold` makes `Links` of them."""
    direct = all(bypassed(file) for file in held.files)
    with buffers(config.threads, BLOCK_BYTES[False]) as into:

        def read(direct: bool) -> None:
            for file in held.files:
                read_through(file, into, direct=direct)

        for cache in ("cold", "warm"):
            samples = []
            for _ in range(config.repeats):
                prepare(held, cache)
                began = time.perf_counter()
                read(direct and cache == "cold")
                samples.append(time.perf_counter() - began)
            cold = cache == "cold"
            yield _row("file, cold" if cold else "file, warm", held.bytes, samples,
                       bound if cold else Bound(None, _WARM), "every block's length",
                       link="storage" if cold else "cache", by="rooflab", cache=cache)  # fmt: skip
    if config.fio and len(held.files) == 1:
        prepare(held, "cold")
        told = fio.run("read", held.files[0], held.files[0].stat().st_size, direct=direct)
        yield _row("file, cold, by fio", held.bytes, [held.bytes / told.bytes_per_s], bound, "fio's own count",
                   link="storage", by="fio", cache="cold")  # fmt: skip
    if device.cuda:
        source = torch.empty(BLOCK_BYTES[True], dtype=torch.uint8, pin_memory=True)
        target = torch.empty_like(source, device=device.torch)
        samples = list(time_each(device, lambda: target.copy_(source, non_blocking=True), 20, lead=3))
        unlisted = Bound(None, "the host's link is in no table of labs/")
        yield _row("host to device, pinned copies of 64 MiB", source.numel(), samples, unlisted, "", link="device",
                   by="rooflab", cache="")  # fmt: skip


def fold(rows: Sequence[Measurement]) -> Links:
    """The links that those rows show."""

    def best(link: str) -> Roof | None:
        row = max((row for row in rows if row.config["link"] == link), key=lambda row: row.value, default=None)
        return None if row is None else Roof(value=row.value, source=f"measured here, {row.name}")

    storage, cache = best("storage"), best("cache")
    assert storage is not None
    assert cache is not None
    return Links(storage=storage, cache=cache, device=best("device"))


def prepare(held: Held, cache: str) -> float | None:
    """Bring the files into the page cache, or out of it; the share that the kernel then says is in it."""
    for file in held.files:
        if cache == "cold":
            evict(file)
        else:
            with buffers(1, BLOCK_BYTES[False]) as into:
                read_through(file, into, direct=False)
    shares = [share for share in map(resident, held.files) if share is not None]
    return max(shares) if shares else None


def measure(way: Way, cache: str, config: Config, device: Device, held: Held, seen: Links, bound: Bound,
            price: float | None) -> Measurement:  # fmt: skip
    """Load so many times, check the last result, and put the median beside the links.

    Raises:
        CheckFailed: a tensor is not what it must be.
    """
    samples, shares = [], []
    for _ in range(config.repeats):
        found = None
        gc.collect()  # the last load's memory goes back first
        shares.append(prepare(held, cache))
        device.synchronize()
        began = time.perf_counter()
        found = way.load(held.path, device)
        present(found)
        device.synchronize()
        samples.append(time.perf_counter() - began)
    assert found is not None
    checked = compare(way.name, found, held.right, held.names)
    slowest, cold = seen.slowest(cache), cache == "cold"
    told = [share for share in shares if share is not None]
    row = _row(
        f"{way.name}, {cache}", held.bytes, samples, bound if cold else Bound(None, _WARM), checked, way=way.name,
        cache=cache, resident=max(told) if told else None,
    )  # fmt: skip
    floor_s, taken_s = held.bytes / slowest.value, statistics.median(samples)
    spans = (Span(name="the slowest link alone", seconds=floor_s, how=f"predicted: bytes ÷ {slowest.source}"),
             Span(name="the rest", seconds=taken_s - floor_s, how="measured: what is left"))  # fmt: skip
    return replace(row, others=(slowest,), expected=slowest, spans=spans if floor_s <= taken_s else (),
                   usd_per_unit=None if price is None else price / 3600 * 1e12 / row.value,
                   work_unit="" if price is None else "TB loaded")  # fmt: skip


def _row(name: str, work: float, samples: Sequence[float], bound: Bound, checked: str, **config: object) -> Measurement:
    return Measurement(
        name=name, value=work / statistics.median(samples), unit="B/s", estimator=f"from the median of {len(samples)}",
        config={"bytes": work, **config}, samples_s=tuple(samples), roof=bound.roof,
        no_roof_because=bound.no_roof_because, checked=checked,
    )  # fmt: skip


def ratios(rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """How many times the usual loader's rate ours is, cold and warm."""
    rates = {(row.config.get("way"), row.config["cache"]): row.value for row in rows}
    for cache in ("cold", "warm"):
        yield Measurement(
            name=f"{OURS} over {USUAL}, {cache}", value=rates[OURS, cache] / rates[USUAL, cache], unit="×",
            estimator="of both medians", config={"cache": cache}, no_roof_because="a ratio of two loads has no roof",
        )  # fmt: skip


def notes(rows: Sequence[Measurement], device: Device) -> Iterator[str]:
    """What a reader of the numbers must know."""
    warm = [row for row in rows if row.config["cache"] == "cold" and (row.config.get("resident") or 0) > _MOST_RESIDENT]
    if warm:
        yield f"the page cache did not forget the file before {', '.join(row.name for row in warm)}: not cold at all"
    if not device.cuda:
        yield ("on a CPU a warm file is mapped and not copied, by us and by mmap: the page cache is where the tensors "
               "stay, and a rate above its own means that nothing was moved")  # fmt: skip


def row_line(row: Measurement) -> str:
    """One row, for the log."""
    value = f"{row.value:8.2f} ×   " if row.unit == "×" else f"{row.value / 1e9:8.3f} GB/s"
    beside = "".join(f"  {row.share_of(other):.0%} of the slowest link" for other in row.others)
    share = "" if row.fraction is None else f"  {row.fraction:.1%} of roof"
    return f"{row.name:38} {value}{share}{beside}"


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Write the file, measure its links, print what they allow, load every way, check, write what came out."""
    rows = Draft("weights", config, device, within)
    with ExitStack() as stack, Sensors(device) as sensors:
        if config.weights:
            held = given(Path(config.weights))
        else:
            made = Made(config.model, config.seed)
            print(f"writing {config.model}'s weights below {config.path}", flush=True)
            held = made.write(stack.enter_context(scratch(Path(config.path))))
        bound = limits_of(mount_of(held.files[0], mounts()), within).read
        print(f"roof: none, {bound.no_roof_because}" if bound.roof is None else
              f"roof: {bound.roof.value / 1e9:.3f} GB/s ({bound.roof.source})", flush=True)  # fmt: skip
        for row in links(config, device, held, bound):
            print(row_line(row), flush=True)
            rows.append(row)
        seen = fold(rows)
        for cache in ("cold", "warm"):
            slowest = seen.slowest(cache)
            print(f"expected {cache}: {held.bytes / 1e9:.3f} GB in {held.bytes / slowest.value:.3f} s "
                  f"({slowest.source})", flush=True)  # fmt: skip
        for cache in ("cold", "warm"):
            for way in ways(held.path):
                row = measure(way, cache, config, device, held, seen, bound, within.node_price)
                print(row_line(row), flush=True)
                rows.append(row)
    for row in ratios(rows):
        print(row_line(row), flush=True)
        rows.append(row)
    told = tuple(notes(rows, device))
    for line in told:
        print(line, flush=True)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type,
                       libraries=("safetensors", "transformers"))  # fmt: skip
    path = write(flags.out, "weights", tuple(rows), within=within, machine=machine, config=config, notes=told)
    print(f"{len(rows)} rows, every tensor compared: {path}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a tensor is not what the file holds.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("weights", __doc__)
    parser.add_argument("--weights", help="safetensors file or folder to load; default: a model's shapes are written")
    parser.add_argument("--model", help="whose shapes to write, in bf16; a name of labs/models.py")
    parser.add_argument("--path", help="folder to write them below; default: the lab's file system, else its scratch")
    parser.add_argument("--repeats", type=positive, help="loads that are timed, each way")
    flags, device, config, within = parser.read(arguments, configure)
    with parser.refusing():
        run(config, device, flags, within)


if __name__ == "__main__":
    start("weights", main)
