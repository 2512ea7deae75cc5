"""collectives: six of them over sizes, from latency to bandwidth, every element checked on every rank.

An all-reduce leaves the sum of all ranks' buffers on every rank; an all-gather puts all pieces together everywhere, a
reduce-scatter leaves each rank its piece of the sum, and one after the other they are an all-reduce. An all-to-all
swaps pieces, a broadcast copies one rank's buffer, send-recv passes each rank's on to the next. A small message takes a
latency α whatever its size, a large one bytes ÷ bandwidth β: t = α + s/β, fitted. Two bandwidths, as in nccl-tests (its
doc/PERFORMANCE.md): algbw = S ÷ t; busbw = algbw × what each rank must send at least, so that numbers over different n
compare. What leaves a node depends on the algorithm: a ring busbw/g a GPU, a tree busbw·(k−1)/(n−1) (`labs.wire`).

Method: small integers, so that results are exact in any order and any error shows; filled anew and compared in full in
every iteration, outside the timed part. On CPUs the ranks meet at a barrier first; on GPUs the calls queue back to
back. Each rank times each of them; a sample is the slowest rank's. Value: from the median. Sizes for which the budget
does not suffice are left out and named. On GPUs NCCL's own log, a line a call, tells algorithm and transport. On nodes
with EFA a 1 GiB all-reduce first has to prove that it goes that way (`labs.efa`), or the run fails; --allow-tcp goes
on.

Output: busbw, algbw, time, spread over ranks and wire rate per size; latency, α, β and n½ per collective; one record.

    python -m workloads.collectives
    torchrun --standalone --nproc-per-node 4 -m workloads.collectives --collectives all-reduce --largest 16MiB
"""

import argparse
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from labs.accelerators import by_instance
from labs.efa import broken
from labs.findings import Finding
from labs.instances import InstanceType, instance_types
from labs.results import Measurement
from labs.wire import COLLECTIVES, bus_bound
from workloads.collective import efa, gloo, nccltests
from workloads.collective.nccl import Log, heard, listening
from workloads.collective.operations import EXACT_RANKS
from workloads.collective.rows import Circle, notes_of, row_line, row_of, rows_of
from workloads.collective.sizes import MOST_BYTES, UNITS, factor, ladder, room_bytes, size, size_name
from workloads.collective.sweep import Timed, sweep
from workloads.command import CheckFailed, Parser, dtypes, positive, seconds, start
from workloads.device import Device, find_device
from workloads.group import Group, Place, joined, place
from workloads.record import Surroundings, surroundings, write
from workloads.sensors import Sensors, describe


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    collectives: tuple[str, ...]
    sizes_bytes: tuple[int, ...]
    """Of the larger of a rank's two buffers, ascending."""
    dtypes: tuple[str, ...]
    iterations: int
    """Timed calls per size, where the budget allows."""
    warmup: int
    """Calls before that."""
    budget_s: float
    """For all sizes of all collectives together."""
    allow_tcp: bool
    """Whether to go on where a node that has EFA does not use it."""


def configure(flags: argparse.Namespace, device: Device, ranks: int) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    room = room_bytes(device, ranks)
    default = min(MOST_BYTES if device.cuda else 4 * UNITS["MiB"], room or UNITS["GiB"])
    largest = flags.largest or max(default, flags.smallest)
    if flags.smallest > largest:
        raise ValueError(f"smallest={size_name(flags.smallest)} is above largest={size_name(largest)}")
    if room is not None and largest > room:
        raise ValueError(f"largest={size_name(largest)} does not fit: {device.name} has room for {size_name(room)}")
    growth = flags.factor or (2 if device.cuda else 4)
    return Config(
        collectives=_collectives(flags.collectives, ranks), dtypes=_dtypes(flags.dtypes, ranks),
        sizes_bytes=ladder(flags.smallest, largest, growth), iterations=flags.iterations or (20 if device.cuda else 10),
        warmup=flags.warmup or (5 if device.cuda else 2), allow_tcp=flags.allow_tcp,
        budget_s=(240.0 if device.cuda else 7.0) if flags.budget_s is None else flags.budget_s,
    )  # fmt: skip


def _collectives(names: tuple[str, ...] | None, ranks: int) -> tuple[str, ...]:
    for name in names or ():
        if name not in COLLECTIVES:
            raise ValueError(f"collectives={name!r} is not known: write some of {','.join(COLLECTIVES)}")
    if ranks == 1 and names and "send-recv" in names:
        raise ValueError("collectives='send-recv' needs a second rank: start it with torchrun --nproc-per-node 2")
    return names or tuple(name for name in COLLECTIVES if ranks > 1 or name != "send-recv")


def _dtypes(names: tuple[str, ...] | None, ranks: int) -> tuple[str, ...]:
    for name in names or ():
        if name not in EXACT_RANKS:
            raise ValueError(f"dtypes={name!r} is not known: write some of {','.join(EXACT_RANKS)}")
        if ranks > EXACT_RANKS[name]:
            raise ValueError(f"dtypes={name!r} cannot hold the sums of {ranks} ranks exactly: write fp32")
    return names or tuple(name for name, most in EXACT_RANKS.items() if ranks <= most)


def names(text: str) -> tuple[str, ...]:
    """A flag's value as collectives; which there are, `configure` says."""
    return tuple(text.split(","))


def network(device: Device, name: str | None) -> InstanceType | None:
    """The type whose network this is: the one that the launcher names, if the GPU is the one that it carries.

    A rehearsed node bears a GPU type's name and runs on somebody's laptop; its network is not that type's.
    """
    if name is None or device.accelerator is None:
        return None
    kind = instance_types().get(name)
    return kind if kind is not None and by_instance(kind) is device.accelerator else None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run, before its first message."""

    config: Config
    here: Place
    circle: Circle
    within: Surroundings
    efas: int
    """EFA interfaces that each node must have and use; 0: not an EFA lab."""
    log: Path
    """Where NCCL writes what it does."""
    theirs: tuple[nccltests.Theirs, ...] = ()
    """What nccl-tests measured on this node's GPUs."""
    notes: tuple[str, ...] = ()


def prove_efa(setting: Setting, group: Group) -> tuple[Finding, ...]:
    """On an EFA lab: that messages go over EFA. On any other: nothing.

    Raises:
        CheckFailed: on every rank, if they do not and --allow-tcp was not given.
    """
    if not setting.efas:
        group.say("not an EFA lab: nothing to prove")
        return ()
    circle = setting.circle
    found = efa.prove(group, nodes=circle.nodes, local_rank=setting.here.local_rank, kind=circle.network,
                      efas=setting.efas, log=setting.log)  # fmt: skip
    for finding in found:
        group.say(finding.line())
    if (failed := broken(found)) and not setting.config.allow_tcp:
        raise CheckFailed(f"this is not EFA: {'; '.join(f'{one.subject}: {one.seen}' for one in failed)}. The lines "
                          f"above say what to do; --allow-tcp measures all the same")  # fmt: skip
    return found


def run(setting: Setting, group: Group, flags: argparse.Namespace) -> None:
    """Prove EFA, print the roof, measure, print and write what came out."""
    config, circle = setting.config, setting.circle
    findings = prove_efa(setting, group)
    bound = bus_bound("all-reduce", circle.network, circle.nodes, circle.ranks)
    group.say(f"roof busbw of an all-reduce: {bound.roof.value / 1e9:.2f} GB/s ({bound.roof.source})" if bound.roof
              else f"roof busbw: none, {bound.no_roof_because}")  # fmt: skip

    def tell(collective: str, dtype: str, timed: Timed) -> None:
        group.say(row_line(row_of(collective, dtype, timed, circle)))

    with Sensors(group.device) as sensors:
        done = sweep([(name, dtype) for dtype in config.dtypes for name in config.collectives], config.sizes_bytes,
                     iterations=config.iterations, warmup=config.warmup, budget_s=config.budget_s, group=group,
                     tell=tell)  # fmt: skip
    logs = group.gather(heard(setting.log))
    if not group.first:
        return
    beside = {row.size_bytes: row.busbw for row in setting.theirs} if circle.nodes == 1 else {}
    rows = [row for series in done for row in rows_of(series, circle, logs[0], beside)]
    for row in rows:
        if row.unit == "s":
            group.say(row_line(row))
    notes = (*(finding.line() for finding in findings), _transport(logs), *setting.notes,
             *notes_of(done, circle, rows, config.budget_s))  # fmt: skip
    _write(setting, group, flags, rows, notes, sensors)


def _transport(logs: Sequence[Log]) -> str:
    """What the messages went over, by all ranks' own word."""
    ways: dict[str, int] = {}
    for log in logs:
        for way, count in log.ways.items():
            ways[way] = ways.get(way, 0) + count
    spoken = next((log for log in logs if log.network), logs[0])
    return replace(spoken, ways=ways).transport or gloo.transport()


def _write(setting: Setting, group: Group, flags: argparse.Namespace, rows: Sequence[Measurement],
           notes: tuple[str, ...], sensors: Sensors) -> None:  # fmt: skip
    within = setting.within
    for note in notes:
        group.say(f"note: {note}")
    machine = describe(group.device, devices=group.size, reading=sensors.reading,
                       instance_type=within.instance_type, libraries=())  # fmt: skip
    path = write(flags.out, "collectives", tuple(rows), within=within, machine=machine, config=setting.config,
                 cluster=True, ranks=group.size, notes=notes)  # fmt: skip
    sizes = sum(row.unit == "B/s" for row in rows)
    group.say(f"{sizes} sizes over {group.size} ranks, every element exact on every rank: {path}")


def agreed(setting: Setting, group: Group) -> Setting:
    """With the sizes that every rank has room for."""
    sizes_bytes = min(group.gather(setting.config.sizes_bytes), key=len)
    return replace(setting, config=replace(setting.config, sizes_bytes=sizes_bytes))


def beside_nccl_tests(setting: Setting, device: Device, gpus: int) -> Setting:
    """With nccl-tests' numbers, where this is the first rank and the image has it; the others wait meanwhile."""
    binary = nccltests.find_binary() if device.cuda and setting.here.rank == 0 else None
    if binary is None:
        return setting
    sizes_bytes = setting.config.sizes_bytes
    rows, failure = nccltests.run_beside(binary, gpus, sizes_bytes, sizes_bytes[1] // sizes_bytes[0]
                                         if len(sizes_bytes) > 1 else 2)  # fmt: skip
    note = failure or nccltests.parity_note(rows, gpus)
    if setting.circle.nodes > 1:
        note += "; over the nodes it needs MPI, so its rates do not stand beside ours"
    return replace(setting, theirs=tuple(rows), notes=(note,))


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: an element is wrong, or a node with EFA does not use it.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("collectives", __doc__)
    parser.add_argument("--collectives", type=names, help=f"some of {','.join(COLLECTIVES)}; default: all")
    parser.add_argument("--smallest", type=size, default=UNITS["KiB"], help="first size, for example 1KiB")
    parser.add_argument("--largest", type=size, help="last size; default: 4MiB on a CPU, on a GPU what memory allows")
    parser.add_argument("--factor", type=factor, help="from one size to the next; default: 4 on a CPU, 2 on a GPU")
    parser.add_argument("--dtypes", type=dtypes, help="of the elements; default: fp32,bf16")
    parser.add_argument("--iterations", type=positive, help="timed calls per size")
    parser.add_argument("--warmup", type=positive, help="calls before that")
    parser.add_argument("--budget-s", type=seconds, help="for all sizes together; default: 7 on a CPU, 240 on a GPU")
    parser.add_argument("--allow-tcp", action="store_true", help="go on where a node with EFA does not use it")
    flags = parser.parse_args(arguments)
    try:
        here, within = place(), surroundings()
        device = find_device(flags.device, here.local_rank)
        config = configure(flags, device, here.size)
        kind = network(device, within.instance_type)
        nodes = min(within.nodes, here.size)  # one rank alone is on one node, however many the run has
        efas = efa.wanted(kind, nodes) if device.cuda else 0
    except ValueError as error:
        parser.error(str(error))
    circle = Circle(ranks=here.size, nodes=nodes, network=kind)
    setting = Setting(config=config, here=here, circle=circle, within=within, efas=efas, log=Path(os.devnull))
    setting = beside_nccl_tests(setting, device, here.size // nodes)
    with listening() if device.cuda else nullcontext(Path(os.devnull)) as log, joined(here, device) as group:
        run(agreed(replace(setting, log=log), group), group, flags)


if __name__ == "__main__":
    start("collectives", main)
