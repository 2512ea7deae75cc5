"""The reports of all nodes side by side -> the named culprit, the likely cause and the remedy. Pure.

What is explained is not named again: a node that nobody reaches has failed at everything that comes after. So the
stages are judged in their order, each without the nodes and links that an earlier one has blamed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from labs.blame import Link, blame, link
from labs.connections import Outcome, Probe, Report, Stage
from labs.disagreements import clocks, versions
from labs.exchanges import exchanges
from labs.findings import Finding, fail, ok, warn

Reports = Mapping[str, Report]
_UNREACHED: tuple[Outcome, ...] = ("filtered", "silent", "unroutable")
EVERYONE = "all nodes"


@dataclass(kw_only=True)
class Explained:
    """What has been blamed so far."""

    nodes: set[str] = field(default_factory=set)
    links: set[Link] = field(default_factory=set)

    def covers(self, one: str, other: str) -> bool:
        """Whether nothing between these two needs another explanation."""
        return bool({one, other} & self.nodes) or link(one, other) in self.links


def judge(nodes: Sequence[str], reports: Reports) -> tuple[Finding, ...]:
    """What is wrong between `nodes`, one finding for each culprit; else that all is well.

    Reports may be missing: those of nodes that are lost, or that the judging node cannot reach.
    """
    known = Explained()
    found = list(_own(reports, known))
    for step in (_names, _absent, _unreached, _strange, _silenced):
        found += step(nodes, reports, known)
    found += clocks(reports)
    differing = list(versions(reports))
    found += [*differing, *_bursts(reports, known), *_addresses(reports, known)]
    mixed = any(one.level == "fail" for one in differing)  # then ranks of two nodes may well not understand each other
    found += exchanges(reports, lambda one, other: known.covers(one, other) or (mixed and one != other))
    found += _unfinished(reports, known) if not any(one.level == "fail" for one in found) else ()
    return tuple(found) if any(one.level == "fail" for one in found) else (*found, _all_well(nodes, reports))


def _own(reports: Reports, known: Explained) -> Iterator[Finding]:
    for node, report in reports.items():
        yield from report.own
        if any(one.level == "fail" for one in report.own):
            known.nodes.add(node)


def _probes(reports: Reports, stage: Stage) -> Iterator[tuple[str, Probe]]:
    """Each probe of a stage, after the node that made it."""
    for node, report in reports.items():
        yield from ((node, probe) for probe in report.probes if probe.stage == stage)


def _names(nodes: Sequence[str], reports: Reports, known: Explained) -> Iterator[Finding]:
    for node, probe in _probes(reports, "name"):
        if probe.outcome != "ok":
            known.links.add(link(node, probe.peer))
            yield fail(node, f"name: it cannot resolve {probe.peer}'s: {probe.said}", "no rank of it finds its peers",
                       "give addresses instead of names, or add the name to /etc/hosts")  # fmt: skip


def _absent(nodes: Sequence[str], reports: Reports, known: Explained) -> Iterator[Finding]:
    """Nodes that are there, with no doctor on them."""
    for node in (node for node in nodes if node not in reports):
        seen = [probe for _, probe in _probes(reports, "connect") if probe.peer == node]
        if seen and all(probe.outcome == "refused" for probe in seen):
            known.nodes.add(node)
            yield fail(node, f"not running: it answers, and its doctor does not listen ({seen[0].said})",
                       "its part of a run did not start, or has ended", _logs(node))  # fmt: skip


def _logs(node: str) -> str:
    return f"fab logs --node {node} tells why; free -g and dmesg there, whether it was killed"


def _unreached(nodes: Sequence[str], reports: Reports, known: Explained) -> Iterator[Finding]:
    told = {(node, probe.peer): probe for node, probe in _probes(reports, "connect")
            if not known.covers(node, probe.peer)}  # fmt: skip
    failures = {way: probe for way, probe in told.items() if probe.outcome in _UNREACHED}
    where = blame(_held(told, failures))
    if where.everyone:
        known.links |= {link(*way) for way in failures}
        yield _closed(EVERYONE, list(failures.values()), "none reaches another")
    for node in where.vertices:
        known.nodes.add(node)
        into = all(way[1] == node for way in failures if node in way)
        out = all(way[0] == node for way in failures if node in way)
        alone = "no node reaches it" if into else "it reaches no node" if out else "no node reaches it, nor it another"
        yield _closed(node, [probe for way, probe in failures.items() if node in way], alone)
    for one, other in where.links:
        known.links.add(link(one, other))
        ways = [way for way in ((one, other), (other, one)) if way in failures]
        arrow = f"{one} ↔ {other}" if len(ways) > 1 else " → ".join(ways[0])
        lost = [way for way in ways if failures[way].outcome == "unroutable"]
        if len(ways) == 2 and len(lost) == 1:  # the other's packets arrive, and the answers find no way back
            yield _closed(lost[0][0], [failures[lost[0]]], f"{lost[0][1]} has no answer from it either")
            continue
        back = told.get(ways[0][::-1])
        alone = "the other way is open" if back is not None and back.outcome == "ok" else ""
        yield _closed(arrow, [failures[way] for way in ways], alone)


def _closed(subject: str, failures: Sequence[Probe], alone: str) -> Finding:
    """No way for packets."""
    first = failures[0]
    words = f"{first.said}{f'; {alone}' if alone else ''}"
    if all(probe.outcome == "unroutable" for probe in failures):
        return fail(subject, f"no route: {words}", "no rank reaches its peers",
                    "ip route get ADDRESS there; nodes of one lab stand in one subnet")  # fmt: skip
    if all(probe.outcome == "silent" for probe in failures) and alone != "the other way is open":
        return fail(subject, f"security group, or the machine is down: {words}", "packets are dropped on their way",
                    "fab nodes tells whether it runs; else let its security group admit all traffic from itself, in "
                    "and out")  # fmt: skip
    return fail(subject, f"security group: {words}", "packets are dropped on their way",
                "let the group of the nodes admit all traffic from itself, inbound and outbound (fab up makes it so); "
                "then look at iptables -L there")  # fmt: skip


def _held(told: Iterable[tuple[str, str]], failures: Iterable[tuple[str, str]]) -> dict[Link, bool]:
    """Of each link that was tried either way whether neither way failed."""
    bad = {link(*way) for way in failures}
    return {link(*way): link(*way) not in bad for way in told}


def _strange(nodes: Sequence[str], reports: Reports, known: Explained) -> Iterator[Finding]:
    """What is left of the connections: a firewall that says no, another's process, a connection that ends."""
    for node, probe in _probes(reports, "connect"):
        if probe.outcome == "ok" or known.covers(node, probe.peer):
            continue
        known.links.add(link(node, probe.peer))
        arrow = f"{node} → {probe.peer}"
        if probe.outcome == "stranger":
            yield fail(arrow, f"wrong address: {probe.said}", "ranks would meet another machine or another run",
                       "fab nodes tells each node's address; fab stop ends what still runs there")  # fmt: skip
        elif probe.outcome == "refused":
            yield fail(arrow, f"firewall: {probe.said}, though its doctor runs", "connections are rejected",
                       f"iptables -L and nft list ruleset on {probe.peer}")  # fmt: skip
        else:
            yield fail(arrow, f"connection: {probe.said}", "what ranks send is lost", _logs(probe.peer))


def _silenced(nodes: Sequence[str], reports: Reports, known: Explained) -> Iterator[Finding]:
    """Nodes that were reached and sent no report."""
    for node in (node for node in nodes if node not in reports and node not in known.nodes):
        seen = [probe for _, probe in _probes(reports, "connect") if probe.peer == node]
        if all(known.covers(by, node) for by in reports) and seen:
            continue  # its links are what is named
        known.nodes.add(node)
        words = (
            "its doctor answered and then ended" if any(probe.outcome == "ok" for probe in seen) else "no word of it"
        )
        yield fail(node, f"not running: {words}, and left no report", "its part of a run ended early", _logs(node))


def _bursts(reports: Reports, known: Explained) -> Iterator[Finding]:
    told = {
        (node, probe.peer): probe for node, probe in _probes(reports, "burst") if not known.covers(node, probe.peer)
    }
    failures = {way: probe for way, probe in told.items() if probe.outcome != "ok"}
    where = blame(_held(told, failures))
    subjects = {EVERYONE: list(failures.values())} if where.everyone else {}
    subjects |= {node: [probe for way, probe in failures.items() if node in way] for node in where.vertices}
    for one, other in where.links:
        ways = [way for way in ((one, other), (other, one)) if way in failures]
        arrow = f"{one} ↔ {other}" if len(ways) > 1 else " → ".join(ways[0])
        subjects[arrow] = [failures[way] for way in ways]
    known.nodes |= set(where.vertices)
    known.links |= {link(*way) for way in failures}
    for subject, several in subjects.items():
        first = several[0]
        if any(probe.outcome == "stalled" for probe in several):
            sizes = {node: report.facts["mtu"] for node, report in reports.items() if "mtu" in report.facts}
            told_mtu = ", ".join(f"{node} {mtu}" for node, mtu in sorted(sizes.items()))
            yield fail(subject, f"MTU: {first.said}; interfaces say {told_mtu or 'nothing'}",
                       "packets above some size are lost without a word, and every tensor is",
                       "set one MTU on all nodes (ip link set dev NAME mtu 1500 to try); admit ICMP type 3 code 4, "
                       "which tells a sender what fits")  # fmt: skip
        elif any(probe.outcome == "slow" for probe in several):
            yield fail(subject, f"slow link: {first.said}", "ranks wait for the network, not for each other",
                       "tc qdisc show and ethtool NAME there; another process may fill the link")  # fmt: skip
        else:
            yield fail(subject, f"connection: {first.said}", "large messages do not arrive", _logs(first.peer))


def _addresses(reports: Reports, known: Explained) -> Iterator[Finding]:
    """The address that a node's collectives announce, as its peers see it."""
    told = [(node, probe) for node, probe in _probes(reports, "address") if not known.covers(node, probe.peer)]
    for peer in sorted({probe.peer for _, probe in told}):
        mine = [(node, probe) for node, probe in told if probe.peer == peer]
        failed = [(node, probe) for node, probe in mine if probe.outcome != "ok"]
        if not failed:
            continue
        known.nodes.add(peer)
        who = "no peer reaches it there" if len(failed) == len(mine) else f"{', '.join(n for n, _ in failed)} cannot"
        yield fail(peer, f"wrong interface: {failed[0][1].said}; {who}", "ranks that are given that address hang",
                   "export GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME with the interface that "
                   f"`ip route get {reports[failed[0][0]].address}` names on {peer}")  # fmt: skip


def _unfinished(reports: Reports, known: Explained) -> Iterator[Finding]:
    for node, report in reports.items():
        if report.left:
            yield fail(node, f"too slow: {report.left[0]}", "it may hang, or share its processors with too much",
                       "uptime there; give the doctor longer with --limit")  # fmt: skip
        elif report.unmet:
            yield warn(node, f"too slow: {report.unmet} pairs of ranks were not tried, for their time was over",
                       "a bad link may be among them", "uptime there; is its network slow?")  # fmt: skip


def _all_well(nodes: Sequence[str], reports: Reports) -> Finding:
    ranks = sum(len(report.ranks) for report in reports.values())
    pairs = [pair for report in reports.values() for pair in report.pairs]
    links = len(list(combinations(nodes, 2)))
    words = f"{len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}, {links} {'link' if links == 1 else 'links'}"
    words += f" each way, {ranks} ranks, {len(pairs)} pairs"
    latencies = [pair.latency_s for pair in pairs if pair.latency_s is not None]
    if latencies:
        words += f", slowest pair {max(latencies) * 1e6:.0f} µs"
    return ok("cluster", words)
