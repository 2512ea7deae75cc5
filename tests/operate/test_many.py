"""Six real machines stand for many: all start, all is gathered, and the two that fail are a line each."""

import threading

import pytest

from operate import output, remote, verb
from operate.execution import execute
from operate.problem import Problem
from operate.screen import Screen
from operate.shell import Shells
from operate.verdict import verdict
from tests.operate.test_execution import bash, order


def test_of_six_nodes_two_fail_and_later_two_do_not_answer(machines, cluster_of, monkeypatch, capsys):
    monkeypatch.setattr(output, "MOST", 4)
    made = machines(6)
    cluster = cluster_of(made)
    fails = "echo hello from $ROOFLAB_NODE; case $ROOFLAB_NODE in node2|node4) echo no disk; exit 3;; esac"
    run = execute(cluster, order(bash("hello", fails)), Screen())
    shown = capsys.readouterr().out.splitlines()
    lines = [line for line in shown if "hello" in line or "no disk" in line]
    assert "[node0] hello from node0" in lines
    failed = [f"[{node}] hello: failed with exit code 3 after 0:0" for node in ("node2", "node4")]
    for begin in failed:
        (line,) = [line for line in lines if line.startswith(begin)]
        assert line.endswith(": no disk")
    assert any(line.startswith("hello: done on 4 of 6 nodes after 0:0") for line in lines)
    assert not [line for line in lines if line.startswith(("[node1]", "[node3]", "[node5]"))], "no wall"
    assert "hello failed with 3 on node2, node4" in str(verdict(run))
    for node in cluster.names:
        log = (run.folder / "logs" / node / "hello.log").read_text()
        assert log.startswith(f"hello from {node}\n"), "everything comes home, shown or not"

    for machine in (made[1], made[5]):
        machine.stop()
    with pytest.raises(Problem) as caught:
        cluster_of(made).facts(Screen(), wait_s=0)
    with pytest.raises(SystemExit):
        verb.fail(caught.value)
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.startswith("  node1 (127.0.0.1 port ")
    assert second.startswith("  node5 (127.0.0.1 port ")
    assert last.startswith("problem: 2 nodes could not answer (node1, node5): ")


def test_each_handshake_takes_a_place_and_gives_it_back(machines, cluster_of, monkeypatch):
    """Without that, so many that begin together on a busy machine are too late together."""
    places = threading.BoundedSemaphore(1)
    monkeypatch.setattr(remote, "_PLACES", places)
    shells = cluster_of(machines(3)).shells
    with places, pytest.raises(TimeoutError):
        Held(shells).result(0.5)
    assert [result.text for result in shells.each("echo well").values()] == ["well"] * 3
    assert places.acquire(blocking=False), "given back"


class Held:
    """A command on all nodes, asked in a thread of its own."""

    def __init__(self, shells: Shells) -> None:
        self._thread = threading.Thread(target=shells.each, args=("echo well",), daemon=True)
        self._thread.start()

    def result(self, within_s: float) -> None:
        self._thread.join(within_s)
        if self._thread.is_alive():
            raise TimeoutError
