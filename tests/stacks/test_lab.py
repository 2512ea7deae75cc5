"""What a lab's stack is made of, by capacity, storage, type and zone."""

import pytest

from labs import names
from labs.catalog import LABS
from tests.stacks.synthesis import Synthesis, launch_data, of_type, synthesise


def properties(template, kind):
    return [resource["Properties"] for resource in of_type(template, kind).values()]


def test_each_stack_tells_what_it_was_meant_to_be(plain: Synthesis) -> None:
    for number, kind in ((1, "g6.xlarge"), (3, "g6.12xlarge"), (4, "g6e.12xlarge")):
        lab, template = plain.labs[f"lab{number}"]
        outputs = {key: output["Value"] for key, output in template["Outputs"].items()}
        assert outputs[names.Output.NODES] == str(lab.nodes)
        assert outputs[names.Output.INSTANCE_TYPE] == kind
        assert outputs[names.Output.CAPACITY] == lab.capacity
        assert set(outputs) >= {names.Output.VPC, names.Output.SECURITY_GROUP}
        assert (names.Output.FLEET in outputs) == (lab.capacity == "spot")
        assert (names.Output.FILE_SYSTEM in outputs) == (lab.storage != "none")


def test_nodes_are_instances_numbered_from_0(plain: Synthesis) -> None:
    _, template = plain.labs["lab3"]
    tags = [{tag["Key"]: tag["Value"] for tag in node["Tags"]} for node in properties(template, "AWS::EC2::Instance")]
    assert tags == [
        {"Name": "Lab3Stack node0", names.TAG_NODE: "0"},
        {"Name": "Lab3Stack node1", names.TAG_NODE: "1"},
    ]


def test_spot_is_one_fleet_that_comes_whole_or_not_at_all(matrix: Synthesis) -> None:
    lab, template = matrix.labs["lab3 g6.12xlarge spot"]
    assert not of_type(template, "AWS::EC2::Instance")
    (fleet,) = properties(template, "AWS::EC2::EC2Fleet")
    assert fleet["Type"] == "instant"
    assert fleet["SpotOptions"] == {
        "AllocationStrategy": "price-capacity-optimized", "InstanceInterruptionBehavior": "terminate",
        "MinTargetCapacity": lab.nodes, "SingleAvailabilityZone": True, "SingleInstanceType": True,
    }  # fmt: skip
    assert fleet["TargetCapacitySpecification"] == {"TotalTargetCapacity": 2, "DefaultTargetCapacityType": "spot"}
    (config,) = fleet["LaunchTemplateConfigs"]
    assert config["Overrides"] == [{"InstanceType": "g6.12xlarge", "SubnetId": {"Ref": "Subnet"}}]
    (interface,) = launch_data(template)[0]["NetworkInterfaces"]
    assert "SubnetId" not in interface, "the override states it"
    assert "InstanceMarketOptions" not in launch_data(template)[0], "the fleet states the market"


@pytest.mark.parametrize(
    ("capacity", "market", "reserved"),
    [("on-demand", None, False), ("spot", None, False), ("reservation", None, True), ("block", "capacity-block", True)],
)
def test_launch_template_names_market_and_reservation(matrix: Synthesis, capacity, market, reserved) -> None:
    _, template = matrix.labs[f"lab1 p5.48xlarge {capacity}"]
    for data in launch_data(template):
        assert data.get("InstanceMarketOptions", {}).get("MarketType") == market
        target = data.get("CapacityReservationSpecification", {}).get("CapacityReservationTarget")
        assert target == ({"CapacityReservationId": "cr-0123456789abcdef0"} if reserved else None)


@pytest.mark.parametrize(
    ("title", "grouped"),
    [
        ("lab3 g6.12xlarge on-demand", True),
        ("lab3 g6.12xlarge spot", True),
        ("lab3 p5.48xlarge reservation", False),  # a group made now cannot hold what was reserved before
        ("lab3 p5.48xlarge block", False),  # EC2 refuses one
        ("lab3 t3.medium on-demand", False),  # burstable types refuse one
        ("lab1 g6.12xlarge on-demand", False),  # one node is near itself
    ],
)
def test_nodes_share_a_cluster_placement_group_where_ec2_allows(matrix: Synthesis, title, grouped) -> None:
    _, template = matrix.labs[title]
    groups = of_type(template, "AWS::EC2::PlacementGroup")
    assert [group["Properties"]["Strategy"] for group in groups.values()] == (["cluster"] if grouped else [])
    for data in launch_data(template):
        assert data.get("Placement") == ({"GroupName": {"Ref": next(iter(groups))}} if grouped else None)


def test_one_interface_gets_its_public_address_from_ec2(matrix: Synthesis) -> None:
    for title in ("lab1 t3.medium on-demand", "lab3 g6.12xlarge on-demand", "lab3 p5.4xlarge spot"):
        _, template = matrix.labs[title]
        for data in launch_data(template):
            (interface,) = data["NetworkInterfaces"]
            assert interface["AssociatePublicIpAddress"] is True
            assert interface["Groups"] == [{"Ref": "Nodes"}]
        assert not of_type(template, "AWS::EC2::EIP")


def test_several_interfaces_bring_an_address_of_their_own(matrix: Synthesis) -> None:
    """EC2 refuses a public address beside a second interface, so each node's primary one is made before it."""
    for kind, efas in (("g6e.24xlarge", 2), ("p5.48xlarge", 32), ("p6-b300.48xlarge", 16)):
        _, template = matrix.labs[f"lab3 {kind} on-demand"]
        primaries = of_type(template, "AWS::EC2::NetworkInterface")
        assert len(primaries) == len(of_type(template, "AWS::EC2::EIP")) == 2
        assert {one["NetworkInterfaceId"]["Ref"] for one in properties(template, "AWS::EC2::EIPAssociation")} == set(
            primaries
        )
        for data, primary in zip(launch_data(template), primaries, strict=True):
            first, *others = data["NetworkInterfaces"]
            assert first["NetworkInterfaceId"] == {"Ref": primary}
            assert not {"Groups", "SubnetId", "AssociatePublicIpAddress", "InterfaceType"} & set(first)
            assert len(others) == efas
            for other in others:
                assert other["InterfaceType"] == "efa-only"
                assert other["DeleteOnTermination"] is True
                assert "AssociatePublicIpAddress" not in other


def test_cpu_types_boot_plain_ubuntu_and_gpu_types_the_driver_image(matrix: Synthesis) -> None:
    for title, (lab, template) in matrix.labs.items():
        for data in launch_data(template):
            wanted = (
                "resolve:ssm:/aws/service/deeplearning/" if lab.instance.gpus else "resolve:ssm:/aws/service/canonical/"
            )
            assert data["ImageId"].startswith(wanted), title


def test_scratch_is_fixed_in_throughput_and_persistent_is_not(plain: Synthesis) -> None:
    (scratch,) = properties(plain.labs["lab3"][1], "AWS::FSx::FileSystem")
    assert scratch["StorageCapacity"] == 1200
    assert scratch["FileSystemTypeVersion"] == "2.15"
    assert scratch["LustreConfiguration"] == {"DeploymentType": "SCRATCH_2", "DataCompressionType": "LZ4"}
    (persistent,) = properties(plain.labs["lab3 persistent-125"][1], "AWS::FSx::FileSystem")
    assert persistent["LustreConfiguration"]["PerUnitStorageThroughput"] == 125
    assert persistent["LustreConfiguration"]["AutomaticBackupRetentionDays"] == 0


def test_lustre_over_efa_opens_its_group_to_the_nodes_and_keeps_the_capacity_step(plain: Synthesis) -> None:
    _, template = plain.labs["lab3 efa"]
    (made,) = properties(template, "AWS::FSx::FileSystem")
    assert made["StorageCapacity"] % 4800 == 0, "the step at 1000 MB/s per TiB"
    assert made["LustreConfiguration"]["EfaEnabled"] is True
    assert made["LustreConfiguration"]["MetadataConfiguration"] == {"Mode": "AUTOMATIC"}
    storage = next(
        group for group in properties(template, "AWS::EC2::SecurityGroup") if "SecurityGroupIngress" in group
    )
    assert [rule["IpProtocol"] for rule in storage["SecurityGroupIngress"]] == ["-1"]
    assert [rule["IpProtocol"] for rule in storage["SecurityGroupEgress"]] == ["-1"]


def test_lustre_opens_its_ports_both_ways_and_no_other(plain: Synthesis) -> None:
    _, template = plain.labs["lab3"]
    group = next(id for id, one in of_type(template, "AWS::EC2::SecurityGroup").items() if id != "Nodes")
    wanted = [(988, 988), (1018, 1023)]

    def ports(rules):
        return sorted((rule["FromPort"], rule["ToPort"]) for rule in rules)

    made = template["Resources"][group]["Properties"]
    assert ports(made["SecurityGroupIngress"]) == ports(made["SecurityGroupEgress"]) == wanted
    for kind, other in (("Ingress", "SourceSecurityGroupId"), ("Egress", "DestinationSecurityGroupId")):
        rules = properties(template, f"AWS::EC2::SecurityGroup{kind}")
        assert ports(r for r in rules if r["GroupId"] == r[other] == {"Ref": group}) == wanted, "among its servers"
    incoming = properties(template, "AWS::EC2::SecurityGroupIngress")
    of_nodes = [rule for rule in incoming if rule["GroupId"] == {"Ref": "Nodes"}]
    assert ports(rule for rule in of_nodes if rule["SourceSecurityGroupId"] == {"Ref": group}) == wanted


def test_no_storage_means_no_file_system_and_no_rules_for_it(plain: Synthesis) -> None:
    _, template = plain.labs["lab3 none"]
    assert not of_type(template, "AWS::FSx::FileSystem")
    assert set(of_type(template, "AWS::EC2::SecurityGroup")) == {"Nodes"}


def test_the_zone_is_the_one_given_or_the_regions_first(plain: Synthesis) -> None:
    (subnet,) = properties(plain.labs["lab0 in a zone"][1], "AWS::EC2::Subnet")
    assert subnet["AvailabilityZone"] == "eu-west-1c"
    (subnet,) = properties(plain.labs["lab0"][1], "AWS::EC2::Subnet")
    assert subnet["AvailabilityZone"] == {"Fn::Select": [0, {"Fn::GetAZs": ""}]}


def test_two_people_may_hold_the_same_lab(plain: Synthesis) -> None:
    lab, template = plain.labs["lab0 in a zone"]
    (node,) = properties(template, "AWS::EC2::Instance")
    assert {"Key": "Name", "Value": "Lab0Stack-alice node0"} in node["Tags"]
    assert lab.stack == "Lab0Stack-alice"


def test_nodes_use_what_the_guard_keeps(plain: Synthesis) -> None:
    exported = {output["Export"]["Name"] for output in plain.guard["Outputs"].values() if "Export" in output}
    for title, (_, template) in plain.labs.items():
        (data,) = launch_data(template)
        assert data["IamInstanceProfile"]["Name"]["Fn::ImportValue"] in exported, title


def test_a_lab_changes_nothing_in_the_guard(plain: Synthesis, matrix: Synthesis, tmp_path) -> None:
    """Else deploying one lab would update GuardStack under another."""
    assert plain.guard == matrix.guard
    assert synthesise(tmp_path, {}).guard == plain.guard, "with no lab at all it exports the same"


def test_a_fleet_of_several_interfaces_is_refused_with_what_to_write(matrix: Synthesis) -> None:
    assert matrix.refused["lab3 p5.48xlarge spot"] == (
        "capacity='spot' with 32 EFA interfaces on p5.48xlarge is not allowed, for EC2 gives a fleet's node no public "
        "address beside several interfaces: write efa=off, or capacity=on-demand, or a type with one EFA such as "
        "instance_type=g6e.12xlarge"
    )


def test_the_refused_remedies_are_accepted(tmp_path) -> None:
    lab = {"number": 3, "instance_type": "p5.48xlarge", "capacity": "spot"}
    made = synthesise(tmp_path, {
        "efa=off": {**lab, "efa": "off"},
        "on-demand": {**lab, "capacity": "on-demand"},
        "one efa": {**lab, "instance_type": "g6e.12xlarge"},
    })  # fmt: skip
    assert not made.refused
    assert len(LABS) == 5
