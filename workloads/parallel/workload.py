"""A workload that compares ways to share one model's training: prediction, measurement, record."""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from labs.results import Measurement, Roof
from labs.roofs import Bound
from workloads.command import Parser
from workloads.device import Device, find_device
from workloads.group import Group, Place, joined, place
from workloads.parallel.bench import Bench, Outcome, expectation, outcome_lines
from workloads.parallel.links import link_of
from workloads.parallel.settings import Settings
from workloads.parallel.strategy import Steps, Strategy
from workloads.record import Surroundings, surroundings, write
from workloads.sensors import Sensors, describe

C = TypeVar("C")


def enter(
    parser: Parser, arguments: Sequence[str], configure: Callable[[argparse.Namespace, Device, Place], C],
    run: Callable[[C, Group, argparse.Namespace, Surroundings], None],
) -> None:  # fmt: skip
    """Read the flags, meet the other ranks, run.

    Raises:
        CheckFailed: what was computed is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    flags = parser.parse_args(arguments)
    with parser.refusing():
        here, within = place(), surroundings()
        device = find_device(flags.device, here.local_rank)
        config = configure(flags, device, here)
    with joined(here, device) as group:
        run(config, group, flags, within)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several strategies on the same batches, the first one in the headline."""

    name: str
    """The workload's."""
    config: Settings
    group: Group
    strategies: Sequence[Strategy]
    like_fp32: Sequence[Strategy]
    """The same in fp32 and without tricks that save memory, for the smallest model."""
    fits_alone: bool = True
    """Whether the model trains on one rank, so that there is a baseline."""
    notes: tuple[str, ...] = ()

    @property
    def bench(self) -> Bench:
        """Where they are measured."""
        return Bench(settings=self.config, group=self.group)

    def predict(self) -> None:
        """Say what each must send and what bounds all, before anything runs."""
        group, bench, bound = self.group, self.bench, self.bench.bound()
        group.say(roof_line(bound))
        for strategy in self.strategies:
            traffic = strategy.traffic(bench.shape, bench.tokens)
            calls = ", ".join(f"{size / 1e6:.2f} MB of {name} over {ranks}"
                              for (name, ranks), size in traffic.volumes.items())  # fmt: skip
            group.say(f"predicted: {strategy.name}: each of {group.size} ranks sends {traffic.sent_bytes / 1e6:.2f} MB "
                      f"a step ({calls or 'alone'})")  # fmt: skip

    def run(self, flags: argparse.Namespace, within: Surroundings,
            more: Callable[[Steps | None, Sequence[Outcome]], Sequence[Measurement]] = lambda _alone, _every: (),
            ) -> None:  # fmt: skip
        """Predict, measure, say and write; `more` makes further rows of both, on every rank."""
        self.predict()
        group, bench = self.group, self.bench
        link = link_of(flags.out, group.size, group.device)
        with Sensors(group.device) as sensors:
            alone = bench.baseline() if self.fits_alone else None
            alone_s = None if alone is None else statistics.median(alone.samples_s)
            if alone_s is not None:
                group.say(f"one rank alone, its share of the batch: step {alone_s * 1e3:.1f} ms")
            found: list[tuple[Outcome, Roof | None]] = []
            for strategy, like in zip(self.strategies, self.like_fp32, strict=True):
                expected = expectation(alone_s, strategy.traffic(bench.shape, bench.tokens), link)
                if expected is not None:
                    group.say(f"expected: {strategy.name}: {expected.value * 1e3:.1f} ms ({expected.source})")
                outcome = bench.measure(strategy, like)
                for line in outcome_lines(outcome, expected, bench.bound(), bench.tokens):
                    group.say(line)
                found.append((outcome, expected))
            further = more(alone, [outcome for outcome, _ in found])
        if not group.first:
            return
        rows: list[Measurement] = []
        for index, (outcome, expected) in enumerate(found):
            label = "" if index == 0 else f", {outcome.strategy.name}"
            rows.extend(bench.rows(outcome, expected, within.price, label))
        rows.extend(further)
        path = record(self.name, rows, self.config, group, flags, within, sensors, self.notes)
        group.say(
            f"{len(found)} ways to share {bench.shape.name} over {group.size} ranks, each like one process: {path}"
        )


def record(name: str, rows: Sequence[Measurement], config: Any, group: Group, flags: argparse.Namespace,
           within: Surroundings, sensors: Sensors, notes: tuple[str, ...] = ()) -> str:  # fmt: skip
    """Write the record of a workload over all ranks; the first rank does."""
    machine = describe(group.device, devices=group.size, reading=sensors.reading,
                       instance_type=within.instance_type, libraries=())  # fmt: skip
    told = (*notes, *([] if group.device.cuda else [GLOO]))
    return str(write(flags.out, name, tuple(rows), within=within, machine=machine, config=config, cluster=True,
                     ranks=group.size, notes=told))  # fmt: skip


GLOO = ("ranks on CPUs share cores and speak through gloo: what a step loses here is not what GPUs lose, "
        "and gloo does a reduce-scatter as an all-reduce, twice the bytes that are counted")  # fmt: skip


def roof_line(bound: Bound) -> str:
    """The roof of training, for a reader who has not seen a number yet."""
    if bound.roof is None:
        return f"roof training: none, {bound.no_roof_because}"
    return f"roof training: {bound.roof.value:.0f} token/s ({bound.roof.source})"
