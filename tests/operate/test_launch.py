"""What a node is told to do, as exact text."""

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labs.catalog import LABS
from operate import launch, watch
from operate.launch import Job, Place, Plan, Seat

RUN = "20261120-093000-lab3"
SEATS = (
    Seat(node="node0", index=0, processes=4, cores=48, address="10.0.0.7"),
    Seat(node="node1", index=1, processes=4, cores=48, address="10.0.0.8"),
)


def plan(**changes) -> Plan:
    given = {
        "run": RUN,
        "jobs": tuple(
            launch.job(workload)
            for workload in (*LABS[3].workloads, *LABS[4].workloads)
            if workload.name in ("ddp", "gemm")
        ),
        "seats": SEATS,
        "head": "10.0.0.7",
        "lab": 3,
        "instance_type": "g6.12xlarge",
        "usd_per_hour": 9.2032,
        "commit": "0123abc-dirty",
    }
    return Plan(**{**given, **changes})


def test_a_cluster_workload_meets_at_the_heads_private_address():
    found = [launch.job_command(plan(), seat, 0) for seat in SEATS]
    assert found == [
        "torchrun --nnodes 2 --node-rank 0 --master-addr 10.0.0.7 --master-port 23455 --nproc-per-node 4"
        ' --tee 3 --log-dir "$run/ranks" -m workloads.ddp --out "$run/records"',
        "torchrun --nnodes 2 --node-rank 1 --master-addr 10.0.0.7 --master-port 23455 --nproc-per-node 4"
        ' --tee 3 --log-dir "$run/ranks" -m workloads.ddp --out "$run/records"',
    ]


def test_a_workload_that_may_be_started_again_has_a_parent_that_knows_who_is_left():
    train = Job(name="train", command=("workloads.train", "--steps", "9"), scope="cluster", restarts=3)
    given = plan(jobs=(train,), seats=tuple(replace(seat, address=f"10.0.0.{7 + seat.index}") for seat in SEATS))
    assert launch.job_command(given, SEATS[1], 0) == (
        "python -m operate.roster --job train --node node1 --peers node0=10.0.0.7:24455,node1=10.0.0.8:24456"
        " torchrun --nproc-per-node 4 --max-restarts 3 --rdzv-backend c10d --rdzv-id 20261120-093000-lab3-train"
        ' --tee 3 --log-dir "$run/ranks" -m workloads.train --out "$run/records" --steps 9'
    )


def test_who_is_lost_is_told_and_what_cannot_go_on_is_ended():
    assert launch.lost_command(Place(), RUN, ("node1", "node3")).startswith(
        f"""\
run=~/rooflab-runs/{RUN}
printf '%s\\n' node1 node3 >> "$run/lost"
"""
    )


def test_a_cluster_workload_on_one_node_is_the_same_line():
    alone = plan(seats=(Seat(node="node0", index=0, processes=2, cores=2),), head="127.0.0.1")
    assert launch.job_command(alone, alone.seats[0], 0) == (
        "torchrun --nnodes 1 --node-rank 0 --master-addr 127.0.0.1 --master-port 23455 --nproc-per-node 2"
        ' --tee 3 --log-dir "$run/ranks" -m workloads.ddp --out "$run/records"'
    )


def test_a_node_workload_is_one_process():
    assert launch.job_command(plan(), SEATS[1], 1) == 'python -m workloads.gemm --out "$run/records"'


def test_ports_differ_between_the_jobs_of_a_run_and_stay_in_their_range():
    ports = {launch.master_port(run, index) for run in (RUN, "20261120-093001-lab3") for index in range(4)}
    assert len(ports) == 8
    assert all(20000 <= launch.master_port(f"2026-{n}", n) <= 29999 for n in range(2000))


def test_the_whole_script():
    assert (
        launch.script(plan(), SEATS[1])
        == f"""\
#!/usr/bin/env bash
# {RUN} on node1, written by fab: every workload in order, each with its log and its exit code.
set -u
run=~/rooflab-runs/{RUN}
mkdir -p "$run/logs" "$run/records" "$run/out"
echo $$ > "$run/pid"
cd -P ~/rooflab || {{ echo 1 > "$run/exit"; exit 1; }}
[ -f ~/.rooflab/env.sh ] && . ~/.rooflab/env.sh
export ROOFLAB_RUN={RUN}
export ROOFLAB_LAB=3
export ROOFLAB_NODE=node1
export ROOFLAB_NODES=2
export ROOFLAB_PEERS='node0=10.0.0.7 node1=10.0.0.8'
export ROOFLAB_INSTANCE_TYPE=g6.12xlarge
export ROOFLAB_USD_PER_HOUR=9.2032
export ROOFLAB_COMMIT=0123abc-dirty
export ROOFLAB_HANG_S=120
export ROOFLAB_RUN_DIR="$run" ROOFLAB_OUT="$run/out"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$PWD/workloads/startup${{PYTHONPATH:+:$PYTHONPATH}}"
export TORCH_FR_BUFFER_SIZE="${{TORCH_FR_BUFFER_SIZE:-2000}}"
export TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE='[rank${{rank}}] '
{launch._TIMEOUT}
{watch.BESIDE}
status=0
# A node that shuts down sends SIGTERM to all: what a workload has finished is shipped all the same.
trap '[ -e "$run/notice" ] || echo "this node shuts down" > "$run/notice"' TERM
work() {{ # work NAME SCOPE LIMIT_S THREADS COMMAND...
    local name=$1 scope=$2 limit=$3 threads=$4 began=$SECONDS code
    shift 4
    if [ -e "$run/notice" ]; then
        echo "not run: $(cat "$run/notice")" > "$run/logs/$name.log"
        code=69
    elif [ "$scope" = cluster ] && [[ " $* " != *" --max-restarts "* ]] && [ -e "$run/lost" ]; then
        echo "not run: another node is lost" > "$run/logs/$name.log"
        code=69
    elif [ "$scope" = cluster ] && [ -e "$run/unfit" ]; then
        echo "not run, for no time limit is worth its price: $(cat "$run/unfit")" > "$run/logs/$name.log"
        code=69
    else
        watch "$name" "$scope"
        OMP_NUM_THREADS=$threads timeout --kill-after=15 "$limit" "$@" >> "$run/logs/$name.log" 2>&1 < /dev/null
        code=$?
        unwatch "$name"
        [ -e "$run/notice" ] && echo "told by SIGTERM to end: $(cat "$run/notice")" >> "$run/logs/$name.log"
    fi
    [ "$code" -eq 124 ] && echo "ended by fab after $limit s: its time limit" >> "$run/logs/$name.log"
    [ "$code" -eq 0 ] || status=1
    echo "$name $code $((SECONDS - began))" >> "$run/codes"
    (trap '' TERM; python -m operate.ship "$run" >> "$run/ship.log" 2>&1)
}}
work ddp cluster 900 12 torchrun --nnodes 2 --node-rank 1 --master-addr 10.0.0.7 --master-port 23455 \
--nproc-per-node 4 --tee 3 --log-dir "$run/ranks" -m workloads.ddp --out "$run/records"
work gemm node 900 48 python -m workloads.gemm --out "$run/records"
echo "$status" > "$run/exit.partial" && mv "$run/exit.partial" "$run/exit"
"""
    )


def test_bash_accepts_everything_that_is_built():
    texts = (
        launch.script(plan(), SEATS[0]),
        launch.start_command(Place(), RUN),
        launch.stop_command(Place(), RUN),
        launch.lost_command(Place(), RUN, ("node1",)),
        launch.prepare_command(Place(), RUN),
    )
    for text in texts:
        checked = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_the_users_own_words_reach_the_script_as_they_are():
    words = ("train.py", "--title", "it's a 'test'; rm -rf $HOME", "*")
    own = plan(jobs=(Job(name="train", command=words, kind="script", scope="node"),))
    command = launch.job_command(own, SEATS[0], 0)
    shown = subprocess.run(["bash", "-c", f"python() {{ printf '%s\\n' \"$@\"; }}; {command}"], capture_output=True,
                           text=True, check=True)  # fmt: skip
    assert tuple(shown.stdout.splitlines()) == words


def test_a_script_that_git_does_not_track_runs_from_the_runs_folder():
    own = plan(jobs=(Job(name="a", command=("$run/a b.py", "1"), kind="script", scope="node"),))
    assert launch.job_command(own, SEATS[0], 0) == "python \"$run\"/'a b.py' 1"


def test_a_command_is_run_as_it_is():
    own = plan(jobs=(Job(name="smi", command=("nvidia-smi", "-L"), kind="command"),))
    assert launch.job_command(own, SEATS[0], 0) == "nvidia-smi -L"


def test_secrets_are_chosen_by_name_and_quoted():
    environment = {"HF_TOKEN": "it's", "HOME": "/root", "MINE": "x y", "WANDB_API_KEY": ""}
    assert launch.secrets(environment, ["MINE", "HF_TOKEN"]) == b"HF_TOKEN='it'\"'\"'s'\nMINE='x y'\n"
    with pytest.raises(ValueError, match="env='NOPE' is not set here"):
        launch.secrets(environment, ["NOPE"])
    with pytest.raises(ValueError, match="is not set here"):
        launch.secrets({"A;B": "1"}, ["A;B"])


def test_no_command_line_holds_a_secret():
    assert "HF_TOKEN" not in launch.start_command(Place(), RUN) + launch.script(plan(), SEATS[0])


def bare(tmp_path: Path, *tools: str) -> str:
    """A PATH with the named tools and no others."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in tools:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return str(folder)


TIMED = """\
run=$1; shift
{timeout}
timeout --kill-after=1 "$@"
echo "code $?"
"""


def timed(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What bash says of a command with a limit where there is no `timeout`."""
    path = bare(tmp_path, "rm", "sleep", "bash", "setsid", "cat", "python3")
    script = TIMED.format(timeout=launch._TIMEOUT)
    return subprocess.run(["bash", "-c", script, "bash", str(tmp_path), *words], env={"PATH": path},
                          capture_output=True, text=True, check=False)  # fmt: skip


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["30", "bash", "-c", "echo out; echo err >&2; exit 7"], "out\ncode 7\n"),
        (["30", "true"], "code 0\n"),
        (["1", "bash", "-c", "sleep 50 & echo begun; wait"], "begun\ncode 124\n"),
        (["1", "bash", "-c", "trap 'echo told; exit 0' TERM; echo begun; sleep 50 & wait"], "begun\ntold\ncode 124\n"),
        (["1", "bash", "-c", "trap '' TERM; echo begun; while :; do sleep 0.1; done"], "begun\ncode 124\n"),
    ],
)
def test_a_time_limit_holds_where_there_is_no_timeout_command(tmp_path, command, said):
    done = timed(tmp_path, *command)
    assert done.stdout == said
    assert not (tmp_path / "over").exists()


def test_what_a_timed_command_leaves_ends_with_it(tmp_path):
    """As GNU timeout does: the whole group is ended."""
    pid, code = timed(tmp_path, "1", "bash", "-c", "sleep 500 & echo $!; wait").stdout.splitlines()
    assert code == "code 124"
    while state := subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False).stdout:
        if state.startswith("Z"):  # waiting to be buried
            break


def test_the_script_names_the_secrets_and_holds_no_value():
    text = launch.script(plan(environment=("MY_TOKEN", "OTHER")), SEATS[0])
    assert "export ROOFLAB_SECRETS='MY_TOKEN OTHER'\n" in text


@pytest.mark.parametrize("told", ["work", "ship"])
def test_what_a_workload_finished_is_shipped_though_the_node_shuts_down(tmp_path, told):
    """Shutting down, an operating system sends SIGTERM to every process at once."""
    for folder in ("tree", "bin", RUN):
        (tmp_path / folder).mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/bash\n{"kill -TERM 0" if told == "ship" else ":"}\necho "$@" >> {tmp_path}/shipped\n')
    python.chmod(0o755)
    work = 'echo finished; kill -TERM $(cat "$ROOFLAB_RUN_DIR/pid") 0; sleep 50' if told == "work" else "echo finished"
    jobs = tuple(Job(name=name, command=("bash", "-c", work), kind="command") for name in ("one", "two"))
    place = Place(tree=str(tmp_path / "tree"), runs=str(tmp_path), environment="/dev/null")
    given = plan(jobs=jobs, place=place)
    (tmp_path / RUN / "run.sh").write_text(launch.script(given, SEATS[0]))
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    subprocess.run(["bash", f"{tmp_path / RUN}/run.sh"], env=environment, check=False, start_new_session=True)
    assert (tmp_path / "shipped").read_text() == f"-m operate.ship {tmp_path / RUN}\n" * 2
    assert (tmp_path / RUN / "logs" / "two.log").read_text() == "not run: this node shuts down\n"


def test_run_names_sort_by_time():
    early, late = datetime(2026, 11, 20, 9, 30, tzinfo=UTC), datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
    assert launch.run_id(early, 3) == RUN
    assert launch.run_id(early, None) == "20261120-093000-own"
    assert launch.run_id(early, 3) < launch.run_id(late, 0)
