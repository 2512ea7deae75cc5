"""Brings Slurm up on a lab's nodes, where it does not run as it should already."""

import secrets
from collections.abc import Mapping

from operate import crowd, slurm
from operate.cluster import Cluster
from operate.probe import Facts
from operate.problem import Problem
from operate.screen import Screen
from operate.shell import Outcome, demand
from operate.slurm import Machine

_START_S = 120


def bring_up(cluster: Cluster, facts: Mapping[str, Facts], screen: Screen) -> None:
    """Let every node take Slurm jobs; nothing is done where its daemons run with this very configuration.

    Raises:
        Problem: Slurm is not installed somewhere, or does not come up.
    """
    with screen.stage("bringing up Slurm", interrupted="nothing was started; run the same command again") as say:
        machines = _survey(cluster, facts)
        checked = cluster.shells.each(lambda node: slurm.check_command(machines, node))
        if all(isinstance(one, Outcome) and one.code == 0 for one in checked.values()):
            return
        say(f"on {crowd.names(cluster.names)}")
        key = secrets.token_bytes(1024)
        started = cluster.shells.each(lambda node: slurm.start_command(machines, node), stdin=key, timeout_s=_START_S)
        demand(started, "start Slurm's daemons", f"read its logs: fab ssh -- tail {slurm.HERE}/*.log")
        waited = cluster.shells.each(slurm.ready_command(len(machines)), among=cluster.names[:1], timeout_s=_START_S)
        demand(waited, "bring all nodes into Slurm", f"read its log: fab ssh -- cat {slurm.HERE}/slurmctld.log")
    screen.note(f"Slurm is up on {crowd.names(cluster.names)}, its controller on {cluster.names[0]}")


def _survey(cluster: Cluster, facts: Mapping[str, Facts]) -> tuple[Machine, ...]:
    told = demand(cluster.shells.each(slurm.survey_command()), "answer", "fab ssh --node NAME, and look at it")
    surveys = {node: slurm.read_survey(outcome.text) for node, outcome in told.items()}
    if missing := {node: tools for node, (_, _, tools) in surveys.items() if tools}:
        raise Problem(
            f"{crowd.names(missing)} has no {', '.join(next(iter(missing.values())))}: Slurm is not installed there",
            "deploy the lab with two nodes or more, whose user data installs it; in the rehearsal ./setup.sh slurm; "
            "else --launcher torchrun",
        )
    sharing = sum(node.on_loopback for node in cluster.nodes) or 1
    return tuple(
        Machine(
            node=node.name,
            address=node.peer_address,
            hostname=surveys[node.name][0],
            cores=max(1, facts[node.name].cores // sharing),
            gpus=surveys[node.name][1],
        )
        for node in cluster.nodes
    )
