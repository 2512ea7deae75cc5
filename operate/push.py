"""Bring the tracked tree to every node: one archive each, in parallel; one short command where it is there already."""

from dataclasses import dataclass
from shlex import quote

from operate.problem import Problem
from operate.shell import Outcome, Results, Shells, demand
from operate.tree import Tree

_TREES = "~/.rooflab/trees"
_KEPT = 8
_UNPACKED_S = 300


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push did."""

    sent: tuple[str, ...]
    """Names of the nodes that got the archive; the others had it."""
    bytes: int
    """Size of the archive; 0 where no node needed it."""


def push(shells: Shells, tree: Tree) -> Pushed:
    """Make ~/rooflab on every node the tree; the switch from an earlier one is atomic, runs under way keep theirs.

    Raises:
        Problem: naming each node that failed.
    """
    asked = shells.each(switch_command(tree.digest))
    missing = tuple(name for name, result in asked.items() if isinstance(result, Outcome) and result.text == "missing")
    results: Results = dict(asked)
    if missing:
        archive = tree.archive
        results |= shells.each(unpack_command(tree.digest), stdin=archive, timeout_s=_UNPACKED_S, among=missing)
    for name, result in results.items():
        if isinstance(result, Outcome) and result.said == "in the way":
            raise Problem(
                f"~/rooflab on {name} is a folder of someone else's", "move it away: mv ~/rooflab ~/rooflab.mine"
            )
    demand(results, "take the tree", "is its disk full? fab ssh, then df -h")
    return Pushed(sent=missing, bytes=len(tree.archive) if missing else 0)


def switch_command(digest: str) -> str:
    """Point ~/rooflab at the tree `digest`, or answer "missing"."""
    tree = f"{_TREES}/{quote(digest)}"
    return (
        f"[ -d {tree} ] || {{ echo missing; exit 0; }}\n"
        "{ [ -e ~/rooflab ] && [ ! -L ~/rooflab ]; } && { echo 'in the way' >&2; exit 1; }\n"
        f'[ "$(readlink ~/rooflab)" = {tree} ] && exit 0\n'
        # rename is atomic; GNU's and BSD's mv each have their own word for "do not follow the link"
        f"ln -sfn {tree} ~/.rooflab/tree.$$ && {{ mv -Tf ~/.rooflab/tree.$$ ~/rooflab 2>/dev/null"
        " || mv -hf ~/.rooflab/tree.$$ ~/rooflab; }"
    )


def unpack_command(digest: str) -> str:
    """Unpack the archive on stdin as tree `digest`, forget the oldest trees, and switch to it."""
    tree = f"{_TREES}/{quote(digest)}"
    return (
        f"set -e; partial={tree}.partial.$$; mkdir -p $partial\n"
        "tar xzf - -C $partial\n"
        f"rm -rf {tree}; mv $partial {tree}; touch {tree}\n"
        f"ls -dt {_TREES}/* | tail -n +{_KEPT + 1} | xargs rm -rf\n"
        f"set +e\n{switch_command(digest)}"
    )
