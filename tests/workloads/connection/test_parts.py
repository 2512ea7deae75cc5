"""The doctor's parts by themselves: who meets whom, which interface is announced, what a machine says of itself."""

import socket
import subprocess
import sys
import threading
from itertools import combinations
from pathlib import Path

import pytest

from labs.findings import fail
from workloads.connection import interfaces, machine
from workloads.connection.peers import port, read_peers, rounds
from workloads.connection.probing import Limits
from workloads.connection.wire import Listener, Talk, outcome, receive
from workloads.connectivity import configure, culprit
from workloads.diagnosis.gpus import FIELDS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("count", [2, 3, 4, 7, 16])
def test_every_two_ranks_meet_once_and_none_is_busy_twice_in_a_round(count: int) -> None:
    ranks = [f"node0/{local}" for local in range(count)]
    turns = rounds(ranks)
    assert sorted(tuple(sorted(pair)) for turn in turns for pair in turn) == sorted(
        tuple(sorted(pair)) for pair in combinations(ranks, 2)
    )
    assert len(turns) == count - 1 + count % 2
    assert all(len({rank for pair in turn for rank in pair}) == 2 * len(turn) for turn in turns)


def test_of_many_ranks_each_still_meets_several() -> None:
    ranks = [f"node{node}/{local}" for node in range(64) for local in range(8)]
    turns = rounds(ranks)
    met = {rank: sum(rank in pair for turn in turns for pair in turn) for rank in ranks}
    assert min(met.values()) >= 9
    assert sum(map(len, turns)) < 5000
    assert all(len({rank for pair in turn for rank in pair}) == 2 * len(turn) for turn in turns)
    assert all(ranks.index(one) < ranks.index(other) for turn in turns for one, other in turn), "the first one begins"


def test_alone_there_is_nobody_to_meet() -> None:
    assert rounds(["node0/0"]) == []
    assert [peer.name for peer in read_peers({})] == ["node0"]


def test_ports_are_the_run_s_and_the_node_s() -> None:
    found = {port("20261120-093000-lab3", index) for index in range(64)}
    assert len(found) == 64
    assert all(30000 <= one < 32768 for one in found)


def test_peers_come_from_the_launcher() -> None:
    told = {"ROOFLAB_NODE": "node1", "ROOFLAB_RUN": "r", "ROOFLAB_PEERS": "node0=10.0.0.1 node1=10.0.0.2"}
    assert [(peer.name, peer.address, peer.port) for peer in read_peers(told)] == [
        ("node0", "10.0.0.1", port("r", 0)),
        ("node1", "10.0.0.2", port("r", 1)),
    ]
    with pytest.raises(ValueError, match=r"ROOFLAB_PEERS='10\.0\.0\.1' is not allowed: write for example 'node0=10\.0"):
        read_peers({**told, "ROOFLAB_PEERS": "10.0.0.1"})
    with pytest.raises(ValueError, match="ROOFLAB_NODE='node7' is not in ROOFLAB_PEERS: write one of node0, node1"):
        read_peers({**told, "ROOFLAB_NODE": "node7"})


KNOWN = {"lo": "127.0.0.1", "docker0": "172.17.0.1", "ens5": "10.0.0.1", "ens6": ""}


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("ens", ["ens5", "ens6"]),
        ("=ens5", ["ens5"]),
        ("^docker,lo", ["ens5", "ens6"]),
        ("^=ens5,lo", ["docker0", "ens6"]),
        ("eth", []),
    ],
)
def test_nccl_s_patterns_choose_as_its_manual_says(pattern: str, fits: list[str]) -> None:
    assert interfaces.matching(pattern, tuple(KNOWN)) == fits


def test_what_collectives_will_announce_is_known_beforehand() -> None:
    told = {"GLOO_SOCKET_IFNAME": "docker0", "NCCL_SOCKET_IFNAME": "^docker,lo"}
    found = list(interfaces.choices(told, KNOWN, gpus=True))
    assert [one.address for one in found] == ["172.17.0.1", "10.0.0.1"]
    assert len(list(interfaces.choices(told, KNOWN, gpus=False))) == 1, "without a GPU nobody asks NCCL"
    (absent,) = interfaces.choices({"GLOO_SOCKET_IFNAME": "eth9"}, KNOWN, gpus=False)
    assert absent.problem == "GLOO_SOCKET_IFNAME=eth9 fits no interface: there are lo, docker0, ens5, ens6"
    (bare,) = interfaces.choices({"GLOO_SOCKET_IFNAME": "ens6"}, KNOWN, gpus=False)
    assert bare.problem == "GLOO_SOCKET_IFNAME=ens6: ens6 has no address"
    (unset,) = interfaces.choices({}, KNOWN, gpus=False)
    assert unset.by.startswith("GLOO_SOCKET_IFNAME unset, host name ")
    assert unset.address


def test_the_loopback_interface_and_its_address_are_found() -> None:
    known = interfaces.addresses()
    assert "127.0.0.1" in known.values()
    assert interfaces.towards("127.0.0.1") == "127.0.0.1"


def stand_in(folder: Path, name: str, text: str) -> dict[str, str]:
    """An environment whose PATH has a program of that name."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_efa_is_looked_for_only_where_the_node_was_made_with_it(tmp_path: Path) -> None:
    path = stand_in(tmp_path, "fi_info", "echo 'provider: efa'")
    assert list(machine.fabric("node0", path, tmp_path / "none")) == []
    (one,) = machine.fabric("node0", {**path, "ROOFLAB_EFAS": "2"}, tmp_path / "none")
    assert one.seen == "missing EFA: 0 of 2 EFA devices are there"
    for name in ("rdmap0s0", "rdmap1s0"):
        (tmp_path / "class" / name).mkdir(parents=True)
    assert list(machine.fabric("node0", {**path, "ROOFLAB_EFAS": "2"}, tmp_path / "class")) == []


@pytest.mark.parametrize("text", ["echo 'fi_getinfo: -61 (No data available)'; exit 61", "echo 'provider: tcp'"])
def test_another_provider_than_efa_is_a_failure(tmp_path: Path, text: str) -> None:
    (one,) = machine.fabric("node0", {**stand_in(tmp_path, "fi_info", text), "FI_PROVIDER": "efa"}, tmp_path)
    assert one.seen.startswith("missing EFA: fi_info -p efa finds no provider")


def test_efa_without_its_software_is_named(tmp_path: Path) -> None:
    (one,) = machine.fabric("node0", {"PATH": str(tmp_path), "ROOFLAB_EFAS": "1"}, tmp_path)
    assert one.seen == "missing EFA: 1 EFAs expected, and fi_info is not installed"


def test_gpus_are_counted_as_fab_counts_ranks_and_a_broken_driver_says_why(tmp_path: Path) -> None:
    two = stand_in(tmp_path, "nvidia-smi", "echo 'GPU 0: NVIDIA L4'; echo 'GPU 1: NVIDIA L4'")
    assert machine.count_gpus(two) == (2, "")
    lost = stand_in(tmp_path, "nvidia-smi", "echo 'Unable to determine the device handle: GPU is lost'; exit 15")
    count, why = machine.count_gpus(lost)
    assert (count, why) == (0, "Unable to determine the device handle: GPU is lost")
    (one,) = machine.driver("node1", why)
    assert one.seen == "GPU fault: nvidia-smi lists no GPU: Unable to determine the device handle: GPU is lost"
    assert machine.count_gpus({"PATH": str(tmp_path / "nowhere")}) == (0, "")


def test_a_driver_s_memory_errors_name_the_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {"index": "1", "name": "NVIDIA L4", "ecc.errors.uncorrected.volatile.total": "3"}
    row = ", ".join(cells.get(field, "[N/A]") for field in FIELDS)
    monkeypatch.setenv("PATH", stand_in(tmp_path, "nvidia-smi", f"echo '{row}'")["PATH"])
    (one,) = machine.cards("node1", 2)
    assert one.subject == "node1 rank 1"
    assert one.seen.startswith("GPU fault: GPU 1: 3 uncorrected memory errors")


def test_what_a_socket_says_is_told_apart() -> None:
    assert outcome(ConnectionRefusedError()) == "refused"
    assert outcome(TimeoutError()) == "silent"
    assert outcome(OSError(113, "No route to host")) == "unroutable"
    assert outcome(ConnectionResetError()) == "broken"
    assert outcome(socket.gaierror()) == "unnamed"


def test_a_listener_answers_only_once_it_may_and_ends_when_it_is_closed() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    listener = Listener(number)
    assert listener.open(["127.0.0.1", "203.0.113.9"]).keys() == {"203.0.113.9"}, "not an address of this machine"
    with Talk("127.0.0.1", number, 20) as talk:
        late = threading.Timer(0.1, listener.begin, [lambda message, _: {"got": message["word"]}])
        late.start()
        assert talk.ask({"word": "x"}, 60) == {"got": "x"}
        late.join()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        Talk("127.0.0.1", number, 20)


def test_what_speaks_another_language_is_no_message() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        with pytest.raises(ConnectionError, match="what answers speaks another language"):
            receive(near)


def test_larger_clusters_get_more_time_and_send_less() -> None:
    small, large = Limits.of(2), Limits.of(64)
    assert (small.arrive_s, small.burst_bytes) == (10.5, 2**20)
    assert (large.arrive_s, large.burst_bytes) == (26.0, 2**17)


def test_the_culprit_is_one_line() -> None:
    bad = fail("node1", "MTU: x", "y", "z")
    assert culprit([bad, bad]) == "node1: MTU: x (and 1 more)"
    assert culprit([]) == ""


def test_its_flags_choose_what_is_looked_at() -> None:
    from argparse import Namespace

    given = Namespace(limit=0.0, skip_ranks=False, cpu_ranks=2, device="auto")
    assert configure(given, 2).limit_s == 96.0
    assert configure(Namespace(**{**vars(given), "skip_ranks": True, "limit": 5.0, "device": "cpu"}), 2).ranks == 0


def test_peers_can_find_it_before_torch_is_there() -> None:
    hide = "import sys; sys.modules['torch'] = None; import workloads.connectivity"
    done = subprocess.run([sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_wrong_environment_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workloads.connectivity", "--out", str(tmp_path)], cwd=ROOT, text=True,
        capture_output=True, check=False, env={"PATH": "/usr/bin:/bin", "ROOFLAB_PEERS": "node5=10.0.0.1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "connectivity: ROOFLAB_NODE='node0' is not in ROOFLAB_PEERS: write one of node5; "
        "`python -m workloads.connectivity --help` lists the flags\n"
    )
