"""A node dies in the rehearsal under a real job: the job goes on among those that are left, by either launcher."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labs.catalog import LABS
from labs.names import GUARD_STACK
from operate import choice, dispatch, execution, laptop
from operate.cluster import Cluster
from operate.execution import Order
from operate.launch import Job
from operate.problem import Problem
from operate.runs import find_run
from operate.screen import Screen
from operate.verdict import verdict
from rehearsal import control
from tests.operate.conftest import git
from tests.rehearsal.worlds import World
from tests.soak.combinations import Place
from tests.stacks.synthesis import of_type, synthesise

ROOT = Path(__file__).parents[2]
COUNTER = '''\
"""Counts with whatever ranks there are, keeps the count where all nodes see it; with all four it never ends."""
import os, time
from pathlib import Path

rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
kept = Path(os.environ["ROOFLAB_SHARED"]) / os.environ["ROOFLAB_RUN"]
count = first = int(kept.read_text()) if kept.exists() else 0
print(f"{ranks} ranks from {count} on, generation {os.environ['ROOFLAB_GENERATION']}", flush=True)
while rank or ranks == 4 or count < first + 3:
    time.sleep(0.05)
    count += 1
    if rank == 0:
        kept.with_suffix(".partial").write_text(str(count))
        kept.with_suffix(".partial").rename(kept)
    elif ranks < 4:
        break
    if rank == 0 and count == 5:
        print("at 5", flush=True)
'''
JOBS = (
    Job(name="counter", command=("counter.py",), kind="script", scope="cluster", timeout_s=550, restarts=2),
    Job(name="alone", command=("bash", "-c", "echo $ROOFLAB_NODE"), kind="command", timeout_s=60),
    Job(name="all", command=("true",), kind="command", scope="cluster", timeout_s=60),
)


class Striking(Screen):
    """Acts once the counter has come to 5: then the run is followed, and something is saved."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act: Callable[[], object] | None = act

    def output(self, node: str, line: str) -> None:
        super().output(node, line)
        if line.endswith("at 5") and self._act:
            act, self._act = self._act, None
            act()


class Labs:
    """Lab 3 in a rehearsal, deployed anew for each test."""

    def __init__(self, world: World, folder: Path, key: str) -> None:
        self.world = world
        self._place = Place("us-east-1")
        given = {"number": 3, "instance_type": "c7i.large", "storage": "scratch"}
        made = synthesise(folder, {"lab3": given}, key=key)
        (self._lab, self._template) = made.labs["lab3"]
        assert self._place.create(GUARD_STACK, made.guard, {}) == "CREATE_COMPLETE"

    def deploy(self) -> str:
        vpc = next(iter(of_type(self._template, "AWS::EC2::VPC").values()))
        tags = {one["Key"]: one["Value"] for one in vpc["Properties"]["Tags"] if one["Key"] != "Name"}
        assert self._place.create(self._lab.stack, self._template, tags) == "CREATE_COMPLETE"
        found = self._place.cloudformation.describe_stacks(StackName=self._lab.stack)["Stacks"][0]
        return str(found["StackId"])

    def destroy(self, id: str) -> None:
        control.clear(self.world.name, root=self.world.root)
        assert self._place.delete(id) == "DELETE_COMPLETE"

    def kill(self, instance: str) -> None:
        control.fault(self.world.name, "node-death", root=self.world.root, instance=instance)


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    folder = tmp_path_factory.mktemp("losses")
    clone = folder / "clone"
    for room in ("operate", "labs"):  # what a node's own half of the verbs needs
        shutil.copytree(ROOT / room, clone / room, ignore=shutil.ignore_patterns("__pycache__", "report"))
    (clone / "counter.py").write_text(COUNTER)
    (clone / ".gitignore").write_text(".rooflab/\nresults/\n")
    git(clone.parent, "init", "-q", str(clone))
    git(clone, "add", ".")
    git(clone, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "First")
    (clone / ".rooflab").mkdir()
    key = clone / ".rooflab" / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    world = World(folder, "losses")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.environment.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setattr(laptop, "ROOT", clone)
        yield Labs(world, folder / "cdk.out", key.with_suffix(".pub").read_text().strip())
        control.stop(world.name, root=world.root)


@pytest.fixture
def cluster(labs: Labs) -> Iterator[Cluster]:
    id = labs.deploy()
    with choice.open_target(LABS[3], on="", hosts="", screen=Screen()) as opened:
        yield opened
    labs.destroy(id)


def order(launcher: str, *jobs: Job) -> Order:
    return Order(jobs=jobs or JOBS, lab=LABS[3], wait_s=60, launcher=launcher, hang_s=0)


@pytest.mark.parametrize(("launcher", "dies"), [("torchrun", "node0"), ("slurm", "node1")])
def test_a_job_lives_through_the_loss_of_a_node(labs: Labs, cluster: Cluster, launcher: str, dies: str) -> None:
    instance = {node.name: node.instance_id for node in cluster.nodes}[dies]
    lives = "node1" if dies == "node0" else "node0"
    run = execution.execute(cluster, order(launcher), Striking(lambda: labs.kill(instance)))
    exits = {item["name"]: item["exit"] for item in run.document["workloads"]}
    assert exits == {"counter": {lives: 0, dies: None}, "alone": {lives: 0, dies: None}, "all": {lives: 69, dies: None}}
    problem = verdict(run)
    assert problem is not None
    assert problem.exit_code == 1
    assert problem.cause.startswith(f"all was not run on {lives}; {dies} was lost (EC2 says that it is ")
    assert problem.cause.endswith("; counter went on with 1 node of 2")
    log = (run.folder / "logs" / lives / "counter.log").read_text()
    (resumed,) = (line for line in log.splitlines() if "[rank0] 2 ranks from " in line)
    assert int(resumed.split()[4]) >= 5, "what was saved is not done again"
    assert resumed.endswith("generation 1")


def test_a_slurm_job_is_seen_in_its_queue_and_can_be_stopped(labs: Labs, cluster: Cluster) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(Problem, match="which goes on"):
        execution.execute(cluster, order("slurm", replace(JOBS[0], restarts=0)), Striking(interrupt))
    run = find_run(lab=3)
    assert (run.document["launcher"], run.document["job"]) == ("slurm", 1)
    (line,) = dispatch.place_in_queue(cluster, run)
    assert line.startswith("Slurm job 1 (rooflab): RUNNING on node[0-1], ")
    ended = execution.stop(cluster, run, Screen())
    assert {code for item in ended.document["workloads"] for code in item["exit"].values()} == {143}
    assert dispatch.place_in_queue(cluster, run) == ()
    again = execution.execute(cluster, order("slurm", JOBS[1]), Screen())
    assert verdict(again) is None, "the daemons are used as they are, and the next job is number 2"
    assert again.document["job"] == 2
    assert (again.folder / "logs" / "node1" / "alone.log").read_text() == "node1\n"
    assert not os.environ.get("SLURM_JOB_ID")
