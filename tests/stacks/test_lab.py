"""What a lab's stack is made of, by capacity, storage, type and zone."""

import pytest

from labs import names
from labs.catalog import LABS
from stacks.lab import price
from tests.stacks.synthesis import Synthesis, launch_data, of_type, synthesise, waits_for


def properties(template, kind):
    return [resource["Properties"] for resource in of_type(template, kind).values()]


def test_nodes_are_instances_numbered_from_0(plain: Synthesis) -> None:
    _, template = plain.labs["lab3"]
    tags = [{tag["Key"]: tag["Value"] for tag in node["Tags"]} for node in properties(template, "AWS::EC2::Instance")]
    assert tags == [
        {"Name": "Lab3Stack node0", names.TAG_NODE: "0"},
        {"Name": "Lab3Stack node1", names.TAG_NODE: "1"},
    ]


def test_beyond_16_nodes_they_share_the_templates_name(varied: Synthesis) -> None:
    """Their index is a tag of its own, and 64 names would not fit into a template."""
    _, template = varied.labs["64 nodes"]
    tags = [node["Tags"] for node in properties(template, "AWS::EC2::Instance")]
    assert tags == [[{"Key": names.TAG_NODE, "Value": str(index)}] for index in range(64)]
    (data,) = launch_data(template)
    (instance,) = [one["Tags"] for one in data["TagSpecifications"] if one["ResourceType"] == "instance"]
    assert {"Key": "Name", "Value": "Lab3Stack node"} in instance


def test_a_changed_template_replaces_its_nodes(varied: Synthesis) -> None:
    """They name its newest version, so a node never runs what its stack no longer says."""
    for title in ("64 nodes", "two EFAs"):
        _, template = varied.labs[title]
        for node in properties(template, "AWS::EC2::Instance"):
            made = node["LaunchTemplate"]["LaunchTemplateId"]["Ref"]
            assert made in of_type(template, "AWS::EC2::LaunchTemplate")
            assert node["LaunchTemplate"]["Version"] == {"Fn::Sub": f"${{{made}.LatestVersionNumber}}"}


def test_a_fleet_takes_one_of_the_types_that_will_do(varied: Synthesis) -> None:
    for title in ("alternatives", "alternatives without an address"):
        lab, template = varied.labs[title]
        (fleet,) = properties(template, "AWS::EC2::EC2Fleet")
        assert fleet["TargetCapacitySpecification"] == {"TotalTargetCapacity": 2, "DefaultTargetCapacityType": "spot"}
        assert fleet["SpotOptions"]["SingleInstanceType"] is True
        (config,) = fleet["LaunchTemplateConfigs"]
        assert config["Overrides"] == [{"InstanceType": kind, "SubnetId": {"Ref": "Subnet"}} for kind in lab.types]
        assert len(lab.types) >= 2
        assert len(launch_data(template)) == 1, "all share it"


@pytest.mark.parametrize(
    ("title", "group"),
    [
        ("data", {"Ref": "Together"}),
        ("alternatives", {"Ref": "Together"}),
        ("a reservation", None),  # a group made now cannot hold what was reserved before
        ("a reservation's group", "mine"),
        ("a block", None),  # EC2 refuses one
        ("no GPU", None),  # burstable types refuse one
        ("EFA on one node", None),  # one node is near itself
    ],
)
def test_nodes_share_a_cluster_placement_group_where_ec2_allows(varied: Synthesis, title, group) -> None:
    _, template = varied.labs[title]
    groups = of_type(template, "AWS::EC2::PlacementGroup")
    assert [one["Properties"]["Strategy"] for one in groups.values()] == (
        ["cluster"] if isinstance(group, dict) else []
    )
    for data in launch_data(template):
        assert data.get("Placement") == ({"GroupName": group} if group else None)


def test_one_interface_gets_its_public_address_from_ec2(varied: Synthesis) -> None:
    for title in ("no GPU", "data", "one EFA", "alternatives"):
        _, template = varied.labs[title]
        for data in launch_data(template):
            (interface,) = data["NetworkInterfaces"]
            assert interface["AssociatePublicIpAddress"] is True
            assert interface["Groups"] == [{"Ref": "Nodes"}]
        assert not of_type(template, "AWS::EC2::EIP")


def test_several_interfaces_bring_an_address_of_their_own(varied: Synthesis) -> None:
    """EC2 refuses a public address beside a second interface, so each node's primary one is made before it."""
    for title, efas in (("two EFAs", 2), ("Lustre over EFA", 32), ("an EFA on every card but the first", 16)):
        _, template = varied.labs[title]
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


def test_a_fleet_of_several_interfaces_is_reached_through_an_endpoint(varied: Synthesis) -> None:
    lab, template = varied.labs["many EFAs on spot"]
    assert lab.way == "endpoint"
    (data,) = launch_data(template)
    first, *others = data["NetworkInterfaces"]
    assert first["Ipv6AddressCount"] == 1
    assert len(others) == 32
    for interface in data["NetworkInterfaces"]:
        assert not {"SubnetId", "AssociatePublicIpAddress"} & set(interface)
    assert all("Ipv6AddressCount" not in other for other in others)
    (endpoint,) = of_type(template, "AWS::EC2::InstanceConnectEndpoint")
    assert template["Outputs"][names.Output.ENDPOINT]["Value"] == {"Ref": endpoint}


def test_session_manager_needs_no_door(varied: Synthesis) -> None:
    lab, template = varied.labs["Session Manager"]
    assert lab.way == "session"
    assert set(of_type(template, "AWS::EC2::SecurityGroup")) == {"Nodes"}
    (data,) = launch_data(template)
    assert [one.get("Ipv6AddressCount") for one in data["NetworkInterfaces"]] == [1]


def test_the_subnet_has_a_64_of_the_networks_ipv6_range(varied: Synthesis) -> None:
    _, template = varied.labs["Session Manager"]
    (vpc,) = of_type(template, "AWS::EC2::VPC")
    (subnet,) = properties(template, "AWS::EC2::Subnet")
    whole = {"Fn::Select": [0, {"Fn::GetAtt": [vpc, "Ipv6CidrBlocks"]}]}
    assert subnet["Ipv6CidrBlock"] == {"Fn::Select": [0, {"Fn::Cidr": [whole, 1, "64"]}]}
    (given,) = of_type(template, "AWS::EC2::VPCCidrBlock")
    assert given in waits_for(template, "Subnet")


@pytest.mark.parametrize(
    ("title", "image"),
    [
        ("data", "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04"
         "/latest/ami-id"),
        ("no GPU", "resolve:ssm:/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"),
        ("an image", "ami-0123456789abcdef0"),
        ("a baked image", "resolve:ssm:/rooflab/image/gpu"),
        ("a baked image without a GPU", "resolve:ssm:/rooflab/image/cpu"),
    ],
)  # fmt: skip
def test_the_image_is_read_by_ec2_at_each_launch_or_given(varied: Synthesis, title, image) -> None:
    """Read by CloudFormation instead, a newer one would replace running nodes."""
    assert {data["ImageId"] for data in launch_data(varied.labs[title][1])} == {image}


@pytest.mark.parametrize(
    ("title", "path"),
    [("data", "s3://bucket/some/prefix/"), ("results as data", "s3://{}/results/"), ("Lustre over EFA", "s3://{}/results/")],
)  # fmt: skip
def test_data_are_imported_and_never_exported(varied: Synthesis, title, path) -> None:
    _, template = varied.labs[title]
    (system,) = of_type(template, "AWS::FSx::FileSystem")
    (association,) = properties(template, "AWS::FSx::DataRepositoryAssociation")
    found = association["DataRepositoryPath"]
    if isinstance(found, dict):
        start, bucket, end = found["Fn::Join"][1]
        assert bucket["Fn::ImportValue"].startswith("GuardStack:ExportsOutputRefResults")
        found = f"{start}{{}}{end}"
    assert found == path
    assert association["FileSystemId"] == {"Ref": system}
    assert association["S3"] == {"AutoImportPolicy": {"Events": ["NEW", "CHANGED", "DELETED"]}}


def test_the_file_system_is_as_large_as_asked_for(varied: Synthesis) -> None:
    for title, gib in (("data", 1200), ("results as data", 4800), ("Lustre over EFA", 9600)):
        (made,) = properties(varied.labs[title][1], "AWS::FSx::FileSystem")
        assert made["StorageCapacity"] == gib
    (made,) = properties(varied.labs["results as data"][1], "AWS::FSx::FileSystem")
    assert made["LustreConfiguration"]["PerUnitStorageThroughput"] == 250


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
    (group,) = [one["Ref"] for one in made["SecurityGroupIds"]]
    leaving = [
        one for one in properties(template, "AWS::EC2::SecurityGroupEgress") if one["GroupId"] == {"Ref": "Nodes"}
    ]
    assert {"Ref": group} in [one["DestinationSecurityGroupId"] for one in leaving], "an EFA's way to it is a group's"


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


def test_a_lab_changes_nothing_in_the_guard(plain: Synthesis, varied: Synthesis, tmp_path) -> None:
    """Else deploying one lab would update GuardStack under another."""
    assert plain.guard == varied.guard
    assert synthesise(tmp_path, {}).guard == plain.guard, "with no lab at all it exports the same"


@pytest.mark.parametrize(
    ("number", "given", "line"),
    [
        (0, {}, "Lab0Stack costs $0.83 an hour, $3.30 in its 4 hours, by us-east-1's list prices"),
        (4, {}, "Lab4Stack costs at most $10.74 an hour, $42.98 in its 4 hours, by us-east-1's list prices"),
        (1, {"name": "alice", "ttl_hours": 0.5}, "Lab1Stack-alice costs $0.83 an hour, $0.41 in its 0.5 hours, by us-"),
        (1, {"instance_type": "p5.48xlarge", "capacity": "block:cr-0123"}, "Lab1Stack costs $0.0214 an hour, $0.0858 "
         "in its 4 hours, by us-east-1's list prices, besides 1 × p5.48xlarge, block:cr-0123 (a capacity block is "),
    ],
)  # fmt: skip
def test_the_price_is_told_in_one_line(number, given, line) -> None:
    assert price(LABS[number].override(**given)).startswith(line)
    assert "\n" not in price(LABS[number].override(**given))
