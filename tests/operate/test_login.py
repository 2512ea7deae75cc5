"""A Slurm cluster that was there before: its login node takes a run, and its nodes do it in a home that they share."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from labs.catalog import LABS
from operate import choice, dispatch, execution, slurm
from operate.cluster import Cluster
from operate.execution import Order
from operate.launch import Job
from operate.login import open_login, reopen
from operate.problem import Problem
from operate.screen import Screen
from operate.slurm import Machine
from operate.verdict import verdict
from tests.operate.conftest import Machine as Computer


class Farm:
    """Two nodes with Slurm, whose tasks find themselves in the login node's home."""

    def __init__(self, home: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="farm-", dir="/tmp"))  # a socket's path must be short
        self._folder.chmod(0o711)
        host = os.uname().nodename.partition(".")[0]
        own = f"127.{os.getpid() % 200 + 10}.{secrets.randbelow(250)}"
        machines = tuple(
            Machine(node=f"n{index}", address=f"{own}.{index + 1}", hostname=host, cores=1, gpus=0) for index in (0, 1)
        )
        key = secrets.token_bytes(1024)
        for machine in machines:
            there = self._folder / machine.node
            there.mkdir()
            then = f'echo "export HOME={home}" >> ~/.rooflab/slurm/environment'
            command = f"{slurm.start_command(machines, machine.node)}\n{then}"
            self._run(command, there, key)
        self._run(slurm.ready_command(2), self._folder / "n0", b"")
        self.conf = self._folder / "n0" / ".rooflab" / "slurm" / "slurm.conf"

    def _run(self, command: str, home: Path, stdin: bytes) -> None:
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(self._folder)}
        subprocess.run(["bash", "-c", command], input=stdin, env=environment, check=True, cwd=home)

    def close(self) -> None:
        for path in self._folder.glob("*/.rooflab/slurm/*.pid"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(path.read_text()), signal.SIGKILL)
        shutil.rmtree(self._folder)


@pytest.fixture
def login(
    machines: Callable[[int], list[Computer]], key: Path, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    (machine,) = machines(1)
    farm = Farm(machine.home)
    with (machine.home / ".rooflab" / "env.sh").open("a") as file:
        file.write(f'export SLURM_CONF={farm.conf} PATH="$PATH:/usr/sbin:/sbin"\n')
    me = tmp_path / "me"
    (me / ".ssh").mkdir(parents=True)
    (me / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{machine.node.port} {machine.host_key}\n")
    (me / ".ssh" / "config").write_text(
        f"Host login\n  HostName 127.0.0.1\n  Port {machine.node.port}\n  IdentityFile {key}\n"
    )
    monkeypatch.setenv("HOME", str(me))
    with choice.open_target(LABS[3], on="", hosts="login", launcher="slurm", screen=Screen()) as cluster:
        yield cluster
    farm.close()


def test_a_run_goes_through_the_login_node_and_every_seat_has_its_part(login: Cluster) -> None:
    told = "import os; print(os.environ['ROOFLAB_NODE'], os.environ['ROOFLAB_PEERS'].count('='), 'peers')"
    jobs = (
        Job(name="all", command=("bash", "-c", f'python -c "{told}"'), kind="command", scope="cluster", timeout_s=60),
        Job(name="each", command=("bash", "-c", "echo $seat > $ROOFLAB_OUT/x; [ $seat = node0 ]"), kind="command"),
    )
    order = Order(jobs=jobs, lab=LABS[3], launcher="slurm", hang_s=0)
    run = execution.execute(login, order, Screen())
    assert run.document["target"] == "login:2:login"
    exits = {item["name"]: item["exit"] for item in run.document["workloads"]}
    assert exits == {"all": {"node0": 0, "node1": 0}, "each": {"node0": 0, "node1": 1}}
    problem = verdict(run)
    assert problem is not None
    assert problem.cause == "each failed with 1 on node1"
    for node in ("node0", "node1"):
        assert (run.folder / "logs" / node / "all.log").read_text() == f"{node} 2 peers\n"
        assert (run.folder / "out" / node / "x").read_text() == f"{node}\n"
    with reopen(run.document["target"]) as again:
        assert dispatch.place_in_queue(again, run) == ()


def test_a_run_that_waits_in_the_queue_is_seen_there_and_taken_out_of_it(
    login: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    order = Order(jobs=(Job(name="long", command=("sleep", "600"), kind="command"),), lab=LABS[3], launcher="slurm")
    monkeypatch.setattr(execution, "follow", interrupted)
    with pytest.raises(Problem, match="which goes on"):
        execution.execute(login, order, Screen())
    run = choice.choose_run("", lab="3", name="")
    (line,) = dispatch.place_in_queue(login, run)
    assert line.startswith("Slurm job 1 (rooflab): ")
    ended = execution.stop(login, run, Screen())
    assert ended.document["workloads"][0]["exit"] == {"node0": 143, "node1": 143}
    assert dispatch.place_in_queue(login, run) == ()


def test_one_login_node_is_enough() -> None:
    with pytest.raises(Problem, match="takes one login node, and 2 hosts were named: write --hosts me@login"):
        open_login("a,b", 2)
