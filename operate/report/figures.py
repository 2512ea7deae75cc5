"""Which figures a workload's records are worth. Each is drawn once: a run's report is written after the run, by
`fab report` and again with the receipt, and drawing is most of its time."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from labs.results import Record, read
from operate.laptop import write
from operate.report.bandwidth import bandwidth
from operate.report.batch_sweep import batch_sweep
from operate.report.checkpoint import checkpoint
from operate.report.clock import clock
from operate.report.collectives import collectives
from operate.report.data_loading import data_loading
from operate.report.folder import Part
from operate.report.frontier import frontier
from operate.report.generation import generation
from operate.report.ladder import ladder
from operate.report.memory import memory
from operate.report.operations import operations
from operate.report.overhead import overhead
from operate.report.parity import parity
from operate.report.recompute import recompute
from operate.report.roofline import roofline
from operate.report.serving import serving
from operate.report.sharing import sharing, speedup
from operate.report.storage import storage, weights
from operate.report.survival import survival
from operate.report.train_step import train_step
from operate.report.training import training
from operate.report.waves import waves

_FIGURES: dict[str, Callable[[Sequence[Record]], Iterable[Element]]] = {
    "bandwidth": bandwidth,
    "gemm": lambda records: (*roofline(records), *waves(records), *clock(records)),
    "roofline": operations,
    "fits": memory,
    "generate": generation,
    "optimise": ladder,
    "batch-sweep": batch_sweep,
    "load": serving,
    "ddp": lambda records: (*training(records), *sharing(records)),
    "overhead": overhead,
    "split-gemm": sharing,
    "fsdp": sharing,
    "tensor-parallel": sharing,
    "mesh": sharing,
    "scaling": speedup,
    "train-step": train_step,
    "fp8-training": parity,
    "recompute": recompute,
    "checkpoint": checkpoint,
    "data-loading": data_loading,
    "storage": storage,
    "weights": weights,
    "batching": frontier,
    "train": survival,
    "collectives": collectives,
}


_ACROSS = {"overhead"}
"""Workloads whose figures also show what other runs kept beside this one measured."""


def figures(part: Part, folder: Path) -> tuple[Element, ...]:
    """The figures of this workload; none for a workload that has none of its own, or has no record.

    `folder` keeps what was drawn; the same records, drawn by the same code, are read from there.
    """
    draw = _FIGURES.get(part.name)
    if draw is None or not part.records:
        return ()
    records = (*part.records, *(_elsewhere(part.name, folder.parent) if part.name in _ACROSS else ()))
    path = folder / f"{part.name}-{_digest(records)}.html"
    if path.exists():
        return tuple(ElementTree.fromstring(path.read_text(encoding="utf-8")))
    drawn = tuple(draw(records))
    root = Element("div")
    root.extend(drawn)
    folder.mkdir(exist_ok=True)
    for stale in folder.glob(f"{part.name}-*.html"):
        stale.unlink(missing_ok=True)  # whoever draws the same run at the same time may have been faster
    write(path, ElementTree.tostring(root, encoding="unicode"))
    return drawn


def _elsewhere(name: str, run: Path) -> Iterable[Record]:
    """This workload's records in the runs beside `run`; one that cannot be read is that run's own report's to tell."""
    for path in sorted(run.parent.glob(f"*/records/{name}.json")):
        if path.parent.parent != run:
            with suppress(ValueError, TypeError, KeyError):
                yield read(path)


def _digest(records: Sequence[Record]) -> str:
    data = json.dumps([asdict(record) for record in records], sort_keys=True)
    return hashlib.sha256(f"{data}{_code()}".encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """Everything but the records that a drawing depends on."""
    sources = {path.name: path for path in files("operate.report").iterdir() if path.name.endswith(".py")}
    return version("matplotlib") + "".join(sources[name].read_text(encoding="utf-8") for name in sorted(sources))
