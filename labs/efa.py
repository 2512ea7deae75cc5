"""Whether a run went over EFA: what was seen on each node, held against what the type has and the algorithm sends.

An exit status proves nothing: without its plugin NCCL goes over TCP without a word, and all results are right. So four
things must hold, each judged by itself: libfabric's provider is efa and NCCL uses it; the type's interfaces are there;
the hardware counters moved by the bytes that the all-reduce must send; and its rate is above the type's floor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from labs.findings import Finding, fail, ok
from labs.instances import InstanceType
from labs.roofs import bus_factor
from labs.wire import busbw, node_bounds

PROOF_BYTES = 2**30
"""Buffer of the all-reduce that proves it: up to 256 KiB EFA is hardly faster than TCP."""
LEAST, MOST = 0.95, 1.25
"""Counted bytes over expected ones: packets have headers and some are sent again, but none is sent by nobody."""
NIC_SHARE = 0.5
"""Floor of a type for which nobody published one, as a share of its network's rate. Provisional: to be replaced by
what the type reaches."""
_FLOORS = {
    "p4d.24xlarge": (26e9, "the pass mark of aws-parallelcluster's test_efa.py at 1 GiB"),
    "p5.48xlarge": (250e9, "the pass mark of aws-parallelcluster's test_efa.py at 1 GiB"),
}
"""Bus bandwidth over two nodes of eight GPUs; read 2026-11-20."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One node's evidence."""

    node: str
    providers: tuple[str, ...] = ()
    """libfabric's endpoints of type RDM as fi_info lists them: the provider of each domain."""
    fi_info: str = ""
    """What fi_info said instead of a list, or why it did not run; "" where it listed."""
    devices: int = 0
    """EFA devices that the kernel has."""
    network: str = ""
    """What NCCL said it uses: "Libfabric", "Socket"; "" where it said nothing."""
    provider: str = ""
    """What NCCL's plugin said it selected: "efa"; "" where it said nothing."""
    complaint: str = ""
    """NCCL's own line on why it does without its plugin; "" where there is none."""
    sent_bytes: float | None = None
    """What the devices' hardware counters grew by; None where they cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """The all-reduces between the two readings of the counters."""

    size_bytes: int
    operations: int
    """All of them, warm-up included."""
    time_s: float
    """Median of one, of the slowest rank."""
    ranks: int
    nodes: int
    algorithm: str = ""
    """As NCCL names what it chose for this size; "" where it did not say."""


def judge(seen: Sequence[Seen], exercise: Exercise, kind: InstanceType | None, wanted: int) -> tuple[Finding, ...]:
    """Provider, interfaces and counters of every node, and the rate of all of them; `wanted` EFAs a node."""
    found: list[Finding] = []
    for one in seen:
        found += [_provider(one), _interfaces(one, kind, wanted), _counters(one, exercise)]
    return (*found, _rate(exercise, kind))


def broken(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Those that failed."""
    return tuple(finding for finding in findings if finding.level == "fail")


def floor_of(kind: InstanceType, exercise: Exercise) -> tuple[float, str]:
    """Least bus bandwidth of those all-reduces, and where that figure is from.

    A published figure holds for the two nodes it was stated for; else each node must send at a share of what its
    network can, by the algorithm, and where that is not known by a ring's bytes, which are the most.
    """
    if kind.name in _FLOORS and (exercise.ranks, exercise.nodes) == (16, 2):
        return _FLOORS[kind.name]
    _, most = node_bounds("all-reduce", 1.0, exercise.ranks, exercise.nodes, exercise.algorithm)
    least = NIC_SHARE * kind.gbps * 1e9 / 8 * bus_factor("all-reduce", exercise.ranks) / most
    return least, f"provisional: {NIC_SHARE:.0%} of {kind.gbps:g} Gbit/s a node"


def _provider(one: Seen) -> Finding:
    subject = f"EFA provider, {one.node}"
    means = "what ranks send goes over TCP, or nowhere"
    if not one.providers:
        return fail(
            subject,
            f"libfabric opens no EFA: {one.fi_info or 'fi_info lists none'}",
            means,
            "fi_info -p efa -t FI_EP_RDM on the node; is its interface of type efa, is EFA's software installed, and "
            "does the security group admit itself?",
        )
    if strange := [name for name in one.providers if name != "efa"]:
        return fail(
            subject,
            f"libfabric's provider is {strange[0]}, not efa",
            means,
            "unset FI_PROVIDER, or export FI_PROVIDER=efa",
        )
    if one.network and "libfabric" not in one.network.lower():
        why = f" ({one.complaint})" if one.complaint else ""
        return fail(
            subject,
            f"libfabric has efa, but NCCL uses its network {one.network}{why}",
            means,
            "LD_LIBRARY_PATH must name the folder of libnccl-net.so (/opt/amazon/ofi-nccl/lib); unset NCCL_NET",
        )
    if one.provider and one.provider != "efa":
        return fail(
            subject, f"NCCL's plugin selected the provider {one.provider}, not efa", means, "export FI_PROVIDER=efa"
        )
    if not one.network:
        return fail(
            subject,
            "libfabric has efa, but NCCL did not say which network it uses",
            "nothing shows that it is EFA",
            "unset NCCL_DEBUG, NCCL_DEBUG_SUBSYS and NCCL_DEBUG_FILE: the workload sets them",
        )
    return ok(subject, f"efa in libfabric, {one.network} in NCCL")


def _interfaces(one: Seen, kind: InstanceType | None, wanted: int) -> Finding:
    subject, of = f"EFA interfaces, {one.node}", kind.name if kind else "this lab"
    opened = len(one.providers)
    if one.devices != wanted:
        return fail(
            subject,
            f"{one.devices} EFA devices, {of} has {wanted}",
            f"at most {one.devices}/{wanted} of the network's rate" if one.devices < wanted else "not its type",
            "look at the launch template's interfaces; `ls /sys/class/infiniband` on the node",
        )
    if 0 < opened < wanted:
        return fail(
            subject,
            f"the kernel has {one.devices} EFA devices, libfabric opens {opened}",
            f"at most {opened}/{wanted} of the network's rate",
            "fi_info -p efa on the node; compare its domains with /sys/class/infiniband",
        )
    return ok(subject, f"{one.devices} of {wanted}")


def _counters(one: Seen, exercise: Exercise) -> Finding:
    subject = f"EFA counters, {one.node}"
    low, high = (
        exercise.operations * each
        for each in node_bounds("all-reduce", exercise.size_bytes, exercise.ranks, exercise.nodes, exercise.algorithm)
    )
    by = exercise.algorithm or "tree or ring"
    due = f"{low / 1e9:.2f} GB" if low == high else f"{low / 1e9:.2f} to {high / 1e9:.2f} GB"
    said = f"of {due} that {exercise.operations} all-reduces must send ({by})"
    if one.sent_bytes is None:
        return fail(
            subject,
            "the hardware counters cannot be read",
            "nothing shows that EFA carried anything",
            "ls /sys/class/infiniband/*/ports/1/hw_counters on the node: update EFA's kernel module",
        )
    seen = f"{one.sent_bytes / 1e9:.2f} GB sent {said}"
    if one.sent_bytes < 0.01 * low:
        return fail(
            subject,
            f"the hardware counters did not move: {seen}",
            "the bytes went another way, by TCP",
            "NCCL's log names the network of each channel: look for NET/Socket",
        )
    if one.sent_bytes < LEAST * low:
        return fail(
            subject,
            f"too little: {seen}",
            "some of the bytes went another way",
            "NCCL's log names the network of each channel: is one of them NET/Socket?",
        )
    if one.sent_bytes > MOST * high:
        return fail(
            subject,
            f"too much: {seen}",
            "something else sends too, or packets are sent again",
            "end what else runs; look at retrans_bytes beside tx_bytes in hw_counters",
        )
    return ok(subject, seen)


def _rate(exercise: Exercise, kind: InstanceType | None) -> Finding:
    subject = "EFA bandwidth"
    reached = busbw("all-reduce", exercise.size_bytes, exercise.ranks, exercise.time_s)
    seen = f"busbw {reached / 1e9:.2f} GB/s at {exercise.size_bytes / 2**30:g} GiB"
    if kind is None:
        return ok(subject, f"{seen}; the type of these nodes is not known, so there is no floor")
    floor, source = floor_of(kind, exercise)
    if reached < floor:
        return fail(
            subject,
            f"{seen}, the floor of {kind.name} is {floor / 1e9:.2f} GB/s ({source})",
            "every step that waits for the network waits longer",
            "are the nodes in one cluster placement group, and does another job use them? Fewer NICs show above",
        )
    return ok(subject, f"{seen}, floor {floor / 1e9:.2f} GB/s ({source})")
