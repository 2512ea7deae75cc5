"""64 nodes: a command, the tree and a run's results, by our shells, by plain Fabric, and by 64 processes of OpenSSH.

A node is an sshd on loopback, so that most of the time goes to 64 of those, which share these cores with the client;
what a client costs by itself shows most where they have least to do. Over a real network each node has cores of its
own and round trips come on top. Fabric is a ThreadingGroup as its documentation writes it: SFTP for files, one
connection a host that stays open. OpenSSH is an `ssh` process a node, all at once, without ControlMaster, so that each
opens a connection of its own (`pssh` starts the same processes), and with Fabric's key exchange: its own first choice
takes 70 ms of a CPU at each end.

So the client's own CPU is counted too: with 64 machines at the other end that is what is left.

Everybody packs the tree once and leaves the results as files. Ours waits for the slowest node between its steps, as the
verbs do.
"""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fabric import ThreadingGroup

from benchmarks.fanout import COMMAND, check, fabric_group, ours
from benchmarks.result import Result, in_turn
from benchmarks.sshd import Machines, machines
from operate.cluster import Cluster
from operate.fetch import fetch
from operate.laptop import ROOT
from operate.nodes import Node
from operate.push import push
from operate.shell import Shells
from operate.tree import read_tree

NODES = 64
ROUNDS = 3
FABRIC_GOAL, OPENSSH_GOAL = 3.0, 1.0
_FURTHER = 10
"""Commands in a row: one takes less time than what else this machine does."""
_KEX = "curve25519-sha256"
_RUN = "20261121-093000-lab3"
_LOG = "".join(f"step {step:5d} loss {(step * 7919 % 10007) / 1000:.3f} {step * 31 % 997} ms\n" for step in range(8000))
"""Of each node: 250 kB of text."""


def run() -> list[Result]:
    """Seconds until the last of 64 nodes is done.

    Raises:
        Problem: sshd is not installed.
    """
    with machines(NODES) as made, TemporaryDirectory(prefix="rooflab-bench-", dir=made.folder) as name:
        for node in made.nodes:
            _leave_results(made.home(node))
        here = Path(name)
        with _shells(made) as shells, _fabric(made) as group:
            spent: dict[str, list[float]] = {}
            subjects = {
                name: _counted(act, spent.setdefault(name, []))
                for name, act in _subjects(made, shells, group, here).items()
            }
            before = {name: lambda: _forget(made, here) for name in subjects}
            samples = in_turn(subjects, rounds=ROUNDS, warmup=1, before=before)
    warm = {name: tuple(each[1:]) for name, each in spent.items()}
    return [*_rows(samples), *_rows(warm, ": the client's CPU")]


def _subjects(made: Machines, shells: Shells, group: ThreadingGroup, here: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by "what by whom"."""
    nodes = made.nodes
    return {
        "first by ours": lambda: _first(made),
        "first by Fabric": lambda: _first_by_fabric(made),
        "first by OpenSSH": lambda: check(_ssh(made, COMMAND), nodes),
        "next by ours": lambda: _further(lambda: ours(shells), nodes),
        "next by Fabric": lambda: _further(lambda: _said(group), nodes),
        "push by ours": lambda: _push(shells, made),
        "push by Fabric": lambda: _push_by_fabric(made, group, here),
        "push by OpenSSH": lambda: _push_by_openssh(made, here),
        "push by nobody": lambda: _unpack_here(made, here),
        "gather by ours": lambda: _gather(made, shells, here / "ours"),
        "gather by Fabric": lambda: _gather_by_fabric(made, group, here / "fabric"),
        "gather by OpenSSH": lambda: _unpack(made, _ssh(made, _PACK), here / "openssh"),
    }


def _counted(act: Callable[[], object], spent: list[float]) -> Callable[[], None]:
    """`act`, which also notes the CPU that the client spent on it."""

    def counted() -> None:
        began = _client_s()
        act()
        spent.append(_client_s() - began)

    return counted


def _client_s() -> float:
    """CPU seconds of this process and of those that it has waited for, which the sshd's are not."""
    taken = os.times()
    return taken.user + taken.system + taken.children_user + taken.children_system


def _rows(samples: dict[str, tuple[float, ...]], of: str = "") -> Iterator[Result]:
    """The goals are for the time on the wall; `of` says what else was counted."""
    whole = {
        "first": f"first command on {NODES} nodes, connections opened",
        "next": f"{_FURTHER} further commands on {NODES} nodes",
        "push": f"push of the tree to {NODES} nodes",
        "gather": f"gather the results of {NODES} nodes",
    }
    for what, name in whole.items():
        theirs = samples.get(f"{what} by OpenSSH")
        theirs = theirs or tuple(_FURTHER * each for each in samples["first by OpenSSH"])  # which opens them each time
        mine = samples[f"{what} by ours"]
        goals = (None, None) if of else (FABRIC_GOAL, OPENSSH_GOAL)
        yield Result(name=name + of, samples_s=mine, peer="Fabric's ThreadingGroup",
                     peer_samples_s=samples[f"{what} by Fabric"], faster=True, goal=goals[0])  # fmt: skip
        yield Result(name=name + of, samples_s=mine, peer="parallel OpenSSH", peer_samples_s=theirs, faster=True,
                     goal=goals[1])  # fmt: skip
        if what == "push" and not of:
            yield Result(name=name + of, samples_s=mine, peer=f"{NODES} times tar alone, no SSH",
                         peer_samples_s=samples["push by nobody"])  # fmt: skip


@contextmanager
def _shells(made: Machines) -> Iterator[Shells]:
    with Shells({node.name: made.shell(node) for node in made.nodes}) as shells:
        yield shells


@contextmanager
def _fabric(made: Machines) -> Iterator[ThreadingGroup]:
    with fabric_group(made, made.nodes) as group:
        yield group


def _first(made: Machines) -> None:
    with _shells(made) as shells:
        check(ours(shells), made.nodes)


def _first_by_fabric(made: Machines) -> None:
    with _fabric(made) as group:
        check(_said(group), made.nodes)


def _further(ask: Callable[[], list[str]], nodes: tuple[Node, ...]) -> None:
    for _ in range(_FURTHER):
        check(ask(), nodes)


def _said(group: ThreadingGroup) -> list[str]:
    return [said.stdout for said in group.run(COMMAND, hide=True).values()]


def _ssh(made: Machines, command: str, *, stdin: bytes = b"") -> list[bytes]:
    """`command` by an ssh process a node, all at once; what each wrote, in order of nodes."""
    with TemporaryDirectory() as name:
        given = Path(name) / "stdin"
        given.write_bytes(stdin)
        running = [_ssh_process(made, node, command, given, Path(name) / node.name) for node in made.nodes]
        codes = [process.wait() for process in running]
        assert not any(codes), codes
        return [(Path(name) / node.name).read_bytes() for node in made.nodes]


def _ssh_process(made: Machines, node: Node, command: str, given: Path, out: Path) -> "subprocess.Popen[bytes]":
    options = ("-o", "ControlMaster=no", "-o", f"KexAlgorithms={_KEX}")
    words = [*made.ssh(node), *options, f"{node.user}@{node.address}", f"cd && {command}"]
    with given.open("rb") as stdin, out.open("wb") as stdout:
        return subprocess.Popen(words, stdin=stdin, stdout=stdout)


def _push(shells: Shells, made: Machines) -> None:
    pushed = push(shells, read_tree(ROOT))
    assert len(pushed.sent) == len(made.nodes)
    assert all((made.home(node) / "rooflab" / "app.py").exists() for node in made.nodes)


def _forget(made: Machines, here: Path) -> None:
    """Take away what an earlier push and gather left."""
    for node in made.nodes:
        home = made.home(node)
        (home / "rooflab").unlink(missing_ok=True)
        for folder in (home / ".rooflab", home / "tree"):
            shutil.rmtree(folder, ignore_errors=True)
    for folder in here.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)


def _archive(here: Path) -> Path:
    """`git ls-files | tar cz`, as one would write it."""
    path = here / "tree.tgz"
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout
    present = b"\0".join(name for name in listed.split(b"\0") if name and (ROOT / name.decode()).exists())
    pack = ["tar", "--null", "-C", str(ROOT), "-czf", str(path), "-T", "-"]
    subprocess.run(pack, input=present, check=True)
    return path


def _unpack_here(made: Machines, here: Path) -> None:
    """The part of a push that is the nodes' own: on one machine they share its cores."""
    archive = str(_archive(here))
    for node in made.nodes:
        (made.home(node) / "tree").mkdir()
    unpack = [["tar", "xzf", archive, "-C", str(made.home(node) / "tree")] for node in made.nodes]
    codes = [process.wait() for process in [subprocess.Popen(words) for words in unpack]]
    assert not any(codes), codes


def _push_by_fabric(made: Machines, group: ThreadingGroup, here: Path) -> None:
    group.put(str(_archive(here)), remote="tree.tgz")
    group.run("cd && mkdir -p tree && tar xzf tree.tgz -C tree", hide=True)
    _check_trees(made)


def _push_by_openssh(made: Machines, here: Path) -> None:
    _ssh(made, "mkdir -p tree && tar xzf - -C tree", stdin=_archive(here).read_bytes())
    _check_trees(made)


def _check_trees(made: Machines) -> None:
    assert all((made.home(node) / "tree" / "app.py").exists() for node in made.nodes)


def _leave_results(home: Path) -> None:
    """A run as it lies on a node: a record, a log, its codes."""
    folder = home / "rooflab-runs" / _RUN
    (folder / "logs").mkdir(parents=True)
    (folder / "records").mkdir()
    (folder / "codes").write_text("hello 0 1\n")
    (folder / "records" / f"hello.{home.parent.name}.json").write_text("{}\n")
    (folder / "logs" / "hello.log").write_text(_LOG)


_PACK = f"tar czf - -C rooflab-runs/{_RUN} records logs codes"


def _gather(made: Machines, shells: Shells, to: Path) -> None:
    cluster = Cluster(label="bench", target="hosts:", nodes=made.nodes, shells=shells)
    fetched = fetch(cluster, _RUN, to)
    assert not fetched.missed, fetched.missed
    assert all((to / "logs" / node.name / "hello.log").read_text() == _LOG for node in made.nodes)


def _gather_by_fabric(made: Machines, group: ThreadingGroup, to: Path) -> None:
    to.mkdir(exist_ok=True)
    group.run(f"cd && {_PACK.replace(' - ', ' results.tgz ', 1)}", hide=True)
    group.get("results.tgz", local=f"{to}/{{port}}.tgz")
    _unpack(made, [(to / f"{node.port}.tgz").read_bytes() for node in made.nodes], to)


def _unpack(made: Machines, archives: list[bytes], to: Path) -> None:
    for node, archive in zip(made.nodes, archives, strict=True):
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(to / node.name, filter="data")
        assert (to / node.name / "logs" / "hello.log").read_text() == _LOG
