"""One command on warm nodes, 8 and 1: our shells, Fabric's own ThreadingGroup, asyncssh.

All three hold their connections open; a node is an sshd on loopback. With 8 of them, and few cores, most of the time
goes to the eight sshd's, which start a shell each, and no client can be faster than that: asyncssh shows the floor.
One node alone shows the client. Over a real network the round trip comes on top, and the ratios shrink.
"""

import asyncio
from collections.abc import Sequence

import asyncssh
from fabric import Connection, ThreadingGroup

from benchmarks.result import Result, in_turn
from benchmarks.sshd import Machines, machines
from operate.nodes import Node
from operate.shell import Outcome, Shells

ROUNDS = 30
COMMAND = "echo ready"


def run() -> list[Result]:
    """Seconds until all nodes have answered.

    Raises:
        Problem: sshd is not installed.
    """
    with machines(8) as made:
        return [*_beside(made, made.nodes, goal=3.0), *_beside(made, made.nodes[:1])]


def _beside(made: Machines, nodes: tuple[Node, ...], goal: float | None = None) -> list[Result]:
    loop = asyncio.new_event_loop()
    connections = loop.run_until_complete(_connect(made, nodes))
    with Shells({node.name: made.shell(node) for node in nodes}) as shells, fabric_group(made, nodes) as group:
        samples = in_turn(
            {
                "ours": lambda: check(ours(shells), nodes),
                "fabric": lambda: check([result.stdout for result in group.run(COMMAND, hide=True).values()], nodes),
                "asyncssh": lambda: check(loop.run_until_complete(_ask(connections)), nodes),
            },
            rounds=ROUNDS,
            warmup=3,
        )
    loop.run_until_complete(_disconnect(connections))
    loop.close()
    name, ours = f"one command on {len(nodes)} warm node{'s' * (len(nodes) > 1)}", samples["ours"]
    return [
        Result(name=name, samples_s=ours, peer="Fabric's ThreadingGroup", peer_samples_s=samples["fabric"],
               faster=True, goal=goal),
        Result(name=name, samples_s=ours, peer="asyncssh", peer_samples_s=samples["asyncssh"], faster=True),
    ]  # fmt: skip


def ours(shells: Shells) -> list[str]:
    """What each node answers to `COMMAND` by our shells."""
    results = shells.each(COMMAND)
    return [result.text if isinstance(result, Outcome) else result.cause for result in results.values()]


def check(answers: Sequence[str | bytes], nodes: tuple[Node, ...]) -> None:
    """Every node has answered."""
    said = [answer.decode() if isinstance(answer, bytes) else answer for answer in answers]
    assert [text.strip() for text in said] == ["ready"] * len(nodes), said


def fabric_group(made: Machines, nodes: tuple[Node, ...]) -> ThreadingGroup:
    """Fabric as it comes: only the key and where to find the nodes are given."""
    given = {"key_filename": str(made.key), "allow_agent": False, "look_for_keys": False}
    return ThreadingGroup.from_connections(
        Connection(node.address, user=node.user, port=node.port, connect_kwargs=given) for node in nodes
    )


async def _connect(made: Machines, nodes: tuple[Node, ...]) -> list[asyncssh.SSHClientConnection]:
    opening = (
        asyncssh.connect(node.address, node.port, username=node.user, client_keys=[str(made.key)],
                         known_hosts=str(made.known_hosts), config=None, agent_path=None)
        for node in nodes
    )  # fmt: skip
    return list(await asyncio.gather(*opening))


async def _ask(connections: list[asyncssh.SSHClientConnection]) -> list[str]:
    answers = await asyncio.gather(*(connection.run(COMMAND, check=True) for connection in connections))
    return [str(answer.stdout) for answer in answers]


async def _disconnect(connections: list[asyncssh.SSHClientConnection]) -> None:
    for connection in connections:
        connection.close()
    await asyncio.gather(*(connection.wait_closed() for connection in connections))
