"""A job that goes on among the nodes that are left: whoever dies, whoever leads."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from operate.ranks import rendezvous

ROOT = Path(__file__).parents[2]
RANKS = """\
#!/bin/bash
# Stands for torchrun: says who it is among how many, and ends once it is told how.
echo "begun $ROOFLAB_GENERATION $2 ${6#is_host=}" >> "$ROOFLAB_RUN_DIR/told"
trap 'echo saved >> "$ROOFLAB_RUN_DIR/told"; exit 1' TERM
while [ ! -e "$ROOFLAB_RUN_DIR/end" ]; do sleep 0.05; done
exit "$(cat "$ROOFLAB_RUN_DIR/end")"
"""


class Party:
    """Rosters of one job, each with a run's folder of its own, as on nodes."""

    def __init__(self, folder: Path, count: int, shared: bool = False) -> None:
        self.folders = [folder / f"node{index}" for index in range(count)]
        self.processes: list[subprocess.Popen[bytes]] = []
        torchrun = folder / "torchrun"
        torchrun.write_text(RANKS)
        torchrun.chmod(0o755)
        peers = ",".join(f"node{index}=127.0.0.1:{port}" for index, port in enumerate(_ports(count)))
        for index, home in enumerate(self.folders):
            home.mkdir()
            environment = {**os.environ, "ROOFLAB_RUN_DIR": str(home), "ROOFLAB_RUN": "run",
                           "PYTHONPATH": str(ROOT)}  # fmt: skip
            environment |= {"ROOFLAB_SHARED": str(folder)} if shared else {}
            words = ["--job", "train", "--node", f"node{index}", "--peers", peers, str(torchrun)]
            command = [sys.executable, "-m", "operate.roster", *words]
            with (home / "log").open("w") as log:
                self.processes.append(
                    subprocess.Popen(command, env=environment, cwd=home, start_new_session=True, stdout=log, stderr=log)
                )

    def told(self, index: int) -> list[str]:
        path = self.folders[index] / "told"
        return path.read_text().splitlines() if path.exists() else []

    def await_line(self, index: int, line: str) -> None:
        until = time.monotonic() + 120
        while line not in self.told(index):
            assert time.monotonic() < until, (line, [self.log(each) for each in range(len(self.folders))])
            time.sleep(0.02)

    def end(self, index: int, code: int) -> None:
        (self.folders[index] / "end").write_text(str(code))

    def log(self, index: int) -> str:
        return (self.folders[index] / "log").read_text()

    def kill(self, index: int) -> None:
        """All of the node at once."""
        os.killpg(self.processes[index].pid, signal.SIGKILL)

    def code(self, index: int) -> int:
        code = self.processes[index].wait(120)
        assert "Traceback" not in self.log(index)
        return code


def _ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def party(tmp_path: Path) -> Iterator[Callable[..., Party]]:
    made: list[Party] = []

    def make(count: int, **given: bool) -> Party:
        made.append(Party(tmp_path, count, **given))
        return made[-1]

    yield make
    for one in made:
        for process in one.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def test_torchrun_is_told_how_many_nodes_where_they_meet_and_who_keeps_the_store() -> None:
    assert rendezvous(2, "10.0.0.7:29999", "10.0.0.8", hosts=False) == [
        "--nnodes", "2", "--rdzv-endpoint", "10.0.0.7:29999", "--rdzv-conf", "is_host=false",
        "--local-addr", "10.0.0.8",
    ]  # fmt: skip


def test_all_begin_together_and_the_job_is_over_when_all_ended(party: Callable[..., Party]) -> None:
    job = party(2)
    for index, hosts in enumerate(("true", "false")):
        job.await_line(index, f"begun 0 2 {hosts}")
        job.end(index, 0)
    assert [job.code(0), job.code(1)] == [0, 0]
    assert not (job.folders[0] / "lost").exists()


def test_a_failure_of_the_jobs_own_ends_it_everywhere_with_its_code(party: Callable[..., Party]) -> None:
    job = party(2)
    job.await_line(0, "begun 0 2 true")
    job.await_line(1, "begun 0 2 false")
    job.end(1, 7)
    assert [job.code(0), job.code(1)] == [7, 7]
    assert job.told(0) == ["begun 0 2 true"], "ended by force: its ranks wait for others that are gone"


def test_the_others_go_on_without_the_one_that_led_and_the_next_one_leads(party: Callable[..., Party]) -> None:
    job = party(3, shared=True)
    for index, hosts in enumerate(("true", "false", "false")):
        job.await_line(index, f"begun 0 3 {hosts}")
    job.kill(0)
    for index, hosts in ((1, "true"), (2, "false")):
        job.await_line(index, f"begun 1 2 {hosts}")
    job.kill(2)
    job.await_line(1, "begun 2 1 true")
    job.end(1, 0)
    assert job.code(1) == 0
    log = job.log(1)
    assert "roster: node0, which led, is lost\n" in log
    assert "roster: goes on with 2 nodes of 3 (node1, node2), for node0 is lost\n" in log
    assert "roster: goes on with 1 node of 3 (node1), for node0, node2 are lost\n" in log
    assert (job.folders[1] / "lost").read_text() == "node0\nnode2\n", "the jobs to come know it"
    claims = job.folders[0].parent / "checkpoints" / "run" / "train.generations"
    assert {path.name: path.read_text() for path in claims.iterdir()} == {
        "0": "node0\n", "1": "node1\n", "2": "node1\n",
    }  # fmt: skip


def test_a_node_that_gets_notice_leaves_after_all_have_saved(party: Callable[..., Party]) -> None:
    job = party(2)
    job.await_line(0, "begun 0 2 true")
    job.await_line(1, "begun 0 2 false")
    (job.folders[0] / "notice").write_text("spot interruption\n")
    job.await_line(1, "begun 1 1 true")
    assert job.code(0) == 143
    assert job.told(1) == ["begun 0 2 false", "saved", "begun 1 1 true"]
    assert job.told(0) == ["begun 0 2 true", "saved"]
    job.end(1, 0)
    assert job.code(1) == 0


def test_a_loss_that_the_laptop_tells_is_believed(party: Callable[..., Party]) -> None:
    """A machine that vanished closes no connection."""
    job = party(2)
    job.await_line(0, "begun 0 2 true")
    job.await_line(1, "begun 0 2 false")
    os.killpg(job.processes[1].pid, signal.SIGSTOP)
    (job.folders[0] / "lost").write_text("node1\n")
    job.await_line(0, "begun 1 1 true")
    job.end(0, 0)
    assert job.code(0) == 0
