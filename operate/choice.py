"""What the flags of a verb mean: which lab, which cluster, which run."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from labs.catalog import EXTRA, Lab, Workload, find_lab
from labs.names import stack_name
from operate import laptop
from operate.account import Account
from operate.bill import tell
from operate.cluster import Cluster, nodes_of_run, open_hosts, open_local, open_remains, open_stack
from operate.launch import Job
from operate.login import TARGET, open_login, reopen
from operate.problem import Problem
from operate.runs import NoRun, Run, find_run
from operate.screen import Screen
from operate.shell import Outcome
from operate.stack import find_stack
from operate.tree import read_tree

_STACK = re.compile(r"Lab(\d+)Stack(?:-(.+))?")
_PROVES_EFA = "collectives"
"""The workload that fails on nodes with EFA which do not use it."""


def choose_lab(lab: str, name: str) -> Lab:
    """The lab of `--lab` and `--name`.

    Raises:
        Problem: no lab was given.
        ValueError: there is no such lab, or the name is not allowed.
    """
    if not lab:
        raise Problem("no lab was named", "write --lab 3, for example; labs are 0 to 4")
    return find_lab(lab).override(name=name)


def choose_end(lab: str, name: str, *, everything: bool) -> Lab | None:
    """The lab that is to end, or None for all of them.

    Raises:
        Problem: one lab and all were asked for, or none; ValueError: as `choose_lab`.
    """
    if everything and (lab or name):
        raise Problem("--all would end every lab, and one was named", "leave out --all, or --lab and --name")
    return None if everything else choose_lab(lab, name)


def override(lab: Lab, context: str) -> Lab:
    """The lab with the fields that `context` ("nodes=4,capacity=spot") replaces.

    Raises:
        Problem: `context` is not of that form.
        ValueError: a field is unknown, or its value is not allowed.
    """
    given = [item.partition("=") for item in filter(None, context.split(","))]
    if wrong := [field for field, equals, _ in given if not equals]:
        raise Problem(f"context={wrong[0]!r} has no value", "write --context nodes=4,capacity=spot, for example")
    return lab.override(**{field.strip(): value.strip() for field, _, value in given})


def open_lab(lab: str, name: str, screen: Screen) -> Cluster:
    """The deployed lab of `--lab` and `--name`; flags are checked before any account is asked.

    Raises:
        Problem, ValueError: as `choose_lab` and `open_stack`.
    """
    chosen = choose_lab(lab, name)
    return _open(Account(), chosen, screen)


def check_launcher(launcher: str, *, on: str) -> None:
    """Refuse a launcher that there is not, or not there.

    Raises:
        ValueError: it is neither.
        Problem: Slurm is asked for on this machine.
    """
    if launcher not in ("torchrun", "slurm"):
        raise ValueError(f"launcher={launcher!r} is not allowed: write torchrun or slurm")
    if launcher == "slurm" and on:
        raise Problem(
            "--launcher slurm is for a deployed lab or a cluster's login node",
            "leave out --on, write --hosts me@login, or use torchrun",
        )


def choose_workloads(lab: Lab, only: str, *, allow_tcp: bool = False) -> tuple[Workload, ...]:
    """The workloads of `lab`, or those that `only` names (with commas), in the lab's order, `EXTRA` ones last.

    `allow_tcp`: the one that proves EFA is to go on where there is none.

    Raises:
        ValueError: a name that is none of the lab's, and not extra; or none of them proves EFA.
    """
    wanted = {word.strip() for word in only.split(",") if word.strip()}
    every = (*lab.workloads, *EXTRA)
    known = [workload.name for workload in every]
    for name in sorted(wanted - set(known)):
        raise ValueError(f"only={name!r} is no workload of Lab {lab.number}: write some of {', '.join(known)}")
    chosen = tuple(workload for workload in every if workload.name in wanted) if wanted else lab.workloads
    if not allow_tcp:
        return chosen
    if _PROVES_EFA not in {workload.name for workload in chosen}:
        raise ValueError(f"allow_tcp=True is for {_PROVES_EFA}, which is none of {', '.join(w.name for w in chosen)}: "
                         "leave it out")  # fmt: skip
    return tuple(
        replace(workload, args=(*workload.args, "--allow-tcp")) if workload.name == _PROVES_EFA else workload
        for workload in chosen
    )


def open_target(lab: Lab | None, *, on: str, hosts: str, launcher: str = "torchrun", screen: Screen) -> Cluster:
    """The machines of `--on` and `--hosts`, else the deployed stack of `lab`.

    Raises:
        Problem: contradicting flags, or the stack cannot be used.
        ValueError: `on` or `hosts` is not allowed.
    """
    if on and hosts:
        raise Problem("--on and --hosts were both given", "choose one")
    if on not in ("", "local"):
        raise ValueError(f"on={on!r} is not allowed: write --on local, or leave it out for the deployed stack")
    if on:
        return open_local()
    if hosts and launcher == "slurm":
        return open_login(hosts, lab.nodes if lab else 1)
    if hosts:
        return open_hosts(hosts.split(","))
    if lab is None:
        raise Problem("no lab was named", "write --lab 3, or --on local, or --hosts me@machine")
    return _open(Account(), lab, screen)


def _open(account: Account, lab: Lab, screen: Screen) -> Cluster:
    cluster = open_stack(account, lab, screen)
    tell(account, lab.stack, screen)
    return cluster


def choose_run(run: str, *, lab: str, name: str) -> Run:
    """The run of `--run`, else the newest one of `--lab` (and `--name`), else the newest of all.

    Where there are several, one on the AWS that this shell talks to comes first.

    Raises:
        Problem: there is none.
    """
    if run:
        return find_run(run=run)
    chosen = choose_lab(lab, name) if lab else None
    wanted: dict[str, Any] = {"lab": chosen.number, "stack": chosen.stack if name else ""} if chosen else {}
    try:
        return find_run(**wanted, endpoint=os.environ.get("AWS_ENDPOINT_URL", ""))
    except NoRun:
        return find_run(**wanted)


def resume(run: str, *, lab: str, name: str, screen: Screen) -> tuple[Run, Cluster | None]:
    """A run and its machines, or None for these where it has ended; with `lab`, also one launched elsewhere.

    Raises:
        Problem: there is none, or its machines cannot be asked.
    """
    try:
        chosen = choose_run(run, lab=lab, name=name)
    except NoRun:
        if not lab:
            raise
        cluster = open_stack(Account(), choose_lab(lab, name), screen, partial=True)
        return adopt_run(cluster, run, choose_lab(lab, name).number), cluster
    return chosen, open_run(chosen, screen) if chosen.document["ended"] is None else None


def open_run(run: Run, screen: Screen) -> Cluster:
    """The machines that `run` was started on, as far as they still exist.

    Raises:
        Problem: they are on another AWS than this shell talks to, or cannot be asked.
    """
    target = str(run.document["target"])
    if target == "local":
        return open_local()
    if target.startswith("hosts:"):
        return open_hosts(target.removeprefix("hosts:").split(","))
    if target.startswith(TARGET):
        return reopen(target)
    account, stack = Account(), str(run.document["stack"])
    there = run.document.get("endpoint") or ""
    if there != (account.endpoint or ""):
        raise Problem(
            f"{run.name} ran on {there or 'AWS itself'}, and this shell talks to {account.endpoint or 'AWS itself'}",
            f"export AWS_ENDPOINT_URL={there}" if there else "unset AWS_ENDPOINT_URL",
        )
    if find_stack(account, stack) is None:
        return open_remains(account, stack)
    cluster = open_stack(account, lab_of(stack), screen, partial=True)
    tell(account, stack, screen)
    return nodes_of_run(cluster, {node["instance_id"]: node["name"] for node in run.document["nodes"]})


def lab_of(stack: str) -> Lab:
    """The lab that a stack's name means."""
    match = _STACK.fullmatch(stack)
    if match is None:
        raise Problem(f"{stack!r} is no lab's stack", f"write a name such as {stack_name(3)}")
    return find_lab(match[1]).override(name=match[2])


def adopt_run(cluster: Cluster, run: str, lab: int) -> Run:
    """A run that another machine launched, by what lies on the head node: `run`, else the newest of `lab`.

    Raises:
        Problem: there is none there either.
    """
    runs = cluster.place.runs
    which = run or f"*-lab{lab}"
    result = cluster.shells.shells[cluster.names[0]].run(f'cat "$(ls -d {runs}/{which} | tail -n 1)"/run.json')
    if not isinstance(result, Outcome) or result.code != 0:
        raise Problem(f"there is no run of Lab {lab}, here or on its nodes", f"fab run-lab --lab {lab}")
    document = json.loads(result.text)
    return Run(laptop.results() / document["run"], document).write()


def own_job(
    words: Sequence[str], *, everywhere: bool, limit_s: int, restarts: int = 0, local: bool
) -> tuple[Job, dict[str, bytes]]:
    """The user's own script or command as a job, with the files that have to travel with it.

    A `.py` file runs through torchrun, one rank a device over all nodes; with `everywhere`, once on each node as a
    plain process. Anything else is a command, run as it is on each node. `restarts`: as in `labs.catalog.Workload`.

    Raises:
        Problem: there are no words, the script does not exist, or `restarts` is for what has no ranks.
    """
    if not words:
        raise Problem("nothing was said to run", "write it after --, as in: fab run --lab 3 -- train.py --steps 100")
    script = Path.cwd() / words[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", script.stem).strip("-") or "job"
    if restarts and (everywhere or script.suffix != ".py"):
        raise Problem(
            f"--restarts {restarts} is for a .py file whose ranks meet, and {words[0]} runs on each node for itself",
            "leave it out",
        )
    if script.suffix != ".py":
        return Job(name=name, command=tuple(words), kind="command", timeout_s=limit_s), {}
    if not script.is_file():
        raise Problem(
            f"{script} does not exist", "name a Python file of this machine; what follows it are its arguments"
        )
    scope = "node" if everywhere else "cluster"
    files: dict[str, bytes] = {}
    if local:
        target = str(script)
    else:
        inside = script.resolve().is_relative_to(laptop.ROOT)
        target = script.resolve().relative_to(laptop.ROOT).as_posix() if inside else ""
        if target not in {path for path, _, _ in read_tree(laptop.ROOT).files}:
            files[script.name] = script.read_bytes()
            target = f"$run/{script.name}"
    job = Job(name=name, command=(target, *words[1:]), kind="script", scope=scope, timeout_s=limit_s, restarts=restarts)
    return job, files
