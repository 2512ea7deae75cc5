"""What Slurm is told, as exact text, and what it says of a job."""

import subprocess
from pathlib import Path

import pytest

from operate import batch, choice, launch, slurm, stream
from operate.batch import Step
from operate.launch import Job, Plan, Seat
from operate.problem import Problem
from operate.slurm import Machine
from operate.ticket import Ticket

RUN = "20261120-093000-lab3"
MACHINES = (
    Machine(node="node0", address="10.0.0.7", hostname="ip-10-0-0-7", cores=48, gpus=4),
    Machine(node="node1", address="10.0.0.8", hostname="ip-10-0-0-8", cores=48, gpus=1),
)
STEPS = (
    Step(name="train", scope="cluster", timeout_s=1800, restarts=3),
    Step(name="gemm", scope="node", timeout_s=900, restarts=0),
)


def test_the_configuration_names_every_node_and_each_port_once() -> None:
    text = slurm.config(MACHINES)
    assert (
        text
        == """\
ClusterName=rooflab
SlurmctldHost=ip-10-0-0-7(10.0.0.7)
SlurmctldPort=15073
SlurmUser=@USER@
SlurmdUser=@USER@
AuthType=auth/munge
AuthInfo=socket=@SOCKETS@/munge.socket,cred_expire=10
StateSaveLocation=@HERE@/state
SlurmdSpoolDir=@SOCKETS@/spool
SlurmctldPidFile=@HERE@/slurmctld.pid
SlurmdPidFile=@HERE@/slurmd.pid
SlurmctldLogFile=@HERE@/slurmctld.log
SlurmdLogFile=@HERE@/slurmd.log
TaskProlog=@HERE@/prolog
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/linear
SlurmdParameters=config_overrides
DebugFlags=NO_CONF_HASH
GresTypes=gpu
ReturnToService=2
JobRequeue=1
SlurmdTimeout=20
KillWait=5
MessageTimeout=10
SchedulerParameters=bf_interval=5
NodeName=node0 NodeHostname=ip-10-0-0-7 NodeAddr=10.0.0.7 Port=15074 CPUs=48 Gres=gpu:4 State=UNKNOWN
NodeName=node1 NodeHostname=ip-10-0-0-8 NodeAddr=10.0.0.8 Port=15075 CPUs=48 Gres=gpu:1 State=UNKNOWN
PartitionName=rooflab Nodes=node0,node1 Default=YES MaxTime=INFINITE State=UP
"""
    )


def test_gpus_are_named_by_their_device_files() -> None:
    assert slurm.gres(MACHINES) == (
        "NodeName=node0 Name=gpu File=/dev/nvidia[0-3]\nNodeName=node1 Name=gpu File=/dev/nvidia0\n"
    )


def test_another_cluster_has_another_stamp_and_other_ports() -> None:
    assert slurm.stamp(MACHINES) != slurm.stamp(MACHINES[:1])
    assert all(11000 <= slurm.port(MACHINES[:count]) < 19000 for count in (1, 2))


def test_the_controller_runs_on_the_head_alone() -> None:
    head, other = (slurm.start_command(MACHINES, node) for node in ("node0", "node1"))
    assert head.replace("slurmd -N node0", "slurmd -N node1").replace("\nslurmctld -i -f slurm.conf", "") == other
    assert "slurmctld.pid" not in slurm.check_command(MACHINES, "node1")
    assert "for daemon in munged slurmctld slurmd;" in slurm.check_command(MACHINES, "node0")


def test_the_key_is_in_no_command_and_nobody_else_may_read_it() -> None:
    text = slurm.start_command(MACHINES, "node0")
    assert "umask 077\n" in text
    assert "cat > munge.key\nchmod 0400 munge.key\n" in text


def test_a_survey_tells_what_is_missing() -> None:
    assert slurm.read_survey("hostname vm\ngpus 4\n") == ("vm", 4, ())
    assert slurm.read_survey("hostname vm\ngpus 0\nmissing slurmd\nmissing munged\n")[2] == ("slurmd", "munged")


def test_the_submission_asks_for_all_nodes_and_is_content_with_fewer_after_a_loss() -> None:
    command = batch.submit_command(RUN, f"~/rooflab-runs/{RUN}", nodes=2, gpus=4, steps=STEPS)
    assert command.splitlines()[-1] == (
        f"sbatch --parsable --job-name={RUN} --nodes=1-2 --ntasks-per-node=1 --exclusive --requeue"
        f" --time=150 --chdir=/ --output=/dev/null --gres=gpu:4 ~/rooflab-runs/{RUN}/batch.sh"
    )


def test_the_batch_script() -> None:
    assert (
        batch.script(RUN, f"~/rooflab-runs/{RUN}", STEPS)
        == f"""\
#!/usr/bin/env bash
# {RUN}, written by fab: each workload is a step of this job, on all nodes that it has.
run=~/rooflab-runs/{RUN}
exec >> "$run/run.log" 2>&1
echo "Slurm job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, start $((${{SLURM_RESTART_COUNT:-0}} + 1))"
on_all() {{ # on_all NAME KILL MINUTES: run.sh for one workload on every node; KILL 1: one that fails ends the others
    srun --job-name="$1" --nodes="$SLURM_NNODES" --ntasks-per-node=1 --kill-on-bad-exit="$2" --time="$3" \\
        bash -c 'exec bash ~/rooflab-runs/{RUN}/run.sh "$0"' "$1" < /dev/null
}}
step() {{ # step NAME KILL MINUTES RESTARTS
    local left=$4
    grep -qsx "$1" "$run/steps" && return
    while :; do
        export ROOFLAB_AGAIN=$left
        on_all "$1" "$2" "$3" && break
        [ "$left" -gt 0 ] && ! [ -e "$run/hang/$1/hung" ] || break # one that hung would only hang again
        # By then Slurm knows whether a node is lost, and has put this job into the queue again.
        sleep 30
        left=$((left - 1))
    done
    echo "$1" >> "$run/steps"
}}
step train 1 31 3
step gemm 0 16 0
on_all end 0 10
"""
    )


def plan() -> Plan:
    jobs = (
        Job(name="train", command=("workloads.train",), scope="cluster", restarts=3),
        Job(name="gemm", command=("workloads.gemm",)),
    )
    seats = tuple(Seat(node=f"node{i}", index=i, processes=4, cores=48, address=f"10.0.0.{7 + i}") for i in (0, 1))
    return Plan(run=RUN, jobs=jobs, seats=seats, head="10.0.0.7", launcher="slurm")


def test_who_takes_part_is_slurms_to_say() -> None:
    assert launch.job_command(plan(), plan().seats[1], 0) == (
        'torchrun --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --master-addr "$head" --max-restarts 0'
        ' --master-port 23455 --nproc-per-node 4 --tee 3 --log-dir "$run/ranks" -m workloads.train --out "$run/records"'
    )


def test_bash_accepts_everything_that_is_built() -> None:
    texts = [
        launch.script(plan(), plan().seats[0]),
        batch.script(RUN, "~/r", STEPS),
        batch.submit_command(RUN, "~/r", nodes=1, gpus=0, steps=STEPS),
        slurm.survey_command(),
        slurm.start_command(MACHINES, "node0"),
        slurm.check_command(MACHINES, "node0"),
        slurm.ready_command(2),
        slurm.down_command(["node1"]),
        slurm.scancel(7),
        slurm.queue_command(7),
    ]
    for text in texts:
        checked = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `squeue` does here, as bash."""
    tool = tmp_path / "bin" / "squeue"
    tool.parent.mkdir()
    tool.touch(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setattr("operate.ticket._ASK_S", 0.0)
    return tool


@pytest.mark.parametrize(
    ("does", "over"),
    [
        ("echo PENDING", False),
        ("true", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_a_job_is_over_once_the_queue_has_it_no_more(squeue: Path, does: str, over: bool) -> None:
    squeue.write_text(f'#!/bin/bash\n[ "$*" = "-h -j 7 -o %T" ] || exit 3\n{does}\n')
    assert Ticket("7").over() is over


def test_a_queue_that_nobody_answers_for_is_given_up(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue.write_text("#!/bin/bash\nexit 1\n")
    monkeypatch.setattr("operate.ticket._SILENCE_S", 0.0)
    assert Ticket("7").over()


def test_a_run_that_waits_in_the_queue_goes_on_whatever_runs_on_its_node(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("999999999")
    assert stream.ended(tmp_path) == -1
    assert stream.ended(tmp_path, queued=lambda: True) is None
    assert stream.ended(tmp_path, queued=lambda: False) == -1
    (tmp_path / "exit").write_text("0")
    assert stream.ended(tmp_path, queued=lambda: True) == 0


def test_a_launcher_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="launcher='mpirun' is not allowed: write torchrun or slurm"):
        choice.check_launcher("mpirun", on="")
    with pytest.raises(Problem, match="--launcher slurm is for a deployed lab"):
        choice.check_launcher("slurm", on="local")
    choice.check_launcher("slurm", on="")
