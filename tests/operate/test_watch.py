"""The watch beside a job: what it reads of processes and sensors, how nodes agree, run.sh from a hang to its end."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from labs.catalog import LABS, Lab
from operate import council, laptop, launch, witnesses
from operate.cause import find_cause
from operate.council import Chair
from operate.fetch import unpack
from operate.hang import Council, Word
from operate.launch import Job, Place, Plan, Seat
from operate.patience import hung, read_patience, stop_paying
from operate.problem import Problem
from operate.pulse import Pulse, descendants, gpu_power, processes, wire_bytes
from operate.runs import Run
from operate.screen import Screen
from operate.shell import Outcome
from operate.verdict import verdict
from operate.watch import marked, peers

RUN = "20261120-093000-lab3"
ROOT = Path(__file__).parents[2]


def stat(proc: Path, pid: int, *, parent: int = 1, state: str = "S", ticks: int = 0, started: int = 5) -> None:
    """A process as Linux shows one; its name holds what a parser might stumble over."""
    (proc / str(pid)).mkdir(parents=True, exist_ok=True)
    fields = [state, str(parent), *"000000000", str(ticks), "0", *"000000", str(started)]
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b (c) {' '.join(fields)} 0\n")


def test_processes_are_read_with_their_parents_and_their_time(tmp_path: Path) -> None:
    stat(tmp_path, 7, ticks=os.sysconf("SC_CLK_TCK") * 3, state="R")
    stat(tmp_path, 8, parent=7)
    stat(tmp_path, 9, parent=8)
    stat(tmp_path, 10, parent=7, state="Z")
    found = processes(tmp_path)
    assert (found[7].cpu_s, found[7].ready, found[8].ready) == (3.0, True, False)
    assert sorted(process.pid for process in descendants(found, {7})) == [8, 9]
    assert 10 not in found


def test_a_sample_counts_ranks_helpers_beats_and_files(tmp_path: Path) -> None:
    proc, folder = tmp_path / "proc", tmp_path / "run" / "hang" / "train"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "train.log").write_text("one\n")
    hertz = os.sysconf("SC_CLK_TCK")
    stat(proc, 7, ticks=2 * hertz)
    stat(proc, 8, parent=7, ticks=hertz)
    (proc / "7" / "io").write_text("rchar: 100\nwchar: 20\nread_bytes: 5\n")
    for rank, pid in ((0, 7), (1, 99)):
        (folder / f"rank{rank}.pid").write_text(json.dumps({"rank": rank, "pid": pid}))
    (folder / "rank0.beat").write_bytes((41).to_bytes(8, "little"))
    pulse = Pulse(folder, tmp_path / "run" / "train.log", wires=False, proc=proc)
    sample = pulse.take()
    assert (sample.beats, sample.cpu_s, sample.helpers_cpu_s) == ({0: 41}, {0: 2.0}, 1.0)
    assert (sample.io_bytes, sample.wire_bytes, sample.log_bytes) == (120, 0, 4)
    assert sorted(pulse.ranks()) == [0, 1], "also one that is gone"
    stat(proc, 7, started=6)
    assert pulse.alive() == {}, "its number was given to another process"


def test_the_wires_count_without_the_loopback(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    row = "{}: {} 1 0 0 0 0 0 0 {} 1 0 0 0 0 0 0\n"
    table = "a\nb\n" + row.format("    lo", 900, 900) + row.format("  ens5", 30, 4)
    (tmp_path / "net" / "dev").write_text(table)
    counters = tmp_path / "ib" / "rdmap0" / "ports" / "1" / "hw_counters"
    counters.mkdir(parents=True)
    (counters / "tx_bytes").write_text("500\n")
    assert wire_bytes(tmp_path, tmp_path / "ib") == 534


@pytest.mark.parametrize(
    ("said", "power"),
    [
        ("echo '71.05, 700.00'; echo '300.5, 700.00'", [(71.05, 700.0), (300.5, 700.0)]),
        ("echo '[N/A], 700.00'", []),
        ("echo 'Unable to determine the device handle'; exit 15", []),
        ("sleep 500", []),
    ],
)
def test_power_is_what_the_driver_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, power: list[tuple[float, float]]
) -> None:
    """A sensor that does not answer, as of a GPU that is off the bus, is not waited for."""
    sensor = tmp_path / "nvidia-smi"
    sensor.write_text(f"#!/bin/bash\n{said if 'sleep' not in said else 'exec ' + said}\n")
    sensor.chmod(0o755)
    monkeypatch.setattr("operate.pulse._SMI_S", 0.3 if "sleep" in said else 60)
    assert gpu_power((str(sensor),)) == power
    assert gpu_power((str(tmp_path / "absent"),)) == []


def test_rest_is_the_least_that_a_gpu_drew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([[(14.0, 72.0)], [(30.0, 72.0)], [(12.0, 72.0)], [(70.0, 72.0)]])
    monkeypatch.setattr("operate.pulse.gpu_power", lambda: next(readings))
    pulse = Pulse(tmp_path, tmp_path / "log", proc=tmp_path)
    pulse.rest()
    seen = [pulse.take(power=True).gpus[0] for _ in range(3)]
    assert [(gpu.rest_w, gpu.works) for gpu in seen] == [(14.0, False), (12.0, False), (12.0, True)]


def test_no_value_that_may_be_a_secret_is_archived() -> None:
    environment = {
        "HF_TOKEN": "hf_1",
        "MINE": "x",
        "ROOFLAB_SECRETS": "MINE",
        "AWS_SECRET_ACCESS_KEY": "abc",
        "DB_PASSWORD": "pw",
        "MASTER_ADDR": "10.0.0.7",
        "KEYBOARD": "us",
    }
    assert witnesses.redacted(environment) == {
        "AWS_SECRET_ACCESS_KEY": "***",
        "DB_PASSWORD": "***",
        "HF_TOKEN": "***",
        "KEYBOARD": "us",
        "MASTER_ADDR": "10.0.0.7",
        "MINE": "***",
        "ROOFLAB_SECRETS": "MINE",
    }


def test_a_rank_that_nobody_answers_for_is_not_waited_for_long(tmp_path: Path) -> None:
    (tmp_path / "rank0.ask").write_text("")  # no pipe, and nobody reads
    os.mkfifo(tmp_path / "rank1.ask")
    assert witnesses.question(tmp_path, [0, 1, 2], limit_s=0.2) == {}


def test_watches_agree_over_the_network() -> None:
    chair = Chair(Council(nodes=2, bound_s=10.0))
    with chair.open("127.0.0.1", 0) as number:
        assert council.ask("127.0.0.1", number, Word(node="node1", quiet_s=11.0)) == "watch"
        assert chair.hear(Word(node="node0", quiet_s=11.0)) == "dump"
        assert council.ask("127.0.0.1", number, Word(node="node1", quiet_s=12.0, dumped=True)) == "dump"
        assert chair.hear(Word(node="node0", quiet_s=12.0, dumped=True)) == "end"
    assert council.ask("127.0.0.1", number, Word(node="node1", quiet_s=0.0)) is None
    assert 10000 <= council.port(RUN, "train") < 20000
    assert peers("node0=10.0.0.7 node1=10.0.0.8 node2=") == {"node0": "10.0.0.7", "node1": "10.0.0.8"}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(laptop, "ROOT", tmp_path)
    return tmp_path


def play(folder: Path, text: str, *, nodes: int = 2, hang_s: int = 3, **changes: str) -> list[int]:
    """run.sh of each node, at the same time, with one cluster job; the job's exit codes."""
    rank = f"RANK=${{ROOFLAB_NODE#node}} WORLD_SIZE={nodes} exec python -c '{text}'"
    jobs = (Job(name="train", command=("bash", "-c", rank), kind="command", scope="cluster"),)
    seats = tuple(
        Seat(node=f"node{index}", index=index, processes=1, cores=1, address="127.0.0.1") for index in range(nodes)
    )
    processes = []
    for seat in seats:
        place = Place(tree=str(ROOT), runs=str(folder / seat.node), environment="/dev/null")
        plan = Plan(run=RUN, jobs=jobs, seats=seats, head="127.0.0.1", hang_s=hang_s, place=place)
        home = folder / seat.node / RUN
        home.mkdir(parents=True)
        (home / "run.sh").write_text(launch.script(plan, seat))
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        processes.append(
            subprocess.Popen(["bash", str(home / "run.sh")], env={"PATH": path, **changes}, start_new_session=True)
        )
    try:
        for process in processes:
            process.wait(400)
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
    return [int((folder / seat.node / RUN / "codes").read_text().split()[1]) for seat in seats]


def test_a_job_whose_ranks_all_sleep_is_ended_on_every_node_and_told(runs: Path) -> None:
    assert play(runs, "import time; time.sleep(5000)", MY_TOKEN="tok_0123456789") == [70, 70]
    folder = runs / "results" / RUN
    for node in ("node0", "node1"):
        home = runs / node / RUN
        assert "[watch] ended by fab: the job hung\n" in (home / "logs" / "train.log").read_text()
        assert not marked(home / "hang" / "train"), "nothing of it runs on"
        assert not list((home / "hang" / "train").glob("*.ask"))
        assert not [path for path in home.rglob("*") if path.is_file() and b"tok_0123456789" in path.read_bytes()]
        shutil.copytree(home / "hang" / "train", folder / "hang" / "train" / node)
    found = find_cause(folder, "train", {"node0": 70, "node1": 70})
    assert found is not None
    assert found.cause == "no rank did anything: <string>:1"
    item = {"name": "train", "exit": {"node0": 70, "node1": 70}, "cause": found.cause, "remedy": found.remedy}
    run = Run(folder, {"ok": False, "workloads": [item]})
    assert hung(run) == ["train"]
    assert str(verdict(run)) == (
        "train hung on node0, node1, for no rank did anything: <string>:1: if it may be silent for longer, give it "
        f"--hang-s; see {folder} and {folder}/hang/train"
    )


def test_a_job_that_does_something_is_left_alone(runs: Path) -> None:
    """For twice the bound one rank works and the other one waits for it."""
    work = "import os, time; end = time.time() + 6 * (1 - int(os.environ[\"RANK\"])) + 6\nwhile time.time() < end: " \
           "os.environ[\"RANK\"] == \"1\" and time.sleep(0.5)"  # fmt: skip
    assert play(runs, work) == [0, 0]
    assert not (runs / "node0" / RUN / "hang" / "train").exists(), "what went well leaves nothing"


def test_a_rank_that_spins_beside_an_idle_gpu_is_ended(runs: Path) -> None:
    """As NCCL's does that waits for a peer: its core is busy, and the GPU draws little (by a sensor made for this)."""
    sensor = runs / "bin" / "nvidia-smi"
    sensor.parent.mkdir()
    sensor.write_text("#!/bin/sh\necho 95.2, 700.00\n")
    sensor.chmod(0o755)
    text = "import time; end = time.time() + 300\nwhile time.time() < end: pass"
    assert play(runs, text, nodes=1, PATH=f"{sensor.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}") == [70]
    archived = json.loads((runs / "node0" / RUN / "hang" / "train" / "watch.json").read_text())
    assert archived["last_signs"] == ["CPU"]
    assert archived["samples"][-1]["gpus"] == [{"power_w": 95.2, "rest_w": 95.2, "limit_w": 700.0}]


def test_what_ranks_left_comes_home_by_job_and_node_without_secrets(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        entry = tarfile.TarInfo("hang/train/rank3.json")
        entry.size = len(b"said tok_0123456789")
        tar.addfile(entry, io.BytesIO(b"said tok_0123456789"))
        pipe = tarfile.TarInfo("hang/train/rank3.ask")
        pipe.type = tarfile.FIFOTYPE
        tar.addfile(pipe)
    outcome = Outcome(code=0, stdout=raw.getvalue(), stderr=b"")
    assert unpack(outcome, "node1", tmp_path, secrets=("tok_0123456789",)) == ["hang/train/node1/rank3.json"]
    assert (tmp_path / "hang" / "train" / "node1" / "rank3.json").read_text() == "said ***"


def test_without_a_bound_nothing_is_watched_and_a_failure_still_tells(runs: Path) -> None:
    assert play(runs, 'raise ValueError("no data")', nodes=1, hang_s=0) == [1]
    shutil.copytree(runs / "node0" / RUN / "hang" / "train", runs / "hang" / "train" / "node0")
    found = find_cause(runs, "train", {"node0": 1})
    assert found is not None
    assert found.cause == "rank 0 on node0 raised ValueError: no data (<string>:1)"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("2", "stop", True), "hang_s=2 is too short to tell: write at least 5, or 0 to let a job be silent"),
        (("soon", "stop", True), "hang-s='soon' is not a number: write for example --hang-s 30"),
        (("", "explode", True), "on_hang='explode' is not allowed: write one of stop, teardown"),
        (("", "teardown", False), "on_hang='teardown' is not allowed here: only a deployed lab can be torn down"),
        (("0", "teardown", True), "on_hang='teardown' is not allowed with hang_s=0: nothing would be found to hang"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags: tuple[str, str, bool], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_patience(flags[0], flags[1], deployed=flags[2])


def receipt(left: int) -> SimpleNamespace:
    """A teardown's, with so many things left."""
    things = [SimpleNamespace(stack="Lab3Stack")] * left
    return SimpleNamespace(
        sweep=SimpleNamespace(clean=not left, left=things, not_looked_at=(), residual_usd_per_hour=1.5)
    )


@pytest.mark.parametrize("code", [0, 70])
def test_a_lab_whose_run_hung_is_torn_down_where_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    ended: list[str] = []
    left = receipt(0)

    def part_with(account: object, lab: Lab, screen: Screen) -> tuple[SimpleNamespace, Path]:
        ended.append(lab.stack)
        return left, tmp_path / "receipt.json"

    monkeypatch.setattr("operate.patience.Account", lambda: None)
    monkeypatch.setattr("operate.patience.part_with", part_with)
    item = {"name": "train", "exit": {"node0": code}, "cause": "rank 1 sleeps", "remedy": "wake it"}
    run = Run(tmp_path, {"ok": not code, "workloads": [item]})
    stop_paying(read_patience("", "stop", deployed=True), run, LABS[3], Screen())
    assert ended == []
    teardown = read_patience("", "teardown", deployed=True)
    stop_paying(teardown, run, LABS[3], Screen())
    assert ended == ["Lab3Stack"] * bool(code)
    assert ("Lab3Stack is torn down, nothing of it is left" in capsys.readouterr().out) is bool(code)
    left = receipt(2)
    if code:
        with pytest.raises(
            Problem, match="train hung on node0, for rank 1 sleeps; and 2 things of Lab3Stack are there"
        ):
            stop_paying(teardown, run, LABS[3], Screen())


def test_the_flags_say_how_long_and_what_then() -> None:
    assert read_patience("", "stop", deployed=False).hang_s == 120
    assert read_patience("300", "teardown", deployed=True).teardown
    assert read_patience("0", "stop", deployed=True).hang_s == 0
