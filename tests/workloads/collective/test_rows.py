"""Rows and notes from made-up times, with a log of NCCL's and without."""

import socket
from argparse import ArgumentTypeError

import pytest

from labs.instances import instance_type
from labs.wire import busbw
from workloads.collective import gloo
from workloads.collective.nccl import Choice, Log
from workloads.collective.rows import Circle, notes_of, row_line, row_of, rows_of
from workloads.collective.sizes import factor, ladder, size, size_name
from workloads.collective.sweep import Series, Timed

TWO_NODES = Circle(ranks=8, nodes=2, network=instance_type("g6.12xlarge"))
LOG = Log(choices={
    ("all-reduce", 2**10): Choice(algorithm="TREE", protocol="LL"),
    ("all-reduce", 2**20): Choice(algorithm="TREE", protocol="LL"),
    ("all-reduce", 2**30): Choice(algorithm="RING", protocol="SIMPLE"),
})  # fmt: skip


def timed(size_bytes: int, time_s: float) -> Timed:
    return Timed(nominal_bytes=size_bytes, size_bytes=size_bytes, by_rank=[(time_s, time_s), (time_s / 2, time_s)] * 4)


SERIES = Series(
    collective="all-reduce", dtype="fp32", left_out=(2**32,),
    timed=tuple(timed(size_bytes, 50e-6 + size_bytes / 2.4e9) for size_bytes in (2**10, 2**20, 2**30)),
)  # fmt: skip


def test_a_sample_is_the_slowest_ranks() -> None:
    assert Timed(nominal_bytes=1, size_bytes=1, by_rank=[(1.0, 5.0), (2.0, 3.0)]).samples_s == (2.0, 5.0)


def test_rows_stand_beside_the_roof_with_choice_and_wire_rate() -> None:
    *sizes, latency = rows_of(SERIES, TWO_NODES, LOG, {2**30: 4.4e9})
    last = sizes[-1]
    assert [row.name for row in sizes] == ["all-reduce 1 KiB", "all-reduce 1 MiB", "all-reduce 1 GiB"]
    assert last.roof is not None
    assert last.roof.value == pytest.approx(8.75e9)
    assert (last.config["algorithm"], last.config["protocol"]) == ("RING", "SIMPLE")
    assert last.value == pytest.approx(busbw("all-reduce", 2**30, 8, 50e-6 + 2**30 / 2.4e9))
    assert last.config["wire_low"] == last.config["wire_high"] == pytest.approx(last.value / 4)
    assert sizes[0].config["wire_high"] == pytest.approx(sizes[0].value / 7), "a tree: (k−1)/(n−1)"
    assert (last.others[0].value, last.others[0].source) == (4.4e9, "nccl-tests on the same GPUs")
    assert last.config["spread"] == pytest.approx(4 / 3)
    assert (latency.config["alpha_s"], latency.config["beta"]) == (pytest.approx(50e-6), pytest.approx(2.4e9))
    assert latency.config["half_bytes"] == pytest.approx(120_000)
    assert row_line(latency).endswith(" µs  α 50.0 µs, β 2.40 GB/s, n½ 117.2 KiB, all sizes within 0%")
    assert row_line(last).endswith(
        "spread 1.33×  47.8% of roof  RING/SIMPLE".replace("47.8", f"{last.fraction:.1%}"[:-1])
    )


def test_without_a_log_the_wire_rate_lies_between_a_tree_and_a_ring() -> None:
    row = row_of("all-reduce", "bf16", SERIES.timed[1], TWO_NODES)
    assert row.name == "all-reduce 1 MiB, bf16"
    assert "algorithm" not in row.config
    assert row.config["wire_low"] == pytest.approx(row.value / 7)
    assert row.config["wire_high"] == pytest.approx(row.value / 4)


def test_one_node_has_no_wire_rate_and_no_roof() -> None:
    row = row_of("all-gather", "fp32", SERIES.timed[1], Circle(ranks=4, nodes=1, network=None))
    assert "wire_low" not in row.config
    assert row.no_roof_because == "the network between the devices is not known"


def test_notes_name_choices_two_nodes_and_what_was_left_out() -> None:
    rows = list(rows_of(SERIES, TWO_NODES, LOG, {}))
    left, chosen, two = notes_of([SERIES], TWO_NODES, rows, 240.0)
    assert left == "all-reduce ends at 1 GiB: its share of the budget of 240 s was used; --budget-s gives more"
    assert chosen == "NCCL chose for all-reduce: TREE/LL to 1 MiB, RING/SIMPLE to 1 GiB"
    assert two.startswith("two nodes are a case of their own: by tree or NVLSTree each sends the buffer once, so that "
                          "busbw may pass the network's rate up to 1.75 times")  # fmt: skip
    four = Circle(ranks=16, nodes=4, network=TWO_NODES.network)
    assert len(notes_of([SERIES], four, rows, 240.0)) == 2


@pytest.mark.parametrize(
    ("size_bytes", "name"), [(512, "0.5 KiB"), (1024, "1 KiB"), (2**22, "4 MiB"), (2**30, "1 GiB")]
)
def test_size_names(size_bytes: int, name: str) -> None:
    assert size_name(size_bytes) == name


@pytest.mark.parametrize(("text", "size_bytes"), [("1KiB", 1024), ("4 MiB", 2**22), ("1GiB", 2**30)])
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    assert size(text) == size_bytes


@pytest.mark.parametrize("text", ["4MB", "0KiB", "KiB", "-1KiB", "1.5MiB", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a size: write for example 64KiB, 4MiB or 1GiB"):
        size(text)


def test_sizes_grow_to_the_largest() -> None:
    assert ladder(1024, 5000, 2) == (1024, 2048, 4096)
    assert ladder(1024, 1024, 4) == (1024,)
    with pytest.raises(ArgumentTypeError, match="does not grow: write at least 2"):
        factor("1")


def test_gloo_says_the_interface_it_was_told_else_that_of_this_hosts_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gloo.transport({"GLOO_SOCKET_IFNAME": "eth1"}) == "gloo: TCP over eth1, by GLOO_SOCKET_IFNAME"
    monkeypatch.setattr(socket, "gethostname", lambda: "127.0.0.1")
    assert gloo.transport({}) in ("gloo: TCP over lo, 127.0.0.1", "gloo: TCP over 127.0.0.1")
    monkeypatch.setattr(gloo, "interface_of", lambda _address: "")
    assert gloo.transport({}) == "gloo: TCP over 127.0.0.1"


def test_a_host_whose_name_means_nothing_goes_over_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert gloo.transport({}).endswith("127.0.0.1")
