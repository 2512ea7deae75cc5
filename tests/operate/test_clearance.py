"""Clearing an account: what is taken away, what stays, and that it is asked for."""

import json
import sys

import pytest

from operate import laptop
from operate.choice import choose_end
from operate.clearance import clear_account
from operate.problem import Problem
from operate.screen import Screen
from operate.sweep import sweep
from tests.operate.ended_lab import moto_account

BUCKET = "guardstack-results25575328-x"


@pytest.fixture
def account(monkeypatch, tmp_path):
    monkeypatch.setattr(laptop, "ROOT", tmp_path)
    with moto_account(monkeypatch) as made:
        made.bench.refuse("pricing:GetProducts", "AccessDeniedException")
        tag = {"Key": "rooflab:stack", "Value": "GuardStack"}
        bucket = {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain",
                  "Properties": {"BucketName": BUCKET, "Tags": [tag]}}  # fmt: skip
        made.client("cloudformation").create_stack(
            StackName="GuardStack", TemplateBody=json.dumps({"Resources": {"Results": bucket}}), Tags=[tag]
        )
        made.client("s3").put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": [tag]})
        made.client("s3").put_object(Bucket=BUCKET, Key="results/run/record.json", Body=b"{}")
        yield made


def test_all_labs_go_and_what_stood_for_them_and_what_is_the_users_stays(account, capsys) -> None:
    bench = account.bench
    bench.instance(bench.subnet(bench.stack("Lab1Stack")))
    bench.instance(bench.subnet(bench.stack("Lab3Stack-alice")))
    for name in ("/rooflab/deadline/Lab1Stack", "/rooflab/told/Lab1Stack", "/rooflab/image/gpu"):
        account.client("ssm").put_parameter(Name=name, Value="x", Type="String")
    reservation = {"CapacityReservationId": "cr-1", "State": "active", "InstanceType": "g6.xlarge"}
    bench.answers["ec2:DescribeCapacityReservations"] = {"CapacityReservations": [reservation]}
    clear_account(account, Screen(), yes=True, json=False)
    said = capsys.readouterr().out
    assert f"{BUCKET}: 1 objects, 0.0 MB of results, for good" in said
    assert "this stays: capacity-reservation cr-1, a reservation of the user's own" in said
    assert "removed stack GuardStack" in said
    after = sweep(account)
    assert (after.left, [item.id for item in after.standing]) == ((), ["cr-1"])
    assert account.client("s3").list_buckets()["Buckets"] == []
    left = [row["Name"] for row in account.client("ssm").describe_parameters()["Parameters"]]
    assert left == ["/rooflab/image/gpu"]


def test_nothing_goes_unless_somebody_says_yes(account, monkeypatch) -> None:
    account.bench.stack("Lab1Stack")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    with pytest.raises(Problem, match="nobody can be asked whether to take all that away: add --yes if you mean it"):
        clear_account(account, Screen(), yes=False, json=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda asked: "y")
    with pytest.raises(Problem, match="nothing was taken away"):
        clear_account(account, Screen(), yes=False, json=False)
    assert not {request for request in account.bench.asked if ":Delete" in request or "Terminate" in request}


def test_while_a_lab_is_left_its_guard_and_the_results_stay(account, monkeypatch) -> None:
    bench = account.bench
    bench.instance(bench.subnet(bench.stack("Lab1Stack")))
    bench.refuse("ec2:TerminateInstances")
    bench.refuse("cloudformation:DeleteStack", "AccessDenied")
    monkeypatch.setattr("operate.teardown._FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("operate.teardown._LAST_PAUSE_S", 0.0)
    with pytest.raises(Problem, match="things of Lab1Stack are there"):
        clear_account(account, Screen(), yes=True, json=False)
    assert account.client("s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 1


def test_with_json_stdout_is_one_document(account, capsys) -> None:
    account.bench.stack("Lab1Stack")
    clear_account(account, Screen(json=True), yes=True, json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["receipts"][0]["stack"] == "Lab1Stack"
    assert told["after"]["clean"] is True
    assert f"bucket {BUCKET}" in told["removed"]


@pytest.mark.parametrize(("lab", "name"), [("3", ""), ("", "ada"), ("3", "ada")])
def test_one_lab_and_all_labs_are_not_ended_by_one_command(lab, name) -> None:
    """With --yes, `--all --lab 3` would take every lab and all results."""
    with pytest.raises(Problem, match=r"--all would end every lab, and one was named"):
        choose_end(lab, name, everything=True)
    assert choose_end("", "", everything=True) is None
    one = choose_end("3", name, everything=False)
    assert one is not None
    assert one.stack == ("Lab3Stack-ada" if name else "Lab3Stack")
