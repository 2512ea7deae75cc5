"""overhead: what the network costs a training step: the same step by every path that its gradients can take.

Data parallel ranks average their gradients in each step: 4 bytes a parameter, whatever the batch. Within a node they
pass through memory, between nodes through the network, and over k nodes at least 2(k−1)/k of them must leave each
node. At 100 Mbit/s mistral-nano's 15.7 MB take 1.26 s, for a step whose arithmetic takes a tenth of that. What
the backward pass can hide is at most its own time. Three remedies: more arithmetic for each byte (a larger batch),
fewer bytes (bf16 halves them exactly), and fewer of them over the slow part of the way (node by node).

Method: a path is timed alone on buffers up to 2 MiB, and its latency α and rate β follow; the step without any exchange
is timed on all ranks together. From the two comes the prediction, arithmetic + α · buckets + bytes ÷ β with nothing
hidden, before the step is timed. What the step takes beyond the arithmetic is exposed communication; what is missing
to the prediction was hidden. How often each is timed follows from --budget-s. Checks: sums of small integers are exact,
bytes are counted as predicted, parameters are bitwise equal on all ranks of a path.

Output: for each path seconds per step, predicted and measured, bytes, what was hidden; one record, naming the link.

    torchrun --standalone --nproc-per-node 2 -m workloads.overhead
    torchrun --standalone --nproc-per-node 4 -m workloads.overhead --nodes-as 2 --bucket 25
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import nn

from labs.latency import Fit
from labs.models import find_model
from workloads.command import positive, seconds, start
from workloads.device import Device
from workloads.exchange.between import Between, between, kind_of
from workloads.exchange.outcome import Outcome, outcome_line, quiet_row, rows, wire_roof
from workloads.exchange.paths import Path, node_first, over_network, within_node
from workloads.exchange.sharedmemory import SharedMemory, impossible
from workloads.exchange.timing import Timed, line_of, time_steps, unequal
from workloads.group import Group, Place
from workloads.parallel.bench import Bench, free
from workloads.parallel.nodes import Layout, layout, refuse_nodes
from workloads.parallel.settings import Settings, chosen, parser_of
from workloads.parallel.strategy import Strategy, alone, builder, trainer_of
from workloads.parallel.workload import enter, record
from workloads.record import Surroundings
from workloads.sensors import Sensors

FIRST_BUCKET = 2**20
"""Bytes of DistributedDataParallel's first bucket, which is small so that sending begins early."""


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """What is trained."""

    bucket_mb: int
    """Largest bucket of gradients, MiB."""
    budget_s: float
    """Seconds for the steps of one path, of which two are timed at least."""

    @property
    def gradient_bytes(self) -> int:
        """Of a step, in fp32."""
        return 4 * find_model(self.model).parameters

    @property
    def buckets(self) -> int:
        """In which they travel, nearly: a bucket ends with a whole parameter."""
        return 1 + math.ceil(max(0, self.gradient_bytes - FIRST_BUCKET) / (self.bucket_mb * 2**20))


def configure(flags: argparse.Namespace, device: Device, here: Place) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    refuse_nodes(flags.nodes_as, here.size)
    return Config(**chosen(flags, device), bucket_mb=flags.bucket, budget_s=flags.budget_s)


def paths_of(config: Config, group: Group, places: Layout) -> tuple[list[Path], list[str]]:
    """The paths that there are here, the plain one first, and why others are not."""
    plain, half = over_network(group, places), over_network(group, places, half=True)
    if group.size < 2:
        return [plain], []
    if places.within < 2:
        return [plain, half], ["within the node: not applicable, no two ranks share one"]
    groups = tuple(dist.new_group(list(ranks)) for ranks in places.ranks)
    leaders = dist.new_group([ranks[0] for ranks in places.ranks])
    if group.device.cuda:
        return [plain, half, within_node(group, places, groups, None)], []
    if why := impossible():
        return [plain, half], [f"within the node: not applicable, {why}"]
    mates = places.mates(group.rank)
    memory = SharedMemory(group, mates, groups[places.ranks.index(mates)], config.gradient_bytes // 4)
    first = [node_first(group, places, leaders, memory)] if places.nodes > 1 else []
    return [plain, half, *first, within_node(group, places, groups, memory)], []


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The step, by every path."""

    config: Config
    group: Group
    places: Layout
    link: Between

    @property
    def bench(self) -> Bench:
        """The model and its batches."""
        return Bench(settings=self.config, group=self.group)

    def steps(self, path: Path | None) -> tuple[Timed, nn.Module]:
        """All ranks train, each on its share, with gradients averaged by `path`, or not at all."""
        group, config = self.group, self.config
        strategy = alone() if path is None else Strategy(
            name=path.name, wrap=lambda model: path.wrap(model, group, config.bucket_mb),
            traffic=lambda _shape, _tokens: path.calls(config.gradient_bytes),
        )  # fmt: skip
        trainer = trainer_of(strategy, config, builder(self.bench.shape, config.seed, group.device), group.device)
        rows = slice(group.rank * config.batch, (group.rank + 1) * config.batch)
        shares = [tokens_GT[rows].to(group.device.torch) for tokens_GT in self.bench.batches(config.steps)]
        return time_steps(trainer.step, shares, group, config.budget_s), trainer.model

    def measure(self, path: Path, line: Fit | None, lines: dict[int, float], quiet_s: float) -> Outcome:
        """Foretell, then time.

        Raises:
            CheckFailed: on every rank, if bytes or parameters are not what they must be.
        """
        group, size = self.group, self.config.gradient_bytes
        sent = size / path.narrowed
        talk_s = None
        if line is not None and group.size > 1:
            talk_s = self.config.buckets * line.alpha_s + sent / line.bytes_per_s
            group.say(f"expected: {path.name}: {(quiet_s + talk_s) * 1e3:.1f} ms, of it {talk_s * 1e3:.1f} ms of "
                      "communication, nothing hidden")  # fmt: skip
        timed, model = self.steps(path)
        group.require(f"bytes of {path.name}", path.calls(size).unlike(timed.traffic))
        group.require(f"parameters of {path.name} equal on its ranks", unequal(model, path, group))
        del model
        free(group)
        return Outcome(path=path, timed=timed, line=line, lines=lines, talk_s=talk_s, quiet_s=quiet_s)

    @property
    def common(self) -> dict[str, object]:
        """What tells this run from others."""
        return {"link": self.link.name, "link_bytes_per_s": self.link.bytes_per_s, "nodes": self.places.nodes,
                "model": self.config.model, "gradient_bytes": self.config.gradient_bytes}  # fmt: skip


def run(config: Config, group: Group, flags: argparse.Namespace, within: Surroundings) -> None:
    """Predict, measure every path, print and write what came out."""
    places = layout(group, flags.nodes_as)
    link = between(1 if flags.nodes_as else places.nodes, kind_of(group.device, within.instance_type))
    lesson = Lesson(config=config, group=group, places=places, link=link)
    group.say(f"{group.size} ranks on {places.nodes} node{'s' * (places.nodes > 1)}, between them {link.name}: "
              f"{link.source}")  # fmt: skip
    paths, notes = paths_of(config, group, places)
    roof, why = wire_roof(paths[0].crosses(config.gradient_bytes), link)
    group.say(f"roof step: {roof.value * 1e3:.1f} ms ({roof.source})" if roof else f"roof step: none, {why}")
    for note in notes:
        group.say(note)
    with Sensors(group.device) as sensors:
        quiet, _ = lesson.steps(None)
        quiet_s = statistics.median(quiet.samples_s)
        group.say(f"nothing sent: step {quiet_s * 1e3:.1f} ms on all ranks at once")
        found: list[Outcome] = []
        line, lines = None, dict[int, float]()
        for path in paths:
            if path.narrowed == 1:  # one that narrows takes the way of the path before it
                line, lines = line_of(path, group)
            found.append(lesson.measure(path, line, lines, quiet_s))
            group.say(outcome_line(found[-1]))
    if not group.first:
        return
    told = [row for outcome in found for row in rows(outcome, config.gradient_bytes, link, lesson.common)]
    told.append(quiet_row("nothing sent", quiet, group.size, lesson.common))
    written = record("overhead", told, config, group, flags, within, sensors, tuple(notes))
    group.say(f"{len(found)} paths of the gradients of {config.model} over {group.size} ranks, {link.name}: {written}")


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: a sum, the bytes or the parameters are wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = parser_of("overhead", __doc__)
    parser.add_argument("--bucket", type=positive, default=4, help="largest bucket of gradients, MB")
    parser.add_argument("--budget-s", type=seconds, default=1.5, help="seconds for the steps of each path")
    parser.add_argument("--nodes-as", type=positive, help="take the ranks as spread over that many nodes")
    enter(parser, arguments, configure, run)


if __name__ == "__main__":
    start("overhead", main)
