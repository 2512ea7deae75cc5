"""Run the benchmarks, print one table, keep the numbers."""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import fanout, life, push, ratios, scale, survival, synth
from benchmarks.result import Result
from operate.laptop import ROOT
from operate.problem import Problem
from operate.report.quantity import quantity, rounded

BENCHMARKS = {
    "synth": synth.run,
    "fanout": fanout.run,
    "push": push.run,
    "scale": scale.run,
    "life": life.run,
    "ratios": ratios.run,
    "survival": survival.run,
}
_LIBRARIES = ("aws-cdk-lib", "cdk-nag", "fabric", "paramiko", "asyncssh")
_PROGRAMS = {"ssh": "-V", "rsync": "--version", "node": "--version"}


def main() -> int:
    """Run those that are named, or all. Falling short of a goal is a result, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}; none: all")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"{unknown[0]!r} is not a benchmark: write some of {', '.join(BENCHMARKS)}")
    console = Console()
    results: dict[str, list[Result]] = {}
    surroundings = _surroundings()
    for name in names:
        with console.status(f"{name} …"):
            try:
                results[name] = BENCHMARKS[name]()
            except Problem as problem:
                print(problem, file=sys.stderr)
                return problem.exit_code
    console.print(_table(results))
    console.print(", ".join(f"{key} {value}" for key, value in surroundings.items()), style="dim")
    if names == list(BENCHMARKS):
        console.print(f"kept in {_keep(results, surroundings).relative_to(ROOT)}")
    return 0


def _table(results: dict[str, list[Result]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("what", "ours", "beside", "takes", "ratio", "goal"):
        table.add_column(head, justify="right" if head in ("ours", "takes", "ratio") else "left")
    for result in (row for rows in results.values() for row in rows):
        ours, peer = statistics.median(result.samples_s), statistics.median(result.peer_samples_s)
        ratio = f"{rounded(result.ratio, 2)}× {'faster' if result.faster else 'its time'}"
        table.add_row(result.name, quantity(ours, "s"), result.peer, quantity(peer, "s"), ratio, _goal(result))
    return table


def _goal(result: Result) -> str:
    if result.met is None:
        return "none: reported"
    wanted = f"{'≥' if result.faster else '≤'} {result.goal:g}×" if result.goal else f"≤ {result.goal_s:g} s"
    return f"[green]{wanted} met[/]" if result.met else f"[red]{wanted} missed[/]"


def _surroundings() -> dict[str, str]:
    """Machine, versions and date, so that a number can be judged later."""
    found = {"date": datetime.now(UTC).date().isoformat(), "cpu": _cpu(), "cores": str(os.cpu_count())}
    found |= {
        "load": rounded(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    found |= {name: version(name) for name in _LIBRARIES}
    for program, flag in _PROGRAMS.items():
        if path := shutil.which(program):
            told = subprocess.run([path, flag], capture_output=True, text=True, check=False)
            found[program] = (told.stdout or told.stderr).splitlines()[0].removeprefix(program).strip()
    return found


def _cpu() -> str:
    """The processor's name, as far as this system tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def _keep(results: dict[str, list[Result]], surroundings: dict[str, str]) -> Path:
    path = ROOT / "docs" / "measurements" / f"bench-{surroundings['date']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: [row.as_json() for row in found] for name, found in results.items()}
    path.write_text(json.dumps({"machine": surroundings, "benchmarks": rows}, indent=1, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
