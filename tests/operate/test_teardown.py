"""Tearing down: the guard's steps, from here, until a look finds nothing."""

import pytest

from operate.teardown import IDLE_STEPS, RETRIES, teardown
from tests.operate.ended_lab import moto_account

STACK = "Lab3Stack"


@pytest.fixture
def account(monkeypatch):
    with moto_account(monkeypatch) as made:
        yield made


def end(account, **more):
    return teardown(account, STACK, pause=lambda seconds: None, **more)


def test_nothing_is_left_of_a_lab_with_things_made_by_hand(account) -> None:
    bench = account.bench
    bench.made_by_hand(bench.subnet(bench.stack()))
    seen = []
    receipt = end(account, progress=lambda made, elapsed: seen.append((made.did, elapsed)))
    assert receipt.exit_code == 0
    assert receipt.residual_usd_per_hour == 0.0
    assert receipt.sweep.left == ()
    assert {"instance", "volume", "address", "vpc", "stack"} <= {item.kind for item in receipt.created}
    assert seen[0][0][0].startswith("remove instance")
    assert [elapsed for _, elapsed in seen] == sorted(elapsed for _, elapsed in seen)


def test_tearing_down_nothing_is_a_clean_receipt_without_a_price(account) -> None:
    receipt = end(account)
    assert receipt.exit_code == 0
    assert (receipt.created, receipt.started) == ((), "")
    assert (receipt.estimate_usd, receipt.actual_usd) == (None, None)


def test_tearing_down_twice_is_harmless(account) -> None:
    account.bench.stack()
    assert end(account).exit_code == 0
    assert end(account).exit_code == 0


def test_without_a_frozen_price_the_things_themselves_are_priced(account) -> None:
    bench = account.bench
    bench.instance(bench.subnet(bench.stack()), InstanceType="g6.xlarge")
    receipt = end(account)
    assert receipt.usd_per_hour == pytest.approx(0.805, abs=0.01)


def test_a_missing_permission_ends_in_a_receipt_that_names_it(account) -> None:
    bench = account.bench
    instance = bench.instance(bench.subnet(bench.stack()))
    bench.refuse("ec2:TerminateInstances")
    bench.refuse("cloudformation:DeleteStack", "AccessDenied")
    receipt = end(account)
    assert receipt.exit_code == 1
    assert instance in {item.id for item in receipt.sweep.left}
    assert any("no permission for ec2:TerminateInstances" in line for line in receipt.refused)
    assert receipt.refused[-1] == f"gave up after {IDLE_STEPS} steps that could do nothing"


def test_a_stack_that_never_deletes_is_given_up_with_its_reason(account) -> None:
    bench = account.bench
    bench.stack()
    rows = bench.clients("cloudformation").describe_stacks()["Stacks"]
    rows[0] |= {"StackStatus": "DELETE_FAILED", "StackStatusReason": "custom resource is stuck"}
    bench.answers |= {"cloudformation:DescribeStacks": {"Stacks": rows}, "cloudformation:DeleteStack": {}}
    bench.answers["cloudformation:ListStackResources"] = {"StackResourceSummaries": []}
    said = []
    receipt = end(account, progress=lambda made, elapsed: said.extend(made.did))
    assert receipt.exit_code == 1
    assert said.count("delete stack Lab3Stack again (custom resource is stuck)") == RETRIES + 1
    assert receipt.refused[-1] == f"gave up: Lab3Stack failed to delete {RETRIES + 1} times"


def test_a_teardown_ends_at_its_limit(account) -> None:
    bench = account.bench
    instance = bench.instance(bench.subnet(bench.stack()))
    rows = bench.ec2.describe_instances()["Reservations"]
    rows[0]["Instances"][0]["State"] = {"Name": "shutting-down"}
    bench.answers["ec2:DescribeInstances"] = {"Reservations": rows}
    receipt = end(account, limit_s=0.0)
    assert receipt.exit_code == 1
    assert instance in {item.id for item in receipt.sweep.left}
    assert receipt.refused[-1].startswith("gave up after ")


def test_a_look_that_was_refused_leaves_the_residual_unknown(account) -> None:
    account.bench.stack()
    account.bench.refuse("fsx:DescribeFileSystems", "AccessDeniedException")
    receipt = end(account)
    assert receipt.residual_usd_per_hour is None
    assert receipt.exit_code == 1
    assert "file-system" in receipt.sweep.not_looked_at


def test_while_stacks_cannot_be_seen_nothing_is_called_gone(account) -> None:
    account.bench.refuse("cloudformation:DescribeStacks", "AccessDenied")
    receipt = end(account)
    assert receipt.exit_code == 1
    assert "cannot tell whether Lab3Stack exists" in receipt.refused[0]
