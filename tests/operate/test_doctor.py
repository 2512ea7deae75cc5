"""fab doctor: findings come from the records that came home, and the worst of them is the exit code."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from labs.catalog import LABS
from labs.findings import Finding, fail, note, ok, warn
from labs.results import Machine, Record
from operate import doctor
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
    assert doctor.checks(lab)[0].module == "workloads.doctor"
