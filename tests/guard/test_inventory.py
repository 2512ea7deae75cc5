"""What a look finds, what it lets stand, and what it says when it may not look."""

import pytest

from guard import inventory
from guard.inventory import look
from guard.removal import DEADLINES, step
from labs import names
from tests.guard.bench import Bench


def kinds(bench: Bench, stack: str = "") -> dict[str, str]:
    return {item.kind: item.id for item in look(bench.clients, stack).left}


def test_the_guard_uses_the_names_that_every_room_agrees_on() -> None:
    assert inventory.GUARD_STACK == names.GUARD_STACK
    assert (inventory.TAG_LAB, inventory.TAG_STACK) == (names.TAG_LAB, names.TAG_STACK)
    assert inventory.TAG_TTL_HOURS == names.TAG_TTL_HOURS
    assert DEADLINES + "{stack}" == names.DEADLINE_PARAMETER


def test_an_account_without_labs_is_empty_and_was_looked_at_everywhere(bench: Bench) -> None:
    bench.instance(bench.subnet(bench.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]))
    found = look(bench.clients)
    assert found.items == ()
    assert found.missed == {}


def test_untagged_things_made_by_hand_in_the_labs_vpc_are_found(bench: Bench) -> None:
    vpc = bench.stack()
    made = bench.made_by_hand(bench.subnet(vpc))
    found = look(bench.clients)
    assert {(kind, ident) for kind, ident in made.items()} <= {(item.kind, item.id) for item in found.left}
    assert {item.stack for item in found.left} == {"Lab3Stack"}


def test_things_that_only_carry_the_tag_are_found_without_vpc_or_stack(bench: Bench) -> None:
    volume = bench.volume(TagSpecifications=bench.tags("volume"))
    address = bench.ec2.allocate_address(Domain="vpc", TagSpecifications=bench.tags("elastic-ip"))["AllocationId"]
    assert kinds(bench) == {"volume": volume, "address": address}


def test_a_snapshot_stands_though_its_tags_were_copied_from_the_labs_volume(bench: Bench) -> None:
    volume = bench.volume(TagSpecifications=bench.tags("volume"))
    bench.ec2.create_snapshot(VolumeId=volume, TagSpecifications=bench.tags("snapshot"))
    assert kinds(bench) == {"volume": volume}
    assert [item.stands for item in look(bench.clients).items if item.stands] == ["a snapshot made by hand"]


def test_an_instance_of_the_labs_launch_template_is_found_outside_the_vpc(bench: Bench) -> None:
    template = bench.ec2.create_launch_template(
        LaunchTemplateName="nodes", LaunchTemplateData={}, TagSpecifications=bench.tags("launch-template")
    )["LaunchTemplate"]["LaunchTemplateId"]
    elsewhere = bench.subnet(bench.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])
    marks = [{"ResourceType": "instance", "Tags": [{"Key": "aws:ec2launchtemplate:id", "Value": template}]}]
    instance = bench.instance(elsewhere)
    reservation = bench.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    reservation[0]["Instances"][0]["Tags"] = marks[0]["Tags"]  # AWS sets this tag itself; nobody else may
    bench.answers["ec2:DescribeInstances"] = {"Reservations": reservation}
    assert kinds(bench)["instance"] == instance


def test_instances_are_counted_and_records_of_instant_fleets_are_not(bench: Bench) -> None:
    lingering = {"Tags": bench.tags("fleet")[0]["Tags"], "FleetState": "active"}
    bench.answers["ec2:DescribeFleets"] = {
        "Fleets": [
            {"FleetId": "fleet-1", "Type": "instant", **lingering},
            {"FleetId": "fleet-2", "Type": "maintain", **lingering},
        ]
    }
    assert kinds(bench) == {"fleet": "fleet-2"}
    (fleet,) = look(bench.clients).left
    assert fleet.calls[0].params == {"FleetIds": ["fleet-2"], "TerminateInstances": True}


def test_what_has_ended_does_not_count(bench: Bench) -> None:
    vpc = bench.stack()
    instance = bench.instance(bench.subnet(vpc))
    bench.ec2.terminate_instances(InstanceIds=[instance])
    assert "instance" not in kinds(bench)


def test_a_look_for_one_stack_leaves_the_other_out(bench: Bench) -> None:
    mine = bench.volume(TagSpecifications=bench.tags("volume", "Lab3Stack"))
    bench.volume(TagSpecifications=bench.tags("volume", "Lab3Stack-alice"))
    assert kinds(bench, "Lab3Stack") == {"volume": mine}


def test_log_groups_belong_by_name_and_the_guards_own_stands(bench: Bench) -> None:
    for name in ("/rooflab/Lab3Stack-alice/boot", "/rooflab/guard", "/aws/lambda/Lab3Stack-x"):
        bench.clients("logs").create_log_group(logGroupName=name)
    found = look(bench.clients)
    assert [(item.id, item.stack) for item in found.left] == [("/rooflab/Lab3Stack-alice/boot", "Lab3Stack-alice")]
    assert [item.id for item in found.items if item.stands] == ["/rooflab/guard"]


def test_the_users_own_things_stand_and_say_why(bench: Bench) -> None:
    mine = bench.volume()
    bench.answers["ec2:DescribeVolumes"] = {
        "Volumes": [{"VolumeId": mine, "CreateTime": "2020-01-01T00:00:00Z", "State": "in-use", "Attachments": []}]
    }
    vpc = bench.stack()
    instance = bench.instance(bench.subnet(vpc))
    bench.answers["ec2:DescribeVolumes"]["Volumes"][0]["Attachments"] = [{"InstanceId": instance}]
    snapshot = bench.ec2.create_snapshot(VolumeId=bench.volume())["SnapshotId"]
    bench.answers["ec2:DescribeSnapshots"] = {"Snapshots": [{"SnapshotId": snapshot, "VolumeId": mine}]}
    named = bench.ec2.allocate_address(Domain="vpc")["AllocationId"]
    bench.ec2.associate_address(AllocationId=named, InstanceId=instance)
    bench.ec2.create_tags(Resources=[named], Tags=[{"Key": "Name", "Value": "www"}])
    reservation = {"CapacityReservationId": "cr-1", "State": "active", "InstanceType": "p5.48xlarge"}
    bench.answers["ec2:DescribeCapacityReservations"] = {"CapacityReservations": [reservation]}
    standing = {item.id: item.stands for item in look(bench.clients).items if item.stands}
    assert standing == {
        mine: "a volume older than the lab",
        snapshot: "a snapshot made by hand",
        named: "an address with tags of its owner",
        "cr-1": "a reservation of the user's own",
    }


def test_a_reservation_with_the_labs_tag_is_ours(bench: Bench) -> None:
    reservation = {"CapacityReservationId": "cr-1", "State": "active", "Tags": bench.tags("x")[0]["Tags"]}
    bench.answers["ec2:DescribeCapacityReservations"] = {"CapacityReservations": [reservation]}
    assert kinds(bench) == {"capacity-reservation": "cr-1"}


def test_what_is_refused_is_named_with_the_missing_permission(bench: Bench) -> None:
    bench.refuse("ec2:DescribeVolumes")
    bench.refuse("fsx:DescribeFileSystems", "AccessDeniedException")
    bench.refuse("ec2:DescribeCapacityReservations", "InvalidAction", "no such action.")
    assert look(bench.clients).missed == {
        "volume": "no permission for ec2:DescribeVolumes: allow it (UnauthorizedOperation)",
        "file-system": "no permission for fsx:DescribeFileSystems: allow it (AccessDeniedException)",
        "capacity-reservation": "ec2:DescribeCapacityReservations was refused (InvalidAction: no such action)",
    }


def test_a_service_that_does_not_answer_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import EndpointConnectionError

    def down(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://fsx.example")

    monkeypatch.setattr(bench.clients("fsx"), "_make_api_call", lambda *_: down())
    assert look(bench.clients).missed["file-system"].startswith("fsx did not answer (Could not connect")


def test_groups_that_name_each_other_lose_those_rules_first(bench: Bench) -> None:
    vpc = bench.stack()
    one, two = (bench.ec2.create_security_group(GroupName=n, Description=n, VpcId=vpc)["GroupId"] for n in "ab")
    rule = [{"IpProtocol": "tcp", "FromPort": 988, "ToPort": 988, "UserIdGroupPairs": [{"GroupId": two}]}]
    bench.ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=rule)
    bench.ec2.authorize_security_group_egress(GroupId=one, IpPermissions=rule)
    group = next(item for item in look(bench.clients).left if item.id == one)
    assert [call.operation for call in group.calls] == [
        "revoke_security_group_egress",
        "revoke_security_group_ingress",
        "delete_security_group",
    ]


def answer(bench: Bench, kind: str, *rows: dict) -> None:
    bench.answers[kind] = {kind.split("Describe")[1]: [*rows]}


def test_an_instance_connect_endpoint_made_by_hand_is_the_labs_until_it_is_gone(bench: Bench) -> None:
    vpc = bench.stack()
    row = {"InstanceConnectEndpointId": "eice-1", "VpcId": vpc, "State": "create-complete"}
    answer(bench, "ec2:DescribeInstanceConnectEndpoints", row)
    (found,) = (item for item in look(bench.clients).left if item.kind == "instance-connect-endpoint")
    assert (found.stack, found.found) == ("Lab3Stack", "VpcId")
    assert [call.params for call in found.calls] == [{"InstanceConnectEndpointId": "eice-1"}]
    answer(bench, "ec2:DescribeInstanceConnectEndpoints", row | {"State": "delete-complete"})
    assert "instance-connect-endpoint" not in {item.kind for item in look(bench.clients).left}


def test_an_egress_only_gateway_made_by_hand_is_the_labs(bench: Bench) -> None:
    vpc = bench.stack()
    made = bench.ec2.create_egress_only_internet_gateway(VpcId=vpc)["EgressOnlyInternetGateway"]
    (found,) = (item for item in look(bench.clients).left if item.kind == "egress-only-internet-gateway")
    assert (found.id, found.stack) == (made["EgressOnlyInternetGatewayId"], "Lab3Stack")


def test_what_was_baked_stands_on_purpose(bench: Bench) -> None:
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "rooflab:baked", "Value": "3"}]}]
    snapshot = bench.ec2.create_snapshot(VolumeId=bench.volume(), TagSpecifications=tags)["SnapshotId"]
    seen = look(bench.clients)
    (found,) = (item for item in seen.items if item.id == snapshot)
    assert (found.stack, found.stands) == ("", "baked on purpose, for -c image=baked")
    assert found not in seen.left


def test_a_backup_is_known_by_the_tags_of_a_file_system_that_is_gone(bench: Bench) -> None:
    file_system = {"FileSystemId": "fs-0123456789abcdef0", "Tags": [{"Key": "rooflab:stack", "Value": "Lab3Stack"}]}
    row = {"BackupId": "backup-1", "Lifecycle": "AVAILABLE", "FileSystem": file_system, "SizeInBytes": 5}
    answer(bench, "fsx:DescribeBackups", row)
    (found,) = look(bench.clients).items
    assert (found.stack, found.stands, found.facts) == ("Lab3Stack", "a backup made by hand", {"SizeInBytes": 5})


def test_what_bills_and_is_nobodys_is_kept_apart(bench: Bench) -> None:
    bench.stack()
    nobodys, somebodys = bench.volume(), bench.volume(TagSpecifications=[
        {"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "x"}]}
    ])  # fmt: skip
    seen = look(bench.clients)
    assert [item.id for item in seen.unclaimed] == [nobodys]
    assert {nobodys, somebodys}.isdisjoint(item.id for item in seen.items)
    assert seen.unclaimed[0].created.startswith("20")


def test_a_file_system_made_by_hand_is_tagged_by_its_arn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    subnet = bench.subnet(bench.stack())
    row = {"FileSystemId": "fs-0123456789a", "SubnetIds": [subnet], "Lifecycle": "AVAILABLE"}
    row["ResourceARN"] = "arn:aws:fsx:one"
    answer(bench, "fsx:DescribeFileSystems", row)
    bench.answers["fsx:DeleteFileSystem"] = {}
    asked: list[dict] = []
    monkeypatch.setattr(bench.clients("fsx"), "tag_resource", lambda **params: asked.append(params), raising=False)
    made = step(bench.clients, "Lab3Stack")
    assert asked == [{"ResourceARN": "arn:aws:fsx:one", "Tags": [{"Key": "rooflab:stack", "Value": "Lab3Stack"}]}]
    assert "remove file-system fs-0123456789a" in made.did
