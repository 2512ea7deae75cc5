"""What a run's end is called."""

from pathlib import Path

from operate.runs import Run
from operate.verdict import verdict


def run(folder: Path, restarts: int, left: int) -> Run:
    """Of two nodes, one of which was lost."""
    items = [
        {"name": "train", "scope": "cluster", "restarts": restarts, "exit": {"node0": left, "node1": None}},
        {"name": "gemm", "scope": "node", "restarts": 0, "exit": {"node0": 0, "node1": None}},
    ]
    return Run(folder, {"ok": False, "workloads": items, "lost": {"node1": "EC2 says that it is terminated"}})


def test_a_job_that_went_on_without_a_node_is_told_and_the_run_is_no_success(tmp_path: Path) -> None:
    problem = verdict(run(tmp_path, 3, 0))
    assert problem is not None
    assert problem.exit_code != 0
    assert problem.cause == "node1 was lost (EC2 says that it is terminated); train went on with 1 node of 2"


def test_a_job_that_could_not_go_on_is_not_said_to(tmp_path: Path) -> None:
    for given in (run(tmp_path, 0, 0), run(tmp_path, 3, 1)):
        assert "went on" not in str(verdict(given))
