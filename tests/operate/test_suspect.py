"""Who is to blame for a job that hung or failed: from made statements of its ranks, and from logs of torchrun's."""

import json
from pathlib import Path

import pytest

from operate.cause import cause, find_cause, launchers
from operate.statements import Call, Frame, Statement, parse_stack, read
from operate.suspect import suspect

STEP = Frame(file="/home/ubuntu/rooflab/train.py", line=88, function="step", text="time.sleep(100)")
WAIT = Frame(file="/opt/venv/lib/python3.12/site-packages/torch/distributed/distributed_c10d.py", line=3252,
             function="all_reduce", text="work.wait()")  # fmt: skip
LOSS = Frame(file="/home/ubuntu/rooflab/train.py", line=90, function="step", text="dist.all_reduce(loss)")


def calls(
    last: int, *, group: str = "0", op: str = "all_reduce", pending: bool = True, size: int = 1000
) -> tuple[Call, ...]:
    """All-reduces from 1 to `last`, the last one as given."""
    before = tuple(Call(group=group, number=number, op="all_reduce", sizes=((1000,),), dtypes=("Float",), pending=False)
                   for number in range(1, last))  # fmt: skip
    return (*before, Call(group=group, number=last, op=op, sizes=((size,),), dtypes=("Float",), pending=pending))


def rank(number: int, **told) -> Statement:
    given = {"stack": (LOSS, WAIT), "calls": calls(41), **told}
    return Statement(rank=number, node=f"node{number // 2}", **given)


SLEEPS = {"stack": (STEP,), "calls": calls(40, pending=False)}


def test_the_rank_that_never_came_is_named_with_the_line_where_it_stands() -> None:
    found = suspect([rank(0), rank(1), rank(2), rank(3, **SLEEPS)], hung=True)
    assert found is not None
    assert found.ranks == (3,)
    assert found.cause == "rank 3 on node1 never joined all_reduce #41 (train.py:88 in step: time.sleep(100))"


def test_who_waits_in_another_group_is_late_through_no_fault_of_its_own() -> None:
    """Tensor-parallel pairs 0 1 and 2 3, data-parallel pairs 0 2 and 1 3: rank 3 sleeps, and all wait."""
    members = [{"tp": (0, 1), "dp": (0, 2)}, {"tp": (0, 1), "dp": (1, 3)}, {"tp": (2, 3), "dp": (0, 2)},
               {"tp": (2, 3), "dp": (1, 3)}]  # fmt: skip
    told = [
        rank(0, calls=(*calls(9, group="tp", pending=False), *calls(5, group="dp")), members=members[0]),
        rank(1, calls=(*calls(9, group="tp", pending=False), *calls(5, group="dp")), members=members[1]),
        rank(2, calls=(*calls(9, group="tp"), *calls(4, group="dp", pending=False)), members=members[2]),
        rank(3, stack=(STEP,), members=members[3],
             calls=(*calls(8, group="tp", pending=False), *calls(4, group="dp", pending=False))),
    ]  # fmt: skip
    found = suspect(told, hung=True)
    assert found is not None
    assert found.ranks == (3,)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (calls(41, size=500), "all_reduce of [500] Float"),
        (calls(41, op="broadcast"), "broadcast of [1000] Float"),
    ],
)  # fmt: skip
def test_the_rank_that_calls_another_collective_is_named_with_both(odd: tuple[Call, ...], said: str) -> None:
    found = suspect([rank(0), rank(1), rank(2, calls=odd), rank(3)], hung=True)
    assert found is not None
    assert found.ranks == (2,)
    assert found.cause == (
        f"rank 2 on node1 called {said} where ranks 0, 1, 3 on node0, node1 called all_reduce of [1000] Float, "
        "as collective #41 of the default group (train.py:90 in step: dist.all_reduce(loss))"
    )


def test_ranks_may_pass_different_sizes_where_the_collective_allows_it() -> None:
    told = [rank(number, calls=calls(41, op="all_to_all", size=100 * number)) for number in range(2)]
    found = suspect(told, hung=True)
    assert found is not None
    assert found.ranks == ()
    assert found.cause == "all ranks joined all_to_all #41 and it does not end"
    assert "fab doctor" in found.remedy


def test_groups_that_only_share_a_name_are_not_compared() -> None:
    left = rank(0, calls=calls(41, group="1"), members={"1": (0, 1)})
    right = rank(2, calls=calls(41, group="1", size=500), members={"1": (2, 3)})
    found = suspect([left, right], hung=True)
    assert found is not None
    assert "called" not in found.cause


def test_without_flight_recorders_the_stacks_tell() -> None:
    told = [rank(0, calls=()), rank(1, calls=(), stack=(STEP,))]
    found = suspect(told, hung=True)
    assert found is not None
    assert found.cause == "rank 1 on node0 stands outside of any collective (train.py:88 in step: time.sleep(100))"


def test_a_rank_that_is_gone_or_never_was_is_named() -> None:
    gone = suspect([rank(0), rank(1, alive=False, stack=(), calls=())], hung=True)
    assert gone is not None
    assert gone.cause == "rank 1 on node0 died without a word while the others waited"
    assert "dmesg" in gone.remedy
    never = suspect([rank(0), rank(1)], hung=True, world=3)
    assert never is not None
    assert never.cause == "rank 2 never started, or its node's word is lost"


def test_nobody_is_accused_where_nobody_stands_out() -> None:
    found = suspect([rank(0, calls=(), stack=(STEP,)), rank(1, calls=(), stack=(STEP,))], hung=True)
    assert found is not None
    assert found.ranks == ()
    assert found.cause == "no rank did anything: train.py:88 in step: time.sleep(100)"
    assert suspect([], hung=True) is None


def test_the_first_error_counts_that_does_not_follow_from_anothers_end() -> None:
    told = [
        rank(0, error="RuntimeError: [pair.cc:553] Connection closed by peer [10.0.0.8]:28379", error_s=1.0),
        rank(1, error="ValueError: the batch is empty", error_s=2.0, error_stack=(STEP,)),
        rank(2, error="KeyError: 'x'", error_s=3.0),
    ]
    found = cause(told, {}, hung=False)
    assert found is not None
    assert found.cause == "rank 1 on node0 raised ValueError: the batch is empty (train.py:88 in step: time.sleep(100))"


TORCHRUN = """\
[rank0] up
{words}torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-21_14:25:36
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 1527)  (SIGTERM)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 1527
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-21_14:25:{second:02d}
  host      : localhost
  rank      : {rank} (local_rank: 1)
  exitcode  : {code} (pid: 1528)
  error_file: <N/A>
"""


def torchrun(rank: int, code: int, *, words: str = "", second: int = 36) -> str:
    return TORCHRUN.format(rank=rank, code=code, words=words, second=second)


@pytest.mark.parametrize(
    ("log", "said", "remedy"),
    [
        (torchrun(1, -9), "rank 1 on node0 was ended by SIGKILL", "memory may have run out"),
        (torchrun(1, -11), "rank 1 on node0 was ended by SIGSEGV", "its log tells the rest"),
        (
            torchrun(1, -6, words="[rank1]   what():  [enforce fail at pair.cc:456] length <= nbytes. 1000 vs 500. "
                                  "Is there a distributed collective mismatch in your code?\n"),
            "rank 1 on node0 was ended by SIGABRT: length <= nbytes. 1000 vs 500. Is there a distributed collective "
            "mismatch in your code?",
            "the same order, with the same shapes",
        ),
        (
            torchrun(1, 1, words="[rank1] ddp: check failed: parity: rank 1: losses differ\n"),
            "rank 1 on node0: check failed: parity: rank 1: losses differ",
            "its log",
        ),
        (
            torchrun(1, 3, words="[rank1] [rank1]: ValueError: no data\n"),
            "rank 1 on node0 ended with exit code 3: ValueError: no data",
            "its log",
        ),
        ("srun: error: node0: task 3: Killed\n", "rank 3 on node0 was ended by SIGKILL", "memory"),
    ],
)  # fmt: skip
def test_a_log_names_the_rank_and_not_what_followed(log: str, said: str, remedy: str) -> None:
    found = cause((), {"node0": log}, hung=False)
    assert found is not None
    assert found.cause == said
    assert remedy in found.remedy


def test_of_several_nodes_the_first_end_counts_and_a_signal_before_an_exit_code() -> None:
    logs = {"node0": torchrun(0, 1), "node1": torchrun(3, -9), "node2": torchrun(4, -9, second=38)}
    assert [end.rank for end in launchers(logs)] == [3, 0, 4]
    assert cause((), {"node0": "all well\n"}, hung=False) is None


def test_what_came_home_is_read_by_rank_and_only_of_the_last_attempt(tmp_path: Path) -> None:
    home = tmp_path / "hang" / "train"
    for node, number, attempt in (("node0", 0, 1), ("node1", 1, 1), ("node1", 2, 0)):
        (home / node).mkdir(parents=True, exist_ok=True)
        facts = {"rank": number, "world": 2, "node": node, "attempt": attempt, "pid": 7}
        (home / node / f"rank{number}.pid").write_text(json.dumps(facts))
    entry = {
        "collective_seq_id": 4,
        "process_group": ["0", "default_pg"],
        "profiling_name": "gloo:all_reduce",
        "input_sizes": [[1000]],
        "input_dtypes": ["Float"],
        "retired": False,
        "state": "scheduled",
        "is_p2p": False,
    }
    recorder = {"entries": [entry, {**entry, "is_p2p": True}], "pg_config": {"": {"ranks": "[0, 1]"}}}
    stack = [["/u/train.py", 90, "step", "dist.all_reduce(loss)"]]
    told = {"rank": 0, "node": "node0", "stack": stack, "recorder": recorder}
    (home / "node0" / "rank0.json").write_text(json.dumps(told))
    (home / "node1" / "rank1.stacks").write_text(
        'Thread 0x00007f (most recent call first):\n  File "/l/threading.py", line 1 in wait\n\n'
        'Current thread 0x00007e (most recent call first):\n  File "/u/train.py", line 7 in load\n'
        '  File "/u/train.py", line 99 in <module>\n'
    )
    first, second = read(home)
    assert [str(call) for call in first.waits] == ["all_reduce #4"]
    assert first.members == {"": (0, 1)}
    assert second.where == "train.py:7 in load"
    found = find_cause(tmp_path, "train", {"node0": 70, "node1": 70})
    assert found is not None
    assert found.cause == "rank 1 on node1 never joined all_reduce #4 (train.py:7 in load)"


def test_of_a_broken_archive_what_can_be_read_is_read(tmp_path: Path) -> None:
    (tmp_path / "node0").mkdir()
    (tmp_path / "node0" / "rank0.pid").write_text('{"rank": 0, "pid": 1}')
    (tmp_path / "node0" / "rank0.json").write_text('{"rank": 0, "sta')
    (tmp_path / "node0" / "rank1.pid").write_text("")
    assert read(tmp_path) == (Statement(rank=0, node="node0"),)
    assert parse_stack("") == ()
