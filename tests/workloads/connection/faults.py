"""What can be wrong between two nodes, made so, and what the doctor is to say of it: the culprit and the cause.

Two nodes stand on loopback addresses of their own. On its way to node1, node0 may meet a relay that does what a network
does: drop, swallow what is large, take its time, or lead elsewhere.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from workloads.connection import crew
from workloads.connection.crew import Serve
from workloads.connection.peers import port

Way = Literal["", "drops", "swallows", "slows", "strays"]
ADDRESSES = {"node0": "127.8.0.1", "node1": "127.8.0.2"}
RELAY = "127.8.0.66"
_SMALL = 16 * 2**10
_SLOW_BYTES_PER_S = 40_000


@dataclass(frozen=True, kw_only=True)
class Twist:
    """What is unusual about one node."""

    absent: bool = False
    """Its doctor is not started."""
    environment: Mapping[str, str] = field(default_factory=dict)
    fi_info: str = ""
    """What a stand-in of libfabric's program prints before it fails."""
    ahead_s: float = 0.0
    """Of its clock."""
    work: str = ""
    """Which of `WORK` its ranks do instead of theirs."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong."""

    name: str
    culprit: str
    cause: str
    """How what is said begins."""
    node0: Twist = Twist()
    node1: Twist = Twist()
    way: Way = ""
    """What the relay does."""
    ranks: int = 0
    """On each node; 0 where the network alone shows it."""


FAULTS = (
    Fault(name="process not started", culprit="node1", cause="not running", node1=Twist(absent=True)),
    Fault(name="packets dropped one way", culprit="node0 → node1", cause="security group", way="drops"),
    Fault(name="large packets lost", culprit="node0 → node1", cause="MTU", way="swallows"),
    Fault(name="slow link", culprit="node0 → node1", cause="slow link", way="slows"),
    Fault(name="address of another run", culprit="node0 → node1", cause="wrong address", way="strays"),
    Fault(name="name that does not resolve", culprit="node0", cause="name",
          node0=Twist(environment={"ROOFLAB_PEERS": "node0=127.8.0.1 node1=nowhere.invalid"})),
    Fault(name="interface that is not there", culprit="node1", cause="wrong interface",
          node1=Twist(environment={"GLOO_SOCKET_IFNAME": "eth9"})),
    Fault(name="clock ahead", culprit="node0 ↔ node1", cause="clock skew", node1=Twist(ahead_s=90.0)),
    Fault(name="another commit", culprit="node0 ↔ node1", cause="version mismatch: commit",
          node0=Twist(environment={"ROOFLAB_COMMIT": "1234567"}),
          node1=Twist(environment={"ROOFLAB_COMMIT": "89abcde"})),
    Fault(name="EFA missing", culprit="node1", cause="missing EFA",
          node1=Twist(environment={"ROOFLAB_EFAS": "1"}, fi_info="fi_getinfo: -61 (No data available)")),
    Fault(name="another torch", culprit="node0 ↔ node1", cause="version mismatch: torch", ranks=2,
          node1=Twist(work="old")),
    Fault(name="device computes wrongly", culprit="node1 rank 1", cause="device fault: a wrong result", ranks=2,
          node1=Twist(work="wrong")),
    Fault(name="device hangs", culprit="node1 rank 1", cause="device fault: no answer", ranks=2,
          node1=Twist(work="hangs")),
    Fault(name="rank is killed", culprit="node1 rank 1", cause="device fault: an error", ranks=2,
          node1=Twist(work="dies")),
    Fault(name="rank raises among others", culprit="node1 rank 1", cause="collective", ranks=2,
          node1=Twist(work="raises")),
    Fault(name="rank hangs among others", culprit="node1 rank 1", cause="collective", ranks=2,
          node1=Twist(work="stalls")),
)  # fmt: skip


def environment(fault: Fault, node: str, run: str, folder: Path) -> dict[str, str]:
    """The variables of one node's doctor."""
    twist = getattr(fault, node)
    peers = {**ADDRESSES, **({"node1": RELAY} if fault.way and node == "node0" else {})}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROOFLAB_")}
    told = {
        **kept, "ROOFLAB_RUN": run, "ROOFLAB_NODE": node, "GLOO_SOCKET_IFNAME": "lo", "ROOFLAB_COMMIT": "1234567",
        "ROOFLAB_PEERS": " ".join(f"{name}={address}" for name, address in peers.items()), **twist.environment,
    }  # fmt: skip
    if twist.fi_info:
        program = folder / node / "fi_info"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho '{twist.fi_info}'\nexit 61\n")
        program.chmod(0o755)
        told["PATH"] = f"{program.parent}:{told['PATH']}"
    return told


@contextlib.contextmanager
def relay(way: Way, run: str) -> Iterator[None]:
    """What node0 meets on its way to node1."""
    if not way:
        yield
        return
    here = port(run, 1)
    with socket.socket() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end.bind((RELAY, here))
        end.listen(0 if way == "drops" else 64)
        waiting = []
        if way == "drops":  # a queue of connections that is full: the kernel drops whatever else asks
            for _ in range(2):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex((RELAY, here))
        else:
            threading.Thread(target=_forward, args=(end, way, here), daemon=True).start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            for one in waiting:
                one.close()


def _forward(end: socket.socket, way: Way, here: int) -> None:
    while True:
        try:
            near, _ = end.accept()
            far = socket.create_connection((ADDRESSES["node0" if way == "strays" else "node1"],
                                            here - 1 if way == "strays" else here), timeout=30)  # fmt: skip
        except ConnectionRefusedError:
            near.close()
            continue
        except OSError:
            return  # closed
        threading.Thread(target=_carry, args=(near, far, way), daemon=True).start()
        threading.Thread(target=_carry, args=(far, near, ""), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket, way: Way) -> None:
    carried = 0
    with contextlib.suppress(OSError):
        while part := source.recv(_SMALL):
            if way == "swallows" and len(part) > 2000:
                time.sleep(60)  # it is never told that anything is lost
            if way == "slows" and carried > 2000:
                time.sleep(len(part) / _SLOW_BYTES_PER_S)
            carried += len(part)
            target.sendall(part)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


def _serve(pipe: Connection, local: int, gpu: bool, given: Mapping[str, str], **replaced: Callable[..., Any]) -> None:
    """A rank's process, whose functions of these names are others."""
    from workloads.connection import rank

    for name, function in replaced.items():
        setattr(rank, name, function)
    rank.serve(pipe, local, gpu, given)


def _instead(local: int, **replaced: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return replaced if local == 1 else {}


def serve_old(pipe: Connection, local: int, gpu: bool, given: Mapping[str, str]) -> None:
    from workloads.connection import rank

    true = rank.check
    _serve(pipe, local, gpu, given, check=lambda device: {**true(device), "versions": {"torch": "2.9.1"}})


def serve_wrong(pipe: Connection, local: int, gpu: bool, given: Mapping[str, str]) -> None:
    from workloads.connection import rank

    true = rank.check

    def check(device: Any) -> Any:
        return true(device, lambda left, right: (left @ right).add_(left[:, :1] == 4))

    _serve(pipe, local, gpu, given, **_instead(local, check=check))


def serve_hangs(pipe: Connection, local: int, gpu: bool, given: Mapping[str, str]) -> None:
    _serve(pipe, local, gpu, given, **_instead(local, check=lambda device: time.sleep(3600)))


def serve_dies(pipe: Connection, local: int, gpu: bool, given: Mapping[str, str]) -> None:
    _serve(pipe, local, gpu, given, **_instead(local, check=lambda device: os.kill(os.getpid(), 9)))


def serve_raises(pipe: Connection, local: int, gpu: bool, given: Mapping[str, str]) -> None:
    def meet(device: Any, **told: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    _serve(pipe, local, gpu, given, **_instead(local, meet=meet))


def serve_stalls(pipe: Connection, local: int, gpu: bool, given: Mapping[str, str]) -> None:
    _serve(pipe, local, gpu, given, **_instead(local, meet=lambda device, **told: time.sleep(3600)))


WORK: dict[str, Serve] = {
    "": crew.serve, "old": serve_old, "wrong": serve_wrong, "hangs": serve_hangs, "dies": serve_dies,
    "raises": serve_raises, "stalls": serve_stalls,
}  # fmt: skip
