"""Reading and moving a lab's deadline."""

from datetime import timedelta

import pytest

from guard.tick import tick
from operate.deadline import extend_deadline, read_deadline, set_deadline
from operate.problem import Problem
from tests.operate.ended_lab import moto_account

STACK = "Lab3Stack"


@pytest.fixture
def account(monkeypatch):
    with moto_account(monkeypatch) as made:
        yield made


def test_without_an_extension_it_is_creation_plus_the_tag(account) -> None:
    account.bench.stack(ttl="4")
    found = read_deadline(account, STACK)
    assert found.by == "ttl"
    assert found.left == pytest.approx(timedelta(hours=4), abs=timedelta(minutes=5))
    assert str(found).startswith("Lab3Stack ends at 20")
    assert str(found).endswith("Z, in 3 h 59 min (ttl)")


def test_extending_moves_it_for_the_guard_too(account) -> None:
    account.bench.stack(ttl="4")
    moved = extend_deadline(account, STACK, 2)
    assert moved.by == "extended"
    assert moved.left == pytest.approx(timedelta(hours=6), abs=timedelta(minutes=5))
    assert not tick(account.client, account.now() + timedelta(hours=5))["labs"][0]["over"]
    assert tick(account.client, account.now() + timedelta(hours=7))["labs"][0]["over"]


def test_extending_twice_adds_up(account) -> None:
    account.bench.stack(ttl="4")
    extend_deadline(account, STACK, 2)
    assert extend_deadline(account, STACK, 2.5).left > timedelta(hours=8, minutes=29)


@pytest.mark.parametrize("hours", [0, -1, 169, float("nan")])
def test_hours_out_of_range_are_refused(account, hours) -> None:
    account.bench.stack()
    with pytest.raises(ValueError, match=r"hours=.* is not allowed: write a number above 0, up to 168"):
        extend_deadline(account, STACK, hours)


def test_no_deadline_is_more_than_a_week_away(account) -> None:
    account.bench.stack(ttl="100")
    with pytest.raises(Problem, match=r"100 h more would be over 168 h from now: write at most --hours (67\.9|68)"):
        extend_deadline(account, STACK, 100)
    assert read_deadline(account, STACK).by == "ttl"


def test_a_deadline_that_has_passed_is_not_moved(account) -> None:
    account.bench.stack(ttl="1")
    account.ahead = timedelta(hours=2)
    with pytest.raises(Problem, match=r"h 59 min ago|h 00 min ago.*it is being ended"):
        extend_deadline(account, STACK, 2)


def test_a_lab_that_is_not_deployed_has_none(account) -> None:
    with pytest.raises(Problem, match="Lab3Stack is not deployed in us-east-1: cdk deploy Lab3Stack"):
        read_deadline(account, STACK)


def test_a_budget_brings_the_deadline_forward_for_the_guard_too(account) -> None:
    account.bench.stack(ttl="4")
    moved = set_deadline(account, STACK, account.now() + timedelta(hours=2))
    assert moved.left == pytest.approx(timedelta(hours=2), abs=timedelta(minutes=5))
    assert tick(account.client, account.now() + timedelta(hours=3))["labs"][0]["over"]


def test_a_budget_never_prolongs_a_lab(account) -> None:
    account.bench.stack(ttl="4")
    assert set_deadline(account, STACK, account.now() + timedelta(hours=9)).by == "ttl"
    assert "ssm:PutParameter" not in account.bench.asked


def in_block(account, end) -> None:
    """Let the stack say that its capacity is a block, which ends then."""
    account.bench.stack(ttl="4")
    stacks = account.client("cloudformation").describe_stacks()["Stacks"]
    stacks[0]["Outputs"] = [{"OutputKey": "Capacity", "OutputValue": "block:cr-1"}]
    account.bench.answers["cloudformation:DescribeStacks"] = {"Stacks": stacks}
    block = {"CapacityReservationId": "cr-1", "EndDate": end, "ReservationType": "capacity-block"}
    account.bench.answers["ec2:DescribeCapacityReservations"] = {"CapacityReservations": [block]}


def test_a_capacity_block_bounds_it_40_minutes_before_its_end(account, monkeypatch) -> None:
    end = account.now() + timedelta(hours=3)
    in_block(account, end)
    monkeypatch.setattr(account, "observe", lambda answer: None)  # the bench's own answers carry no date
    found = read_deadline(account, STACK)
    assert (found.at, found.by) == (end - timedelta(minutes=40), "its capacity block ends")
    with pytest.raises(Problem, match=r"1 h more would be over 40 min before its capacity block ends: deploy it again"):
        extend_deadline(account, STACK, 1)


def test_a_block_that_may_not_be_read_is_said_to_be_unknown(account, monkeypatch) -> None:
    in_block(account, account.now())
    monkeypatch.setattr(account, "observe", lambda answer: None)
    account.bench.refuse("ec2:DescribeCapacityReservations")
    said = "ttl; whether its capacity block ends before is not known (UnauthorizedOperation)"
    assert read_deadline(account, STACK).by == said
