"""How a prepared run begins, hears of a loss and ends, by either launcher."""

from operate import batch, launch, slurm
from operate.cluster import Cluster
from operate.launch import Plan
from operate.runs import Run
from operate.shell import Outcome, Results, demand


def steps(plan: Plan) -> tuple[batch.Step, ...]:
    """The run's jobs as steps of a Slurm job."""
    return tuple(
        batch.Step(name=job.name, scope=job.scope, timeout_s=job.timeout_s, restarts=job.restarts) for job in plan.jobs
    )


def files(plan: Plan) -> dict[str, bytes]:
    """What lies in the run's folder beside run.sh, by name."""
    if plan.launcher != "slurm":
        return {}
    text = batch.script(plan.run, plan.place.run(plan.run), steps(plan), login=plan.login)
    return {"batch.sh": text.encode()}


def begin(cluster: Cluster, plan: Plan, run: Run, secrets: bytes) -> Run:
    """Start the run on every node, or put it into Slurm's queue.

    Raises:
        Problem: a node or the queue does not take it.
    """
    remedy = f"fab stop --run {plan.run}, then look at the node with fab ssh"
    if plan.launcher != "slurm":
        demand(cluster.shells.each(launch.start_command(plan.place, plan.run), stdin=secrets), "start the run", remedy)
        return run
    folder, (head, *_) = plan.place.run(plan.run), cluster.names
    gpus = min(seat.processes if seat.gpus else 0 for seat in plan.seats)
    command = batch.submit_command(
        plan.run, folder, nodes=len(plan.seats), gpus=gpus, steps=steps(plan), login=plan.login
    )
    submitted = cluster.shells.each(command, stdin=secrets, among=(head,))
    job = int(demand(submitted, "put the run into Slurm's queue", remedy)[head].text.partition(";")[0])
    run = run.write(job=job)
    demand(cluster.shells.each(batch.ticket_command(folder, job)), "take the run", remedy)
    return run


def tell_loss(cluster: Cluster, run: Run, names: tuple[str, ...], others: tuple[str, ...]) -> str:
    """Spare the nodes that are left the wait for one that is lost: minutes of every GPU for nothing.

    Returns what the user should know of it, if there is something.
    """
    if not any(item["scope"] == "cluster" for item in run.document["workloads"]):
        return ""
    head = run.document["nodes"][0]["name"]
    if run.document.get("job") is None:
        cluster.shells.each(launch.lost_command(cluster.place, run.name, names), among=others)
    elif head in names:
        cluster.shells.each(launch.stop_command(cluster.place, run.name), among=others)
        return f"{head} held Slurm's controller: the run ends. --launcher torchrun goes on without any one node"
    else:
        cluster.shells.each(slurm.down_command(names), among=(head,))
    return ""


def place_in_queue(cluster: Cluster, run: Run) -> tuple[str, ...]:
    """What Slurm says of the run's job, a line; nothing where it is none, or over."""
    job, head = run.document.get("job"), run.document["nodes"][0]["name"]
    if job is None or head not in cluster.names:
        return ()
    asked = cluster.shells.each(slurm.queue_command(int(job), login=cluster.login), among=(head,))[head]
    return tuple(asked.text.splitlines()) if isinstance(asked, Outcome) else (asked.cause,)


def end(cluster: Cluster, run: Run) -> Results:
    """Stop the run on every node; where it is a Slurm job, that ends first."""
    job, head = run.document.get("job"), run.document["nodes"][0]["name"]
    if job is not None and head in cluster.names:
        cluster.shells.each(slurm.stopping_command(cluster.place.run(run.name)))
        cluster.shells.each(slurm.scancel(int(job), login=cluster.login), among=(head,), timeout_s=60)
    return cluster.shells.each(launch.stop_command(cluster.place, run.name), timeout_s=60)
