"""Every injected fault is named: who, and why. Nodes are threads of this process, their ranks are processes."""

import sys
import threading
import time
from pathlib import Path

import pytest

from labs.connections import Report
from labs.culprits import judge
from tests.workloads.connection.faults import FAULTS, WORK, Fault, environment, relay
from workloads.connection.examination import Examination, Order
from workloads.connection.probing import Limits
from workloads.connection.station import Station

PATIENT = Limits(arrive_s=3.0, burst_bytes=2**20)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8")


def examine(fault: Fault, run: str, folder: Path) -> dict[str, Report]:
    """What both nodes' doctors report."""
    reports: dict[str, Report] = {}

    def node(name: str) -> None:
        twist = getattr(fault, name)
        station = Station(environment(fault, name, run, folder), clock=lambda: time.time() + twist.ahead_s)
        station.open()
        order = Order(ranks=fault.ranks, gpus=False, limit_s=200, limits=PATIENT, work=WORK[twist.work])
        try:
            reports[name] = Examination(station, order, lambda line: None).run()[name]
        finally:
            station.close()

    threads = [threading.Thread(target=node, args=(name,)) for name in ("node0", "node1")
               if not getattr(fault, name).absent]  # fmt: skip
    with relay(fault.way, run):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return reports


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_an_injected_fault_is_named(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.connection.crew.CHECK_S", 5.0)
    if fault.node1.work == "stalls":
        monkeypatch.setattr("workloads.connection.crew.MEET_S", 3.0)
    found = judge(["node0", "node1"], examine(fault, f"run {fault.name}", tmp_path))
    bad = [one for one in found if one.level == "fail"]
    assert [one.subject for one in bad] == [fault.culprit], bad
    assert bad[0].seen.startswith(fault.cause)
    assert bad[0].do, "whoever reads it is told what to do"


def test_nodes_that_are_well_are_said_to_be(tmp_path: Path) -> None:
    well = Fault(name="none", culprit="", cause="", ranks=2)
    reports = examine(well, "run of none", tmp_path)
    assert [one.level for one in judge(["node0", "node1"], reports) if one.level != "warn"] == ["ok"]
    pairs = [pair for report in reports.values() for pair in report.pairs]
    assert len(pairs) == 6
    assert all(pair.latency_s and pair.bytes_per_s for pair in pairs)
