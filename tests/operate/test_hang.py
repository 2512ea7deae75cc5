"""When a job counts as hung: what is work, what is only waiting, and that no node is judged while another one works."""

from dataclasses import replace

import pytest

from operate.hang import ALONE, Alone, Council, Gpu, Judge, Sample, Word, signs

QUIET = Sample(time_s=0.0, beats={0: 5, 1: 5}, cpu_s={0: 10.0, 1: 10.0}, io_bytes=1 << 20, wire_bytes=1 << 30)
REST = Gpu(power_w=75.0, rest_w=70.0, limit_w=700.0)
MIB = 1 << 20


def later(seconds: float = 5.0, **changes) -> Sample:
    return replace(QUIET, time_s=QUIET.time_s + seconds, **changes)


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (later(), ()),
        (later(cpu_s={0: 10.2, 1: 10.0}), ()),  # 0.04 of a core: gloo's waiting
        (later(wire_bytes=QUIET.wire_bytes + 5 * 10_000), ()),  # keepalives
        (later(beats={0: 6, 1: 5}), ("heartbeat",)),
        (later(log_bytes=1), ("log",)),
        (later(io_bytes=QUIET.io_bytes + MIB), ("files and sockets",)),  # a checkpoint that is written
        (later(wire_bytes=QUIET.wire_bytes + MIB), ("network",)),  # weights that are loaded
        (later(cpu_s={0: 11.0, 1: 10.0}), ("CPU",)),
        (later(ready=(1,)), ("CPU",)),  # no core is free for it
        (later(helpers_cpu_s=3.0), ("CPU of helpers",)),  # a compiler
        (later(gpus=(REST, replace(REST, power_w=400.0))), ("power",)),
        (later(gpus=(REST,)), ()),
        (later(cpu_s={0: 10.0}), ("ranks come and go",)),
        (later(cpu_s={}), ("ranks come and go",)),
    ],
)
def test_what_counts_as_a_sign_of_life(after: Sample, found: tuple[str, ...]) -> None:
    assert signs(QUIET, after) == found


@pytest.mark.parametrize(
    ("power_w", "works"), [(12.0, False), (30.0, False), (37.0, False), (45.0, True), (72.0, True)]
)
def test_a_gpu_that_only_waits_is_near_idle(power_w: float, works: bool) -> None:
    """An L4 draws 14 W at rest, twice that with its clocks up, 72 W at most."""
    assert Gpu(power_w=power_w, rest_w=14.0, limit_w=72.0).works is works


def test_a_rank_that_spins_in_place_beside_idle_gpus_does_not_work() -> None:
    """To wait for a GPU takes a whole core."""
    spinning = replace(QUIET, gpus=(REST,), stacks={0: "train.py:9 step", 1: "train.py:9 step"})
    after = replace(spinning, time_s=5.0, cpu_s={0: 15.0, 1: 15.0})
    assert signs(spinning, after) == ()
    assert signs(spinning, replace(after, stacks={0: "train.py:12 step", 1: "train.py:9 step"})) == ("CPU",)
    assert signs(spinning, replace(after, stacks={1: "train.py:9 step"})) == ("CPU",), "who is silent may work"
    assert signs(spinning, replace(after, gpus=())) == ("CPU",), "without a GPU it works"
    assert signs(spinning, replace(after, gpus=(replace(REST, power_w=500.0),))) == ("power", "CPU")


def test_the_judge_counts_from_the_last_sign() -> None:
    judge = Judge()
    assert judge.see(QUIET) == 0.0
    assert judge.see(later(5)) == 5.0
    assert judge.see(later(10, beats={0: 6, 1: 5})) == 0.0
    assert judge.last_signs == ("heartbeat",)
    assert judge.see(later(130, beats={0: 6, 1: 5})) == 120.0


def test_a_long_compilation_and_a_long_checkpoint_are_no_hang() -> None:
    compiling, writing = Judge(), Judge()
    for step in range(200):
        assert compiling.see(later(5.0 * step, helpers_cpu_s=4.0 * step)) == 0.0
        assert writing.see(later(5.0 * step, io_bytes=MIB * step)) == 0.0


def test_doubt_grows_while_only_the_cpu_shows_life() -> None:
    judge = Judge()
    for step in range(13):
        quiet_s = judge.see(later(5.0 * step, cpu_s={0: 5.0 * step, 1: 0.0}))
    assert (quiet_s, judge.doubt_s) == (0.0, 60.0)
    judge.see(later(65.0, cpu_s={0: 65.0, 1: 0.0}, log_bytes=80))
    assert judge.doubt_s == 0.0


def word(node: str, quiet_s: float, **changes) -> Word:
    return Word(node=node, quiet_s=quiet_s, **changes)


def test_no_node_is_judged_while_another_one_works() -> None:
    """Rank 0 writes a checkpoint for ten minutes; all others wait for it."""
    council = Council(nodes=2, bound_s=120.0)
    for now in range(0, 600, 5):
        assert council.hear(word("node1", float(now)), now) == "watch"
        assert council.hear(word("node0", 0.0), now) == "watch"


def test_all_write_down_where_they_are_before_any_is_ended() -> None:
    council = Council(nodes=2, bound_s=120.0)
    council.hear(word("node0", 117.0), 0.0)
    assert council.hear(word("node1", 121.0), 1.0) == "watch", "node0 is quiet for 118 s"
    assert council.hear(word("node0", 122.0), 5.0) == "dump"
    assert council.hear(word("node0", 123.0, dumped=True), 6.0) == "dump", "node1 is not ready"
    assert council.hear(word("node1", 126.0), 6.0) == "dump"
    assert council.hear(word("node1", 127.0, dumped=True), 7.0) == "end"
    assert council.hear(word("node0", 124.0, dumped=True), 7.5) == "end"


def test_a_node_that_cannot_write_is_not_waited_for() -> None:
    council = Council(nodes=2, bound_s=10.0)
    council.hear(word("node1", 11.0), 0.0)
    assert council.hear(word("node0", 11.0), 0.0) == "dump"
    assert council.hear(word("node0", 41.0, dumped=True), 29.0) == "dump"
    assert council.hear(word("node0", 43.0, dumped=True), 31.0) == "end"


def test_while_a_node_is_not_heard_the_others_wait_longer() -> None:
    council = Council(nodes=2, bound_s=120.0)
    assert council.hear(word("node0", 130.0), 200.0) == "watch", "node1 may be at work"
    assert council.hear(word("node0", 120.0 * ALONE), 430.0) == "dump"
    fallen_silent = Council(nodes=2, bound_s=120.0)
    fallen_silent.hear(word("node1", 0.0), 0.0)
    assert fallen_silent.hear(word("node0", 150.0), 150.0) == "watch"
    assert fallen_silent.hear(word("node0", 360.0), 360.0) == "dump"


def test_a_node_that_does_not_hear_the_head_decides_alone_and_later() -> None:
    alone = Alone(bound_s=120.0)
    assert alone.hear(word("node1", 359.0)) == "watch"
    assert alone.hear(word("node1", 360.0)) == "dump"
    assert alone.hear(word("node1", 361.0, dumped=True)) == "end"
