"""fab doctor: findings come from the records that came home, and the worst of them is the exit code."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from labs.catalog import LABS
from labs.connections import Probe, Report
from labs.findings import Finding, fail, note, ok, warn
from labs.results import Machine, Record
from operate import doctor
from operate.cause import find_cause
from operate.runs import Run

BAD = fail("GPU 0", "3 uncorrected memory errors", means="it has returned wrong data", do="stop and start the instance")


def run_with(folder: Path, **findings: list[Finding] | None) -> Run:
    """A run whose nodes found these; None: a node whose record did not come back."""
    for node, found in findings.items():
        if found is not None:
            machine = Machine(hostname=node, device="NVIDIA L4", devices=1)
            notes = ("a note of another kind", *(one.line() for one in found))
            Record(workload="doctor", machine=machine, measurements=(), node=node, notes=notes).write(
                folder / "records"
            )
    return Run(folder, {"nodes": [{"name": node} for node in findings]})


def test_findings_are_those_of_every_nodes_record(tmp_path: Path) -> None:
    run = run_with(
        tmp_path, node0=[ok("CPU", "4 cores")], node1=[note("disk", "9 GiB free"), warn("CPU", "load", "a", "b")]
    )
    (tmp_path / "records" / "other.json").write_text("{")
    found = doctor.findings(run)
    assert found["node0"] == [ok("CPU", "4 cores")]
    assert [one.level for one in found["node1"]] == ["note", "warn"]
    assert doctor.verdict(run, found) is None, "a warning is no failure"
    assert doctor.line(found) == "2 nodes looked at: 1 ok, 1 note, 1 warn, 0 fail"


def test_a_node_that_is_not_well_is_the_problem(tmp_path: Path) -> None:
    run = run_with(tmp_path, node0=[ok("CPU", "4 cores")], node1=[BAD])
    problem = doctor.verdict(run, doctor.findings(run))
    assert str(problem) == "node1 is not well: GPU 0, 3 uncorrected memory errors: stop and start the instance"


def test_a_node_that_told_nothing_is_a_problem_too(tmp_path: Path) -> None:
    run = run_with(tmp_path, node0=[ok("CPU", "4 cores")], node1=None)
    problem = doctor.verdict(run, doctor.findings(run))
    assert str(problem) == f"nothing was found out about node1: fab logs --run {tmp_path.name} shows why"


def test_the_worst_stands_first_in_the_table(tmp_path: Path) -> None:
    shown = io.StringIO()
    Console(file=shown, width=160).print(doctor.table({"node0": [ok("CPU", "4 cores"), BAD]}))
    text = shown.getvalue()
    assert text.index("3 uncorrected memory errors") < text.index("4 cores")


def test_its_json_holds_every_finding(tmp_path: Path) -> None:
    run = run_with(tmp_path, node0=[BAD])
    told = json.loads(json.dumps(doctor.as_json(run, doctor.findings(run))))
    assert told["ok"] is False
    assert told["nodes"]["node0"][0]["do"] == "stop and start the instance"


@pytest.mark.parametrize("lab", [None, *LABS.values()])
def test_every_lab_can_be_looked_at(lab) -> None:
    assert doctor.checks(lab)[-1].module == "workloads.doctor"


def test_between_several_nodes_the_links_are_looked_at_first() -> None:
    assert [one.name for one in doctor.checks(LABS[3])] == ["connectivity", "doctor"]
    assert [one.name for one in doctor.checks(None, 2)] == ["connectivity", "doctor"]
    assert [one.name for one in doctor.checks(LABS[1])] == ["doctor"]


def with_links(run: Run, **failed: str) -> Run:
    """The same run with reports of connections from two nodes; `failed` ways to node1 were silent, by node."""
    for node, other in (("node0", "node1"), ("node1", "node0")):
        probe = Probe(
            peer=other, stage="connect", outcome="filtered" if node in failed else "ok", said=failed.get(node, "")
        )
        document = Report(node=node, address="10.0.0.1", probes=(probe,)).as_json()
        path = run.folder / "out" / node / "connectivity" / f"{node}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(document))
        told = fail("node0 → node1", "as one node alone sees it", "a", "b")
        machine = Machine(hostname=node, device="NVIDIA L4", devices=1)
        Record(workload="connectivity", machine=machine, measurements=(), node=node, notes=(told.line(),)).write(
            run.folder / "records"
        )
    return run


def test_what_lies_between_nodes_is_named_once_from_all_reports(tmp_path: Path) -> None:
    run = with_links(run_with(tmp_path, node0=[ok("CPU", "4")], node1=[ok("CPU", "4")]), node0="10.0.0.2: no answer")
    found = doctor.findings(run)
    assert [one.subject for one in found[doctor.CLUSTER]] == ["node0 → node1"]
    assert [len(found[node]) for node in ("node0", "node1")] == [1, 1], "what one node alone believed is not shown"
    problem = doctor.verdict(run, found)
    assert str(problem).startswith("node0 → node1: security group: 10.0.0.2: no answer; the other way is open: let the")
    assert doctor.line(found).startswith("2 nodes looked at")


def test_links_that_are_well_are_one_line_of_the_cluster(tmp_path: Path) -> None:
    run = with_links(run_with(tmp_path, node0=[ok("CPU", "4")], node1=[ok("CPU", "4")]))
    found = doctor.findings(run)
    assert [one.level for one in found[doctor.CLUSTER]] == ["ok"]
    assert doctor.verdict(run, found) is None


def test_a_failed_run_tells_the_culprit_as_the_cause(tmp_path: Path) -> None:
    run = with_links(run_with(tmp_path, node0=[], node1=[]), node0="10.0.0.2: no answer")
    found = find_cause(run.folder, "connectivity", {"node0": 1, "node1": 1})
    assert found is not None
    assert found.cause == "node0 → node1: security group: 10.0.0.2: no answer; the other way is open"
    (tmp_path / "out/node0/connectivity/node0.json").write_text("{")
    found = find_cause(run.folder, "connectivity", {"node0": 1, "node1": 1})
    assert found is not None, "a report that cannot be read is one that did not come"
    assert found.cause.startswith("node0: not running")
