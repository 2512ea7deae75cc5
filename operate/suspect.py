"""Which rank is to blame for a job that hung or failed, inferred from what all ranks left. Pure functions.

The order of the questions: does a rank call another collective than its peers; did one die; which raised first; which
never came to where the others wait; which stands outside of any collective.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from operate.statements import Call, Statement

_FOLLOWS = re.compile(
    r"connection (closed|reset|refused|aborted)|closed by peer|socket timeout|broken pipe|remote error|"
    r"process group watchdog|watchdog caught collective|ncclRemoteError|ncclInProgress|aborted communicator|"
    r"timed out waiting|DistStoreError|DistNetworkError|keepalive",
    re.IGNORECASE,
)
"""What a rank says whose peer has gone: it follows from another's end."""
_UNLIKE = re.compile(r"all_?to_?all|gather|scatter|send|recv|coalesced", re.IGNORECASE)
"""Collectives whose ranks may well pass different sizes."""
_LIKE = re.compile(r"all_?gather|reduce_?scatter", re.IGNORECASE)
"""Those of them whose ranks all pass the same."""
_MOST = 4
OUT_OF_MEMORY = "its node's memory may have run out: fab ssh, then sudo dmesg | tail"
"""Remedy for a rank that was killed."""
ALIKE = "all ranks must call the same collectives in the same order, with the same shapes and types"
"""Remedy for ranks that do not agree."""


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """Who, and why."""

    ranks: tuple[int, ...]
    """Empty: nobody stands out."""
    cause: str
    """For example "rank 3 on node1 never joined all_reduce #41 (train.py:88 in step: time.sleep(100))"."""
    remedy: str


def suspect(told: Sequence[Statement], *, hung: bool, world: int = 0) -> Suspicion | None:
    """Who is to blame; None where nothing shows it. `world`: ranks that there should be, 0 where unknown."""
    if not hung:
        return mismatch(told) or raised(told)
    return mismatch(told) or _dead(told, world) or raised(told) or _behind(told) or _outside(told) or _together(told)


def mismatch(told: Sequence[Statement]) -> Suspicion | None:
    """The first collective at which a group's ranks do not agree."""
    calls: dict[tuple[str, tuple[int, ...], int], dict[int, Call]] = {}
    for one in told:
        for call in one.calls:
            calls.setdefault((*_group(one, call), call.number), {})[one.rank] = call
    for key in sorted(calls):
        by_rank = calls[key]
        kinds = Counter(_kind(call) for call in by_rank.values())
        if len(kinds) < 2:
            continue
        most = max(kinds.values())
        usual = next(kind for kind in (_kind(by_rank[rank]) for rank in sorted(by_rank)) if kinds[kind] == most)
        odd = tuple(rank for rank in sorted(by_rank) if _kind(by_rank[rank]) != usual)
        other = next(rank for rank in sorted(by_rank) if rank not in odd)
        mine, theirs = by_rank[odd[0]], by_rank[other]
        cause = (f"{named(told, odd)} called {mine.shape} where {named(told, _rest(by_rank, odd))} called "
                 f"{theirs.shape}, as collective #{key[2]} of {_called(key[0])}{at(told, odd[0])}")  # fmt: skip
        return Suspicion(ranks=odd, cause=cause, remedy=ALIKE)
    return None


def _kind(call: Call) -> tuple[object, ...]:
    sizes = () if _UNLIKE.search(call.op) and not _LIKE.search(call.op) else call.sizes
    return (call.op, sizes, call.dtypes)


def _dead(told: Sequence[Statement], world: int) -> Suspicion | None:
    """Ranks that ended without a word while the others waited, or were never there."""
    gone = tuple(one.rank for one in told if not one.alive and not one.error)
    if gone:
        return Suspicion(ranks=gone, cause=f"{named(told, gone)} died without a word while the others waited",
                         remedy=OUT_OF_MEMORY)  # fmt: skip
    never = tuple(rank for rank in range(world if told else 0) if rank not in {one.rank for one in told})
    if never:
        return Suspicion(ranks=never, cause=f"{named(told, never)} never started, or its node's word is lost",
                         remedy="read that node's log; fab nodes shows whether it is there")  # fmt: skip
    return None


def raised(told: Sequence[Statement]) -> Suspicion | None:
    """The first error that does not follow from another rank's end."""
    errors = sorted((one for one in told if one.error), key=lambda one: one.error_s)
    own = [one for one in errors if not _FOLLOWS.search(one.error)]
    if not own:
        return None
    first = own[0]
    said = f"{named(told, [first.rank])} raised {first.error}{at(told, first.rank)}"
    return Suspicion(ranks=(first.rank,), cause=said, remedy="what other ranks say follows from it")


def _behind(told: Sequence[Statement]) -> Suspicion | None:
    """Ranks that never joined a collective in which the others of their group wait."""
    history: dict[tuple[str, tuple[int, ...]], dict[int, tuple[Call, ...]]] = {}
    for one in told:
        for call in one.calls:
            made = history.setdefault(_group(one, call), {})
            made[one.rank] = (*made.get(one.rank, ()), call)
    late: dict[int, Call] = {}
    for (name, members), made in sorted(history.items()):
        whole = members or (tuple(one.rank for one in told) if name in ("", "0") else tuple(made))
        last = {rank: max((call.number for call in made.get(rank, ())), default=0) for rank in whole}
        for rank in (one.rank for one in told if one.rank in last):
            missed = [call for calls in made.values() for call in calls if call.number > last[rank]]
            if missed:
                late.setdefault(rank, min(missed, key=lambda call: call.number))
    if not late:
        return None
    # Who waits for somebody else, in another group, is late through no fault of its own.
    free = {one.rank for one in told if not one.waits}
    chosen = tuple(rank for rank in sorted(late) if rank in free) or tuple(sorted(late))
    return Suspicion(
        ranks=chosen, cause=f"{named(told, chosen)} never joined {late[chosen[0]]}{at(told, chosen[0])}",
        remedy="that is where it stands; the others wait for it",
    )  # fmt: skip


def _group(one: Statement, call: Call) -> tuple[str, tuple[int, ...]]:
    """Name and ranks of a call's group: groups of other ranks may have the same name."""
    return call.group, one.members.get(call.group, ())


def _outside(told: Sequence[Statement]) -> Suspicion | None:
    """Without flight recorders: ranks whose stacks stand outside of torch.distributed while others' stand in it."""
    spoke = [one for one in told if one.stack]
    outside = tuple(one.rank for one in spoke if not one.communicates and not one.waits)
    if not outside or len(outside) == len(spoke):
        silent = tuple(one.rank for one in told if not one.stack)
        if silent and len(silent) < len(told):
            return Suspicion(ranks=silent, cause=f"{named(told, silent)} could not be asked, all others wait",
                             remedy="its stack is in the archive if faulthandler or py-spy came through")  # fmt: skip
        return None
    return Suspicion(
        ranks=outside, cause=f"{named(told, outside)} stands outside of any collective{at(told, outside[0])}",
        remedy="that is where it stands; the others wait for it",
    )  # fmt: skip


def _together(told: Sequence[Statement]) -> Suspicion | None:
    """Nobody stands out."""
    waiting = [one for one in told if one.waits]
    if told and len(waiting) == len(told):
        return Suspicion(ranks=(), cause=f"all ranks joined {waiting[0].waits[0]} and it does not end",
                         remedy="suspect the links between the nodes: fab doctor")  # fmt: skip
    places = sorted({one.where for one in told if one.where})
    if not places:
        return None
    return Suspicion(ranks=(), cause=f"no rank did anything: {'; '.join(places[:2])}",
                     remedy="if it may be silent for longer, give it --hang-s")  # fmt: skip


def _called(name: str) -> str:
    return "the default group" if name in ("", "0", "default_pg") else f"group {name}"


def _rest(by_rank: Iterable[int], odd: Sequence[int]) -> tuple[int, ...]:
    return tuple(rank for rank in sorted(by_rank) if rank not in odd)


def at(told: Sequence[Statement], rank: int) -> str:
    where = next((one.where for one in told if one.rank == rank), "")
    return f" ({where})" if where else ""


def named(told: Sequence[Statement], ranks: Sequence[int]) -> str:
    """For example "rank 3 on node1", "ranks 2, 3 on node1", "ranks 0, 4 on node0, node1"."""
    nodes = list(dict.fromkeys(one.node for one in told if one.rank in ranks and one.node))
    shown = [str(rank) for rank in ranks[:_MOST]] + ([f"{len(ranks) - _MOST} more"] if len(ranks) > _MOST else [])
    said = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(shown)}"
    return f"{said} on {', '.join(nodes[:_MOST])}" if nodes else said
