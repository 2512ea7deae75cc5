"""Reading and moving a lab's deadline."""

from datetime import timedelta

import pytest

from guard.tick import tick
from operate.deadline import extend_deadline, read_deadline
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
    assert found.left == pytest.approx(timedelta(hours=4), abs=timedelta(seconds=30))
    assert str(found).startswith("Lab3Stack ends at 20")
    assert str(found).endswith("Z, in 3 h 59 min (ttl)")


def test_extending_moves_it_for_the_guard_too(account) -> None:
    account.bench.stack(ttl="4")
    moved = extend_deadline(account, STACK, 2)
    assert moved.by == "extended"
    assert moved.left == pytest.approx(timedelta(hours=6), abs=timedelta(seconds=30))
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
