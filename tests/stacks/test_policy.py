"""What holds for every lab, on every kind of type and capacity, whichever way its nodes are reached.

Each policy is a function of a lab and its template; `POLICIES` x `matrix` is how often one is asked.
"""

import base64
import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from labs import names
from labs.catalog import LABS, Lab
from labs.instances import instance_type, instance_types
from stacks.boot import LIMIT_BYTES
from stacks.permissions import SESSION
from tests.stacks.synthesis import (
    ACCESS,
    CAPACITIES,
    DIFFERENT,
    TYPES,
    Synthesis,
    Template,
    launch_data,
    of_type,
    references,
    resolve,
    waits_for,
    yaml_bytes,
)  # fmt: skip

TAGS = {names.TAG_LAB, names.TAG_STACK, names.TAG_OWNER, names.TAG_TTL_HOURS}
TAKES_TAGS = {
    "AWS::EC2::VPC", "AWS::EC2::Subnet", "AWS::EC2::RouteTable", "AWS::EC2::InternetGateway", "AWS::EC2::VPCEndpoint",
    "AWS::EC2::SecurityGroup", "AWS::EC2::PlacementGroup", "AWS::EC2::NetworkInterface", "AWS::EC2::EIP",
    "AWS::EC2::EgressOnlyInternetGateway", "AWS::EC2::InstanceConnectEndpoint", "AWS::FSx::FileSystem",
    "AWS::FSx::DataRepositoryAssociation",
}  # fmt: skip
TAKES_NONE = {
    "AWS::EC2::SubnetRouteTableAssociation", "AWS::EC2::Route", "AWS::EC2::VPCGatewayAttachment",
    "AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress", "AWS::EC2::EIPAssociation",
    "AWS::EC2::VPCCidrBlock",
}  # fmt: skip
TAGGED_OTHERWISE = {"AWS::EC2::LaunchTemplate", "AWS::EC2::Instance", "AWS::EC2::EC2Fleet"}
NODES = {"Ref": "Nodes"}


def tagged(tags: Any) -> set[str]:
    return {tag["Key"] for tag in tags}


def node_ids(template: Template) -> list[str]:
    return [*of_type(template, "AWS::EC2::Instance"), *of_type(template, "AWS::EC2::EC2Fleet")]


def rules(template: Template, way: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every rule, "Ingress" or "Egress", with the group that it belongs to."""
    for id, group in of_type(template, "AWS::EC2::SecurityGroup").items():
        for rule in group["Properties"].get(f"SecurityGroup{way}", []):
            yield id, rule
    for rule in of_type(template, f"AWS::EC2::SecurityGroup{way}").values():
        yield rule["Properties"]["GroupId"]["Ref"], rule["Properties"]


def nobody_outside_is_admitted(lab: Lab, template: Template) -> None:
    """By IPv4, by IPv6, by prefix list or by a group of another stack."""
    groups = of_type(template, "AWS::EC2::SecurityGroup")
    found = list(rules(template, "Ingress"))
    assert found
    for _, rule in found:
        assert rule["SourceSecurityGroupId"]["Ref"] in groups
        assert not {"CidrIp", "CidrIpv6", "SourcePrefixListId"} & set(rule)


def the_nodes_group_admits_itself_both_ways(lab: Lab, template: Template) -> None:
    """EFA does not work by an address range."""
    for way, other in (("Ingress", "SourceSecurityGroupId"), ("Egress", "DestinationSecurityGroupId")):
        assert any(
            id == "Nodes" and rule.get(other) == NODES and rule["IpProtocol"] == "-1"
            for id, rule in rules(template, way)
        )


def every_interface_is_in_the_nodes_group(lab: Lab, template: Template) -> None:
    """One interface outside of it and the others' EFA traffic to it is dropped."""
    made = of_type(template, "AWS::EC2::NetworkInterface")
    for one in made.values():
        assert one["Properties"]["GroupSet"] == [NODES]
    for data in launch_data(template):
        assert "SecurityGroupIds" not in data, "EC2 refuses it beside interfaces"
        for interface in data["NetworkInterfaces"]:
            assert interface.get("Groups") == [NODES] or interface["NetworkInterfaceId"]["Ref"] in made


def interfaces_obey_ec2(lab: Lab, template: Template) -> None:
    """Maximize network bandwidth on Amazon EC2 instances with multiple network cards."""
    for name in lab.types:
        cards = instance_type(name).cards
        for data in launch_data(template):
            found = data["NetworkInterfaces"]
            places = [(one["NetworkCardIndex"], one["DeviceIndex"]) for one in found]
            with_efa = [
                one["NetworkCardIndex"] for one in found if one.get("InterfaceType", "interface") != "interface"
            ]
            assert places[0] == (0, 0)
            assert len(set(places)) == len(places)
            assert all(device < cards[card].interfaces for card, device in places)
            assert len(set(with_efa)) == len(with_efa) == lab.efas <= instance_type(name).efas
            assert all(cards[card].efa for card in with_efa)
            assert [one.get("InterfaceType") for one in found[1:]] == ["efa-only"] * (len(found) - 1)


def addresses_are_asked_for_where_ec2_can_give_them(lab: Lab, template: Template) -> None:
    """Never a public address beside a second interface, no address at all on an efa-only one."""
    for data in launch_data(template):
        first, *others = data["NetworkInterfaces"]
        assert first.get("AssociatePublicIpAddress") == (True if lab.way == "address" else None)
        assert first.get("Ipv6AddressCount") == (1 if lab.way in ("endpoint", "session") else None)
        assert ("NetworkInterfaceId" in first) == (lab.way == "elastic")
        assert not others or lab.way != "address"
        for other in others:
            assert not {"AssociatePublicIpAddress", "Ipv6AddressCount", "NetworkInterfaceId"} & set(other)
        for one in data["NetworkInterfaces"]:
            named = "SubnetId" in one or "NetworkInterfaceId" in one
            assert named == (lab.capacity != "spot"), "a fleet names the subnet in its override"


def without_a_public_address_nothing_is_public(lab: Lab, template: Template) -> None:
    (subnet,) = of_type(template, "AWS::EC2::Subnet").values()
    assert subnet["Properties"]["MapPublicIpOnLaunch"] is False
    if lab.way in ("endpoint", "session"):
        assert not of_type(template, "AWS::EC2::EIP")
        assert not of_type(template, "AWS::EC2::InternetGateway")
        assert subnet["Properties"]["AssignIpv6AddressOnCreation"] is False, "an efa-only interface takes none"
        assert len(of_type(template, "AWS::EC2::VPCCidrBlock")) == 1
    else:
        assert not of_type(template, "AWS::EC2::VPCCidrBlock")


def there_is_one_way_out_and_it_lets_nobody_in_without_an_address(lab: Lab, template: Template) -> None:
    (route,) = [one["Properties"] for one in of_type(template, "AWS::EC2::Route").values()]
    if lab.way in ("endpoint", "session"):
        assert route["DestinationIpv6CidrBlock"] == "::/0"
        assert route["EgressOnlyInternetGatewayId"]["Ref"] in of_type(template, "AWS::EC2::EgressOnlyInternetGateway")
    else:
        assert route["DestinationCidrBlock"] == "0.0.0.0/0"
        assert route["GatewayId"]["Ref"] in of_type(template, "AWS::EC2::InternetGateway")
    ranges = {rule.get("CidrIp") or rule.get("CidrIpv6") for id, rule in rules(template, "Egress") if id == "Nodes"}
    assert ranges - {None} == ({"0.0.0.0/0", "::/0"} if lab.way in ("endpoint", "session") else {"0.0.0.0/0"})


def the_door_leads_to_the_nodes_port_22_only(lab: Lab, template: Template) -> None:
    doors = of_type(template, "AWS::EC2::InstanceConnectEndpoint").values()
    assert len(doors) == (lab.way == "endpoint")
    for door in doors:
        (group,) = [one["Ref"] for one in door["Properties"]["SecurityGroupIds"]]
        assert door["Properties"]["PreserveClientIp"] is False, "a dual-stack endpoint cannot"
        (out,) = [rule for id, rule in rules(template, "Egress") if id == group]
        assert (out["FromPort"], out["ToPort"], out["DestinationSecurityGroupId"]) == (22, 22, NODES)
        (into,) = [rule for _, rule in rules(template, "Ingress") if rule["SourceSecurityGroupId"]["Ref"] == group]
        assert (into["FromPort"], into["ToPort"], into["IpProtocol"]) == (22, 22, "tcp")
        assert not [rule for id, rule in rules(template, "Ingress") if id == group]


def nothing_bills_for_the_network(lab: Lab, template: Template) -> None:
    assert not of_type(template, "AWS::EC2::NatGateway")
    endpoints = of_type(template, "AWS::EC2::VPCEndpoint").values()
    assert [one["Properties"]["VpcEndpointType"] for one in endpoints] == ["Gateway"]
    assert len(of_type(template, "AWS::EC2::EIP")) == (lab.nodes if lab.way == "elastic" else 0)


def nodes_ask_for_metadata_tokens_within_one_hop(lab: Lab, template: Template) -> None:
    for data in launch_data(template):
        assert data["MetadataOptions"] == {
            "HttpTokens": "required", "HttpPutResponseHopLimit": 1, "InstanceMetadataTags": "enabled",
        }  # fmt: skip


def volumes_are_encrypted_and_go_with_their_node(lab: Lab, template: Template) -> None:
    for data in launch_data(template):
        (volume,) = data["BlockDeviceMappings"]
        assert volume["Ebs"] == {
            "DeleteOnTermination": True, "Encrypted": True, "VolumeSize": lab.volume_gib, "VolumeType": "gp3",
        }  # fmt: skip
        assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    for system in of_type(template, "AWS::FSx::FileSystem").values():
        assert system["Properties"]["FileSystemType"] == "LUSTRE", "which FSx always encrypts at rest"


def everything_carries_the_labs_tags(lab: Lab, template: Template) -> None:
    for id, resource in template["Resources"].items():
        kind, properties = resource["Type"], resource["Properties"]
        assert kind in TAKES_TAGS | TAKES_NONE | TAGGED_OTHERWISE, f"{kind} is new: does it take tags?"
        if kind in TAKES_TAGS:
            assert tagged(properties["Tags"]) >= TAGS, id
    for data in launch_data(template):
        specifications = {one["ResourceType"]: one["Tags"] for one in data["TagSpecifications"]}
        assert set(specifications) == {"instance", "volume", "network-interface"}
        for tags in specifications.values():
            assert tagged(tags) >= TAGS
            assert {"Key": names.TAG_OWNER, "Value": "ada"} in tags
            assert {"Key": names.TAG_STACK, "Value": lab.stack} in tags
    for fleet in of_type(template, "AWS::EC2::EC2Fleet").values():
        (specification,) = fleet["Properties"]["TagSpecifications"]
        assert specification["ResourceType"] == "fleet"
        assert tagged(specification["Tags"]) == TAGS


def no_tag_is_empty(lab: Lab, template: Template) -> None:
    """CloudFormation refuses a stack's tag without a value, and a lab's owner may be nobody."""
    values = re.findall(r'"Key": "[^"]*", "Value": "([^"]*)"', str(template).replace("'", '"'))
    assert values
    assert all(values)


def nothing_of_a_lab_outlives_it(lab: Lab, template: Template) -> None:
    for id, resource in template["Resources"].items():
        assert resource.get("DeletionPolicy", "Delete") == "Delete", id
        assert resource.get("UpdateReplacePolicy", "Delete") == "Delete", id


def nodes_wait_for_their_way_out_their_rules_and_lustre(lab: Lab, template: Template) -> None:
    """No GPU is paid while Lustre or the door is made, and no node boots, or is left, without a route."""
    out = {
        "address": {"AWS::EC2::VPCGatewayAttachment"},
        "elastic": {"AWS::EC2::VPCGatewayAttachment", "AWS::EC2::EIPAssociation"},
        "endpoint": {"AWS::EC2::EgressOnlyInternetGateway", "AWS::EC2::VPCCidrBlock",
                     "AWS::EC2::InstanceConnectEndpoint"},
        "session": {"AWS::EC2::EgressOnlyInternetGateway", "AWS::EC2::VPCCidrBlock"},
    }[lab.way]  # fmt: skip
    ids = node_ids(template)
    assert len(ids) == (1 if lab.capacity == "spot" else lab.nodes)
    made = template["Resources"]
    rules_of_nodes = {
        id
        for way in ("Ingress", "Egress")
        for id, rule in of_type(template, f"AWS::EC2::SecurityGroup{way}").items()
        if NODES in rule["Properties"].values()
    }
    for id in ids:
        before = waits_for(template, id)
        kinds = {made[one]["Type"] for one in before if one in made}
        assert kinds >= {"AWS::EC2::Route", "AWS::EC2::SubnetRouteTableAssociation", *out}
        assert rules_of_nodes <= before
        assert ("AWS::FSx::FileSystem" in kinds) == (lab.storage != "none")
        assert ("AWS::FSx::DataRepositoryAssociation" in kinds) == bool(lab.data)


def lustre_waits_for_its_rules(lab: Lab, template: Template) -> None:
    for id, system in of_type(template, "AWS::FSx::FileSystem").items():
        (group,) = [one["Ref"] for one in system["Properties"]["SecurityGroupIds"]]
        ours = {
            rule
            for way in ("Ingress", "Egress")
            for rule, made in of_type(template, f"AWS::EC2::SecurityGroup{way}").items()
            if group in references(made["Properties"])
        }
        assert len(ours) >= 3
        assert ours <= waits_for(template, id)


def lustre_only_reads_from_s3(lab: Lab, template: Template) -> None:
    for association in of_type(template, "AWS::FSx::DataRepositoryAssociation").values():
        assert set(association["Properties"]["S3"]) == {"AutoImportPolicy"}
        assert association["Properties"]["BatchImportMetaDataOnCreate"] is True
        assert association["Properties"]["FileSystemPath"] == "/data"
    for system in of_type(template, "AWS::FSx::FileSystem").values():
        assert not {"ImportPath", "ExportPath", "AutoImportPolicy"} & set(system["Properties"]["LustreConfiguration"])


def no_role_is_made_for_a_lab(lab: Lab, template: Template) -> None:
    """Its nodes use GuardStack's, so that no permission comes or goes with a lab."""
    assert not [one for one in template["Resources"].values() if one["Type"].startswith("AWS::IAM")]


def user_data_stays_below_the_limit_of_ec2(lab: Lab, template: Template) -> None:
    for data in launch_data(template):
        text = resolve(data["UserData"], template)
        unknown = 200 * text.count("<")  # what CloudFormation fills in is shorter than that, each
        assert len(text.encode()) + unknown < LIMIT_BYTES


def the_template_needs_no_bucket(lab: Lab, template: Template) -> None:
    """The CLI sends up to 50 KiB inline; beyond that an account must have been bootstrapped."""
    assert yaml_bytes(template) <= 50 * 1024
    assert "Parameters" not in template, "assets or a bootstrap version"


def no_date_stands_in_it(lab: Lab, template: Template) -> None:
    """A date would be over at the second deploy."""
    assert not re.search(r"\b20\d\d-\d\d-\d\d", str(template))


def no_secret_and_no_private_key_travels(lab: Lab, template: Template) -> None:
    for data in launch_data(template):
        text = resolve(data["UserData"], template)
        packed = max(text.splitlines(), key=len)
        everything = text + gzip.decompress(base64.b64decode(packed)).decode()
        assert "PRIVATE KEY" not in everything
        assert "HF_TOKEN" not in everything
        assert "KeyName" not in data


def reserved_capacity_is_named_and_shares_no_group_made_after_it(lab: Lab, template: Template) -> None:
    kind, _, reserved = lab.capacity.partition(":")
    for data in launch_data(template):
        target = data.get("CapacityReservationSpecification", {}).get("CapacityReservationTarget")
        assert target == ({"CapacityReservationId": reserved} if reserved else None)
        market = data.get("InstanceMarketOptions", {}).get("MarketType")
        assert market == ("capacity-block" if kind == "block" else None), "a fleet states spot itself"
        group = {"Ref": "Together"} if lab.placement_group else lab.group or None
        assert data.get("Placement", {}).get("GroupName") == group
    assert bool(of_type(template, "AWS::EC2::PlacementGroup")) == lab.placement_group
    assert not (reserved and lab.placement_group)


def spot_is_one_fleet_that_comes_whole_or_not_at_all(lab: Lab, template: Template) -> None:
    fleets = of_type(template, "AWS::EC2::EC2Fleet").values()
    assert len(fleets) == (lab.capacity == "spot")
    for fleet in fleets:
        assert fleet["Properties"]["Type"] == "instant", "one request, never repeated"
        assert fleet["Properties"]["SpotOptions"] == {
            "AllocationStrategy": "price-capacity-optimized", "InstanceInterruptionBehavior": "terminate",
            "MinTargetCapacity": lab.nodes, "SingleAvailabilityZone": True, "SingleInstanceType": True,
        }  # fmt: skip
        (config,) = fleet["Properties"]["LaunchTemplateConfigs"]
        assert [one["InstanceType"] for one in config["Overrides"]] == list(lab.types)
        assert all(one["SubnetId"] == {"Ref": "Subnet"} for one in config["Overrides"])


def it_tells_what_it_was_meant_to_be(lab: Lab, template: Template) -> None:
    told = {key: one["Value"] for key, one in template["Outputs"].items()}
    assert told[names.Output.NODES] == str(lab.nodes)
    assert told[names.Output.INSTANCE_TYPE] == lab.instance_type
    assert told[names.Output.CAPACITY] == lab.capacity
    assert told[names.Output.ACCESS] == lab.way
    assert (names.Output.ENDPOINT in told) == (lab.way == "endpoint")
    assert (names.Output.FLEET in told) == (lab.capacity == "spot")
    assert (names.Output.FILE_SYSTEM in told) == (lab.storage != "none")


POLICIES: tuple[Callable[[Lab, Template], None], ...] = (
    nobody_outside_is_admitted, the_nodes_group_admits_itself_both_ways, every_interface_is_in_the_nodes_group,
    interfaces_obey_ec2, addresses_are_asked_for_where_ec2_can_give_them, without_a_public_address_nothing_is_public,
    there_is_one_way_out_and_it_lets_nobody_in_without_an_address, the_door_leads_to_the_nodes_port_22_only,
    nothing_bills_for_the_network, nodes_ask_for_metadata_tokens_within_one_hop,
    volumes_are_encrypted_and_go_with_their_node, everything_carries_the_labs_tags, no_tag_is_empty,
    nothing_of_a_lab_outlives_it, nodes_wait_for_their_way_out_their_rules_and_lustre, lustre_waits_for_its_rules,
    lustre_only_reads_from_s3, no_role_is_made_for_a_lab, user_data_stays_below_the_limit_of_ec2,
    the_template_needs_no_bucket, no_date_stands_in_it, no_secret_and_no_private_key_travels,
    reserved_capacity_is_named_and_shares_no_group_made_after_it, spot_is_one_fleet_that_comes_whole_or_not_at_all,
    it_tells_what_it_was_meant_to_be,
)  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_policy(policy: Callable[[Lab, Template], None], matrix: Synthesis, record_property: Any) -> None:
    for title, (lab, template) in matrix.labs.items():
        try:
            policy(lab, template)
        except AssertionError as error:
            raise AssertionError(f"{title}: {error}") from error
    record_property("templates", len(matrix.labs))


def test_every_combination_has_a_template_or_a_reason(matrix: Synthesis) -> None:
    others = len(LABS) - len(DIFFERENT)
    tried = len(matrix.labs) + len(matrix.refused)
    assert tried == len(TYPES) * len(CAPACITIES) * len(ACCESS) * len(DIFFERENT) + others
    not_sold = {name for name in TYPES if not instance_type(name).capacity_block}
    assert len(not_sold) < len(TYPES)
    assert set(matrix.refused) == {
        f"lab{number} {kind} block {access}" for number in DIFFERENT for kind in not_sold for access in ACCESS
    }
    for title, reason in matrix.refused.items():
        assert "is not sold as capacity blocks" in reason, title
        assert "write" in reason, title


@pytest.mark.parametrize("number", sorted(set(LABS) - set(DIFFERENT)))
def test_a_lab_that_the_matrix_leaves_out_is_lab_1_but_for_its_number(number: int) -> None:
    """So its template is lab 1's: a stack is made of a lab's fields and of nothing else."""
    for kind in instance_types():
        for capacity in CAPACITIES[:3]:
            for access in ACCESS:
                given = {"instance_type": kind, "capacity": capacity, "access": access, "owner": "ada"}
                mine, first = LABS[number].override(**given), LABS[1].override(**given)
                assert replace(mine, number=1, title=first.title, workloads=first.workloads) == first


def test_the_matrix_holds_every_way_and_enough_types(matrix: Synthesis) -> None:
    made = [lab for lab, _ in matrix.labs.values()]
    assert {lab.way for lab in made} == {"address", "elastic", "endpoint", "session"}
    assert {lab.capacity.partition(":")[0] for lab in made} == {"on-demand", "spot", "reservation", "block"}
    assert len({lab.instance_type for lab in made}) >= 10


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_policy_of_what_a_lab_may_ask_for_besides(policy: Callable[[Lab, Template], None], varied: Synthesis) -> None:
    for title, (lab, template) in varied.labs.items():
        try:
            policy(lab, template)
        except AssertionError as error:
            raise AssertionError(f"{title}: {error}") from error
    assert len(varied.labs) >= 10


def test_the_guards_template_needs_no_bucket_and_no_date(plain: Synthesis) -> None:
    assert yaml_bytes(plain.guard) <= 50 * 1024
    assert "Parameters" not in plain.guard
    assert set(re.findall(r"\b20\d\d-\d\d-\d\d", str(plain.guard))) <= {"2012-10-17"}, "IAM's policy language"


def test_no_permission_to_write_is_a_wildcard(plain: Synthesis) -> None:
    """An action is named in full unless it only looks; what changes something names its resource or asks for a tag."""
    found = 0
    for id, resource in of_type(plain.guard, "AWS::IAM::Policy").items():
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                found += 1
                looks = re.match(r"[a-z0-9-]+:(Describe|List|Get)", action)
                assert "*" not in action or looks, f"{id}: {action}"
                held = statement["Resource"] != "*" or "Condition" in statement
                assert held or looks or action in SESSION, f"{id}: {action} on anything"
    assert found > 20


def test_nobody_may_take_the_guards_roles_but_aws(plain: Synthesis) -> None:
    roles = of_type(plain.guard, "AWS::IAM::Role")
    assert roles
    for role in roles.values():
        for statement in role["Properties"]["AssumeRolePolicyDocument"]["Statement"]:
            assert set(statement["Principal"]) == {"Service"}
