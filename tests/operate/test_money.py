"""What a lab and what a single thing costs, and that an unknown price is never 0."""

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from guard.inventory import KINDS
from guard.order import RANKS
from labs.catalog import LABS, find_lab
from labs.prices import Price, cost_of, dollars, total
from operate.money import FREE, price_of, so_far, table
from tests.operate.ended_lab import item


def test_lab_3_is_the_sum_of_its_lines() -> None:
    cost = cost_of(LABS[3])
    nodes, disks, addresses, lustre = (line.usd_per_hour for line in cost.lines)
    assert nodes == pytest.approx(2 * 4.602, abs=0.001)
    assert disks == pytest.approx(2 * 150 * 0.08 / 730)
    assert addresses == pytest.approx(2 * 0.005)
    assert lustre == pytest.approx(1200 * 0.14 / 730)
    assert cost.usd_per_hour == pytest.approx(9.204 + 0.03288 + 0.01 + 0.23014, abs=0.001)
    assert cost.usd(4) == pytest.approx(4 * 9.477, abs=0.01)


def test_every_line_says_where_its_price_comes_from() -> None:
    for lab in LABS.values():
        assert all(line.source and "20" in line.source for line in cost_of(lab).lines)


def test_a_lab_without_storage_has_no_line_for_it() -> None:
    assert [line.kind for line in cost_of(LABS[3].override(storage="none")).lines] == ["instance", "volume", "address"]


def test_a_price_that_is_not_known_makes_the_sum_unknown_and_says_why() -> None:
    cost = cost_of(find_lab(1).override(instance_type="p5.48xlarge", capacity="block:cr-0123"))
    assert cost.usd_per_hour is None
    assert cost.usd(4) is None
    assert "paid when it is bought" in cost.lines[0].source
    console = Console(width=200)
    with console.capture() as shown:
        console.print(table(cost, 4))
    assert "unknown" in shown.get()
    together = next(line for line in shown.get().splitlines() if "together" in line)
    assert "unknown" in together
    assert "$" not in together


def test_spot_is_priced_as_a_bound_and_says_so() -> None:
    assert any(note.startswith("spot: at most this") for note in cost_of(LABS[4]).notes)


def test_another_region_is_said_to_be_priced_as_us_east_1() -> None:
    cost = cost_of(LABS[3], region="eu-west-1")
    assert cost.notes == ("lines that say so have us-east-1's price",)
    assert all(line.source.startswith("us-east-1's price, for eu-west-1's is not known here: ") for line in cost.lines)
    assert cost_of(LABS[0]).notes == ()


@pytest.mark.parametrize(
    ("found", "usd"),
    [
        (item("instance", state="running", InstanceType="g6.xlarge"), 0.805),
        (item("instance", state="stopped", InstanceType="g6.xlarge"), 0.0),
        (item("instance", state="running", InstanceType="x99.large"), None),
        (item("volume", VolumeType="gp3", Size=730), 0.08),
        (item("volume", VolumeType="gp3", Size=730, Iops=4000, Throughput=225), 0.08 + (5 + 4) / 730),
        (item("volume", VolumeType="io2", Size=730, Iops=4000), None),
        (item("snapshot", VolumeSize=730), 0.05),
        (item("snapshot", VolumeSize=730, StorageTier="archive"), 0.0125),
        (item("address"), 0.005),
        (item("nat-gateway", state="available"), 0.045),
        (item("vpc-endpoint", VpcEndpointType="Gateway"), 0.0),
        (item("vpc-endpoint", VpcEndpointType="Interface", SubnetIds=["a", "b"]), 0.02),
        (item("vpc-endpoint", VpcEndpointType="GatewayLoadBalancer"), None),
        (item("load-balancer", Type="application"), 0.0225),
        (item("load-balancer", Type="gateway"), None),
        (item("log-group", storedBytes=0), 0.0),
        (item("log-group", storedBytes=730e9), 0.03),
        (item("backup"), None),
        (item("capacity-reservation", InstanceType="g6.xlarge", TotalInstanceCount=2), 1.61),
        (item("capacity-reservation", InstanceType="p5.48xlarge", ReservationType="capacity-block"), None),
        (item("network-interface", Association_IpOwnerId="amazon"), 0.005),
        (item("network-interface", Association_IpOwnerId="123456789012"), 0.0),
        (item("something-new"), None),
    ],
    ids=str,
)
def test_a_thing_found_in_the_account_has_its_price(found, usd) -> None:
    price = price_of(found)
    assert price.source
    assert price.usd_per_hour == (None if usd is None else pytest.approx(usd, abs=0.0006))


@pytest.mark.parametrize(
    ("deployment", "rate", "usd"),
    [("SCRATCH_2", None, 0.14), ("PERSISTENT_2", 125, 0.145), ("PERSISTENT_2", 1000, 0.6), ("PERSISTENT_1", 50, None)],
)
def test_a_file_system_is_priced_by_its_deployment(deployment, rate, usd) -> None:
    found = item("file-system", StorageCapacity=730, LustreConfiguration_DeploymentType=deployment)
    facts = dict(found.facts) | {"LustreConfiguration.DeploymentType": deployment}
    facts["LustreConfiguration.PerUnitStorageThroughput"] = rate
    price = price_of(type(found)(kind="file-system", id="fs-1", stack="", facts=facts))
    assert price.usd_per_hour == (None if usd is None else pytest.approx(usd))


def test_every_kind_that_the_guard_looks_for_is_free_or_priced_by_name() -> None:
    assert len(KINDS) == sum(map(len, RANKS)) + 1
    for kind in {kind for rank in RANKS for kind in rank} - set(FREE):
        assert "no price is known for a " + kind != price_of(item(kind)).source


def test_a_spot_instance_is_priced_as_a_bound() -> None:
    price = price_of(item("instance", state="running", InstanceType="g6.xlarge", InstanceLifecycle="spot"))
    assert price.source.startswith("at most, for it is spot: ")


def test_dollars_so_far_count_by_the_accounts_clock() -> None:
    created = datetime(2026, 11, 20, tzinfo=UTC)
    assert so_far(10.0, created=created, now=created + timedelta(minutes=90)) == 15.0
    assert so_far(10.0, created=created, now=created - timedelta(seconds=1)) == 0.0
    assert so_far(None, created=created, now=created) is None


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    assert total([1.0, None, 2.0]) is None
    assert total([]) == 0.0


@pytest.mark.parametrize(
    ("usd", "text"),
    [(0.0, "$0.00"), (9.204, "$9.20"), (0.0329, "$0.0329"), (0.00004, "under $0.0001"), (None, "unknown")],
)
def test_dollars_never_round_something_to_nothing(usd, text) -> None:
    assert dollars(usd) == text


def test_on_spot_the_range_is_shown_and_the_most_of_the_types_counts() -> None:
    rates = {"g6e.12xlarge": Price(usd_per_hour=10.5, least_usd_per_hour=3.0, source="market, 2026"),
             "g6.12xlarge": Price(usd_per_hour=4.6, least_usd_per_hour=2.0, source="market, 2026")}  # fmt: skip
    cost = cost_of(LABS[4], rates=rates)
    assert (cost.lines[0].least_usd_per_hour, cost.lines[0].usd_per_hour) == (2.0, 10.5)
    others = total(line.usd_per_hour for line in cost.lines[1:])
    assert others is not None
    assert cost.least_usd_per_hour == pytest.approx(2.0 + others)
    assert cost.usd_per_hour == pytest.approx(10.5 + others)
    assert "the nodes are priced as the dearest of their types" in cost.notes
    console = Console(width=200)
    with console.capture() as shown:
        console.print(table(cost, 4))
    assert "$2.00 to $10.50" in shown.get()


def test_a_type_without_a_price_among_the_alternatives_makes_the_sum_unknown() -> None:
    rates = {"g6.12xlarge": Price(usd_per_hour=None, source="withdrawn, 2026")}
    assert cost_of(LABS[4], rates=rates).usd_per_hour is None


@pytest.mark.parametrize(
    ("access", "kinds"), [("public", ["address"]), ("eice", ["instance-connect-endpoint"]), ("ssm", [])]
)
def test_the_way_to_a_node_is_priced_as_it_is(access, kinds) -> None:
    lines = cost_of(LABS[0].override(access=access)).lines
    assert [line.kind for line in lines] == ["instance", "volume", *kinds]
    assert total(line.usd_per_hour for line in lines[2:]) == (0.005 if kinds == ["address"] else 0.0)


def test_what_guardstack_costs_stands_apart_from_the_lab() -> None:
    cost = cost_of(LABS[0])
    assert [line.kind for line in cost.standing] == ["guard", "bucket"]
    assert cost.standing[0].usd_per_hour == pytest.approx(0.2 / 730)
    assert cost.usd_per_hour == pytest.approx(total(line.usd_per_hour for line in cost.lines))


def test_a_larger_file_system_costs_more() -> None:
    line = cost_of(LABS[3].override(storage="persistent-500", storage_gib=4800)).lines[-1]
    assert line.usd_per_hour == pytest.approx(4800 * 0.34 / 730)


def test_an_instance_in_a_capacity_block_has_no_known_price() -> None:
    found = item("instance", state="running", InstanceType="p5.48xlarge", InstanceLifecycle="capacity-block")
    assert price_of(found).usd_per_hour is None


def test_a_regions_own_rate_wins_over_the_table() -> None:
    rates = {"g6.xlarge": Price(usd_per_hour=1.0, source="here")}
    assert price_of(item("instance", state="running", InstanceType="g6.xlarge"), rates).usd_per_hour == 1.0
