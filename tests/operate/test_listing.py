"""What `fab nodes` tells of the time that nodes took to get ready."""

import subprocess
from dataclasses import replace
from pathlib import Path

from operate.cluster import Cluster
from operate.launch import Place
from operate.listing import boot_time, rows
from operate.nodes import Node
from operate.probe import probe_command, read_facts
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
