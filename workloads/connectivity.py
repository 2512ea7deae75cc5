"""connectivity: does every node, and every pair of ranks, reach every other one? Names the culprit where not.

A collective is as whole as its worst link: one closed port, one packet size that is lost, one GPU that sums wrongly,
and all ranks of all nodes wait, at full price, until a time limit of minutes ends them. Which of them it was, none of
them can tell. Here nothing is collective: each end of each link is tried by itself, within seconds.

Method: every node's doctor listens on a port worked out from the run's name and tries every other one, stage by stage:
does its name resolve, does it answer, how far is its clock, does 1 MiB arrive as a small message does, is the address
that its collectives announce its own. Meanwhile each rank's device computes something whose result is known, alone.
Then every two ranks exchange data by gloo or NCCL, in rounds where each rank is busy once (beyond 16 ranks: those at
distances 1, 2, 4, …). Each stage has its own time limit, ranks are processes that can be ended, and who is to blame is
worked out from the reports of all nodes: a rank if none of its pairs holds, a link if it is one.

Output: a line for each culprit with its likely cause and remedy; time there and back, bandwidth and clock for each peer
and pair; this node's report below out/connectivity; one record. Exit code 1 where anything is broken: fab then skips
the run's cluster jobs, each of which would hold all GPUs until its time limit.

    python -m workloads.connectivity
    ROOFLAB_NODE=node1 ROOFLAB_PEERS='node0=10.0.0.1 node1=10.0.0.2' python -m workloads.connectivity
"""

import argparse
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from labs.connections import Report
from labs.culprits import judge
from labs.findings import Finding
from labs.results import Machine, Measurement
from workloads.connection.crew import Serve, serve
from workloads.connection.examination import Examination, Order
from workloads.connection.probing import Limits
from workloads.connection.station import Station, begin_early, keep

# torch is imported inside functions only: it takes seconds, and peers find this node before it is there.

_UNBOUNDED = "what a small exchange costs is latency, and no datasheet tells it"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is looked at."""

    ranks: int
    """Ranks on a node without GPUs; 0: the network only."""
    gpus: bool
    """Whether GPUs are used where there are some."""
    limit_s: float
    """Longest time until this node's report is made."""


def configure(flags: argparse.Namespace, nodes: int) -> Config:
    """The flags; a larger cluster gets more time, for its nodes start less together."""
    limit_s = flags.limit if flags.limit else 90.0 + 3 * nodes
    return Config(ranks=0 if flags.skip_ranks else flags.cpu_ranks, gpus=flags.device != "cpu", limit_s=limit_s)


def rows(report: Report) -> Iterator[Measurement]:
    """What held, as rows of a record: each peer's links, then each pair of ranks."""
    units = {"connect": ("there and back", "s"), "burst": ("burst", "B/s")}
    for probe in report.probes:
        if probe.stage in units and probe.value is not None and probe.outcome == "ok":
            what, unit = units[probe.stage]
            yield Measurement(name=f"{report.node} → {probe.peer} {what}", value=probe.value, unit=unit,
                              estimator="one message, all peers at once", config={"peer": probe.peer, "what": what},
                              no_roof_because=_UNBOUNDED)  # fmt: skip
    for pair in report.pairs:
        config = {"first": pair.first, "second": pair.second}
        if pair.latency_s is not None and pair.bytes_per_s is not None:
            yield Measurement(name=f"{pair.first} ↔ {pair.second} all-reduce of 64 B", value=pair.latency_s, unit="s",
                              estimator="fastest of 5", config=config, no_roof_because=_UNBOUNDED)  # fmt: skip
            yield Measurement(name=f"{pair.first} ↔ {pair.second} all-reduce of 1 MiB", value=pair.bytes_per_s,
                              unit="B/s", estimator="fastest of 5", config=config,
                              no_roof_because=_UNBOUNDED)  # fmt: skip


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """All findings for the log; what to do stands below."""
    for finding in findings:
        yield f"{finding.level:5} {finding.subject:17} {finding.seen}"
        if finding.means:
            yield f"{'':23} means: {finding.means}"
        if finding.do:
            yield f"{'':23} do: {finding.do}"


def culprit(findings: Sequence[Finding]) -> str:
    """The first that fails and how many more there are; "" where none does."""
    bad = [f"{one.subject}: {one.seen}" for one in findings if one.level == "fail"]
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    return f"{bad[0]}{more}" if bad else ""


def examine(station: Station, config: Config, say: Callable[[str], None], work: Serve = serve
            ) -> tuple[Mapping[str, Report], tuple[Finding, ...]]:  # fmt: skip
    """Look at everything; the reports that this node has, and what they amount to."""
    order = Order(ranks=config.ranks, gpus=config.gpus, limit_s=config.limit_s, limits=Limits.of(len(station.peers)),
                  work=work)  # fmt: skip
    try:
        reports = Examination(station, order, say).run()
    finally:
        station.close()
    return reports, judge([peer.name for peer in station.peers], reports)


def main(arguments: Sequence[str], early: Station | None = None, work: Serve = serve) -> None:
    """Run on these flags; `early` is a station that answers already, `work` what a rank's process does.

    Raises:
        CheckFailed: something is broken.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    from workloads.command import CheckFailed, Parser, positive, seconds
    from workloads.record import surroundings, write

    parser = Parser("connectivity", __doc__)
    parser.add_argument("--cpu-ranks", type=positive, default=2, help="ranks of a node without GPUs; default: 2")
    parser.add_argument("--skip-ranks", action="store_true", help="look at the network only")
    parser.add_argument("--limit", type=seconds, default=0.0, help="seconds for all of it; default: 90, and 3 a node")
    flags = parser.parse_args(arguments)
    try:
        station = early or Station(os.environ)
        within = surroundings()
    except ValueError as error:
        parser.error(str(error))
    if early is None:
        station.open()
    config = configure(flags, len(station.peers))
    reports, findings = examine(station, config, partial(print, flush=True), work)
    for line in lines(findings):
        print(line, flush=True)
    mine = reports[station.me.name]
    folder = Path(os.environ.get("ROOFLAB_OUT") or flags.out) / "connectivity"
    keep(folder, [mine])
    versions = {name: value for name, value in mine.facts.items() if name not in ("mtu", "clock", "commit")}
    machine = Machine(hostname=socket.gethostname(), device=mine.ranks[0].device if mine.ranks else "not looked at",
                      devices=max(1, len(mine.ranks)), instance_type=within.instance_type,
                      driver=mine.facts.get("driver"), versions=versions)  # fmt: skip
    path = write(flags.out, "connectivity", tuple(rows(mine)), within=within, machine=machine, config=config,
                 notes=tuple(finding.line() for finding in findings))  # fmt: skip
    print(f"{mine.seconds:.1f} s: {path}", flush=True)
    if failed := culprit(findings):
        if kept := os.environ.get("ROOFLAB_RUN_DIR"):  # run.sh starts no cluster job then: they would wait for minutes
            (Path(kept) / "unfit").write_text(f"connectivity: {failed}\n")
        raise CheckFailed(failed)


if __name__ == "__main__":
    here = begin_early(os.environ)
    from workloads.command import start

    start("connectivity", partial(main, early=here))
