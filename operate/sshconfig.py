"""An OpenSSH configuration for a lab's nodes, so that plain ssh, rsync, scp and VS Code work too."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from operate.laptop import write
from operate.nodes import Node
from operate.way import Way, literal

_CONNECT_S = 15
"""Longest wait for a connection and sshd's first words, in seconds; a tunnel's are slower."""


def ssh_config(nodes: Sequence[Node], *, stack: str, known_hosts: Path, key: Path, ways: Mapping[str, Way]) -> str:
    """The text of an ssh_config: hosts `node0` and, to tell labs apart, `lab3-node0` or `lab3-alice-node0`."""
    prefix = stack.lower().replace("stack", "")
    hosts = "".join(
        f"\nHost {node.name} {prefix}-{node.name}\n"
        f"    HostName {node.address}\n"
        f"    Port {node.port}\n"
        f"    User {node.user}\n"
        f"{_option(ways[node.name].option(node))}"
        for node in nodes
    )
    return (
        f"# Written by fab for {stack}; made anew whenever fab asks EC2 for its nodes.\n"
        f"# ssh -F {known_hosts.with_name('ssh_config')} node0\n"
        f"{hosts}\n"
        "Host *\n"
        f'    IdentityFile "{literal(key)}"\n'
        "    IdentitiesOnly yes\n"
        f'    UserKnownHostsFile "{literal(known_hosts)}"\n'
        "    GlobalKnownHostsFile none\n"
        "    StrictHostKeyChecking yes\n"
        "    UpdateHostKeys no\n"
        "    ForwardAgent no\n"
        f"    ConnectTimeout {_CONNECT_S}\n"
        "    ServerAliveInterval 15\n"
        "    ServerAliveCountMax 4\n"
    )


def _option(line: str) -> str:
    return f"    {line}\n" if line else ""


def write_ssh_config(nodes: Sequence[Node], *, stack: str, folder: Path, key: Path, ways: Mapping[str, Way]) -> Path:
    """Write `folder`/ssh_config beside the known_hosts that lies there, and return its path."""
    path = folder / "ssh_config"
    write(path, ssh_config(nodes, stack=stack, known_hosts=folder / "known_hosts", key=key, ways=ways))
    return path
