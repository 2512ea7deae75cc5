"""A Slurm cluster that was there before, by the login node that takes its jobs: --hosts me@login --launcher slurm.

Its nodes are not known before a job has them, and nobody may log in there. What they share is the home. So each node
that is asked for is a seat: a folder of the run in that home, where the task that Slurm gives that seat's number does
what a lab's node does, and which is followed, fetched and stopped through the login node as if it were a node.
Partition, account and GPUs are said as to sbatch itself: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_GPUS_PER_NODE and the
like, in the login node's ~/.rooflab/env.sh, which also activates a Python with torch.
"""

from collections.abc import Iterator

from operate.cluster import Cluster
from operate.launch import Place
from operate.nodes import Node
from operate.problem import Problem
from operate.remote import RemoteShell
from operate.shell import Outcome, Shell, Shells

TARGET = "login:"
"""How such a target begins in run.json; then come the number of seats, a colon, and the login node."""


class SeatShell:
    """A login node's shell that knows which seat's folders are meant."""

    def __init__(self, seat: str, shell: Shell) -> None:
        self._begin = f"seat={seat}\n"
        self._shell = shell

    def run(self, command: str, *, stdin: bytes = b"", timeout_s: float = 60) -> Outcome:
        """See `operate.shell.Shell.run`."""
        return self._shell.run(self._begin + command, stdin=stdin, timeout_s=timeout_s)

    def stream(self, command: str, *, idle_s: float) -> Iterator[bytes]:
        """See `operate.shell.Shell.stream`."""
        return self._shell.stream(self._begin + command, idle_s=idle_s)

    def close(self) -> None:
        """See `operate.shell.Shell.close`."""
        self._shell.close()


def open_login(spec: str, seats: int) -> Cluster:
    """The cluster behind a login node, as `seats` nodes.

    Raises:
        Problem: several hosts were named.
    """
    if "," in spec:
        raise Problem(
            f"--launcher slurm with --hosts takes one login node, and {spec.count(',') + 1} hosts were named",
            "write --hosts me@login, or leave out --launcher slurm to run on those machines themselves",
        )
    shells: dict[str, Shell] = {}
    nodes: list[Node] = []
    for index in range(seats):
        remote = RemoteShell.to_host(f"node{index}", spec)
        nodes.append(remote.node)
        shells[remote.node.name] = SeatShell(remote.node.name, remote)
    return Cluster(
        label="hosts",
        target=f"{TARGET}{seats}:{spec}",
        nodes=tuple(nodes),
        shells=Shells(shells),
        place=Place(runs="~/rooflab-runs/$seat"),
        login=True,
    )


def reopen(target: str) -> Cluster:
    """The same, from run.json."""
    seats, _, spec = target.removeprefix(TARGET).partition(":")
    return open_login(spec, int(seats))
