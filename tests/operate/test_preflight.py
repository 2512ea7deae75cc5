"""What a preflight says of an account, and that it makes nothing."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from labs.catalog import LABS, Workload
from labs.instances import instance_types
from labs.names import PUBLIC_IMAGES
from operate import quotas, tools
from operate.check import Check
from operate.fit import default_model, served_model
from operate.preflight import SUBNET_ADDRESSES, preflight
from operate.problem import Problem
from tests.operate.scripted import NOW, Refusal, ScriptedAccount
from tests.operate.up_account import healthy, instance, instances, offerings, scores, stack
from tests.operate.up_account import quotas as granting

SPOT = LABS[4]
DEMAND = LABS[3]


@pytest.fixture(autouse=True)
def whole_machine(monkeypatch, tmp_path):
    """A machine with every program and the key."""
    monkeypatch.setattr("operate.preflight.check_tools", lambda lab: [Check(name="tools", verdict="pass", seen="all")])


def look(lab=DEMAND, **more):
    return preflight(ScriptedAccount(healthy(**more)), lab)


def one(found, name):
    named = [check for check in found.checks if check.name == name]
    assert len(named) == 1, [check.name for check in found.checks]
    return named[0]


@pytest.mark.parametrize("lab", LABS.values(), ids=lambda lab: lab.stack)
def test_an_account_with_room_passes_whole(lab) -> None:
    found = look(lab)
    assert found.verdict == "pass", [check for check in found.checks if check.verdict != "pass"]
    found.demand()
    assert found.caller == "ada"


def test_it_only_reads() -> None:
    account = ScriptedAccount(healthy())
    preflight(account, LABS[4].override(data="s3://mine", image="baked"))
    verbs = {operation.partition(":")[2] for operation, _ in account.asked}
    assert all(verb.startswith(("Get", "Describe", "Head", "List")) for verb in verbs), verbs


def test_a_quota_that_is_short_is_named_with_the_request_that_mends_it() -> None:
    running = instances(instance("g5.12xlarge"), instance("g6.xlarge", lifecycle="spot"), instance("c7i.large"))
    found = look(**{"service-quotas:GetServiceQuota": granting(L_DB2E81BA=128), "ec2:DescribeInstances": running})
    check = one(found, "vCPU quota")
    assert (check.verdict, check.seen) == (
        "fail", "quota L-DB2E81BA (L-DB2E81BA): 96 wanted, 128 allowed, 48 in use, 16 short",
    )  # fmt: skip
    assert check.remedy == (
        "ask for more, which may take days: aws service-quotas request-service-quota-increase --region us-east-1 "
        "--service-code ec2 --quota-code L-DB2E81BA --desired-value 144"
    )
    with pytest.raises(Problem, match=r"Lab3Stack would not come up: vCPU quota, quota L-DB2E81BA .* 16 short"):
        found.demand()


def test_the_labs_own_nodes_leave_its_room_alone() -> None:
    mine = instances(*(instance("g6.12xlarge", stack="Lab3Stack") for _ in range(2)))
    found = look(**{"service-quotas:GetServiceQuota": granting(L_DB2E81BA=96), "ec2:DescribeInstances": mine})
    assert one(found, "vCPU quota").verdict == "pass"


def test_what_a_reservation_holds_unused_counts_on_demand() -> None:
    held = [{"InstanceType": "g6.48xlarge", "AvailableInstanceCount": 1, "State": "active"}]
    account = ScriptedAccount(healthy(**{"ec2:DescribeCapacityReservations": {"CapacityReservations": held}}))
    assert quotas.running_vcpus(account) == {"Running On-Demand G and VT instances": 192}


@pytest.mark.parametrize(
    ("kind", "spot", "code"),
    [
        ("g4dn.xlarge", False, "L-DB2E81BA"), ("gr6.8xlarge", False, "L-DB2E81BA"), ("g7e.8xlarge", True, "L-3819A6DF"),
        ("p5.48xlarge", False, "L-417A185B"), ("p6-b200.48xlarge", False, "L-417A185B"),
        ("p4de.24xlarge", True, "L-7212CCBC"), ("p3dn.24xlarge", True, "L-7212CCBC"),
        ("p5en.48xlarge", True, "L-C4BD4855"),
        ("t3.medium", False, "L-1216C47A"), ("c7i.large", True, "L-34B43A08"), ("p6-b300.48xlarge", True, ""),
    ],
)  # fmt: skip
def test_each_type_counts_towards_its_familys_quota(kind, spot, code) -> None:
    assert quotas.quota_of(kind, spot=spot).code == code


def test_every_type_has_a_quota_on_both_markets() -> None:
    for kind in instance_types():
        assert quotas.quota_of(kind, spot=False).code
        assert quotas.quota_of(kind, spot=True).name.endswith("Spot Instance Requests")


def test_a_quota_without_a_known_code_is_found_by_its_name() -> None:
    listed = {"Quotas": [{"QuotaCode": "L-6", "QuotaName": "All P6 Spot Instance Requests", "Value": 0.0}]}
    lab = LABS[1].override(instance_type="p6-b200.48xlarge", capacity="spot")
    check = one(look(lab, **{"service-quotas:ListServiceQuotas": listed}), "vCPU quota")
    assert check.verdict == "fail"
    assert check.seen == "All P6 Spot Instance Requests (L-6): 192 wanted, 0 allowed, 0 in use, 192 short"


def test_an_account_that_never_changed_a_quota_has_awss_default() -> None:
    default = {"Quota": {"QuotaCode": "L-DB2E81BA", "QuotaName": "Running On-Demand G and VT instances", "Value": 0.0}}
    found = look(**{
        "service-quotas:GetServiceQuota": Refusal("NoSuchResourceException"),
        "service-quotas:GetAWSDefaultServiceQuota": default,
    })  # fmt: skip
    assert "0 allowed" in one(found, "vCPU quota").seen


def test_what_is_denied_is_a_warning_that_says_so() -> None:
    account = ScriptedAccount({})
    found = preflight(account, DEMAND.override(capacity="on-demand"))
    assert found.verdict == "warn"
    assert one(found, "vCPU quota") == Check(
        name="vCPU quota", verdict="warn", seen="AWS denies ec2:DescribeInstances to these credentials",
        remedy="ask the account's administrator for that permission, or choose another AWS_PROFILE",
    )  # fmt: skip
    assert {check.verdict for check in found.checks} == {"pass", "warn"}
    found.demand()


def test_without_credentials_nothing_else_is_asked() -> None:
    account = ScriptedAccount(healthy(**{"sts:GetCallerIdentity": Refusal("ExpiredToken")}))
    found = preflight(account, DEMAND)
    assert one(found, "account").verdict == "fail"
    assert one(found, "account").seen == "the AWS credentials have expired"
    assert [operation for operation, _ in account.asked] == ["sts:GetCallerIdentity"]


def test_the_best_zone_comes_first_by_score_then_price() -> None:
    found = look(SPOT)
    assert [zone.name for zone in found.survey.zones] == ["us-east-1c", "us-east-1b", "us-east-1a"]
    assert one(found, "spot score").seen == "of 10, for 1 nodes in one zone: us-east-1c 9, us-east-1b 9, us-east-1a 3"
    assert "us-east-1c $1.800/h (at most $3.600 in 7 days)" in one(found, "spot price").seen


def test_a_zone_that_lacks_the_wanted_type_comes_last() -> None:
    def offered(params):
        rows = [("us-east-1c", "g6.12xlarge"), ("us-east-1a", "g6e.12xlarge")]
        return {"InstanceTypeOfferings": [{"Location": zone, "InstanceType": kind} for zone, kind in rows]}

    found = look(SPOT, **{"ec2:DescribeInstanceTypeOfferings": offered})
    assert [(zone.name, zone.types) for zone in found.survey.zones] == [
        ("us-east-1a", ("g6e.12xlarge",)), ("us-east-1c", ("g6.12xlarge",)),
    ]  # fmt: skip
    assert found.survey.without == ("us-east-1b",)


def test_low_scores_are_a_warning_on_spot_only() -> None:
    low = {"ec2:GetSpotPlacementScores": scores(a=1, b=2, c=3)}
    assert one(look(SPOT, **low), "spot score").remedy == (
        "spot is likely to come up short: write --fallback on-demand, or other types"
    )
    assert one(look(DEMAND, **low), "spot score").verdict == "pass"


def test_a_zone_that_does_not_offer_the_type_is_refused_by_name() -> None:
    found = look(DEMAND.override(zone="us-east-1a"), **{"ec2:DescribeInstanceTypeOfferings": offerings("us-east-1b")})
    check = one(found, "zones")
    assert (check.seen, check.remedy) == ("us-east-1a does not offer g6.12xlarge", "write -c zone= one of us-east-1b")


def reservation(**more):
    row = {
        "CapacityReservationId": "cr-0123", "InstanceType": "p5.48xlarge", "AvailabilityZone": "us-east-1b",
        "State": "active", "AvailableInstanceCount": 2, "TotalInstanceCount": 4, **more,
    }  # fmt: skip
    return {"ec2:DescribeCapacityReservations": {"CapacityReservations": [row]}}


@pytest.mark.parametrize(
    ("context", "held", "verdict", "words"),
    [
        ({}, {}, "pass", "cr-0123: 2 of 4 × p5.48xlarge free in us-east-1b, active"),
        ({}, {"PlacementGroupArn": "arn:aws:ec2:us-east-1:1:placement-group/near"}, "pass", "in placement group near"),
        ({}, {"AvailableInstanceCount": 1}, "fail", "write -c nodes=1, or end what runs in it"),
        ({}, {"State": "expired"}, "fail", "only an active one gives instances"),
        ({}, {"ReservationType": "capacity-block"}, "fail", "write -c capacity=block:cr-0123"),
        ({"zone": "us-east-1a"}, {}, "fail", "write -c zone=us-east-1b, or leave it out: fab up takes it from here"),
        ({"instance_type": "p4d.24xlarge"}, {}, "fail", "write -c instance_type=p5.48xlarge"),
        ({"group": "other"}, {}, "fail", "leave -c group= out"),
        ({"capacity": "block:cr-0123"}, {"ReservationType": "capacity-block"}, "pass", "2 of 4"),
        ({"capacity": "block:cr-0123"}, {}, "fail", "write -c capacity=reservation:cr-0123"),
        (
            {"capacity": "block:cr-0123"},
            {"ReservationType": "capacity-block", "EndDate": NOW + timedelta(hours=3)},
            "warn", "2.3 h of it are left for a lab of 4 h",
        ),
        (
            {"capacity": "block:cr-0123"},
            {"ReservationType": "capacity-block", "EndDate": NOW + timedelta(minutes=50)},
            "fail", "buy another block",
        ),
        (
            {"capacity": "block:cr-0123"},
            {"ReservationType": "capacity-block", "State": "scheduled", "StartDate": NOW + timedelta(hours=1)},
            "fail", "it starts at 2026-11-20 13:00 UTC",
        ),
    ],
)  # fmt: skip
def test_a_reservation_is_matched_with_the_lab(context, held, verdict, words) -> None:
    lab = DEMAND.override(**{"instance_type": "p5.48xlarge", "capacity": "reservation:cr-0123", **context})
    check = one(look(lab, **reservation(**held)), "reservation")
    assert check.verdict == verdict, check
    assert words in f"{check.seen}; {check.remedy}"


def test_a_reservation_that_is_not_there_is_said_to_be_in_no_such_region() -> None:
    lab = DEMAND.override(capacity="reservation:cr-0123")
    found = look(lab, **{"ec2:DescribeCapacityReservations": Refusal("InvalidCapacityReservationId.NotFound")})
    check = one(found, "reservation")
    assert check.seen == "reservation:cr-0123 is not in us-east-1 (InvalidCapacityReservationId.NotFound)"
    assert one(found, "vCPU quota").seen == "not needed: reservation:cr-0123 was counted when it was made"


def test_a_stack_of_anothers_is_refused_with_a_name_of_ones_own() -> None:
    check = one(look(**{"cloudformation:DescribeStacks": stack(owner="grace")}), "stack")
    assert check.verdict == "fail"
    assert check.seen == "Lab3Stack stands since 2026-11-20 11:00 UTC (CREATE_COMPLETE) and is grace's, not ada's"
    assert check.remedy == "deploy your own beside it: fab up --lab 3 --name ada (Lab3Stack-ada)"


@pytest.mark.parametrize(
    ("status", "verdict"),
    [("CREATE_COMPLETE", "pass"), ("DELETE_IN_PROGRESS", "fail"), ("ROLLBACK_COMPLETE", "warn"),
     ("DELETE_FAILED", "warn")],
)  # fmt: skip
def test_ones_own_stack_is_judged_by_its_state(status, verdict) -> None:
    assert one(look(**{"cloudformation:DescribeStacks": stack(status=status)}), "stack").verdict == verdict


@pytest.mark.parametrize(
    ("status", "verdict"), [("CREATE_COMPLETE", "pass"), ("ROLLBACK_COMPLETE", "warn"), ("DELETE_FAILED", "fail")]
)
def test_a_lab_without_a_guard_that_works_is_refused(status, verdict) -> None:
    found = look(**{"cloudformation:DescribeStacks": stack("GuardStack", status)})
    assert one(found, "guard").verdict == verdict


@pytest.mark.parametrize(
    ("answer", "verdict", "seen"),
    [
        ({}, "pass", "mine is there"),
        ({"BucketRegion": "eu-west-1"}, "fail", "mine is in eu-west-1, the lab would be in us-east-1"),
        (Refusal("404"), "fail", "there is no bucket mine"),
        (Refusal("301"), "fail", "mine is not in us-east-1"),
        (Refusal("403"), "warn", "whether mine is there is not known (403)"),
    ],
)
def test_the_data_bucket_must_be_in_the_labs_region(answer, verdict, seen) -> None:
    check = one(look(DEMAND.override(data="s3://mine/prefix"), **{"s3:HeadBucket": answer}), "data")
    assert (check.verdict, check.seen) == (verdict, seen)


def test_an_image_that_was_never_baked_is_refused() -> None:
    check = one(look(DEMAND.override(image="baked")), "image")
    assert check.verdict == "fail"
    assert check.seen == "no image was baked (/rooflab/image/gpu is not there)"


def test_an_image_is_looked_up_and_must_be_available() -> None:
    images = {"Images": [{"ImageId": "ami-01234567", "State": "pending"}]}
    found = look(DEMAND.override(image="ami-01234567"), **{"ec2:DescribeImages": images})
    assert one(found, "image").verdict == "warn"


def test_elastic_addresses_are_counted_where_the_nodes_need_them() -> None:
    lab = DEMAND.override(instance_type="p4d.24xlarge")
    held = {"Addresses": [{"PublicIp": f"192.0.2.{index}"} for index in range(4)]}
    found = look(lab, **{"ec2:DescribeAddresses": held, "service-quotas:GetServiceQuota": granting(L_0263D0A3=5)})
    check = one(found, "Elastic IPs")
    assert check.verdict == "fail"
    assert check.remedy.startswith("release one, write -c access=eice, or ask for more: aws service-quotas ")


@pytest.mark.parametrize(
    ("module", "model", "kind", "verdict"),
    [
        ("workloads.generate", "mistral-7b", "g6f.large", "fail"),
        ("workloads.generate", "mistral-7b", "g4dn.xlarge", "warn"),
        ("workloads.generate", "mistral-7b", "g6.xlarge", "pass"),
        ("workloads.ddp", "mistral-7b", "p5.48xlarge", "fail"),
        ("workloads.ddp", "mistral-tiny", "g6.xlarge", "pass"),
    ],
)
def test_a_model_must_fit_one_gpu(module, model, kind, verdict) -> None:
    workload = Workload(name="mine", module=module, args=("--model", model))
    check = one(look(replace(LABS[0], workloads=(workload,), instance_type=kind)), "models")
    assert check.verdict == verdict, check
    assert check.seen.startswith(f"mine on {kind}: {model} takes ")


def test_the_images_that_are_looked_up_are_those_that_the_stacks_start_from() -> None:
    stacks = "".join(path.read_text() for path in (Path(__file__).parents[2] / "stacks").glob("*.py"))
    assert all(name in stacks for name in PUBLIC_IMAGES.values()) or "PUBLIC_IMAGES" in stacks


def test_the_subnet_is_as_large_as_the_network_makes_it() -> None:
    network = (Path(__file__).parents[2] / "stacks" / "network.py").read_text()
    assert "cidr_mask=20" in network
    assert SUBNET_ADDRESSES == 2**12 - 5


def test_the_model_that_generate_takes_by_itself_is_the_one_that_is_checked() -> None:
    from workloads.generate import default_model as workloads_own  # loads torch: only where it is needed
    from workloads.serve import default_model as servers_own

    class Gpu:
        cuda, half = True, "bf16"

        def __init__(self, memory_bytes):
            self.memory_bytes = memory_bytes

    for kind in instance_types().values():
        if kind.gpus:
            gpu = Gpu(kind.gpu_memory_mib << 20)
            assert default_model(kind).name == workloads_own(gpu)  # type: ignore[arg-type]
            assert served_model(kind).name == servers_own(gpu)  # type: ignore[arg-type]


def test_a_program_that_is_missing_fails_with_what_brings_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("operate.laptop.ROOT", tmp_path)
    found = tools.check_tools(DEMAND.override(access="ssm"))
    assert [check.seen for check in found] == [
        "cdk is not here", "node is not here", "ssh is not here", "git is not here",
        "session-manager-plugin is not here",
        f"{tmp_path}/.rooflab/id_ed25519 is not here, so no node would let you in",
    ]  # fmt: skip
    assert found[0].remedy == "run ./setup.sh, and source .venv/bin/activate"


def test_a_program_that_fails_says_how(monkeypatch, tmp_path) -> None:
    broken = tmp_path / "git"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert f"{broken} fails (broken)" in [check.seen for check in tools.check_tools(DEMAND)]
