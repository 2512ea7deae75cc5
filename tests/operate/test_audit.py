"""The sweep: what is in the account, what it costs, what removes it."""

import json
import shlex

import pytest
from rich.console import Console

from guard.inventory import Call
from operate import audit
from operate.account import Account
from operate.problem import Problem
from operate.screen import Screen
from operate.sweep import Sweep, shell, sweep
from tests.operate.ended_lab import moto_account


@pytest.fixture
def account(monkeypatch):
    with moto_account(monkeypatch) as made:
        yield made


def test_an_empty_account_is_clean(account) -> None:
    found = sweep(account)
    assert (found.left, found.not_looked_at) == ((), {})
    assert found.residual_usd_per_hour == 0.0
    assert found.exit_code == 0
    assert found.lines()[-1] == "residual $0.00/h"


def test_what_is_left_is_priced_and_comes_with_its_command(account) -> None:
    volume = account.bench.volume(TagSpecifications=account.bench.tags("volume"))
    found = sweep(account)
    (left,) = found.left
    assert (left.kind, left.id, left.stack, left.lab) == ("volume", volume, "Lab3Stack", "3")
    assert left.usd_per_hour == pytest.approx(100 * 0.08 / 730)
    assert left.command == f"aws ec2 delete-volume --region us-east-1 --volume-id {volume}"
    assert found.residual_usd_per_hour == left.usd_per_hour
    assert found.exit_code == 1


def test_a_leftover_that_is_free_is_not_clean_either(account) -> None:
    bench = account.bench
    bench.ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=bench.tags("vpc"))
    found = sweep(account)
    assert found.residual_usd_per_hour == 0.0
    assert found.exit_code == 1


def test_an_unknown_price_leaves_the_residual_unknown(account) -> None:
    bench = account.bench
    bench.ec2.create_volume(
        AvailabilityZone="us-east-1a", Size=10, VolumeType="io1", Iops=100, TagSpecifications=bench.tags("volume")
    )
    found = sweep(account)
    assert found.residual_usd_per_hour is None
    assert found.exit_code == 1
    assert any(line.startswith("price unknown: volume vol-") for line in found.lines())
    assert found.lines()[-1] == "residual unknown/h"


def test_a_sweep_that_could_not_look_is_not_clean(account) -> None:
    account.bench.refuse("ec2:DescribeVolumes")
    found = sweep(account)
    assert found.left == ()
    assert found.residual_usd_per_hour is None
    assert found.exit_code == 1
    assert (
        "not looked at: volume because no permission for ec2:DescribeVolumes: allow it (UnauthorizedOperation)"
        in found.lines()
    )


def test_what_stands_on_purpose_is_listed_apart_and_not_counted(account) -> None:
    bench = account.bench
    cloudformation = bench.clients("cloudformation")
    tag = {"Key": "rooflab:stack", "Value": "GuardStack"}
    mine = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "guardstack-results1-x", "Tags": [tag]}}
    other = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "guardstack-results-of-theirs"}}
    template = {"Resources": {"Results": mine, "Other": other}}
    cloudformation.create_stack(
        StackName="GuardStack",
        TemplateBody=json.dumps(template),
        Tags=[{"Key": "rooflab:stack", "Value": "GuardStack"}],
    )
    reservation = {"CapacityReservationId": "cr-1", "State": "active", "InstanceType": "g6.xlarge"}
    bench.answers["ec2:DescribeCapacityReservations"] = {"CapacityReservations": [reservation]}
    found = sweep(account)
    assert found.clean
    assert {(item.kind, item.id) for item in found.standing} == {
        ("stack", "GuardStack"), ("bucket", "guardstack-results1-x"), ("capacity-reservation", "cr-1"),
    }  # fmt: skip
    assert any("cr-1, a reservation of the user's own" in line for line in found.lines())


def test_a_sweep_of_one_lab_leaves_others_out(account) -> None:
    account.bench.volume(TagSpecifications=account.bench.tags("volume", "Lab1Stack"))
    assert sweep(account, "Lab3Stack").clean
    assert not sweep(account).clean


def test_the_answer_for_programs_is_json(account) -> None:
    account.bench.volume(TagSpecifications=account.bench.tags("volume"))
    document = json.loads(json.dumps(sweep(account).as_json()))
    assert document["clean"] is False
    assert document["residual_usd_per_hour"] == pytest.approx(100 * 0.08 / 730)
    assert document["left"][0]["kind"] == "volume"


def test_the_table_shows_what_removes_a_thing(account) -> None:
    account.bench.volume(TagSpecifications=account.bench.tags("volume"))
    console = Console(width=240)
    with console.capture() as shown:
        console.print(sweep(account).table())
    assert "aws ec2 delete-volume" in shown.get()


def test_a_call_is_one_shell_command() -> None:
    rules = [{"IpProtocol": "tcp", "UserIdGroupPairs": [{"GroupId": "sg-2"}]}]
    call = Call("ec2", "revoke_security_group_ingress", {"GroupId": "sg-1", "IpPermissions": rules})
    words = shlex.split(shell(call, "eu-west-1"))
    assert words[:5] == ["aws", "ec2", "revoke-security-group-ingress", "--region", "eu-west-1"]
    assert words[5:8] == ["--group-id", "sg-1", "--ip-permissions"]
    assert json.loads(words[8]) == rules
    fleets = Call("ec2", "delete_fleets", {"TerminateInstances": True, "FleetIds": ["fleet-1"]})
    assert shell(fleets, "eu-west-1").endswith("--terminate-instances --fleet-ids fleet-1")


def test_what_is_nobodys_and_was_made_while_a_lab_lived_is_named_and_not_counted(account) -> None:
    account.bench.stack()
    volume = account.bench.volume()
    found = sweep(account)
    assert [item.id for item in found.suspects] == [volume]
    assert volume not in {item.id for item in found.left}
    said = (
        f"made while a lab lived, and nobody's by its tags: volume {volume} ($0.0110/h); if it is yours: aws ec2 delete"
    )
    assert any(line.startswith(said) for line in found.lines())


def test_what_is_nobodys_is_nobodys_business_where_no_lab_lives(account) -> None:
    account.bench.volume()
    assert sweep(account).suspects == ()


def test_where_buckets_may_not_be_listed_the_residual_is_unknown(account) -> None:
    account.bench.refuse("s3:ListBuckets", "AccessDenied")
    found = sweep(account)
    assert found.not_looked_at == {"bucket": "no permission for s3:ListBuckets: allow it (AccessDenied)"}
    assert not found.clean


def test_regions_share_what_takes_long_to_read(monkeypatch) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    first = Account("us-east-1")
    others = [Account(region, beside=first) for region in ("eu-west-1", "eu-west-2")]
    models = [one.client("ec2").meta.service_model.metadata for one in (first, *others)]
    assert all(model is models[0] for model in models)
    assert [one.client("ec2").meta.region_name for one in (first, *others)] == ["us-east-1", "eu-west-1", "eu-west-2"]


def test_all_regions_are_looked_at_and_those_not_enabled_or_denied_are_named(account, monkeypatch, capsys) -> None:
    account.bench.volume(TagSpecifications=account.bench.tags("volume"))
    rows = [{"RegionName": name, "OptInStatus": status} for name, status in (
        ("us-east-1", "opt-in-not-required"), ("me-south-1", "not-opted-in"), ("eu-west-1", "opted-in"),
        ("sa-east-1", "opt-in-not-required"),
    )]  # fmt: skip
    account.bench.answers["ec2:DescribeRegions"] = {"Regions": rows}
    empty = Sweep(region="eu-west-1", left=(), standing=(), not_looked_at={})

    def look_into(beside, other, stack):
        assert beside is account
        if other == "sa-east-1":
            return Problem("AWS denies DescribeStacks to these credentials", "ask")
        return sweep(account, stack) if other == account.region else empty

    monkeypatch.setattr(audit, "Account", lambda: account)
    monkeypatch.setattr(audit, "_sweep", look_into)
    with pytest.raises(Problem, match=r"whether anything is left cannot be told \(sa-east-1\)"):
        audit.show_audit("", Screen(json=True), everywhere=True, json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["not_enabled"], list(told["denied"])) == (["me-south-1"], ["sa-east-1"])
    assert [row["kind"] for row in told["regions"]["us-east-1"]["left"]] == ["volume"]
    assert (told["regions"]["eu-west-1"]["clean"], told["residual_usd_per_hour"], told["clean"]) == (True, None, False)
