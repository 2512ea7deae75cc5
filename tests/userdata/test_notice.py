"""Workloads are told before their node goes: real runs, as operate starts them, and real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from operate.launch import NOT_RUN, Job, Plan, Seat, script
from tests.userdata.metadata import serve
from tests.userdata.node import Node

RUN = "20261121-030500-lab3"
WORKER = f"""\
#!{sys.executable}
import os, pathlib, signal, sys
out = pathlib.Path(os.environ["ROOFLAB_OUT"])
def save(*_):
    (out / "saved").write_text("a checkpoint")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
(out / "up").touch()
while True:
    signal.pause()
"""
AGENT = """\
#!/bin/bash
trap 'touch "$ROOFLAB_OUT/agent-told"' TERM
worker &
wait $!
"""


def until(holds: Callable[[], object]) -> None:
    """Wait for something that other processes bring about."""
    end = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < end, "it did not happen within five minutes"
        time.sleep(0.02)


class Run:
    """A run on a node, started by the run.sh that `fab run-lab` writes."""

    def __init__(self, node: Node, jobs: tuple[Job, ...]) -> None:
        self.folder = node.root / "home/ubuntu/rooflab-runs" / RUN
        self.folder.mkdir(parents=True)
        (node.root / "home/ubuntu/rooflab").mkdir(exist_ok=True)
        seat = Seat(node="node0", index=0, processes=1, cores=1)
        (self.folder / "run.sh").write_text(script(Plan(run=RUN, jobs=jobs, seats=(seat,), head="127.0.0.1"), seat))
        environment = node.environment({"HOME": str(node.root / "home/ubuntu")})
        self.process = subprocess.Popen(
            ["bash", str(self.folder / "run.sh")], env=environment, start_new_session=True, stderr=subprocess.DEVNULL
        )
        until((self.folder / "out/up").exists)

    def codes(self) -> dict[str, int]:
        """Exit code by job, once the run is over."""
        self.process.wait(300)
        return {line.split()[0]: int(line.split()[1]) for line in (self.folder / "codes").read_text().splitlines()}

    def log(self, job: str) -> str:
        return (self.folder / "logs" / f"{job}.log").read_text()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path / "root")
    for name, text in (("worker", WORKER), ("torchrun", AGENT)):
        (made.root / "bin" / name).write_text(text)
        (made.root / "bin" / name).chmod(0o755)
    assert made.boot("deadline") == "ok"
    return made


@pytest.fixture
def start(node: Node) -> Iterator[Callable[..., Run]]:
    """Starts runs; what is left of them is killed when the test ends."""
    begun: list[Run] = []

    def begin(*jobs: Job) -> Run:
        begun.append(Run(node, jobs))
        return begun[-1]

    yield begin
    for run in begun:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait(60)


def own(name: str, *command: str) -> Job:
    return Job(name=name, command=command, kind="command")


def deadline_in(node: Node, seconds: int) -> None:
    python = node.here / "venv/bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f"#!/bin/bash\necho {int(time.time()) + seconds}\n")
    python.chmod(0o755)


def test_a_workload_saves_and_no_further_job_begins(node: Node, start: Callable[..., Run]) -> None:
    run = start(own("train", "worker"), own("next", "worker"))
    deadline_in(node, 300)
    told = node.belt()
    assert told.returncode == 0, told.stderr
    assert run.codes() == {"train": 0, "next": NOT_RUN}
    assert (run.folder / "out/saved").read_text() == "a checkpoint"
    at = (node.home / "deadline").read_text().strip()
    assert run.log("train") == f"told by SIGTERM to end: the lab ends at {at}\n"
    assert run.log("next") == f"not run: the lab ends at {at}\n"
    assert (run.folder / "exit").read_text() == "1\n"


def test_the_workers_of_torchrun_are_told_and_it_is_left_to_wait_for_them(
    node: Node, start: Callable[..., Run]
) -> None:
    run = start(Job(name="train", command=("workloads.ddp",), scope="cluster"))
    deadline_in(node, 300)
    node.belt()
    assert run.codes() == {"train": 0}
    assert (run.folder / "out/saved").exists()
    assert not (run.folder / "out/agent-told").exists(), "it would end its workers some seconds later"


def test_nobody_is_told_before_time(node: Node, start: Callable[..., Run]) -> None:
    run = start(own("train", "worker"))
    deadline_in(node, 3600)
    node.belt()
    assert not (run.folder / "notice").exists()
    assert run.process.poll() is None


def test_a_run_that_is_over_is_left_as_it_is(node: Node, start: Callable[..., Run]) -> None:
    run = start(own("train", "worker"))
    deadline_in(node, 300)
    node.belt()
    run.codes()
    (run.folder / "notice").unlink()
    notice = node.root / "usr/local/sbin/rooflab-notice"
    subprocess.run(["bash", notice, "again"], env=node.environment({}), check=True)
    assert not (run.folder / "notice").exists()


def test_a_spot_node_tells_its_workloads_at_once_when_ec2_takes_it_back(node: Node, start: Callable[..., Run]) -> None:
    run = start(own("train", "worker"))
    with serve() as imds:
        environment = node.environment({"AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.address, "ROOFLAB_WATCH_S": "0.05"})
        watch = subprocess.Popen(["bash", str(node.here / "watch.sh")], env=environment, stdout=subprocess.DEVNULL)
        try:
            until(lambda: imds.looks >= 2)
            assert run.process.poll() is None, "without a notice nobody is told"
            imds.token = "second"  # the first one has expired
            until(lambda: imds.looks >= 4)
            imds.action = json.dumps({"action": "terminate", "time": "2026-11-21T03:07:00Z"})
            assert watch.wait(300) == 0
        finally:
            watch.kill()
    assert run.codes() == {"train": 0}
    assert run.log("train") == "told by SIGTERM to end: EC2 takes this spot instance back at 2026-11-21T03:07:00Z\n"


def test_the_watch_is_a_service_that_starts_with_the_node(node: Node) -> None:
    assert node.boot("spot") == "ok"
    unit = (node.root / "etc/systemd/system/rooflab-watch.service").read_text()
    assert "Restart=on-failure" in unit
    assert os.access(node.root / "usr/local/sbin/rooflab-watch", os.X_OK)
    assert "systemctl enable rooflab-watch.service" in node.calls
    assert node.calls.index("systemctl daemon-reload") < node.calls.index("systemctl restart rooflab-watch.service")


def test_cluster_jobs_are_not_begun_where_nodes_cannot_reach_each_other(node: Node, start: Callable[..., Run]) -> None:
    unfit = own("connectivity", "bash", "-c", 'touch "$ROOFLAB_OUT/up"; echo "connectivity: node1: MTU" > '
                '"$ROOFLAB_RUN_DIR/unfit"; exit 1')  # fmt: skip
    shared = Job(name="ddp", command=("worker",), kind="command", scope="cluster")
    run = start(unfit, shared, own("gemm", "true"))
    assert run.codes() == {"connectivity": 1, "ddp": 69, "gemm": 0}
    assert run.log("ddp") == "not run, for no time limit is worth its price: connectivity: node1: MTU\n"
