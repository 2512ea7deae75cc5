"""A whole rehearsed life of Lab 3: what it takes beside the workloads it runs.

The life is `rehearsal/life.sh`, every command of it: start, deploy, nodes, run-lab, teardown, report, audit, stop. From
its wall time goes what the workloads took on the nodes; the rest is ours to shorten.
"""

import json
import subprocess
import time

from benchmarks.result import Result
from operate.laptop import ROOT
from operate.problem import Problem

ROUNDS = 2
GOAL_S = 20.0
_NAME = "bench"


def run() -> list[Result]:
    """Seconds beside the workloads, next to the seconds inside them, of the same lives."""
    beside, inside = [], []
    for _ in range(ROUNDS):
        before = set((ROOT / "results").glob("*-lab3"))
        start = time.perf_counter()
        outcome = subprocess.run(
            [str(ROOT / "rehearsal" / "life.sh"), "3", _NAME], capture_output=True, text=True, check=False
        )
        wall_s = time.perf_counter() - start
        made = set((ROOT / "results").glob("*-lab3")) - before
        if outcome.returncode or len(made) != 1:
            last = (outcome.stdout + outcome.stderr).strip().splitlines()[-1:]
            raise Problem(f"a rehearsed life ended with {outcome.returncode} ({''.join(last)})", "make rehearse LAB=3")
        workloads = json.loads((made.pop() / "run.json").read_text())["workloads"]
        inside.append(float(sum(workload["seconds"] for workload in workloads)))
        beside.append(wall_s - inside[-1])
    return [
        Result(
            name="a rehearsed life of Lab 3, beside its workloads",
            samples_s=tuple(beside),
            peer="its workloads",
            peer_samples_s=tuple(inside),
            goal_s=GOAL_S,
        )
    ]
