"""doctor: is this machine well? What would spoil every number is found first, with what to do about it.

A GPU may be slower than its datasheet for reasons that no benchmark names: a clock held down by heat or a low power
cap, half of its PCIe lanes, memory rows that failed, a driver older than torch wants, another process in its memory.
The machine around it spoils numbers as well: cores that others use, a /dev/shm of 64 MiB, disks not mounted.

Method: nvidia-smi is asked for each GPU (NVML where that is absent), the kernel, /proc and /sys for the rest; each
answer is judged by a rule, whose text is the finding. Then each link carries a copy that is checked byte for byte: its
roof is the lanes' rate. Levels: ok, note (worth knowing), warn (numbers will be worse), fail (exit code 1: nothing
runs, or nothing that it computes can be trusted).

Output: a line for each finding, B/s of each link beside its roof; one record, whose notes are the findings.

    python -m workloads.doctor
    python -m workloads.doctor --skip-copies
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from labs.findings import LEVELS, Finding, note, ok, warn, worst
from labs.results import Measurement
from workloads.command import CheckFailed, Parser, start
from workloads.device import Device
from workloads.diagnosis import copies, gpus, host, software, topology
from workloads.diagnosis.command import ask, query, rows
from workloads.diagnosis.gpus import Card
from workloads.diagnosis.topology import Matrix
from workloads.nvml import Gauge
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe

SLOW_LINK = 0.6
"""A link below this share of its lanes' rate is worth a warning: a healthy one reaches 0.8 and more."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is looked at."""

    copies: bool
    """Whether links are measured."""
    seed: int
    threads: int
    """CPU threads that torch may use."""


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags; every machine can be looked at."""
    return Config(copies=not flags.skip_copies, seed=flags.seed, threads=torch.get_num_threads())


def look_at_gpus(device: Device) -> tuple[list[Card], list[Finding]]:
    """Every GPU that answers, and what is to be said of it."""
    answer, known = query(gpus.FIELDS)
    cards = [Card(told=row) for row in rows(answer.text, known)] if answer.code == 0 else []
    remapped_answer, names = query(gpus.REMAPPED, "--query-remapped-rows")
    remapped = {row.get("gpu_uuid", ""): row for row in rows(remapped_answer.text, names)}
    found = [finding for card in cards for finding in gpus.judge(card, remapped.get(card.told.get("uuid", "-"), {}))]
    return cards, found or list(by_nvml(device, answer.text))


def by_nvml(device: Device, why: str) -> Iterator[Finding]:
    """What NVML alone tells of the GPU in use, where nvidia-smi tells nothing."""
    if not device.cuda:
        return
    gauge = Gauge(device)
    told = {"MHz": gauge.clock_mhz, "of MHz": gauge.top_mhz, "W": gauge.power_w}
    words = ", ".join(f"{value:.0f} {unit}" for unit, value in told.items() if value is not None)
    said = why.strip().splitlines()[-1] if why.strip() else "nvidia-smi says nothing"
    yield note("GPU 0", f"{device.name}, {words or gauge.why}", f"memory errors and links are not told: {said}")
    for reason in gauge.held_by:
        yield warn("GPU 0", f"its clock is held down by {reason}", "numbers are lower", "see nvidia-smi -q -d CLOCK")


def links(rows_: Sequence[Measurement]) -> Iterator[Finding]:
    """What the measured links say."""
    for row in rows_:
        rate = f"{row.name}: {row.value / 1e9:.1f} GB/s"
        if row.fraction is None or row.roof is None:
            yield ok("link", rate)
        elif row.fraction < SLOW_LINK:
            yield warn("link", f"{rate}, {row.fraction:.0%} of {row.roof.source}", "loading and offloading take longer",
                       "end other users of the host's memory; compare pcie.link.gen.current under load")  # fmt: skip
        else:
            yield ok("link", f"{rate}, {row.fraction:.0%} of {row.roof.source}")


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """All findings for the log; what to do stands below."""
    for finding in findings:
        yield f"{finding.level:5} {finding.subject:11} {finding.seen}"
        if finding.means:
            yield f"{'':17} means: {finding.means}"
        if finding.do:
            yield f"{'':17} do: {finding.do}"


def verdict(findings: Sequence[Finding]) -> str:
    """How many of each level."""
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    return ", ".join(f"{count} {level}" for level, count in counts.items())


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Look, print, measure the links, write the record, and fail where a finding does.

    Raises:
        CheckFailed: a finding is of level "fail", or a copy did not arrive as it was sent.
    """
    installed = software.look()
    cards, findings = look_at_gpus(device)
    matrix: Matrix = topology.parse(ask("nvidia-smi", "topo", "-m").text) if len(cards) > 1 else {}
    findings = [*software.judge(installed, len(cards)), *findings, *topology.judge(matrix),
                *host.judge(host.look(flags.out))]  # fmt: skip
    for line in lines(findings):
        print(line, flush=True)
    measured: list[Measurement] = []
    with Sensors(device) as sensors:
        if config.copies:
            measured = list(copies.measure(device, cards, matrix, config.seed))
    slow = list(links(measured))
    for line in lines(slow):
        print(line, flush=True)
    findings += slow
    machine = describe(device, devices=max(1, len(cards)), reading=sensors.reading,
                       instance_type=within.instance_type, libraries=("transformers",))  # fmt: skip
    path = write(flags.out, "doctor", tuple(measured), within=within, machine=machine, config=config,
                 notes=tuple(finding.line() for finding in findings))  # fmt: skip
    print(f"{verdict(findings)}: {path}", flush=True)
    if worst(findings) == "fail":
        bad = [f"{finding.subject}: {finding.seen}" for finding in findings if finding.level == "fail"]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise CheckFailed(f"{bad[0]}{more}")


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: the machine is not well.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("doctor", __doc__)
    parser.add_argument("--skip-copies", action="store_true", help="look only; measure no link")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("doctor", main)
