"""Bring this tree to a node: our push beside `tar | ssh` (first time) and rsync (nothing changed).

Every side reads the tree anew and opens its own connection each time, as a first `fab` command does; a push over a
connection that is open already is reported beside it.
"""

import shutil
import subprocess
from pathlib import Path

from benchmarks.result import Result, in_turn
from benchmarks.sshd import Machines, machines
from operate.laptop import ROOT
from operate.nodes import Node
from operate.problem import Problem
from operate.push import push
from operate.shell import Shells
from operate.tree import read_tree

ROUNDS = 15


def run() -> list[Result]:
    """Seconds until the node has the whole tree.

    Raises:
        Problem: sshd or rsync is not installed.
    """
    if shutil.which("rsync") is None:
        raise Problem("rsync is not installed", "sudo apt-get install rsync")
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout
    tracked = b"\0".join(name for name in listed.split(b"\0") if name and (ROOT / name.decode()).exists())
    with machines(1) as made:
        (node,) = made.nodes
        with Shells({node.name: made.shell(node)}) as open_already:
            push(open_already, read_tree(ROOT))
            samples = in_turn(
                {
                    "first": lambda: _push(made, node),
                    "tar": lambda: _tar(made, node, tracked),
                    "unchanged": lambda: _push(made, node),
                    "rsync": lambda: _rsync(made, node, tracked),
                    "warm": lambda: push(open_already, read_tree(ROOT)),
                },
                before={
                    "first": lambda: _empty(made.home(node)),
                    "tar": lambda: _empty(made.home(node)),
                    "unchanged": lambda: _push(made, node),
                    "rsync": lambda: _rsync(made, node, tracked),
                    "warm": lambda: _push(made, node),
                },
                rounds=ROUNDS,
            )
    return [
        Result(name="first push of the tree", samples_s=samples["first"], peer="tar | ssh",
               peer_samples_s=samples["tar"], goal=1.0),
        Result(name="push of an unchanged tree", samples_s=samples["unchanged"], peer="rsync",
               peer_samples_s=samples["rsync"], goal=0.3),
        Result(name="the same, connection open already", samples_s=samples["warm"], peer="rsync",
               peer_samples_s=samples["rsync"]),
    ]  # fmt: skip


def _push(made: Machines, node: Node) -> None:
    with Shells({node.name: made.shell(node)}) as shells:
        push(shells, read_tree(ROOT))


def _tar(made: Machines, node: Node, tracked: bytes) -> None:
    """`git ls-files | tar cz | ssh node tar xz`."""
    pack = ["tar", "--null", "-C", str(ROOT), "-czf", "-", "-T", "-"]
    unpack = [*made.ssh(node), f"{node.user}@{node.address}", "mkdir -p ~/tree && tar xzf - -C ~/tree"]
    with subprocess.Popen(pack, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as packer:
        assert packer.stdin is not None
        with subprocess.Popen(unpack, stdin=packer.stdout) as unpacker:
            packer.stdin.write(tracked)
            packer.stdin.close()
        assert unpacker.returncode == 0
    assert packer.returncode == 0
    assert (made.home(node) / "tree" / "app.py").exists()


def _rsync(made: Machines, node: Node, tracked: bytes) -> None:
    """`rsync -az` of the same files."""
    way = " ".join(made.ssh(node))
    command = [
        "rsync",
        "-az",
        "--from0",
        "--files-from=-",
        "-e",
        way,
        f"{ROOT}/",
        f"{node.user}@{node.address}:~/synced",
    ]
    subprocess.run(command, input=tracked, check=True)
    assert (made.home(node) / "synced" / "app.py").exists()


def _empty(home: Path) -> None:
    shutil.rmtree(home)
    home.mkdir()
