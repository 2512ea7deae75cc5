"""What real ranks leave when they hang or fail, and that it names the one that went wrong."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from operate.cause import cause
from operate.statements import Statement, read
from operate.suspect import Suspicion
from tests.workloads.launching import ENVIRONMENT, ROOT
from tests.workloads.stuck import RANKS, SCENARIOS

HANGING = ("sleep", "order")
LIMIT_S = 400


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scenarios, played once and at the same time; those that hang are ended by their watch."""
    folder = tmp_path_factory.mktemp("stuck")
    path = f"{ROOT}:{ROOT}/workloads/startup"
    environment = {**ENVIRONMENT, "TORCH_FR_BUFFER_SIZE": "100", "PYTHONPATH": path, "MY_TOKEN": "tok_0123456789"}
    play = [sys.executable, "-m", "tests.workloads.stuck", str(folder), *SCENARIOS]
    with (folder / "ranks.log").open("w") as log:
        ranks = subprocess.Popen(play, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        watches = {}
        for name in HANGING:
            (folder / "hang" / name / "node0").mkdir(parents=True)
            watch = [sys.executable, "-m", "operate.watch", str(folder / "hang" / name / "node0"), "3"]
            watches[name] = subprocess.Popen(watch, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            for name, beside in watches.items():
                (folder / f"{name}.told").write_text(beside.communicate(timeout=LIMIT_S)[0])
            ranks.wait(LIMIT_S)
        finally:
            with suppress(ProcessLookupError):  # all have ended, as they should
                os.killpg(ranks.pid, signal.SIGKILL)
            for beside in watches.values():
                beside.kill()
    return folder


def found(left: Path, name: str, log: str = "") -> tuple[tuple[Statement, ...], Suspicion | None]:
    """What the ranks of a scenario left, and what follows from it."""
    told = read(left / "hang" / name)
    assert [one.rank for one in told] == list(range(RANKS)), (left / "ranks.log").read_text()
    return told, cause(told, {"node0": log}, hung=name in HANGING)


def test_a_rank_that_sleeps_is_named_with_its_line(left: Path) -> None:
    told, suspicion = found(left, "sleep")
    assert suspicion is not None
    assert suspicion.cause.startswith("rank 1 on node0 never joined all_reduce #2 (stuck.py:")
    assert suspicion.cause.endswith(" in sleep: time.sleep(1000))")
    assert [[str(call) for call in one.waits] for one in told] == [["all_reduce #2"], [], ["all_reduce #2"]]


def test_the_watch_says_where_every_rank_was_and_ends_them(left: Path) -> None:
    said = (left / "sleep.told").read_text().splitlines()
    assert said[0].startswith("[watch] hung: nothing on node0 showed life for ")
    assert [line.split(" (pid")[0] for line in said[1:4]] == [f"[watch] rank {rank}" for rank in range(RANKS)]
    assert "stuck.py:" in said[2]
    assert said[-1] == "[watch] ended by fab: the job hung"
    home = left / "hang" / "sleep" / "node0"
    assert (home / "hung").exists()
    assert json.loads((home / "watch.json").read_text())["alive"] == [0, 1, 2]
    assert "in sleep" in (home / "rank1.stacks").read_text(), "faulthandler's, by SIGUSR1"
    kept = json.loads((home / "environment.json").read_text())["rank1"]
    assert kept["TORCH_FR_BUFFER_SIZE"] == "100"
    assert kept["MY_TOKEN"] == "***"


def test_a_collective_in_another_order_is_named_with_both(left: Path) -> None:
    _, suspicion = found(left, "order")
    assert suspicion is not None
    assert (
        "rank 1 on node0 called barrier where ranks 0, 2 on node0 called all_reduce of [1000] Float" in suspicion.cause
    )


def test_a_rank_that_raises_is_named_and_not_those_that_lost_it(left: Path) -> None:
    told, suspicion = found(left, "error")
    assert suspicion is not None
    assert suspicion.cause.startswith("rank 1 on node0 raised ValueError: the batch is empty (stuck.py:")
    assert all(one.stack or one.error for one in told), "its neighbours were asked where they are"


def test_of_another_shape_gloo_dies_and_leaves_its_stack(left: Path) -> None:
    """The rank's process is aborted from C++."""
    told, _ = found(left, "shape")
    assert [one.rank for one in told if not one.error] == [1]
    assert "in shape" in told[1].where
    assert "mismatch" in (left / "ranks.log").read_text()


def test_a_rank_that_is_killed_leaves_nothing_and_the_launcher_names_it(left: Path) -> None:
    told, suspicion = found(left, "death", "srun: error: node0: task 1: Killed\n")
    assert (told[1].stack, told[1].error) == ((), "")
    assert suspicion is not None
    assert suspicion.cause == "rank 1 on node0 was ended by SIGKILL"
