"""What has to be the same on all nodes of a cluster and is not: clocks and versions. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping

from labs.blame import blame, link
from labs.connections import Probe, Report
from labs.findings import Finding, fail, warn

SKEW_FAIL_S = 30.0
"""munge refuses credentials that are 300 s old, S3 signatures that are 900 s off; logs are useless long before."""
SKEW_WARN_S = 0.5
STRICT = ("torch", "cuda", "nccl", "libfabric", "commit")
"""Where nodes differ in one of these, ranks may wait for each other for ever; in any other, numbers differ."""
UNCOMPARED = ("clock",)


def clocks(reports: Mapping[str, Report]) -> Iterator[Finding]:
    """Nodes whose clocks are further apart than the exchange that compared them can be wrong."""
    ahead: dict[tuple[str, str], Probe] = {}
    for node, report in reports.items():
        for probe in report.probes:
            if probe.stage == "clock" and probe.outcome == "ok" and probe.value is not None:
                ahead[node, probe.peer] = probe
    for limit_s, level in ((SKEW_FAIL_S, fail), (SKEW_WARN_S, warn)):
        apart = {way for way, probe in ahead.items() if abs(probe.value or 0.0) - probe.bound > limit_s}
        if not apart:
            continue
        bad = {link(*way) for way in apart}
        where = blame({link(*way): link(*way) not in bad for way in ahead})
        subjects = [*where.vertices, *(" ↔ ".join(one) for one in where.links)] or ["all nodes"]
        for subject in subjects:
            node, peer = next(way for way in sorted(apart) if subject == "all nodes" or way[1] == subject
                              or subject in (" ↔ ".join(way), " ↔ ".join(way[::-1])))  # fmt: skip
            probe = ahead[node, peer]
            value = probe.value or 0.0
            words = f"{peer}'s is {abs(value):.1f} s {'ahead of' if value > 0 else 'behind'} {node}'s"
            free = [name for name in (node, peer) if name in reports and reports[name].facts.get("clock") == "free"]
            words += f", ±{probe.bound * 1e3:.1f} ms"
            words += f"; {' and '.join(free)} without a time server" if free else ""
            yield level(subject, f"clock skew: {words}", "Slurm's munge and AWS refuse what comes from another time, "
                        "and logs have no order", "chronyc tracking, then sudo systemctl restart chrony")  # fmt: skip
        return


def versions(reports: Mapping[str, Report]) -> Iterator[Finding]:
    """What differs between nodes, and on which of them."""
    names = sorted({name for report in reports.values() for name in report.facts if name not in UNCOMPARED})
    for name in names:
        told = {node: report.facts.get(name, "none") for node, report in sorted(reports.items())}
        values = Counter(told.values())
        if len(values) == 1:
            continue
        common, times = values.most_common(1)[0]
        level = fail if name in STRICT else warn
        cause = "MTU" if name == "mtu" else "version mismatch"
        means = ("large packets from one are lost at the other" if name == "mtu" else
                 "ranks may wait for each other for ever, or disagree" if name in STRICT else
                 "nodes may differ in speed and in what they support")  # fmt: skip
        do = ("set one MTU on all nodes: ip link set dev NAME mtu SIZE" if name == "mtu" else
              "push the same tree to all: run it again through fab" if name == "commit" else
              f"install one {name} on all nodes, as userdata/python.sh pins it")  # fmt: skip
        if times * 2 > len(told):
            for node, value in told.items():
                if value != common:
                    yield level(node, f"{cause}: {name} {value}, {common} on the other nodes", means, do)
        else:
            listed = ", ".join(f"{node} {value}" for node, value in told.items())
            yield level(" ↔ ".join(told) if len(told) == 2 else "all nodes", f"{cause}: {name}: {listed}", means, do)
