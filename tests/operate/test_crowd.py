"""Many nodes: a few that fail are a line each, all that fail alike are one, and no wall hides either."""

import io

import pytest
from rich.console import Console

from operate import crowd, verb
from operate.output import Output
from operate.problem import Problem
from operate.report.folder import Part
from operate.runs import Run
from operate.screen import Screen
from operate.shell import Outcome, Results, demand
from operate.verdict import verdict

MANY = [f"node{index}" for index in range(64)]


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([], ""),
        (["node0"], "node0"),
        (["node0", "node1"], "node0, node1"),
        (MANY, "node0 to node63"),
        (["node0", "node1", "node2", "node5", "node7", "node8", "node9"], "node0 to node2, node5, node7 to node9"),
        (["node2", "node1", "node0"], "node2, node1, node0"),
        (["a", "b", "c"], "a, b, c"),
    ],
)
def test_names_in_a_row_are_a_range(nodes: list[str], told: str) -> None:
    assert crowd.names(nodes) == told


def test_a_few_that_fail_are_a_line_each_and_many_alike_are_one() -> None:
    few = {"node5": "node5 (10.0.0.5 port 22) does not answer (timed out)", "node17": "exit code 1: disk full"}
    assert crowd.lines(few) == (
        "node5 (10.0.0.5 port 22) does not answer (timed out)",
        "node17: exit code 1: disk full",
    )
    silent = {node: f"{node} (10.0.0.{index} port 22) does not answer" for index, node in enumerate(MANY)}
    assert crowd.lines({**silent, "node9": "exit code 1"}) == (
        "node0 to node8, node10 to node63: does not answer", "node9: exit code 1",
    )  # fmt: skip
    different = crowd.lines({node: f"exit code {index}" for index, node in enumerate(MANY)})
    assert len(different) == crowd.LINES
    assert different[-1] == "… and 57 more lines such as these"


def test_steps_of_a_kind_are_counted() -> None:
    did = [*(f"remove instance i-{index}" for index in range(64)), "remove volume vol-1", "delete stack Lab3Stack"]
    assert [*crowd.steps(did)] == ["remove 64 × instance", "remove volume vol-1", "delete stack Lab3Stack"]


def test_a_problem_of_several_nodes_says_each_before_the_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    results: Results = {node: Outcome(code=0, stdout=b"", stderr=b"") for node in MANY}
    results |= {node: Outcome(code=1, stdout=b"", stderr=b"disk full") for node in ("node3", "node40")}
    with pytest.raises(Problem) as caught:
        demand(results, "take the tree", "df -h")
    with pytest.raises(SystemExit):
        verb.fail(caught.value)
    assert capsys.readouterr().err.splitlines() == [
        "  node3: exit code 1: disk full",
        "  node40: exit code 1: disk full",
        "problem: 2 nodes could not take the tree (node3, node40): df -h",
    ]


def screen() -> tuple[Screen, io.StringIO]:
    made, told = Screen(), io.StringIO()
    made.console = Console(file=told, width=200, highlight=False)
    return made, told


def test_of_many_nodes_the_first_ones_lines_are_shown_and_each_failure_with_its_last_words() -> None:
    shown, told = screen()
    output = Output(shown, MANY)
    for node in MANY:
        output.lines(node, "hello", [f"hello from {node}", "====="])
    for node in MANY:
        output.ended(node, "hello", int(node in ("node5", "node6")), 3 if node == "node9" else 1)
    output.close()
    assert told.getvalue().splitlines() == [
        "64 nodes: what node0 writes is shown, of the others what fails; fab logs --node node1 shows one of them",
        "[node0] hello from node0",
        "[node0] =====",
        "[node5] hello: failed with exit code 1 after 0:01: hello from node5",
        "[node6] hello: failed with exit code 1 after 0:01: hello from node6",
        "hello: done on 62 of 64 nodes after 0:01 to 0:03",
    ]


def test_where_all_of_many_fail_no_wall_is_built() -> None:
    shown, told = screen()
    output = Output(shown, MANY)
    for node in MANY:
        output.ended(node, "ddp", 1, 2)
    output.close()
    lines = told.getvalue().splitlines()[1:]
    assert len(lines) == crowd.LINES + 1
    assert lines[-1] == "ddp: fails on more nodes, which are named at the end"


def test_where_a_node_is_lost_the_others_success_is_told_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    shown, told = screen()
    output = Output(shown, MANY)
    for node in MANY[1:]:
        output.ended(node, "hello", 0, 1)
    for node in MANY:
        output.warn(node, f"{node} (10.0.0.1 port 22) lost its connection; the run goes on there")
    assert capsys.readouterr().err == "", "kept until nothing more comes"
    output.close()
    assert told.getvalue().splitlines()[1:] == ["hello: done on 63 of 64 nodes after 0:01"]
    assert capsys.readouterr().err == "warning: node0 to node63: lost its connection; the run goes on there\n"


def test_of_a_few_nodes_everything_is_shown() -> None:
    shown, told = screen()
    output = Output(shown, MANY[:2])
    output.lines("node1", "hello", ["hello"])
    output.ended("node1", "hello", 0, 1)
    output.ended("node0", "hello", 124, 60)
    output.close()
    assert told.getvalue().splitlines() == [
        "[node1] hello", "[node1] hello: done after 0:01", "[node0] hello: over its time limit after 1:00",
    ]  # fmt: skip


def test_the_verdict_names_nodes_together_that_ended_alike(tmp_path) -> None:
    ends = (
        {node: 0 for node in MANY} | {node: 1 for node in MANY[3:9]} | {"node20": 124, "node40": None, "node41": None}
    )
    lost = {"node40": "EC2 says that it is terminated", "node41": "EC2 says that it is terminated"}
    run = Run(tmp_path, {"ok": False, "workloads": [{"name": "hello", "exit": ends}], "lost": lost})
    problem = verdict(run)
    assert problem is not None
    assert problem.cause == (
        "hello failed with 1 on node3 to node8; hello ran over its time limit on node20; "
        "node40, node41 were lost (EC2 says that it is terminated)"
    )


def test_the_reports_faults_are_no_wall_either() -> None:
    part = Part(name="hello", scope="node", exits={node: 1 for node in MANY}, seconds=1, records=(),
                missing=tuple(f"hello.{node}.json" for node in MANY), unreadable=(), log_ends={},
                pending=False)  # fmt: skip
    assert part.faults[0] == "node0 to node63: exit code 1"
    assert len(part.faults) == 1 + crowd.LINES
