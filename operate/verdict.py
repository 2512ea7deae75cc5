"""Whether a run did all that was asked of it, and if not, what failed where."""

from collections.abc import Iterable, Mapping
from typing import Any

from operate import crowd, launch
from operate.hang import HUNG
from operate.problem import Problem
from operate.runs import Run

STOPPED = 143
"""Exit code of what `fab stop` ended: 128 + SIGTERM."""


def verdict(run: Run) -> Problem | None:
    """None where every workload ended with 0 on every node; else which did not, where, and where its log is."""
    if run.document["ok"]:
        return None
    failed = [
        (item["name"], node, code)
        for item in run.document["workloads"]
        for node, code in item["exit"].items()
        if code != 0
    ]
    lost = run.document.get("lost") or {}
    ended = [(f"{name} {_how(code)}", node) for name, node, code in failed if not (node in lost and code is None)]
    told = [f"{how} on {crowd.names(nodes)}" for how, nodes in _alike(ended).items()]
    known = [item for item in run.document["workloads"] if item.get("cause")]
    for item in known:
        first = next((index for index, said in enumerate(told) if said.startswith(f"{item['name']} ")), None)
        if first is not None:  # else all of its nodes are lost, which is cause enough
            told[first] += f", for {item['cause']}"
    for why, nodes in _alike((why, node) for node, why in lost.items()).items():
        told.append(f"{crowd.names(nodes)} {'was' if len(nodes) == 1 else 'were'} lost ({why})")
    told += [line for item in run.document["workloads"] if (line := went_on(item, lost))]
    log = next((run.folder / "logs" / node / f"{name}.log" for name, node, code in failed if code), run.folder / "logs")
    see = f"see {log if log.exists() else run.folder}"
    if known:
        kept = run.folder / "hang" / known[0]["name"]
        see = f"{known[0]['remedy']}; {see}{f' and {kept}' if kept.exists() else ''}"
    return Problem("; ".join(told) or "not everything was fetched", see)


def went_on(item: Mapping[str, Any], lost: Mapping[str, str]) -> str:
    """That a workload did what was asked of it without the nodes that were lost; "" where it did not."""
    exits: Mapping[str, int | None] = item.get("exit") or {}
    kept = [code for node, code in exits.items() if node not in lost]
    if not (lost and item.get("restarts") and set(kept) == {0}):
        return ""
    return f"{item['name']} went on with {len(kept)} node{'s' * (len(kept) > 1)} of {len(exits)}"


def _alike(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Nodes by what is said of them, from pairs of that and a node."""
    alike: dict[str, list[str]] = {}
    for said, node in pairs:
        alike.setdefault(said, []).append(node)
    return alike


def _how(code: int | None) -> str:
    return {
        None: "did not end",
        launch.NOT_RUN: "was not run",
        124: "ran over its time limit",
        HUNG: "hung",
        STOPPED: "was stopped",
    }.get(code, f"failed with {code}")
