"""A run from push to fetch, over real SSH: what comes home, what a failure says, what Ctrl-C leaves running."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labs.catalog import LABS
from operate import execution, follow, laptop, launch
from operate.choice import own_job
from operate.execution import Order, execute
from operate.fetch import fetch
from operate.launch import Job
from operate.problem import Problem
from operate.runs import Run, find_run
from operate.screen import Screen
from operate.verdict import verdict
from tests.operate.conftest import git, processes_of


def bash(name: str, text: str, **changes) -> Job:
    return Job(name=name, command=("bash", "-c", text), kind="command", **changes)


def order(*jobs: Job, **changes) -> Order:
    return Order(jobs=jobs, lab=LABS[3], wait_s=0, **changes)


class Hearing(Screen):
    """Does something once a line has come from each of these nodes: then the run is followed there, too."""

    def __init__(self, line: str, nodes: set[str], act: Callable[[], object]) -> None:
        super().__init__()
        self._line, self._awaited, self._act = line, nodes, act

    def output(self, node: str, line: str) -> None:
        super().output(node, line)
        if line.endswith(self._line) and node in self._awaited:
            self._awaited.remove(node)
            if not self._awaited:
                self._act()


def test_records_logs_and_codes_of_every_node_come_home(machines, cluster_of, capsys):
    cluster = cluster_of(machines(2))
    record = 'echo "{}" > $ROOFLAB_RUN_DIR/records/one.$ROOFLAB_NODE.json; echo hi from $ROOFLAB_NODE of $ROOFLAB_NODES'
    run = execute(
        cluster, order(bash("one", record), bash("two", "echo x > $ROOFLAB_OUT/x"), usd_per_hour=3.6), Screen()
    )
    assert verdict(run) is None
    document = json.loads((run.folder / "run.json").read_text())
    assert document == run.document
    assert (document["lab"], document["stack"], document["target"], document["ok"]) == (3, "Lab3Stack", "stack", True)
    assert [item["exit"] for item in document["workloads"]] == [{"node0": 0, "node1": 0}] * 2
    assert 0 <= document["usd"] < 0.1
    assert sorted(path.name for path in (run.folder / "records").iterdir()) == ["one.node0.json", "one.node1.json"]
    assert (run.folder / "logs" / "node1" / "one.log").read_text() == "hi from node1 of 2\n"
    assert (run.folder / "out" / "node0" / "x").read_text() == "x\n"
    shown = capsys.readouterr().out
    assert "[node1] hi from node1 of 2" in shown
    assert "[node0] two: done after 0:00" in shown


def test_a_run_that_goes_on_tells_what_its_whole_lab_has_cost_so_far(tmp_path):
    now = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
    things = [
        {"id": "i-1", "created": "2026-11-21T11:30:00Z", "usd_per_hour": 4.0},
        {"id": "fs-1", "created": "2026-11-21T11:00:00Z", "usd_per_hour": 0.5},
    ]
    document = {
        "stack": "Lab3Stack",
        "started": "2026-11-21T12:00:00Z",
        "usd_per_hour": 4.0,
        "cost": {"things": things},
    }
    run = Run(tmp_path, document)
    assert execution._so_far(run, now) == "Lab3Stack $4.75 so far", "from the stack's creation, its file system too"
    things[1]["usd_per_hour"] = None
    assert execution._so_far(run, now) == "Lab3Stack unknown so far", "never less than it is"
    assert execution._so_far(Run(tmp_path, {**document, "cost": None}), now) == "$2.00 so far"
    assert execution._so_far(Run(tmp_path, {**document, "cost": None, "usd_per_hour": None}), now) == ""


def test_a_workload_that_fails_on_one_node_is_named_and_the_rest_still_runs(machines, cluster_of):
    cluster = cluster_of(machines(2))
    jobs = (bash("one", "[ $ROOFLAB_NODE = node0 ] || exit 3"), bash("two", "echo well"))
    run = execute(cluster, order(*jobs), Screen())
    problem = verdict(run)
    assert problem is not None
    assert str(problem) == f"one failed with 3 on node1: see {run.folder}/logs/node1/one.log"
    assert [item["exit"] for item in run.document["workloads"]] == [{"node0": 0, "node1": 3}, {"node0": 0, "node1": 0}]


def test_a_workload_over_its_time_limit_is_ended_and_says_so(machines, cluster_of):
    run = execute(cluster_of(machines(1)), order(bash("slow", "sleep 60", timeout_s=1)), Screen())
    assert "slow ran over its time limit on node0" in str(verdict(run))
    assert (run.folder / "logs/node0/slow.log").read_text() == "ended by fab after 1 s: its time limit\n"


def test_a_secret_reaches_the_process_and_nothing_that_is_kept(machines, cluster_of, monkeypatch, capsys):
    (machine,) = machines(1)
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    show = '[ ${#HF_TOKEN} = 13 ] && echo "token is $HF_TOKEN"'
    run = execute(cluster_of([machine]), order(bash("one", show)), Screen())
    assert verdict(run) is None
    kept = [path for path in (laptop.ROOT / "results").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"hf_0123456789" in path.read_bytes()], "not even where a workload prints it"
    written = [path for path in machine.home.rglob("*") if path.is_file() and path.suffix != ".log"]
    assert not [path for path in written if b"hf_0123456789" in path.read_bytes()]
    assert "[node0] token is ***" in capsys.readouterr().out


def test_another_session_blanks_the_secrets_of_a_run_too(machines, cluster_of, monkeypatch, capsys):
    monkeypatch.setenv("MY_TOKEN", "tok_0123456789")
    (machine,) = machines(1)
    cluster = cluster_of([machine])
    told = bash("one", 'echo "one has $MY_TOKEN."'), bash("two", 'echo "two has $MY_TOKEN."')
    run = execute(cluster, order(*told, environment=("MY_TOKEN",)), Screen())
    assert run.document["environment"] == ["MY_TOKEN"], "the name alone"
    (log,) = machine.home.rglob("one.log")
    assert log.read_text() == "one has **************.\n", "the node itself keeps no value once a workload has ended"
    capsys.readouterr()
    monkeypatch.delenv("MY_TOKEN")
    run = execution.attend(cluster, run, Screen())
    told_now = capsys.readouterr()
    assert "tok_0123456789" not in told_now.out + (run.folder / "logs/node0/two.log").read_text()
    assert (
        f"warning: MY_TOKEN is not set in this shell: what {run.name} writes of it is blanked only once" in told_now.err
    )
    assert execution.secret_values(find_run(lab=3), Screen()) == ()
    monkeypatch.setenv("MY_TOKEN", "tok_0123456789")
    assert execution.secret_values(find_run(lab=3), Screen()) == ("tok_0123456789",)


def test_ctrl_c_looks_away_and_the_run_goes_on(machines, cluster_of, monkeypatch):
    cluster = cluster_of(machines(1))

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, "follow", interrupted)
    with pytest.raises(Problem) as caught:
        execute(cluster, order(bash("one", "sleep 1; echo done")), Screen())
    assert caught.value.exit_code == 130
    run = find_run(lab=3)
    assert run.document["ended"] is None
    assert f"detached from {run.name}, which goes on (node0): fab attach --run {run.name}" in str(caught.value)
    monkeypatch.setattr(execution, "follow", follow.follow)
    assert verdict(execution.attend(cluster, run, Screen())) is None
    assert (run.folder / "logs/node0/one.log").read_text() == "done\n"


@pytest.mark.parametrize("step", ["push", "read_tree"])
def test_ctrl_c_before_the_launch_starts_nothing(machines, cluster_of, monkeypatch, step):
    (machine,) = machines(1)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, step, interrupted)
    with pytest.raises(Problem, match="interrupted while pushing the tree: nothing was started"):
        execute(cluster_of([machine]), order(bash("one", "true")), Screen())
    assert not (machine.home / "rooflab-runs").exists()


def test_stop_ends_everything_that_the_run_started_even_in_other_sessions(machines, cluster_of, monkeypatch):
    monkeypatch.setattr(launch, "_STOP_S", 1)
    both = machines(2)
    cluster = cluster_of(both)
    stubborn = 'setsid bash -c "trap : TERM; echo up; while :; do sleep 0.1; done" & wait'
    up, followed = threading.Event(), []
    screen = Hearing("up", {"node0", "node1"}, up.set)
    launched = threading.Thread(
        target=lambda: followed.append(execute(cluster, order(bash("one", stubborn)), screen)), daemon=True
    )
    launched.start()
    assert up.wait(100)
    assert [pid for pid in processes_of(both[0].home) if of_a_run(pid)]
    run = execution.stop(cluster, find_run(lab=3), Screen())
    assert not [pid for machine in both for pid in processes_of(machine.home) if of_a_run(pid)]
    launched.join(100)
    for told in (run, *followed, find_run(lab=3)):  # who stopped it and who followed it write down the same
        assert told.document["workloads"][0]["exit"] == {"node0": 143, "node1": 143}
        assert "one was stopped on node0, node1" in str(verdict(told))
    assert len(followed) == 1
    assert (run.folder / "logs/node0/one.log").read_text().startswith("up\n"), "what it logged is kept"


def of_a_run(pid: int) -> bool:
    """Whether a process is a workload's."""
    try:
        return b"\0ROOFLAB_RUN_DIR=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def test_a_node_that_ec2_says_is_gone_is_lost_and_the_others_results_are_kept(machines, cluster_of, monkeypatch):
    first, second = machines(2)
    cluster = cluster_of([first, second])
    monkeypatch.setattr(type(cluster), "state", lambda self, node: "terminated" if node.name == "node1" else "running")

    # node1's would take longer than any test may: it is not waited for
    jobs = (bash("one", "echo up; [ $ROOFLAB_NODE = node0 ] || sleep 5000; sleep 1; echo well"),)
    run = execute(cluster, order(*jobs), Hearing("up", {"node1"}, second.stop))
    assert run.document["workloads"][0]["exit"] == {"node0": 0, "node1": None}
    assert list(run.document["lost"]) == ["node1"]
    assert "node1 was lost (EC2 says that it is terminated)" in str(verdict(run))
    assert (run.folder / "logs/node0/one.log").read_text() == "up\nwell\n"


def test_a_cluster_job_does_not_wait_for_a_lost_node_and_the_rest_of_the_list_does(machines, cluster_of, monkeypatch):
    first, second = machines(2)
    cluster = cluster_of([first, second])
    monkeypatch.setattr(type(cluster), "state", lambda self, node: "terminated" if node.name == "node1" else "running")
    script = laptop.ROOT / "wait.py"
    script.write_text("import time; print('torch', flush=True); time.sleep(5000)")
    # real torchrun is a Python file of that name, so its name is in its command line; this stand-in's is too
    stand_in = 'while [ "$1" != --log-dir ]; do shift; done; shift 2; python "$@" & trap "kill $!; exit 143" TERM; wait'
    for machine in (first, second):
        (machine.home / "bin" / "torchrun").write_text(f"#!/bin/bash\n{stand_in}\n")
    jobs = (
        Job(name="both", command=("$run/wait.py",), kind="script", scope="cluster"),
        Job(name="again", command=("$run/wait.py",), kind="script", scope="cluster"),
        bash("alone", "echo well"),
    )
    screen = Hearing("torch", {"node0", "node1"}, second.stop)
    run = execute(cluster, order(*jobs, files={"wait.py": script.read_bytes()}), screen)
    assert [item["exit"]["node0"] for item in run.document["workloads"]] == [143, 69, 0]
    assert "again was not run on node0; node1 was lost" in str(verdict(run))


def test_output_goes_on_where_it_was_cut_off(machines, cluster_of, capsys):
    (machine,) = machines(1)
    cluster = cluster_of([machine])
    was_cut = machine.home / "cut"

    def cut() -> None:
        machine.cut()
        was_cut.touch()

    wait = f"while [ $i = 2 ] && ! [ -e {was_cut} ]; do sleep 0.05; done"
    lines = bash("one", f"for i in 1 2 3 4 5 6; do echo line $i; {wait}; done")
    run = execute(cluster, order(lines), Hearing("line 2", {"node0"}, cut))
    shown = capsys.readouterr()
    assert [line for line in shown.out.splitlines() if "line" in line] == [f"[node0] line {n}" for n in range(1, 7)]
    assert "trying to reach it again" in shown.err
    assert verdict(run) is None


def test_what_a_machine_says_as_it_sets_its_environment_is_no_output(machines, cluster_of, capsys):
    (machine,) = machines(1)
    with (machine.home / ".rooflab/env.sh").open("a") as environment:
        environment.write("echo welcome; echo 5\n")
    run = execute(cluster_of([machine]), order(bash("one", "echo well")), Screen())
    assert verdict(run) is None
    assert "[node0] well" in capsys.readouterr().out


def test_an_error_that_nobody_foresaw_ends_the_following_and_is_told(machines, cluster_of, monkeypatch):
    def broken(self):
        raise KeyError("at")

    monkeypatch.setattr(follow._Watcher, "_events", broken)
    run = execute(cluster_of(machines(1)), order(bash("one", "true")), Screen())
    assert "node0 was lost (unexpected KeyError: 'at': the traceback is in" in str(verdict(run))


def test_a_node_that_does_not_answer_is_named_before_anything_starts(machines, cluster_of):
    first, second = machines(2)
    second.stop()
    with pytest.raises(Problem, match=r"node1 could not answer .*node1 \(127.0.0.1 port \d+\) does not answer"):
        execute(cluster_of([first, second]), order(bash("one", "true")), Screen())
    assert not (first.home / "rooflab-runs").exists()


def test_a_failed_set_up_is_told_in_its_own_words(machines, cluster_of):
    (machine,) = machines(1)
    (machine.home / ".rooflab/ready").write_text("failed: lustre: mount timed out\n")
    with pytest.raises(
        Problem, match="node0: set-up failed: lustre: mount timed out: read its log by fab ssh --node node0"
    ):
        execute(cluster_of([machine]), order(bash("one", "true")), Screen())


def test_set_up_is_waited_for(machines, cluster_of):
    (machine,) = machines(1)
    ready = machine.home / ".rooflab/ready"
    ready.unlink()
    facts = cluster_of([machine]).facts(Screen(), sleep=lambda _: ready.write_text("ok\n") and None)
    assert facts["node0"].ready == "ok"


def test_a_machine_without_torchrun_is_refused(machines, cluster_of):
    (machine,) = machines(1)
    (machine.home / ".rooflab/env.sh").write_text("PATH=/usr/bin:/bin\n")
    with pytest.raises(Problem, match="node0 has no torchrun on its PATH: pip install torch"):
        cluster_of([machine]).facts(Screen(), wait_s=0)


def test_an_untracked_script_travels_with_the_run_and_a_tracked_one_with_the_tree(
    machines, cluster_of, clone, tmp_path, monkeypatch
):
    mine = tmp_path / "mine.py"
    mine.write_text("import sys; print('mine', sys.argv[1:])")
    monkeypatch.chdir(clone)
    cluster = cluster_of(machines(1))
    for words in ((str(mine), "a b"), ("hello.py",)):
        job, files = own_job(words, everywhere=words[0] == "hello.py", limit_s=60, local=False)
        assert set(files) == ({"mine.py"} if words[0] != "hello.py" else set())
        run = execute(cluster, order(job, files=files), Screen())
        assert verdict(run) is None, (run.folder / "logs/node0" / f"{job.name}.log").read_text()
    logs = sorted((laptop.results()).glob("*/logs/node0/*.log"))
    assert [log.read_text() for log in logs if log.stem in ("mine", "hello")] == ["mine ['a b']\n", "hello\n"]


def test_a_local_run_is_the_same_run_without_ssh(clone):
    from operate.cluster import open_local

    (clone / "untracked.py").write_text("print('as it lies here')")
    job = Job(name="untracked", command=("untracked.py",), kind="script")
    with open_local() as cluster:
        run = execute(cluster, order(job), Screen())
    assert verdict(run) is None
    assert (run.document["target"], run.document["stack"]) == ("local", None)
    assert (run.folder / "logs/node0/untracked.log").read_text() == "as it lies here\n"


def test_fetching_a_run_that_a_node_does_not_have_says_so(machines, cluster_of, tmp_path):
    fetched = fetch(cluster_of(machines(1)), "20260101-000000-lab3", tmp_path / "x")
    assert fetched.missed == {"node0": "node0 has no run 20260101-000000-lab3"}


def test_the_untracked_are_named_when_pushing(machines, cluster_of, clone, capsys):
    (clone / "new.py").write_text("")
    execute(cluster_of(machines(1)), order(bash("one", "true")), Screen())
    assert "warning: not pushed, for git does not track it: new.py (git add brings it along)" in capsys.readouterr().err
    git(clone, "add", ".")
