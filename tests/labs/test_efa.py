"""The proof of EFA: it passes on what a good run shows, and each thing that is broken alone is named alone."""

from dataclasses import replace

import pytest

from labs.efa import Exercise, Seen, broken, floor_of, judge
from labs.findings import Finding
from labs.instances import instance_type
from labs.wire import busbw

G6 = instance_type("g6.12xlarge")
P5 = instance_type("p5.48xlarge")
GIB = 2**30

# Two nodes of four L4 with one EFA each: 1 GiB by ring in 0.45 s, 1.75 GiB out of each node, 4.2 of 5 GB/s.
RING = Exercise(size_bytes=GIB, operations=10, time_s=0.45, ranks=8, nodes=2, algorithm="RING")
GOOD = Seen(
    node="node0", providers=("efa",), devices=1, network="Libfabric", provider="efa", sent_bytes=10.3 * 1.75 * GIB
)
TWO = (GOOD, replace(GOOD, node="node1"))


def only(findings: tuple[Finding, ...]) -> Finding:
    failed = broken(findings)
    assert len(failed) == 1, failed
    return failed[0]


def test_a_run_over_efa_passes_and_says_what_was_seen() -> None:
    found = judge(TWO, RING, G6, 1)
    assert not broken(found)
    assert [finding.subject for finding in found] == [
        "EFA provider, node0", "EFA interfaces, node0", "EFA counters, node0",
        "EFA provider, node1", "EFA interfaces, node1", "EFA counters, node1", "EFA bandwidth",
    ]  # fmt: skip
    assert found[2].seen == "19.35 GB sent of 18.79 GB that 10 all-reduces must send (RING)"
    assert found[-1].seen == "busbw 4.18 GB/s at 1 GiB, floor 2.50 GB/s (provisional: 50% of 40 Gbit/s a node)"


BROKEN = {
    "no EFA in libfabric": (
        {"providers": (), "fi_info": "fi_info said 'fi_getinfo: -61 (No data available)'"}, "EFA provider, node1",
        "libfabric opens no EFA: fi_info said 'fi_getinfo: -61 (No data available)'", "security group",
    ),
    "another provider": (
        {"providers": ("tcp;ofi_rxm",)}, "EFA provider, node1", "libfabric's provider is tcp;ofi_rxm, not efa",
        "FI_PROVIDER=efa",
    ),
    "no plugin in NCCL": (
        {"network": "Socket", "provider": "", "complaint": "NET/Plugin: Could not find: libnccl-net.so."},
        "EFA provider, node1",
        "libfabric has efa, but NCCL uses its network Socket (NET/Plugin: Could not find: libnccl-net.so.)",
        "LD_LIBRARY_PATH",
    ),
    "the plugin took another": (
        {"provider": "tcp"}, "EFA provider, node1", "NCCL's plugin selected the provider tcp, not efa",
        "FI_PROVIDER=efa",
    ),
    "NCCL is silent": (
        {"network": "", "provider": ""}, "EFA provider, node1",
        "libfabric has efa, but NCCL did not say which network it uses", "unset NCCL_DEBUG",
    ),
    "the device is gone, libfabric's list is old": (
        {"devices": 0}, "EFA interfaces, node1", "0 EFA devices, g6.12xlarge has 1", "launch template",
    ),
    "the counters stand still": (
        {"sent_bytes": 4096.0}, "EFA counters, node1",
        "the hardware counters did not move: 0.00 GB sent of 18.79 GB that 10 all-reduces must send (RING)",
        "NET/Socket",
    ),
    "half went another way": (
        {"sent_bytes": 5 * 1.75 * GIB}, "EFA counters, node1",
        "too little: 9.40 GB sent of 18.79 GB that 10 all-reduces must send (RING)", "NET/Socket",
    ),
    "somebody else sends too": (
        {"sent_bytes": 14 * 1.75 * GIB}, "EFA counters, node1",
        "too much: 26.31 GB sent of 18.79 GB that 10 all-reduces must send (RING)", "retrans_bytes",
    ),
    "no counters": (
        {"sent_bytes": None}, "EFA counters, node1", "the hardware counters cannot be read", "kernel module",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_each_broken_thing_of_one_node_is_named_alone_with_what_to_do(what: str) -> None:
    change, subject, seen, remedy = BROKEN[what]
    failed = only(judge((TWO[0], replace(TWO[1], **change)), RING, G6, 1))  # type: ignore[arg-type]
    assert (failed.subject, failed.seen) == (subject, seen)
    assert failed.means
    assert remedy in failed.do


def test_a_slow_network_is_named_with_its_floor() -> None:
    """TCP on one flow: 1 GiB by ring in 1.5 s is 1.25 of 5 GB/s."""
    failed = only(judge(TWO, replace(RING, time_s=1.5), G6, 1))
    assert failed.subject == "EFA bandwidth"
    assert failed.seen == ("busbw 1.25 GB/s at 1 GiB, the floor of g6.12xlarge is 2.50 GB/s "
                           "(provisional: 50% of 40 Gbit/s a node)")  # fmt: skip
    assert "placement group" in failed.do


def test_interfaces_that_are_missing_are_counted() -> None:
    """A p5 with 8 of its 32 NICs opened carries a quarter at most, whatever its counters say."""
    p5 = replace(RING, time_s=0.0042, ranks=16, algorithm="NVLS_TREE")
    seen = tuple(replace(one, providers=("efa",) * 32, devices=32, sent_bytes=10.0 * GIB) for one in TWO)
    assert not broken(judge(seen, p5, P5, 32))
    few = only(judge((seen[0], replace(seen[1], providers=("efa",) * 8)), p5, P5, 32))
    assert few.seen == "the kernel has 32 EFA devices, libfabric opens 8"
    assert few.means == "at most 8/32 of the network's rate"
    assert only(judge((seen[0], replace(seen[1], devices=8)), p5, P5, 32)).seen == "8 EFA devices, p5.48xlarge has 32"


def test_counters_are_held_against_the_algorithm_that_nccl_names() -> None:
    """A tree sends 1 GiB where a ring sends 1.75: what suffices for one is too little for the other."""
    tree = tuple(replace(one, sent_bytes=10.2 * GIB) for one in TWO)
    assert not broken(judge(tree, replace(RING, algorithm="TREE", time_s=0.3), G6, 1))
    assert {one.subject for one in broken(judge(tree, RING, G6, 1))} == {"EFA counters, node0", "EFA counters, node1"}
    unknown = replace(RING, algorithm="")
    assert not broken(judge(tree, unknown, G6, 1))
    assert not broken(judge(TWO, unknown, G6, 1))
    assert "of 10.74 to 18.79 GB" in judge(TWO, unknown, G6, 1)[2].seen


def test_all_that_is_broken_is_named_together() -> None:
    tcp = Seen(node="node0", fi_info="there is no fi_info", devices=0, network="Socket", sent_bytes=None)
    found = broken(judge((tcp, GOOD), replace(RING, time_s=3.0), G6, 1))
    assert [one.subject for one in found] == ["EFA provider, node0", "EFA interfaces, node0", "EFA counters, node0",
                                              "EFA bandwidth"]  # fmt: skip


def test_floors() -> None:
    """Published for two nodes of p5; a share of the network else, by the bytes of the algorithm."""
    p5 = replace(RING, ranks=16)
    assert floor_of(P5, p5) == (250e9, "the pass mark of aws-parallelcluster's test_efa.py at 1 GiB")
    four = replace(RING, ranks=32, nodes=4, algorithm="")
    least, source = floor_of(P5, four)
    assert least == pytest.approx(200e9)
    assert source == "provisional: 50% of 3200 Gbit/s a node"
    assert floor_of(G6, replace(RING, algorithm="TREE"))[0] == pytest.approx(2.5e9 * 1.75)
    assert busbw("all-reduce", GIB, 16, 0.0046) > 250e9, "p5's published 437 GB/s at 1 GiB passes"


def test_machines_of_an_unknown_type_have_no_floor() -> None:
    found = judge(TWO, replace(RING, time_s=60), None, 1)
    assert not broken(found)
    assert "there is no floor" in found[-1].seen
