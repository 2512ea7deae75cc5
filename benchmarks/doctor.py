"""How long the doctor of connections takes to name each injected fault: two nodes, each a process of its own.

Faults are those of tests/workloads/connection/faults.py on loopback, and as root what a kernel can do to the packets
between two network namespaces. Time runs from the start of the nodes' processes until the last of them has ended.

    python -m benchmarks.doctor
    python -m benchmarks.doctor --only network
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from labs.culprits import judge
from operate.connections import read_reports
from tests.workloads.connection.faults import FAULTS, Fault, Twist, environment, relay

GOAL_S = 30.0
ROOT = Path(__file__).parents[1]
_NODES = ("node0", "node1")
_IP = {"node0": "10.78.0.1", "node1": "10.78.0.2"}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Something that is wrong with the packets between two network namespaces."""

    name: str
    culprit: str
    cause: str
    at: str
    """The node where `commands` are given."""
    commands: tuple[str, ...] = ()
    environment: Mapping[str, str]
    """Of that node."""


CUTS = (
    Cut(name="packets lost both ways", culprit="node0 ↔ node1", cause="security group", at="node1",
        commands=("ip neigh add 10.78.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",), environment={}),
    Cut(name="packets above 1300 bytes lost", culprit="node0 → node1", cause="MTU", at="node0",
        commands=("tc qdisc add dev eth0 root tbf rate 1gbit burst 1300 latency 50ms",), environment={}),
    Cut(name="link of 256 kbit/s", culprit="node0 → node1", cause="slow link", at="node0",
        commands=("tc qdisc add dev eth0 root tbf rate 256kbit burst 16kb latency 500ms",), environment={}),
    Cut(name="no route back", culprit="node1", cause="no route", at="node1",
        commands=("ip route del 10.78.0.0/24 dev eth0",), environment={}),
    Cut(name="interface that peers cannot reach", culprit="node1", cause="wrong interface", at="node1",
        environment={"GLOO_SOCKET_IFNAME": "lo"}),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was said of one fault."""

    name: str
    wanted: str
    said: str
    """All findings that fail."""
    right: bool
    seconds: float


def run_on_loopback(fault: Fault, folder: Path) -> Found:
    """Both nodes of a fault of the tests' table."""
    run = f"bench {fault.name}"
    begun = {}
    with relay(fault.way, run):
        began = time.monotonic()
        for node in _NODES:
            twist: Twist = getattr(fault, node)
            if not twist.absent:
                told = environment(fault, node, run, folder)
                begun[node] = start(node, told, folder, twist.work, twist.ahead_s, () if fault.ranks else
                                    ("--skip-ranks",))  # fmt: skip
        seconds = wait(begun, began)
    return found(fault.name, f"{fault.culprit}: {fault.cause}", fault.culprit, fault.cause, folder, seconds)


def run_between_namespaces(cut: Cut, folder: Path) -> Found:
    """Both nodes with a real link between them."""
    with ExitStack() as stack:
        names = stack.enter_context(linked())
        for command in cut.commands:
            subprocess.run(["ip", "netns", "exec", names[cut.at], *command.split()], check=True)
        began = time.monotonic()
        begun = {}
        for node in _NODES:
            told = {
                **os.environ, "ROOFLAB_RUN": f"bench {cut.name}", "ROOFLAB_NODE": node, "GLOO_SOCKET_IFNAME": "eth0",
                "ROOFLAB_PEERS": " ".join(f"{name}={address}" for name, address in _IP.items()),
                **(cut.environment if node == cut.at else {}),
            }  # fmt: skip
            begun[node] = start(node, told, folder, "", 0.0, (), ("ip", "netns", "exec", names[node]))
        seconds = wait(begun, began)
    return found(cut.name, f"{cut.culprit}: {cut.cause}", cut.culprit, cut.cause, folder, seconds)


@contextmanager
def linked() -> Iterator[dict[str, str]]:
    """Two network namespaces with a link between them, by node."""
    names = {node: f"rooflab-{os.getpid()}-{node}" for node in _NODES}
    try:
        for name in names.values():
            subprocess.run(["ip", "netns", "add", name], check=True)
        first, second = names.values()
        subprocess.run(["ip", "link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns",
                        second], check=True)  # fmt: skip
        for node, name in names.items():
            for command in ("link set lo up", f"addr add {_IP[node]}/24 dev eth0", "link set eth0 up"):
                subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def start(node: str, told: Mapping[str, str], folder: Path, work: str, ahead_s: float, flags: tuple[str, ...],
          before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:  # fmt: skip
    """One node's doctor."""
    out = folder / "out" / node
    out.mkdir(parents=True)
    line = [*before, sys.executable, "-m", "tests.workloads.connection.node", work, str(ahead_s), "--out",
            str(folder / "records"), "--device", "cpu", *flags]  # fmt: skip
    with (folder / f"{node}.log").open("wb") as log:
        return subprocess.Popen(line, cwd=ROOT, env={**told, "ROOFLAB_OUT": str(out), "OMP_NUM_THREADS": "1",
                                "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)  # fmt: skip


def wait(begun: Mapping[str, subprocess.Popen[bytes]], began: float) -> float:
    """Seconds until the last of them has ended."""
    try:
        for process in begun.values():
            process.wait(300)
    finally:
        for process in begun.values():
            process.kill()
    return time.monotonic() - began


def found(name: str, wanted: str, culprit: str, cause: str, folder: Path, seconds: float) -> Found:
    """What the reports of both nodes, side by side, say."""
    bad = [one for one in judge(_NODES, read_reports(folder)) if one.level == "fail"]
    said = "; ".join(f"{one.subject}: {one.seen}" for one in bad) or "nothing"
    right = len(bad) == 1 and bad[0].subject == culprit and bad[0].seen.startswith(cause)
    return Found(name=name, wanted=wanted, said=said, right=right, seconds=seconds)


def main() -> int:
    """Inject every fault; 0 if each was named within the goal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doctor", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--only", choices=("table", "network"), help="the tests' table, or the namespaces (as root)")
    parser.add_argument("--json", type=Path, help="file for every fault's time")
    flags = parser.parse_args()
    cuts = flags.only != "table" and os.getuid() == 0
    everything: dict[str, Callable[[Path], Found]] = {}
    everything |= {fault.name: partial(run_on_loopback, fault) for fault in FAULTS if flags.only != "network"}
    everything |= {cut.name: partial(run_between_namespaces, cut) for cut in CUTS if cuts}
    if not everything:
        parser.error("network namespaces need root: start it as root, or write --only table")
    results = []
    for examine in everything.values():
        with tempfile.TemporaryDirectory(prefix="rooflab-doctor-") as folder:
            results.append(examine(Path(folder)))
        verdict = "right" if results[-1].right else "WRONG"
        print(f"{verdict} {results[-1].seconds:5.1f} s  {results[-1].name}: {results[-1].said}", flush=True)
    right = sum(result.right for result in results)
    slowest = max(result.seconds for result in results)
    print(f"{right} of {len(results)} named, slowest {slowest:.1f} s (goal: all, each within {GOAL_S:.0f} s)")
    if flags.json:
        flags.json.write_text(json.dumps([vars(result) for result in results], indent=1) + "\n")
    return 0 if right == len(results) and slowest <= GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
