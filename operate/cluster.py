"""The machines of one run and how to talk to them: a deployed lab, this machine, or hosts the user has."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Self

from botocore.exceptions import BotoCoreError, ClientError

from labs.catalog import Lab
from operate import admission, crowd, hostkeys, laptop
from operate.account import Account
from operate.launch import Place
from operate.nodes import Node, await_nodes
from operate.probe import Facts, probe_command, read_facts
from operate.problem import Problem
from operate.remote import RemoteShell, open_shells
from operate.screen import Screen
from operate.shell import LocalShell, Outcome, Results, Shell, Shells, Unreachable, demand
from operate.sshconfig import write_ssh_config
from operate.stack import deployed_stack
from operate.way import choose_way

_YOUNG_S = 300.0
"""A node this young may still be busy with its boot and is given `_BOOT_S`; an older one `_PATIENCE_S`."""
_BOOT_S = 60.0
"""Its sshd has been up since before `hostkeys.pin` returned, for cloud-init shows host keys last: what keeps a node
from answering longer than this does not pass by itself."""
_PATIENCE_S = 20.0
_SETUP_S = 1200.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Machines that take commands."""

    label: str
    """The stack's name, "local" or "hosts": also the folder under .rooflab/."""
    target: str
    """How to find it again: "stack", "local", "hosts:a,user@b" or "login:2:user@a"."""
    nodes: tuple[Node, ...]
    shells: Shells
    account: Account | None = None
    place: Place = field(default_factory=Place)
    login: bool = False
    """Whether the nodes are a Slurm cluster's, all reached through its login node: see `operate.login`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shells.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes, head first."""
        return tuple(node.name for node in self.nodes)

    def now(self) -> datetime:
        """The account's time; this machine's where there is no account."""
        return self.account.now() if self.account else datetime.now(UTC)

    def state(self, node: Node) -> str:
        """EC2's word for `node` as of now: "running", "terminated", … "running" where EC2 has no say or no answer."""
        if self.account is None or not node.instance_id:
            return "running"
        try:
            answer = self.account.client("ec2").describe_instances(InstanceIds=[node.instance_id])
            found = [item for group in answer["Reservations"] for item in group["Instances"]]
            return str(found[0]["State"]["Name"]) if found else "gone"
        except ClientError as error:
            return "gone" if error.response["Error"]["Code"] == "InvalidInstanceID.NotFound" else "running"
        except BotoCoreError:
            return "running"

    def facts(
        self,
        screen: Screen,
        *,
        ready: bool = True,
        wait_s: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Mapping[str, Facts]:
        """What every node says of itself, once it answers and, with `ready`, has set itself up.

        `wait_s`: longest wait for an answer, in seconds; None waits as long as a node of that age may need to boot.

        Raises:
            Problem: a node does not answer in time or refuses the key, its set-up failed, or it has no torchrun.
        """
        limit_s = self._patience() if wait_s is None else wait_s
        began = time.monotonic()
        with screen.stage("waiting for the nodes") as say:
            results: Results = {}
            among = self.names
            while True:
                results |= self.shells.each(probe_command(self.place), among=among)
                away = {name: result for name, result in results.items() if isinstance(result, Unreachable)}
                if any(isinstance(result, Problem) and name not in away for name, result in results.items()):
                    results = {name: result for name, result in results.items() if name not in away}
                    break
                if not away or time.monotonic() - began >= limit_s:
                    break
                say(f"to answer: {crowd.names(away)}")
                sleep(2)
                among = tuple(away)
            outcomes = demand(results, "answer", "fab ssh --node NAME, and look at it")
            facts = {name: read_facts(outcome.text) for name, outcome in outcomes.items()}
            if ready:
                self._await_ready(facts, say, sleep)
        return facts

    def _patience(self) -> float:
        launched = [node.launched for node in self.nodes if node.launched]
        if not launched:
            return 0.0
        age_s = (self.now() - max(launched)).total_seconds()
        return _BOOT_S if age_s < _YOUNG_S else _PATIENCE_S

    def _await_ready(self, facts: dict[str, Facts], say: Callable[[str], None], sleep: Callable[[float], None]) -> None:
        began = time.monotonic()
        while True:
            failed = {name: fact.ready for name, fact in facts.items() if fact.ready.startswith("failed")}
            if failed:
                name = next(iter(failed))
                step = failed[name].split(":")[1].strip()
                told = crowd.lines({node: f"set-up {why}" for node, why in failed.items()})
                more = f" (and {crowd.names(list(failed)[1:])})" if len(failed) > 1 else ""
                raise Problem(
                    f"{name}: set-up {failed[name]}{more}",
                    f"read its log by fab ssh --node {name} -- cat .rooflab/boot/{step}.log",
                    details=told if len(failed) > 1 else (),
                )
            waiting = [name for name, fact in facts.items() if fact.ready != "ok"] if self.target == "stack" else []
            if not waiting:
                break
            if time.monotonic() - began >= _SETUP_S:
                raise Problem(
                    f"{crowd.names(waiting)} did not finish setting up within {_SETUP_S / 60:.0f} min",
                    f"see how far it is by fab ssh --node {waiting[0]} -- tail -n 5 .rooflab/boot/*.log",
                )
            done: dict[str, list[str]] = {}
            for name in waiting:
                done.setdefault(([*facts[name].took] or [""])[-1], []).append(name)
            steps = (" after ".join(filter(None, [crowd.names(some), step])) for step, some in done.items())
            say(f"to set themselves up: {', '.join(steps)}")
            sleep(5)
            for name, result in self.shells.each(probe_command(self.place), among=tuple(waiting)).items():
                if isinstance(result, Outcome):
                    facts[name] = read_facts(result.text)
        without = [name for name, fact in facts.items() if not fact.torchrun]
        if without:
            raise Problem(
                f"{crowd.names(without)} has no torchrun on its PATH",
                f"pip install torch numpy transformers there, or let {self.place.environment} activate what has it",
            )


def open_stack(account: Account, lab: Lab, screen: Screen, *, partial: bool = False) -> Cluster:
    """The deployed lab: its nodes from EC2, this machine admitted where they have public addresses, host keys pinned,
    ssh_config written.

    With `partial`, fewer nodes than the lab was deployed with will do, as after a spot interruption.

    Raises:
        Problem: not deployed, no way to the nodes, too few of them, or no host keys.
    """
    stack = deployed_stack(account, lab.stack)
    way = choose_way(account, stack)
    with screen.stage(f"finding the nodes of {stack.name}") as say:
        nodes = await_nodes(account, stack, partial=partial, tell=say)
        folder = laptop.state(stack.name, account.endpoint)
        if way.admits:
            admission.admit_operator(account, stack, {node.port for node in nodes})
        pinned = hostkeys.pin(account, nodes, folder, tell=say)
    key = laptop.private_key()
    if not key.exists():
        raise Problem(f"{key} does not exist", "deploy from the clone that made the key, or copy its .rooflab/ here")
    shells = open_shells(nodes, host_keys=pinned, key=key, way=way)
    ways = {name: shell.way for name, shell in shells.items()}
    write_ssh_config(nodes, stack=stack.name, folder=folder, key=key, ways=ways)
    return Cluster(label=stack.name, target="stack", nodes=nodes, shells=Shells(shells), account=account)


def open_remains(account: Account, stack: str) -> Cluster:
    """What is left of a stack that is gone: no node, but the account, and so the bucket."""
    return Cluster(label=stack, target="stack", nodes=(), shells=Shells({}), account=account)


def nodes_of_run(cluster: Cluster, names: Mapping[str, str]) -> Cluster:
    """The part of a stack's `cluster` that a run was started on, under the names it had then, by instance id."""
    nodes, shells = [], {}
    for node in cluster.nodes:
        if name := names.get(node.instance_id):
            renamed = replace(node, name=name)
            shell = cluster.shells.shells[node.name]
            assert isinstance(shell, RemoteShell)
            shell.node = renamed
            nodes.append(renamed)
            shells[name] = shell
    return replace(cluster, nodes=tuple(nodes), shells=Shells(shells))


def open_local() -> Cluster:
    """This machine as a cluster of one. Runs lie in .rooflab/local/; the tree is the clone itself, as it is now."""
    folder = laptop.state("local")
    environment = folder / "env.sh"
    environment.write_text(f'export PATH={quote(str(Path(sys.executable).parent))}:"$PATH"\n')
    place = Place(
        tree=quote(str(laptop.ROOT)),
        runs=quote(str(folder / "runs")),
        environment=quote(str(environment)),
        ready="/dev/null",
        boot="/dev/null",
    )
    node = Node(name="node0", address="127.0.0.1", private_ip="127.0.0.1")
    return Cluster(label="local", target="local", nodes=(node,), shells=Shells({"node0": LocalShell()}), place=place)


def open_hosts(specs: Sequence[str]) -> Cluster:
    """Machines that the user's own ssh reaches, as `user@host`, `host:port` or a name of their ssh_config.

    Raises:
        ValueError: the list is empty or names a host twice.
    """
    names = tuple(spec.strip() for spec in specs)
    if not names or not all(names) or len(set(names)) != len(names):
        raise ValueError(f"hosts={','.join(specs)!r} is not allowed: write different hosts, as in --hosts me@a,me@b")
    shells: dict[str, Shell] = {}
    nodes = []
    for index, spec in enumerate(names):
        shell = RemoteShell.to_host(f"node{index}", spec)
        nodes.append(shell.node)
        shells[shell.node.name] = shell
    return Cluster(label="hosts", target=f"hosts:{','.join(names)}", nodes=tuple(nodes), shells=Shells(shells))
