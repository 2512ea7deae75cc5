"""Ranks and what they exchanged in pairs -> the bad device, node or link. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from labs.blame import Link, blame, link
from labs.connections import Pair, Report
from labs.findings import Finding, fail

_RANK_DO = (
    "nvidia-smi -q -i {local} -d ECC and dmesg | grep Xid there; fence it off with CUDA_VISIBLE_DEVICES, or stop and "
    "start the instance: it then comes up on other hardware"
)
_DEVICE = {
    "wrong": "a wrong result", "raised": "an error", "hangs": "no answer", "absent": "not there",
}  # fmt: skip


def node_of(rank: str) -> str:
    """The node of a rank such as "node0/1"."""
    return rank.rpartition("/")[0]


def words_of(rank: str) -> str:
    """A rank for a reader: "node0 rank 1"."""
    node, _, local = rank.rpartition("/")
    return f"{node} rank {local}"


def exchanges(reports: Mapping[str, Report], explained: Callable[[str, str], bool]) -> Iterator[Finding]:
    """Bad ranks by themselves, then what their pairs say; `explained` links between nodes need no other cause."""
    bad: set[str] = set()
    for node, report in reports.items():
        for rank in (rank for rank in report.ranks if rank.outcome != "ok"):
            bad.add(f"{node}/{rank.local}")
            cause = "device fault" if rank.device.startswith("CPU") else "GPU fault"
            yield fail(f"{node} rank {rank.local}", f"{cause}: {_DEVICE[rank.outcome]} from "
                       f"{rank.device} alone: {rank.said}", "every collective with it fails or lies",
                       _RANK_DO.format(local=rank.local))  # fmt: skip
    pairs = [
        pair
        for report in reports.values()
        for pair in report.pairs
        if pair.outcome != "absent" and not {pair.first, pair.second} & bad
        and not explained(node_of(pair.first), node_of(pair.second))
    ]  # fmt: skip
    yield from _pairs(pairs)


def _pairs(pairs: Sequence[Pair]) -> Iterator[Finding]:
    failed = {link(pair.first, pair.second): pair for pair in pairs if pair.outcome != "ok"}
    if not failed:
        return
    tried = {link(pair.first, pair.second): pair.outcome == "ok" for pair in pairs}
    whole = blame(tried)
    if whole.everyone:
        yield _finding("all ranks", list(failed.values()), "no pair exchanges data, though packets pass")
        return
    nodes = _between_nodes(tried)
    where = blame(nodes)
    blamed = [(node, [pair for ends, pair in failed.items() if node in _nodes(ends)]) for node in where.vertices]
    for one, other in where.links:
        alone = [end for end in (one, other) if list(_inside(tried, end)) and not any(_inside(tried, end))]
        subject = alone[0] if len(alone) == 1 else f"{one} ↔ {other}"
        blamed.append((subject, [pair for ends, pair in failed.items() if _nodes(ends) in ({one, other}, {subject})]))
    for subject, mine in blamed:
        yield _finding(subject, mine, "none of its pairs across nodes exchanges data")
    taken = {link(pair.first, pair.second) for _, mine in blamed for pair in mine}
    rest = blame({ends: held for ends, held in tried.items() if ends not in taken})
    for rank in rest.vertices:
        mine = [pair for ends, pair in failed.items() if rank in ends]
        yield _finding(words_of(rank), mine, "none of its pairs exchanges data")
    for bad in rest.links:
        yield _finding(" ↔ ".join(map(words_of, bad)), [failed[bad]], "their other pairs do")


def _nodes(ends: Link) -> set[str]:
    """The node or nodes of a pair."""
    return {node_of(rank) for rank in ends}


def _between_nodes(tried: Mapping[Link, bool]) -> dict[Link, bool]:
    """Of each two nodes whether any pair of their ranks held."""
    nodes: dict[Link, bool] = {}
    for (first, second), held in tried.items():
        one, other = node_of(first), node_of(second)
        if one != other:
            nodes[link(one, other)] = nodes.get(link(one, other), False) or held
    return nodes


def _inside(tried: Mapping[Link, bool], node: str) -> Iterator[bool]:
    """Whether each pair within one node held."""
    return (held for ends, held in tried.items() if _nodes(ends) == {node})


def _finding(subject: str, failed: Sequence[Pair], scope: str) -> Finding:
    first = failed[0]
    inside = all(node_of(pair.first) == node_of(pair.second) for pair in failed)
    what = {"wrong": "a wrong sum", "hangs": "no end", "raised": "an error"}.get(first.outcome, first.outcome)
    words = f"{first.first} with {first.second}: {what}: {first.said}; {scope}"
    if any(pair.outcome == "wrong" for pair in failed):
        return fail(subject, f"GPU fault: {words}", "collectives return wrong numbers",
                    "nvidia-smi -q -d ECC and dmesg there; stop and start the instance")  # fmt: skip
    if inside:
        return fail(subject, f"collective: {words}", "ranks of one node cannot hand data to each other",
                    "NCCL_P2P_DISABLE=1 and NCCL_SHM_DISABLE=1 tell which way fails; nvidia-smi topo -m, df /dev/shm",
                    )  # fmt: skip
    return fail(subject, f"collective: {words}", "training across these nodes hangs",
                "ranks meet on any port: the security group has to admit all of them; NCCL_DEBUG=INFO tells which "
                "interface was taken")  # fmt: skip
