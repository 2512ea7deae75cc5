"""nccl-tests' bandwidths on its own samples, and the bytes that leave a node, against numbers computed by hand."""

import pytest

from labs.instances import instance_type
from labs.roofs import Bound
from labs.wire import COLLECTIVES, algbw, bus_bound, busbw, family, node_bounds, node_bytes, wire_rates

GIB = 2**30

# What all_reduce_perf printed: ranks, bytes, µs, algbw and busbw in GB/s. NVIDIA/nccl issue 527 (1, 2, 3 and 4 nodes of
# p4d.24xlarge), aws/aws-ofi-nccl issue 33 (2 of p3dn.24xlarge).
PRINTED = [
    (8, GIB, 8142.6, 131.87, 230.77), (16, GIB, 35215, 30.49, 57.17), (24, GIB, 64782, 16.57, 31.77),
    (32, GIB, 70253, 15.28, 29.61), (16, 2**20, 1035.3, 1.01, 1.90), (16, 2**21, 671.4, 3.12, 5.86),
    (16, 2**22, 1140.5, 3.68, 6.90),
]  # fmt: skip


@pytest.mark.parametrize(("ranks", "size_bytes", "time_us", "alg", "bus"), PRINTED)
def test_our_bandwidths_are_what_nccl_tests_printed_for_the_same_time(
    ranks: int, size_bytes: int, time_us: float, alg: float, bus: float
) -> None:
    time_s = time_us / 1e6
    # Two digits were printed; 57.17 of an algbw of 30.49 shows that it is not computed from the rounded one.
    assert algbw(size_bytes, time_s) / 1e9 == pytest.approx(alg, abs=0.0051)
    assert busbw("all-reduce", size_bytes, ranks, time_s) / 1e9 == pytest.approx(bus, abs=0.0051)


@pytest.mark.parametrize(
    ("collective", "bus"),
    [
        # S = 64 MiB in 1 ms over 4 ranks: algbw 67.108864 GB/s, times the factor of doc/PERFORMANCE.md for n = 4.
        ("all-reduce", 100.663296), ("all-gather", 50.331648), ("reduce-scatter", 50.331648), ("all-to-all", 50.331648),
        ("broadcast", 67.108864), ("send-recv", 67.108864),
    ],
)  # fmt: skip
def test_the_bus_bandwidth_of_each_collective_by_hand(collective: str, bus: float) -> None:
    assert busbw(collective, 64 * 2**20, 4, 1e-3) / 1e9 == pytest.approx(bus, rel=1e-12)


@pytest.mark.parametrize(
    ("collective", "ring", "tree"),
    [
        # 8 ranks on 2 nodes, of a buffer of 1: (n−1)/n = 0.875, (k−1)/k = 0.5.
        ("all-reduce", 1.75, 1.0), ("all-gather", 0.875, 0.5), ("reduce-scatter", 0.875, 0.5),
        ("broadcast", 1.0, 1.0), ("send-recv", 1.0, 1.0), ("all-to-all", 2.0, 2.0),
    ],
)  # fmt: skip
def test_bytes_that_leave_a_node(collective: str, ring: float, tree: float) -> None:
    assert node_bytes(collective, 1.0, 8, 2, "ring") == pytest.approx(ring)
    assert node_bytes(collective, 1.0, 8, 2, "tree") == pytest.approx(tree)
    assert node_bytes(collective, 1.0, 8, 1, "ring") == 0
    assert node_bytes(collective, 1.0, 1, 2, "tree") == 0


def test_an_all_to_all_by_counting_its_pieces() -> None:
    """6 ranks on 3 nodes, 12 B each: each of a node's two ranks sends four of its six pieces of 2 B elsewhere."""
    assert node_bytes("all-to-all", 12.0, 6, 3, "ring") == pytest.approx(2 * 4 * 2)


@pytest.mark.parametrize(("ranks", "nodes"), [(8, 2), (16, 2), (32, 4), (64, 8)])
def test_the_wire_rate_of_a_gpu_is_busbw_over_g_in_a_ring_and_by_k_in_a_tree(ranks: int, nodes: int) -> None:
    bus = busbw("all-reduce", GIB, ranks, 0.5)
    ring, _ = wire_rates("all-reduce", GIB, ranks, nodes, 0.5, "RING")
    tree, _ = wire_rates("all-reduce", GIB, ranks, nodes, 0.5, "NVLS_TREE")
    assert ring == pytest.approx(bus / (ranks / nodes))
    assert tree == pytest.approx(bus * (nodes - 1) / (ranks - 1))


def test_one_gib_in_half_a_second_over_two_nodes_of_four() -> None:
    """Per GPU 0.940 GB/s by ring and 0.537 by tree; an algorithm that is not known lies between both."""
    assert wire_rates("all-reduce", GIB, 8, 2, 0.5, "Ring") == pytest.approx((0.9395e9, 0.9395e9), rel=1e-3)
    assert wire_rates("all-reduce", GIB, 8, 2, 0.5) == pytest.approx((0.5369e9, 0.9395e9), rel=1e-3)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("RING", "ring"), ("Ring", "ring"), ("TREE", "tree"), ("NVLSTree", "tree"), ("NVLS_TREE", "tree"), ("PAT", "ring"),
     ("COLLNET_DIRECT", None), ("", None)],
)  # fmt: skip
def test_which_way_an_algorithm_sends(algorithm: str, kind: str | None) -> None:
    assert family(algorithm) == kind


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_what_an_unknown_algorithm_sends_lies_between_a_tree_and_a_ring(collective: str) -> None:
    low, high = node_bounds(collective, GIB, 16, 4)
    assert 0 < low <= high
    assert node_bounds(collective, GIB, 16, 4, "RING") == pytest.approx((high, high))


def value(bound: Bound) -> float:
    assert bound.roof is not None
    return bound.roof.value


def test_all_reduce_over_nodes_is_bounded_by_the_fewest_bytes_on_the_wire() -> None:
    """g6.12xlarge: 40 Gbit/s = 5 GB/s a node. Two nodes exchange each byte once, while bus bandwidth counts 1.75."""
    kind = instance_type("g6.12xlarge")
    assert value(bus_bound("all-reduce", kind, 2, 8)) == pytest.approx(5e9 * (7 / 8) / (1 / 2))
    assert value(bus_bound("all-reduce", kind, 2, 2)) == pytest.approx(5e9)


def test_each_collective_has_a_roof_of_its_own() -> None:
    """An all-to-all of 8 ranks sends twice its buffer out of each of 2 nodes and counts 7/8 of it."""
    kind = instance_type("g6.12xlarge")
    assert value(bus_bound("all-to-all", kind, 2, 8)) == pytest.approx(5e9 * 0.875 / 2)
    assert value(bus_bound("all-gather", kind, 2, 8)) == pytest.approx(5e9 * 0.875 / 0.5)
    assert value(bus_bound("send-recv", kind, 2, 8)) == pytest.approx(5e9)


def test_without_a_known_network_there_is_no_roof() -> None:
    assert bus_bound("all-reduce", None, 2, 8) == Bound(None, "the network between the devices is not known")
    assert bus_bound("broadcast", instance_type("g6.12xlarge"), 1, 4) == Bound(
        None, "the links within a node are not in labs/"
    )


def test_a_collective_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match=r"^collective='scan' is not known"):
        node_bytes("scan", 1.0, 8, 2, "ring")
