"""What `fab nodes` tells of the time that nodes took to get ready."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from operate.cluster import Cluster
from operate.launch import Place
from operate.listing import boot_time, rows
from operate.nodes import Node
from operate.probe import probe_command, read_facts
from operate.problem import Problem
from operate.screen import Screen
from operate.shell import Shells

QUICK = {"start": 20.25, "system": 4.0, "python": 12.0}
SLOW = {"start": 31.4, "system": 2.25, "python": 180.5}


def listed(*nodes: tuple[str, dict[str, float]]) -> list[dict]:
    """Rows of nodes, each with its ready marker and the seconds of its steps."""
    names = [f"node{index}" for index in range(len(nodes))]
    cluster = Cluster(
        label="Lab3Stack",
        target="stack",
        nodes=tuple(Node(name=name, address="a") for name in names),
        shells=Shells({}),
    )
    facts = {
        name: replace(read_facts(f"ready={ready}"), took=took) for name, (ready, took) in zip(names, nodes, strict=True)
    }
    return rows(cluster, facts)


def test_the_slowest_node_is_told_step_by_step_the_longest_first():
    assert boot_time(listed(("ok", QUICK), ("ok", SLOW))) == "ready in 214 s (python 180, start 31, system 2.2)"


def test_a_program_gets_the_steps_of_every_node():
    assert [row["boot_s"] for row in listed(("ok", QUICK), ("ok", SLOW))] == [QUICK, SLOW]


def test_nothing_is_told_before_all_are_ready_or_of_machines_that_rooflab_did_not_set_up():
    assert boot_time(listed(("ok", QUICK), ("", {"start": 31.4}))) == ""
    assert boot_time(listed(("ok", QUICK), ("failed: python: no space left", SLOW))) == ""
    assert boot_time(listed(("ok", {}))) == ""
    assert boot_time([]) == ""


def test_the_steps_are_read_from_the_node_even_while_they_are_written(tmp_path: Path):
    seconds = tmp_path / "seconds"
    place = Place(boot=str(seconds), environment="/dev/null", ready="/dev/null")

    def told() -> dict[str, float]:
        out = subprocess.run(["bash", "-c", probe_command(place)], capture_output=True, text=True, check=True).stdout
        return dict(read_facts(out).took)

    assert told() == {}
    seconds.write_text("start 31.402\nsystem 2.250\n")
    assert told() == {"start": 31.402, "system": 2.25}
    seconds.write_text("start 31.402\nsystem")
    assert told() == {"start": 31.402}


def test_a_set_up_that_failed_names_step_and_reason_and_where_its_log_is(machines, cluster_of):
    (machine,) = machines(1)
    (machine.home / ".rooflab/ready").write_text("failed: python: no space left on device\n")
    with pytest.raises(Problem) as raised:
        cluster_of([machine]).facts(Screen())
    assert str(raised.value) == (
        "node0: set-up failed: python: no space left on device: "
        "read its log by fab ssh --node node0 -- cat .rooflab/boot/python.log"
    )


def test_who_waits_sees_which_step_is_done(machines, cluster_of):
    (machine,) = machines(1)
    ready = machine.home / ".rooflab/ready"
    ready.unlink()
    (machine.home / ".rooflab/boot").mkdir()
    (machine.home / ".rooflab/boot/seconds").write_text("start 31.402\nsystem 2.250\n")

    said: list[str] = []

    class Listening(Screen):
        @contextmanager
        def stage(self, *words: object, **named: object) -> Iterator[Callable[[str], None]]:
            yield said.append

    facts = cluster_of([machine]).facts(Listening(), sleep=lambda _: ready.write_text("ok\n") and None)
    assert said == ["to set themselves up: node0 after system"]
    assert facts["node0"].ready == "ok"
