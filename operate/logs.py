"""What a run has logged so far."""

from operate import choice, crowd, dispatch
from operate.execution import secret_values
from operate.fetch import fetch
from operate.problem import Problem
from operate.runs import Run
from operate.screen import Screen


def show_logs(screen: Screen, *, lab: str, name: str, run: str, node: str, workload: str) -> None:
    """Fetch what there is, if the run has not ended, and print it, a line each, by node and workload.

    Raises:
        Problem: there is no such run, or nothing logged by that node and workload.
    """
    try:
        found, cluster = choice.resume(run, lab=lab, name=name, screen=screen)
    except Problem as problem:
        found, cluster = choice.choose_run(run, lab=lab, name=name), None  # raises, where there is no such run
        screen.warn(f"only what was fetched before: {problem}")
    if cluster is not None:
        with cluster:
            for why in fetch(cluster, found.name, found.folder, secrets=secret_values(found, screen)).missed.values():
                screen.warn(why)
            for line in dispatch.place_in_queue(cluster, found):
                screen.note(line)
    if not _print(found, screen, node, workload):
        nodes = crowd.names(item["name"] for item in found.document["nodes"])
        jobs = ", ".join(item["name"] for item in found.document["workloads"])
        raise Problem(
            f"{found.name} has no log of {workload or 'any workload'} on {node or 'any node'}",
            f"its nodes are {nodes}, its workloads {jobs}; those that have not begun have none",
        )


def _print(run: Run, screen: Screen, node: str, workload: str) -> bool:
    printed = False
    for item in run.document["workloads"]:
        for place in run.document["nodes"]:
            log = run.folder / "logs" / place["name"] / f"{item['name']}.log"
            if workload in ("", item["name"]) and node in ("", place["name"]) and log.exists():
                printed = True
                screen.note(f"==> {item['name']} on {place['name']}")
                for line in log.read_text(errors="replace").splitlines():
                    screen.output(place["name"], line)
    return printed
