"""What a user does with a lab, as one process: deploy, nodes, run, report, teardown, by the product's own functions.

It is forked from the soak's worker, which has loaded everything. `kill_at` ends it as SIGKILL ends a laptop's process.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.httpsession import URLLib3Session
from invoke import Context

import fabfile
from labs.catalog import LABS
from operate import choice, execution, laptop
from operate.account import Account
from operate.launch import Job
from operate.problem import Problem
from operate.screen import Screen
from operate.shell import Shells
from operate.verb import as_problem
from tests.soak.plan import Plan
from tests.soak.templates import Deployable

_DEPLOY_S = 20.0
JOBS = ("gemm", "ddp")


class _Steps:
    """Counts what the client does to the world, and kills it at one step."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._made = 0

    def step(self, work: Callable[[], Any]) -> Any:
        with self._lock:
            self._made += 1
            fatal = self._made == self._plan.killed_at
        if fatal and not self._plan.after:
            os.killpg(0, signal.SIGKILL)
        done = work()
        if fatal:
            os.killpg(0, signal.SIGKILL)
        return done

    def count(self) -> None:
        """Let every request and every command on nodes be a step."""
        send, each = URLLib3Session.send, Shells.each

        def counted_send(session: Any, request: Any) -> Any:
            return self.step(lambda: send(session, request))

        def counted_each(shells: Any, *given: Any, **named: Any) -> Any:
            return self.step(lambda: each(shells, *given, **named))

        for owner, name, counted in ((URLLib3Session, "send", counted_send), (Shells, "each", counted_each)):
            setattr(owner, name, counted)


def live(plan: Plan, lab: Deployable, home: Path, ledger: Path) -> int:
    """Use the lab; everything that goes wrong is told in one line, as `fab` does. Returns an exit code."""
    laptop.ROOT = home
    _Steps(plan).count()
    failed = 0
    verbs: list[tuple[str, Callable[[], object]]] = [
        ("deploy", lambda: _deploy(lab)),
        ("nodes", lambda: _verb(fabfile.nodes)(Context(), lab=str(lab.lab), wait="5")),
        ("run-lab", lambda: _work(lab, plan, ledger)),
    ]
    if plan.report:
        verbs.append(("report", lambda: _verb(fabfile.report)(Context(), lab=str(lab.lab))))
    if plan.teardown:
        verbs.append(("teardown", lambda: _verb(fabfile.teardown)(Context(), lab=str(lab.lab))))
    for name, verb in verbs:
        if failed and name not in ("report", "teardown"):
            continue
        code = _told(name, verb)
        failed = failed or code
    return failed


def _verb(task: Any) -> Callable[..., object]:
    """What a task of fab's does, as `fab` calls it."""
    body: Callable[..., object] = task.body
    return body


def _told(name: str, verb: Callable[[], object]) -> int:
    print(f"--- {name}", flush=True)
    try:
        verb()
    except SystemExit as error:  # a verb of fab's has said why
        return int(error.code or 0)
    except Exception as error:
        problem = as_problem(error)
        print(f"problem: {problem}", file=sys.stderr, flush=True)
        return problem.exit_code
    return 0


def _deploy(lab: Deployable) -> None:
    """What `cdk deploy` asks of CloudFormation."""
    cloudformation = Account().client("cloudformation")
    cloudformation.create_stack(
        StackName=lab.stack, TemplateBody=lab.template, Capabilities=["CAPABILITY_IAM"],
        Tags=[{"Key": key, "Value": value} for key, value in lab.tags.items()],
    )  # fmt: skip
    until = time.monotonic() + _DEPLOY_S
    while (status := _status(cloudformation, lab.stack)).endswith("_IN_PROGRESS"):
        if time.monotonic() > until:
            raise Problem(f"{lab.stack} is still {status}", "wait, then look again")
        time.sleep(0.2)
    if status != "CREATE_COMPLETE":
        events = cloudformation.describe_stack_events(StackName=lab.stack)["StackEvents"]
        why = [event.get("ResourceStatusReason", "") for event in events if event["ResourceStatus"] == "CREATE_FAILED"]
        raise Problem(f"{lab.stack} is {status} ({why[-1] if why else 'no reason given'})", "see its events")


def _status(cloudformation: Any, stack: str) -> str:
    return str(cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])


def _work(lab: Deployable, plan: Plan, ledger: Path) -> None:
    """run-lab with two workloads that take no time."""
    screen = Screen()
    jobs = tuple(
        Job(name=name, command=("bash", "quick.sh", name, str(ledger), str(plan.work_s)), kind="command", timeout_s=60)
        for name in JOBS
    )
    with choice.open_target(LABS[lab.lab], on="", hosts="", screen=screen) as cluster:
        order = execution.Order(jobs=jobs, lab=LABS[lab.lab], usd_per_hour=execution.price(cluster), wait_s=5)
        run = execution.execute(cluster, order, screen)
    from operate.ending import show_outcome

    show_outcome(run, screen, json=False, report=False)
