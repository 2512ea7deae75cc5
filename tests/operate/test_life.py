"""What a lab cost: frozen price, each thing for as long as it lived, and what can be said of one that ended before."""

from datetime import UTC, datetime, timedelta

import pytest

from guard.inventory import iso, look
from operate import laptop
from operate.bill import frozen_cost, line, replanned, spent
from operate.deadline import read_deadline
from operate.life import read_life
from operate.stack import find_stack
from operate.teardown import teardown
from tests.operate.ended_lab import moto_account

STACK = "Lab3Stack"


@pytest.fixture
def account(monkeypatch, tmp_path):
    monkeypatch.setattr(laptop, "ROOT", tmp_path)
    with moto_account(monkeypatch) as made:
        made.bench.refuse("pricing:GetProducts", "AccessDeniedException")
        yield made


def lab(account) -> str:
    """A stack for 4 h with one g6.xlarge at $0.8048 an hour. Returns the instance."""
    bench = account.bench
    return str(bench.instance(bench.subnet(bench.stack(ttl="4")), InstanceType="g6.xlarge"))


def end(account, **more):
    return teardown(account, STACK, pause=lambda seconds: None, **more)


def test_the_price_is_frozen_once_in_a_life_from_what_stands(account) -> None:
    node = lab(account)
    frozen = frozen_cost(account, STACK)
    assert frozen["usd_per_hour"] == pytest.approx(0.8048 + 0.08 * 8 / 730, abs=0.002)
    assert frozen["planned_hours"] == pytest.approx(4.0)
    assert node in {thing["id"] for thing in frozen["things"]}
    assert frozen["lines"][0]["what"] == "1 × g6.xlarge, on-demand"
    assert "the Price List did not answer (AccessDeniedException): prices of the table" in frozen["notes"]
    account.bench.ec2.terminate_instances(InstanceIds=[node])
    assert frozen_cost(account, STACK) == frozen


def test_another_life_of_the_stack_has_a_price_of_its_own(account) -> None:
    lab(account)
    before = frozen_cost(account, STACK)
    end(account)
    account.bench.stack(ttl="8")
    after = frozen_cost(account, STACK)
    assert (after["stack_id"] != before["stack_id"], after["planned_hours"]) == (True, pytest.approx(8.0))


def test_an_end_that_is_chosen_along_with_the_lab_is_its_plan(account) -> None:
    lab(account)
    frozen, stack = frozen_cost(account, STACK), find_stack(account, STACK)
    assert stack is not None
    replanned(account, stack, frozen, stack.created + timedelta(hours=2.5))
    kept = frozen_cost(account, STACK)
    assert kept["planned_hours"] == pytest.approx(2.5, abs=0.001)
    assert kept["deadline"] == iso(stack.created + timedelta(hours=2.5))
    assert kept["things"] == frozen["things"]


def test_the_receipt_compares_estimate_and_actual_by_the_frozen_price(account) -> None:
    lab(account)
    frozen = frozen_cost(account, STACK)
    account.ahead = timedelta(hours=3)
    receipt = end(account, frozen=frozen, run="20261120-093000-lab3")
    assert receipt.estimate_usd == pytest.approx(frozen["usd_per_hour"] * 4)
    assert receipt.actual_usd == pytest.approx(frozen["usd_per_hour"] * 3, rel=0.01)
    assert receipt.difference_percent == pytest.approx(-25, abs=1)
    assert (receipt.planned_hours, receipt.lived_hours) == (pytest.approx(4), pytest.approx(3, abs=0.01))
    assert receipt.frozen == frozen["frozen"]


def test_what_lived_shorter_than_the_stack_costs_less(account) -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    things = [
        {"id": "i-1", "usd_per_hour": 2.0, "created": "2026-11-20T11:30:00Z"},
        {"id": "fs-1", "usd_per_hour": 1.0, "created": "2026-11-20T10:00:00Z"},
        {"id": "i-2", "usd_per_hour": 2.0, "created": "2026-11-20T11:00:00Z"},
    ]
    assert spent(things, now, {"i-2": "2026-11-20T11:15:00Z"}) == pytest.approx(1.0 + 2.0 + 0.5)
    assert spent([{"id": "b", "usd_per_hour": None, "created": ""}], now) is None


def test_a_node_that_went_before_the_teardown_costs_until_it_went(account) -> None:
    node = lab(account)
    frozen = frozen_cost(account, STACK)
    rows = account.bench.ec2.describe_instances()["Reservations"]
    went = account.now() + timedelta(hours=1)
    rows[0]["Instances"][0] |= {
        "State": {"Name": "terminated"}, "StateTransitionReason": f"User initiated ({went:%Y-%m-%d %H:%M:%S} GMT)",
    }  # fmt: skip
    account.bench.answers["ec2:DescribeInstances"] = {"Reservations": rows}
    account.ahead = timedelta(hours=3)
    life = read_life(account, STACK, look(account.client, STACK), frozen)
    assert life.actual_usd == pytest.approx(0.8048, rel=0.02)
    assert not [note for note in life.notes if node in note]


def test_when_a_node_went_may_be_forgotten_and_that_is_said(account) -> None:
    node = lab(account)
    frozen = frozen_cost(account, STACK)
    account.bench.answers["ec2:DescribeInstances"] = {"Reservations": []}
    account.ahead = timedelta(hours=3)
    life = read_life(account, STACK, look(account.client, STACK), frozen)
    assert life.actual_usd == pytest.approx(3 * 0.8048, rel=0.02)
    assert any(note.startswith("counted to the end, for when it went is not told: ") and node in note
               for note in life.notes)  # fmt: skip


def test_a_lab_that_the_guard_ended_still_gets_a_receipt(account) -> None:
    lab(account)
    frozen = frozen_cost(account, STACK)
    end(account)
    account.ahead = timedelta(hours=2)
    summary = {"StackName": STACK, "StackId": frozen["stack_id"], "StackStatus": "DELETE_COMPLETE",
               "CreationTime": datetime.fromisoformat(frozen["created"]), "DeletionTime": account.now()}  # fmt: skip
    account.bench.answers["cloudformation:ListStacks"] = {"StackSummaries": [summary]}
    account.ahead = timedelta(hours=30)
    account.bench.answers["ec2:DescribeInstances"] = {"Reservations": []}
    receipt = end(account, frozen=frozen)
    assert (receipt.created, receipt.exit_code) == ((), 0)
    assert receipt.lived_hours == pytest.approx(2, abs=0.01)
    assert receipt.actual_usd == pytest.approx(2 * frozen["usd_per_hour"], rel=0.01)
    assert receipt.estimate_usd == pytest.approx(4 * frozen["usd_per_hour"])


def test_of_an_ended_lab_without_a_frozen_price_only_its_times_are_told(account) -> None:
    created = account.now().replace(microsecond=0)
    summary = {"StackName": STACK, "StackId": "arn", "StackStatus": "DELETE_COMPLETE", "CreationTime": created,
               "DeletionTime": created + timedelta(hours=4)}  # fmt: skip
    account.bench.answers["cloudformation:ListStacks"] = {"StackSummaries": [summary]}
    receipt = end(account)
    assert (receipt.started, receipt.lived_hours) == (iso(created), 4.0)
    assert (receipt.estimate_usd, receipt.actual_usd) == (None, None)
    assert receipt.notes == ("what it was made of is not known here: the price was not frozen on this machine",)


def test_a_lab_is_told_in_one_line(account) -> None:
    lab(account)
    cost = frozen_cost(account, STACK)
    account.ahead = timedelta(hours=3.75)
    text = line(cost, read_deadline(account, STACK))
    assert text.startswith("Lab3Stack: $3.0")
    assert " so far at $0.81/h; ends " in text
    assert text.endswith(" (fab extend moves that)")
