"""One run from push to fetch, the same on a deployed lab, on this machine and on the user's own hosts."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from labs.catalog import Lab
from labs.instances import instance_type
from labs.names import GUARD_STACK, Output
from labs.prices import dollars
from operate import crowd, dispatch, laptop, launch, secret
from operate.account import Account
from operate.bill import frozen_cost, spent
from operate.cause import find_cause
from operate.cluster import Cluster
from operate.daemons import bring_up
from operate.deadline import read_deadline
from operate.fetch import fetch, fetch_shipped
from operate.follow import Ending, follow
from operate.hang import DEFAULT_S
from operate.launch import Job, Plan, Seat
from operate.probe import Facts
from operate.problem import Problem
from operate.push import push
from operate.runs import SCHEMA, Run
from operate.screen import Screen, clock
from operate.shell import Outcome, Shells, demand
from operate.stack import find_stack
from operate.tree import Tree, read_tree
from operate.verdict import STOPPED


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to run, and with what."""

    jobs: tuple[Job, ...]
    lab: Lab | None = None
    usd_per_hour: float | None = None
    """Price of all nodes together; None where it is not known."""
    environment: tuple[str, ...] = ()
    """Names of further variables that reach the processes."""
    files: Mapping[str, bytes] | None = None
    """Further files for the run's folder, by name."""
    wait_s: float | None = None
    """Longest wait for the nodes to answer."""
    launcher: str = "torchrun"
    """"torchrun" or "slurm"."""
    hang_s: int = DEFAULT_S
    """As in `operate.launch.Plan`."""


def price(cluster: Cluster) -> float | None:
    """List price of all nodes together in dollars an hour; None where one of them has none."""
    prices = [instance_type(node.instance_type).usd_per_hour if node.instance_type else None for node in cluster.nodes]
    return None if None in prices else sum(filter(None, prices))


def execute(cluster: Cluster, order: Order, screen: Screen) -> Run:
    """Push, launch, follow to the end, fetch. What came home is on disk whatever happens.

    Raises:
        Problem: a step failed, or Ctrl-C; once the run is launched it goes on, and the problem says how to come back.
    """
    secrets = launch.secrets(os.environ, order.environment)
    facts = cluster.facts(screen, wait_s=order.wait_s)
    if order.launcher == "slurm" and not cluster.login:
        bring_up(cluster, facts, screen)
    tree = _push(cluster, screen)
    run, plan = _plan(cluster, order, facts, tree)
    run = _start(cluster, order, plan, run, secrets, screen)
    return attend(cluster, run, screen)


def attend(cluster: Cluster, run: Run, screen: Screen) -> Run:
    """Follow a run that was launched, here or in another session, then fetch it.

    The values of the run's secrets are blanked in what is shown and kept.

    Raises:
        Problem: Ctrl-C (exit code 130): the run goes on.
    """
    secrets = secret_values(run, screen)
    try:
        ending = follow(
            cluster,
            run.name,
            screen,
            status=_status(cluster, run),
            lost=lambda names, others: _tell_loss(cluster, run, names, others, screen),
            secrets=secrets,
        )
    except KeyboardInterrupt:
        raise detached(run, cluster.account) from None
    return finish(cluster, run, ending, screen, secrets=secrets)


def finish(
    cluster: Cluster,
    run: Run,
    ending: Ending,
    screen: Screen,
    *,
    secrets: tuple[str, ...],
    stopped: tuple[str, ...] = (),
) -> Run:
    """Fetch what there is and write down how the run ended; on `stopped` nodes, what has no exit code was stopped."""
    names = tuple(node["name"] for node in run.document["nodes"])
    # also where another session stopped it while this one followed: both write down the same
    stopped = (*stopped, *(name for name, code in ending.exits.items() if code == STOPPED))
    gone = {name: "EC2 has it no more" for name in names if name not in cluster.names}
    ending.lost = {**gone, **ending.lost}
    again = f"what was fetched is kept in {run.folder}; the rest: fab attach --run {run.name}"
    with screen.stage("fetching the results", interrupted=again):
        fetched = fetch(cluster, run.name, run.folder, secrets=secrets)
        for name, why in fetched.missed.items():
            if name not in ending.lost:
                screen.warn(f"nothing fetched from {name}: {why}")
        if away := (*fetched.missed, *gone):
            _fetch_shipped(cluster, run, away, screen)
    codes = {**ending.codes, **fetched.codes}
    workloads = []
    for item in run.document["workloads"]:
        told = {node: codes.get(node, {}).get(item["name"]) for node in names}
        seconds = [row[1] for row in told.values() if row]
        exits = {node: row[0] if row else STOPPED if node in stopped else None for node, row in told.items()}
        found = find_cause(run.folder, item["name"], exits) if any(exits.values()) else None
        workloads.append(
            {
                **item,
                "exit": exits,
                "seconds": max(seconds, default=None),
                **({"cause": found.cause, "remedy": found.remedy} if found else {}),
            }
        )
    ended = cluster.now()
    done = all(code == 0 for item in workloads for code in item["exit"].values())
    return run.write(
        ended=_iso(ended),
        workloads=workloads,
        usd=cost(run, ended) if cluster.nodes else None,  # nobody knows when the last of them ended
        lost=ending.lost,
        ok=done and not ending.lost and not fetched.missed,
    )


def detached(run: Run, account: Account | None) -> Problem:
    """What Ctrl-C means to a run that was launched."""
    nodes = crowd.names(node["name"] for node in run.document["nodes"])
    remedy = f"fab attach --run {run.name} shows it, fab stop --run {run.name} ends it"
    if account is not None:
        try:
            remedy += f"; {read_deadline(account, run.document['stack'])}"
        except (Problem, BotoCoreError, ClientError, KeyboardInterrupt):  # the guard does not need us to know
            remedy += "; the guard ends the lab at its deadline"
    return Problem(f"detached from {run.name}, which goes on ({nodes})", remedy, exit_code=130)


def stop(cluster: Cluster, run: Run, screen: Screen) -> Run:
    """End the run on every node, then fetch what it left."""
    with screen.stage(f"stopping {run.name}", interrupted=f"fab stop --run {run.name}"):
        results = dispatch.end(cluster, run)
    ending = Ending(lost={name: result.cause for name, result in results.items() if isinstance(result, Problem)})
    for name, result in results.items():
        if not isinstance(result, Problem):
            screen.note(f"{name}: {result.text or result.said}")
    stopped = tuple(name for name, result in results.items() if isinstance(result, Outcome) and result.code == 0)
    return finish(cluster, run, ending, screen, secrets=secret_values(run, screen), stopped=stopped)


def secret_values(run: Run, screen: Screen) -> tuple[str, ...]:
    """The run's secrets as far as this shell has them, to be blanked in whatever is shown or fetched."""
    names = tuple(run.document.get("environment", ()))
    if unknown := [name for name in names if name not in os.environ]:
        screen.warn(
            f"{', '.join(unknown)} is not set in this shell: what {run.name} writes of it is blanked only once its "
            "workload has ended; export it to blank it here too"
        )
    return secret.values(os.environ, names)


def cost(run: Run, until: datetime) -> float | None:
    """Dollars that the nodes cost from the run's start to `until`; None where the price is not known."""
    price = run.document["usd_per_hour"]
    if price is None:
        return None
    hours = (until - datetime.fromisoformat(run.document["started"])).total_seconds() / 3600
    return round(float(price) * max(0.0, hours), 6)


def _status(cluster: Cluster, run: Run) -> Callable[[], str]:
    started = datetime.fromisoformat(run.document["started"])

    def status() -> str:
        now = cluster.now()
        return " · ".join(filter(None, (clock((now - started).total_seconds()), _so_far(run, now))))

    return status


def _so_far(run: Run, now: datetime) -> str:
    """What the run's lab has cost since it was made, all of it; on the user's own machines what the run has."""
    frozen = run.document.get("cost")
    if frozen:
        return f"{run.document['stack']} {dollars(spent(frozen['things'], now))} so far"
    usd = cost(run, now)
    return "" if usd is None else f"{dollars(usd)} so far"


def _push(cluster: Cluster, screen: Screen) -> Tree | None:
    if cluster.target == "local":
        try:
            return read_tree(laptop.ROOT)
        except Problem:  # this machine runs the tree where it lies: git is only asked for the commit
            return None
    with screen.stage("pushing the tree", interrupted="nothing was started; run the same command again"):
        tree = read_tree(laptop.ROOT)
        if tree.untracked:
            listed = ", ".join(tree.untracked[:4]) + (" …" if len(tree.untracked) > 4 else "")
            screen.warn(f"not pushed, for git does not track it: {listed} (git add brings it along)")
        among = cluster.names[:1] if cluster.login else cluster.names  # a login node's home is every node's
        pushed = push(Shells({name: cluster.shells.shells[name] for name in among}), tree)
    had = len(among) - len(pushed.sent)
    sent = f"{pushed.bytes / 1e6:.1f} MB to {crowd.names(pushed.sent)}" if pushed.sent else "nothing"
    screen.note(f"pushed {sent}{f'; {had} had it' if had else ''}")
    return tree


def _plan(cluster: Cluster, order: Order, facts: Mapping[str, Facts], tree: Tree | None) -> tuple[Run, Plan]:
    now = cluster.now()
    number = order.lab.number if order.lab else None
    while True:  # another run may have been named in this very second
        name = launch.run_id(now, number)
        try:
            (laptop.results() / name).mkdir(parents=True)
            break
        except FileExistsError:
            now += timedelta(seconds=1)
    sharing = sum(node.on_loopback for node in cluster.nodes) or 1
    types = {node.instance_type for node in cluster.nodes} - {""}
    plan = Plan(
        run=name,
        jobs=order.jobs,
        seats=tuple(
            Seat(
                node=node.name,
                index=index,
                processes=facts[node.name].processes,
                cores=max(1, facts[node.name].cores // sharing),
                gpus=facts[node.name].devices > 0,
                address=node.peer_address,
            )
            for index, node in enumerate(cluster.nodes)
        ),
        head=cluster.nodes[0].peer_address,
        lab=number,
        instance_type=",".join(sorted(types)),
        usd_per_hour=order.usd_per_hour,
        commit=tree.commit if tree else "",
        environment=order.environment,
        launcher=order.launcher,
        login=cluster.login,
        hang_s=order.hang_s,
        place=cluster.place,
    )
    document = {
        "schema": SCHEMA,
        "run": name,
        "lab": number,
        "stack": cluster.label if cluster.target == "stack" else None,
        "target": cluster.target,
        "endpoint": (cluster.account.endpoint or "") if cluster.account else None,
        "started": _iso(now),
        "ended": None,
        "nodes": [
            {
                "name": node.name,
                "instance_id": node.instance_id,
                "instance_type": node.instance_type,
                "private_ip": node.private_ip,
                "public_ip": node.address,
            }
            for node in cluster.nodes
        ],
        "workloads": [
            {"name": job.name, "scope": job.scope, "restarts": job.restarts, "exit": {}, "seconds": None}
            for job in order.jobs
        ],
        "usd_per_hour": order.usd_per_hour,
        "usd": None,
        "cost": frozen_cost(cluster.account, cluster.label) if cluster.account else None,
        "commit": plan.commit,
        "environment": list(order.environment),
        "launcher": order.launcher,
        "ok": None,
    }
    return Run(laptop.results() / name, document), plan


def _start(cluster: Cluster, order: Order, plan: Plan, run: Run, secrets: bytes, screen: Screen) -> Run:
    scripts = {seat.node: launch.script(plan, seat) for seat in plan.seats}
    more = dispatch.files(plan)
    document = json.dumps(run.document).encode()

    def archive(node: str) -> bytes:
        return launch.pack({"run.sh": scripts[node].encode(), "run.json": document, **more, **(order.files or {})})

    try:
        with screen.stage("launching", interrupted="nothing was started; run the same command again"):
            prepared = cluster.shells.each(launch.prepare_command(plan.place, plan.run), stdin=archive)
            demand(prepared, "take the run", "is its disk full? fab ssh, then df -h")
    except Problem:
        run.folder.rmdir()  # it holds nothing yet: the run never was
        raise
    run.write()
    try:
        run = dispatch.begin(cluster, plan, run, secrets)
    except Problem:
        cluster.shells.each(launch.stop_command(plan.place, plan.run))
        raise
    except KeyboardInterrupt:
        raise detached(run, cluster.account) from None
    by = f", Slurm job {run.document['job']}" if "job" in run.document else ""
    screen.note(f"{plan.run}: {', '.join(job.name for job in plan.jobs)} on {crowd.names(cluster.names)}{by}")
    return run


def _tell_loss(cluster: Cluster, run: Run, names: tuple[str, ...], others: tuple[str, ...], screen: Screen) -> None:
    if told := dispatch.tell_loss(cluster, run, names, others):
        screen.warn(told)


def _fetch_shipped(cluster: Cluster, run: Run, nodes: Sequence[str], screen: Screen) -> None:
    if cluster.account is None:
        return
    try:
        guard = find_stack(cluster.account, GUARD_STACK)
        bucket = guard.outputs.get(Output.RESULTS_BUCKET) if guard else None
        if bucket:
            found = fetch_shipped(cluster.account.client("s3"), bucket, run.name, nodes, run.folder)
            screen.note(f"from the bucket {bucket}: {', '.join(Path(path).name for path in found) or 'nothing'}")
    except Problem as problem:
        screen.warn(str(problem))


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
