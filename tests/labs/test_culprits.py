"""From what every node saw to one named culprit: matrices of outcomes, each with what is to be said of it."""

from dataclasses import replace
from itertools import combinations, permutations

import pytest

from labs.blame import Blame, Link, blame, link
from labs.connections import Health, Outcome, Pair, Probe, Rank, Report, Stage, load, read_report
from labs.culprits import judge
from labs.findings import Finding, fail


def tried(vertices: str, bad: str) -> dict[Link, bool]:
    """Every two of `vertices`, of which the links in `bad` ("ab cd") failed."""
    failed = {link(*pair) for pair in bad.split()}
    return {link(*pair): link(*pair) not in failed for pair in combinations(vertices, 2)}


@pytest.mark.parametrize(
    ("vertices", "bad", "wanted"),
    [
        ("ab", "", Blame()),
        ("ab", "ab", Blame(links=(Link("a", "b"),))),
        ("abc", "ab", Blame(links=(Link("a", "b"),))),
        ("abc", "ac bc", Blame(vertices=("c",))),
        ("abc", "ab bc ac", Blame(everyone=True)),
        ("abcd", "ad bd cd", Blame(vertices=("d",))),
        ("abcd", "ac ad bc bd cd", Blame(vertices=("c", "d"))),
        ("abcd", "ad bd cd ab", Blame(vertices=("d",), links=(Link("a", "b"),))),
        ("abcd", "ad bd", Blame(links=(Link("a", "d"), Link("b", "d")))),
        ("abcd", "ac ad bc bd", Blame(links=(Link("a", "c"), Link("a", "d"), Link("b", "c"), Link("b", "d")))),
        ("abcd", "ab ac ad bc bd cd", Blame(everyone=True)),
        ("abcde", "ae be ce de ac", Blame(vertices=("e",), links=(Link("a", "c"),))),
    ],
)
def test_the_smallest_explanation_is_blamed(vertices: str, bad: str, wanted: Blame) -> None:
    assert blame(tried(vertices, bad)) == wanted


def test_a_star_whose_arms_all_fail_has_one_bad_centre() -> None:
    assert blame({link("a", "b"): False, link("a", "c"): False, link("a", "d"): False}) == Blame(vertices=("a",))


def test_of_two_ends_the_one_that_is_fit_elsewhere_is_not_blamed() -> None:
    assert blame({link("a", "b"): True, link("b", "c"): False}) == Blame(vertices=("c",))
    assert blame({link("a", "b"): True, link("b", "c"): False, link("c", "d"): True}) == Blame(links=(Link("b", "c"),))


def probe(peer: str, stage: Stage, outcome: Outcome = "ok", value: float | None = None, said: str = "") -> Probe:
    return Probe(peer=peer, stage=stage, outcome=outcome, value=value, said=said or ("" if outcome == "ok" else "why"))


def cluster(count: int, **broken: tuple[Stage, Outcome]) -> dict[str, Report]:
    """Reports of nodes that all are well, but for the ways in `broken`, as a0_1=("connect", "silent"): 0 to 1."""
    names = [f"node{index}" for index in range(count)]
    every = [f"{name}/{local}" for name in names for local in range(2)]
    reports = {}
    for index, name in enumerate(names):
        probes: list[Probe] = []
        for other, peer in enumerate(names):
            if other == index:
                continue
            for stage in ("name", "connect", "clock", "burst", "address"):
                bad = broken.get(f"a{index}_{other}")
                if bad and bad[0] == stage:
                    probes.append(probe(peer, stage, bad[1]))
                    break
                probes.append(probe(peer, stage, value=0.001 if stage in ("connect", "clock") else 1e9))
        pairs = tuple(
            Pair(first=one, second=other, outcome="ok", latency_s=1e-4, bytes_per_s=1e9)
            for one, other in combinations(every, 2)
            if one.startswith(f"{name}/")
        )
        healthy = tuple(Rank(local=local, device="NVIDIA L4", outcome="ok") for local in range(2))
        reports[name] = Report(node=name, address=f"10.0.0.{index}", facts={"torch": "2.13.0", "mtu": "9001"},
                               probes=tuple(probes), ranks=healthy, pairs=pairs)  # fmt: skip
    return reports


def failing(reports: dict[str, Report], *pairs: str, outcome: Health = "hangs") -> dict[str, Report]:
    """The same with these pairs of ranks ("0/1 1/0") failing."""
    bad = {frozenset(f"node{end}" for end in pair.split()) for pair in pairs}
    return {
        name: replace(report, pairs=tuple(
            replace(pair, outcome=outcome, said="late") if {pair.first, pair.second} in bad else pair
            for pair in report.pairs))
        for name, report in reports.items()
    }  # fmt: skip


def said(reports: dict[str, Report], count: int) -> list[tuple[str, str]]:
    """Culprit and cause of each failure, as nodes put side by side tell it."""
    found = judge([f"node{index}" for index in range(count)], reports)
    return [(one.subject, one.seen.split(":")[0]) for one in found if one.level == "fail"]


def ways(kind: tuple[Stage, Outcome], *arrows: str) -> dict[str, tuple[Stage, Outcome]]:
    return {f"a{arrow}": kind for arrow in arrows}


SILENT: tuple[Stage, Outcome] = ("connect", "silent")
FILTERED: tuple[Stage, Outcome] = ("connect", "filtered")
CUT = "security group, or the machine is down"


@pytest.mark.parametrize(
    ("count", "broken", "wanted"),
    [
        (2, {}, []),
        (2, ways(SILENT, "0_1", "1_0"), [("node0 ↔ node1", CUT)]),
        (2, ways(FILTERED, "0_1"), [("node0 → node1", "security group")]),
        (3, ways(FILTERED, "0_2", "1_2"), [("node2", "security group")]),
        (3, ways(SILENT, "2_0", "2_1"), [("node2", CUT)]),
        (3, ways(SILENT, "0_1", "0_2", "1_0", "1_2", "2_0", "2_1"), [("all nodes", CUT)]),
        (4, ways(FILTERED, "1_2", "2_1"), [("node1 ↔ node2", "security group")]),
        (2, ways(("connect", "unroutable"), "0_1", "1_0"), [("node0 ↔ node1", "no route")]),
        (2, {**ways(SILENT, "0_1"), **ways(("connect", "unroutable"), "1_0")}, [("node1", "no route")]),
        (2, {**ways(SILENT, "0_1"), **ways(("connect", "broken"), "1_0")}, [("node0 → node1", CUT)]),
        (2, ways(("connect", "refused"), "0_1"), [("node0 → node1", "firewall")]),
        (2, ways(("connect", "stranger"), "0_1"), [("node0 → node1", "wrong address")]),
        (2, ways(("connect", "broken"), "1_0"), [("node1 → node0", "connection")]),
        (2, ways(("name", "unnamed"), "0_1"), [("node0", "name")]),
        (2, ways(("burst", "stalled"), "0_1"), [("node0 → node1", "MTU")]),
        (3, ways(("burst", "stalled"), "0_1", "2_1"), [("node1", "MTU")]),
        (2, ways(("burst", "slow"), "0_1", "1_0"), [("node0 ↔ node1", "slow link")]),
        (2, ways(("address", "refused"), "0_1"), [("node1", "wrong interface")]),
        (3, ways(("address", "stranger"), "0_1", "2_1"), [("node1", "wrong interface")]),
    ],
)
def test_a_network_s_fault_is_named_once_with_its_cause(count, broken, wanted) -> None:
    assert said(cluster(count, **broken), count) == wanted


def test_what_an_earlier_fault_explains_is_not_named_again() -> None:
    reports = cluster(3, **ways(("burst", "stalled"), "0_2", "1_2", "2_0", "2_1"))
    across = [f"{a}/{i} 2/{j}" for a in (0, 1) for i in range(2) for j in range(2)]
    assert said(failing(reports, *across), 3) == [("node2", "MTU")]


@pytest.mark.parametrize(
    ("count", "pairs", "wanted"),
    [
        (2, ["1/0 1/1", "0/0 1/1", "0/1 1/1"], "node1 rank 1"),
        (2, ["0/0 1/1"], "node0 rank 0 ↔ node1 rank 1"),
        (2, ["0/0 1/0", "0/0 1/1", "0/1 1/0", "0/1 1/1"], "node0 ↔ node1"),
        (2, ["0/0 1/0", "0/0 1/1", "0/1 1/0", "0/1 1/1", "1/0 1/1"], "node1"),
        (2, ["0/0 0/1"], "node0 rank 0 ↔ node0 rank 1"),
        (3, [f"{a}/{i} 2/{j}" for a in (0, 1) for i in range(2) for j in range(2)], "node2"),
        (2, [f"{a} {b}" for a, b in combinations(("0/0", "0/1", "1/0", "1/1"), 2)], "all ranks"),
    ],
)
def test_ranks_that_fail_in_pairs_name_the_rank_the_link_or_the_node(count, pairs, wanted) -> None:
    assert said(failing(cluster(count), *pairs), count) == [(wanted, "collective")]


def test_a_pair_that_sums_wrongly_is_a_faulty_gpu() -> None:
    reports = failing(cluster(2), "0/0 1/1", "0/1 1/1", "1/0 1/1", outcome="wrong")
    assert said(reports, 2) == [("node1 rank 1", "GPU fault")]


def test_a_rank_whose_device_fails_alone_explains_its_pairs() -> None:
    reports = failing(cluster(2), "1/0 1/1")
    bad = Rank(local=1, device="NVIDIA L4", outcome="hangs", said="check did not end within 15 s")
    reports["node1"] = replace(reports["node1"], ranks=(reports["node1"].ranks[0], bad))
    found = judge(["node0", "node1"], reports)
    assert [one.subject for one in found] == ["node1 rank 1"]
    assert found[0].seen == "GPU fault: no answer from NVIDIA L4 alone: check did not end within 15 s"
    assert "nvidia-smi -q -i 1" in found[0].do


def test_a_node_that_is_up_and_runs_no_doctor_is_told_from_one_that_died() -> None:
    reports = cluster(3, **ways(("connect", "refused"), "0_2", "1_2"))
    del reports["node2"]
    assert said(reports, 3) == [("node2", "not running")]
    died = cluster(3)
    del died["node2"]
    found = judge(["node0", "node1", "node2"], died)
    assert [(one.subject, one.seen) for one in found] == [
        ("node2", "not running: its doctor answered and then ended, and left no report")
    ]


def test_a_node_that_nobody_reaches_and_that_told_nothing_is_named_once() -> None:
    reports = cluster(3, **ways(SILENT, "0_2", "1_2"))
    del reports["node2"]
    assert said(reports, 3) == [("node2", CUT)]


def with_offset(reports: dict[str, Report], node: str, ahead_s: float) -> dict[str, Report]:
    """The same with one node's clock moved."""
    moved = {}
    for name, report in reports.items():
        sign = -1.0 if name == node else 1.0
        moved[name] = replace(report, probes=tuple(
            replace(one, value=sign * ahead_s, bound=0.001)
            if one.stage == "clock" and node in (name, one.peer) else one for one in report.probes))  # fmt: skip
    return moved


def test_the_clock_that_differs_from_the_others_is_named() -> None:
    found = judge(["node0", "node1", "node2"], with_offset(cluster(3), "node1", 90.0))
    assert [(one.level, one.subject) for one in found] == [("fail", "node1")]
    assert found[0].seen == "clock skew: node1's is 90.0 s ahead of node0's, ±1.0 ms"


def test_two_clocks_accuse_each_other_unless_one_follows_no_time_server() -> None:
    reports = with_offset(cluster(2), "node1", -45.0)
    assert said(reports, 2) == [("node0 ↔ node1", "clock skew")]
    reports["node1"] = replace(reports["node1"], facts={**reports["node1"].facts, "clock": "free"})
    assert judge(["node0", "node1"], reports)[0].seen.endswith("; node1 without a time server")


def test_a_small_skew_is_a_warning_and_one_within_the_measurement_s_error_is_none() -> None:
    found = judge(["node0", "node1"], with_offset(cluster(2), "node1", 2.0))
    assert [one.level for one in found] == ["warn", "ok"]
    unsure = {
        name: replace(report, probes=tuple(replace(one, bound=3.0) for one in report.probes))
        for name, report in with_offset(cluster(2), "node1", 2.0).items()
    }
    assert [one.level for one in judge(["node0", "node1"], unsure)] == ["ok"]


@pytest.mark.parametrize(
    ("name", "count", "level", "subject", "seen"),
    [
        ("torch", 3, "fail", "node2", "version mismatch: torch 2.9.1, 2.13.0 on the other nodes"),
        ("torch", 2, "fail", "node0 ↔ node1", "version mismatch: torch: node0 2.13.0, node1 2.9.1"),
        ("mtu", 3, "warn", "node2", "MTU: mtu 2.9.1, 9001 on the other nodes"),
        ("driver", 3, "warn", "node2", "version mismatch: driver 2.9.1, none on the other nodes"),
    ],
)
def test_what_differs_between_nodes_is_named_with_its_values(name, count, level, subject, seen) -> None:
    reports = cluster(count)
    last = f"node{count - 1}"
    reports[last] = replace(reports[last], facts={**reports[last].facts, name: "2.9.1"})
    found = judge(list(reports), reports)
    assert [(one.level, one.subject, one.seen) for one in found if one.level != "ok"] == [(level, subject, seen)]


def test_ranks_of_nodes_with_different_versions_are_not_blamed_for_misunderstandings() -> None:
    reports = failing(cluster(2), "0/0 1/0")
    reports["node1"] = replace(reports["node1"], facts={"torch": "2.9.1", "mtu": "9001"})
    assert said(reports, 2) == [("node0 ↔ node1", "version mismatch")]


def test_what_a_node_found_wrong_with_itself_explains_its_links() -> None:
    reports = failing(cluster(2), "0/0 1/0", "0/0 1/1", "0/1 1/0", "0/1 1/1")
    own = fail("node1", "missing EFA: 0 of 1 EFA devices are there", "NCCL falls back", "modprobe efa")
    reports["node1"] = replace(reports["node1"], own=(own,))
    assert judge(["node0", "node1"], reports) == (own,)


def test_a_doctor_whose_time_was_over_says_what_it_waited_for() -> None:
    reports = cluster(2)
    reports["node0"] = replace(reports["node0"], left=("node1: waited for node1's clock",))
    assert said(reports, 2) == [("node0", "too slow")]


def test_pairs_that_were_not_tried_are_a_warning() -> None:
    reports = cluster(2)
    reports["node0"] = replace(reports["node0"], unmet=3)
    found = judge(["node0", "node1"], reports)
    assert [(one.level, one.subject) for one in found] == [("warn", "node0"), ("ok", "cluster")]
    assert found[0].seen == "too slow: 3 pairs of ranks were not tried, for their time was over"


def test_a_cluster_that_is_well_says_so_in_one_line() -> None:
    found = judge(["node0", "node1"], cluster(2))
    assert [(one.level, one.subject) for one in found] == [("ok", "cluster")]
    assert found[0].seen == "2 nodes, 1 link each way, 4 ranks, 6 pairs, slowest pair 100 µs"


def test_every_single_closed_way_of_four_nodes_is_named() -> None:
    for a, b in permutations(range(4), 2):
        assert said(cluster(4, **ways(FILTERED, f"{a}_{b}")), 4) == [(f"node{a} → node{b}", "security group")]


def test_a_report_survives_its_journey() -> None:
    report = replace(cluster(2)["node0"], own=(Finding(level="warn", subject="a", seen="b"),), left=("x",))
    assert read_report(report.as_json()) == report
    for text in ("{", "[]", '{"schema": 1}', '{"schema": 9}'):
        with pytest.raises(ValueError, match="this is no report of a node's connections"):
            load(text)
