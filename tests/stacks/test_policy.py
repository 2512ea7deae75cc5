"""What holds for every lab, on every kind of type and capacity."""

import base64
import gzip
import re
from typing import Any

from labs import names
from labs.catalog import LABS
from stacks.boot import LIMIT_BYTES
from tests.stacks.synthesis import CAPACITIES, TYPES, Synthesis, Template, launch_data, of_type, resolve, waits_for

TAGS = {names.TAG_LAB, names.TAG_STACK, names.TAG_OWNER, names.TAG_TTL_HOURS}
TAKES_TAGS = {
    "AWS::EC2::VPC", "AWS::EC2::Subnet", "AWS::EC2::RouteTable", "AWS::EC2::InternetGateway", "AWS::EC2::VPCEndpoint",
    "AWS::EC2::SecurityGroup", "AWS::EC2::PlacementGroup", "AWS::EC2::NetworkInterface", "AWS::EC2::EIP",
    "AWS::FSx::FileSystem",
}  # fmt: skip
TAKES_NONE = {
    "AWS::EC2::SubnetRouteTableAssociation", "AWS::EC2::Route", "AWS::EC2::VPCGatewayAttachment",
    "AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress", "AWS::EC2::EIPAssociation",
}  # fmt: skip
TAGGED_OTHERWISE = {"AWS::EC2::LaunchTemplate", "AWS::EC2::Instance", "AWS::EC2::EC2Fleet"}


def yaml_bytes(value: Any, indent: int = 0) -> int:
    """Size of a template as the CDK CLI sends it: YAML, two spaces a level, text of several lines as a block."""
    if isinstance(value, dict):
        return sum(indent + len(key) + 2 + yaml_bytes(part, indent + 2) for key, part in value.items())
    if isinstance(value, list):
        return sum(indent + 2 + yaml_bytes(part, indent + 2) for part in value)
    if isinstance(value, str) and "\n" in value:
        return 3 + sum(indent + len(line.encode()) + 1 for line in value.splitlines())
    return len(str(value).encode()) + 3


def tagged(tags: Any) -> set[str]:
    return {tag["Key"] for tag in tags}


def nodes(template: Template) -> list[str]:
    return [*of_type(template, "AWS::EC2::Instance"), *of_type(template, "AWS::EC2::EC2Fleet")]


def test_every_combination_has_a_template_or_a_reason(matrix: Synthesis) -> None:
    assert len(matrix.labs) + len(matrix.refused) == len(LABS) * len(TYPES) * len(CAPACITIES)
    for title, reason in matrix.refused.items():
        assert ("is not sold as capacity blocks" in reason) != ("no public address" in reason), title
        assert "write" in reason, title
    assert {title for title, reason in matrix.refused.items() if "no public address" in reason} == {
        f"lab3 {kind} spot"
        for kind in ("g6e.24xlarge", "p4d.24xlarge", "p5.48xlarge", "p5en.48xlarge", "p6-b300.48xlarge")
    }


def test_nobody_outside_is_admitted(matrix: Synthesis) -> None:
    for title, (_, template) in matrix.labs.items():
        groups = of_type(template, "AWS::EC2::SecurityGroup")
        rules = [rule["Properties"] for rule in of_type(template, "AWS::EC2::SecurityGroupIngress").values()]
        for group in groups.values():
            rules += group["Properties"].get("SecurityGroupIngress", [])
        assert rules, title
        for rule in rules:
            assert rule["SourceSecurityGroupId"]["Ref"] in groups, title
            assert not {"CidrIp", "CidrIpv6", "SourcePrefixListId"} & set(rule), title


def test_the_nodes_group_admits_itself_both_ways(matrix: Synthesis) -> None:
    itself = {"Ref": "Nodes"}
    for title, (_, template) in matrix.labs.items():
        for kind, other in (("Ingress", "SourceSecurityGroupId"), ("Egress", "DestinationSecurityGroupId")):
            rules = [rule["Properties"] for rule in of_type(template, f"AWS::EC2::SecurityGroup{kind}").values()]
            assert any(
                rule["GroupId"] == rule[other] == itself and rule["IpProtocol"] == "-1"
                for rule in rules
                if other in rule
            ), title


def test_nothing_bills_for_the_network(matrix: Synthesis) -> None:
    for title, (_, template) in matrix.labs.items():
        assert not of_type(template, "AWS::EC2::NatGateway"), title
        endpoints = of_type(template, "AWS::EC2::VPCEndpoint").values()
        assert [one["Properties"]["VpcEndpointType"] for one in endpoints] == ["Gateway"], title
        assert len(of_type(template, "AWS::EC2::Subnet")) == 1, title


def test_nodes_ask_for_metadata_tokens_within_one_hop(matrix: Synthesis) -> None:
    for title, (_, template) in matrix.labs.items():
        for data in launch_data(template):
            assert data["MetadataOptions"] == {
                "HttpTokens": "required", "HttpPutResponseHopLimit": 1, "InstanceMetadataTags": "enabled",
            }, title  # fmt: skip


def test_volumes_are_encrypted_and_go_with_their_node(matrix: Synthesis) -> None:
    for title, (lab, template) in matrix.labs.items():
        for data in launch_data(template):
            (volume,) = data["BlockDeviceMappings"]
            assert volume["Ebs"] == {
                "DeleteOnTermination": True, "Encrypted": True, "VolumeSize": lab.volume_gib, "VolumeType": "gp3",
            }, title  # fmt: skip
            assert data["InstanceInitiatedShutdownBehavior"] == "terminate", title


def test_everything_carries_the_labs_tags(matrix: Synthesis) -> None:
    for title, (lab, template) in matrix.labs.items():
        for id, resource in template["Resources"].items():
            kind, properties = resource["Type"], resource["Properties"]
            assert kind in TAKES_TAGS | TAKES_NONE | TAGGED_OTHERWISE, f"{title}: {kind} is new: does it take tags?"
            if kind in TAKES_TAGS:
                assert tagged(properties["Tags"]) >= TAGS, f"{title}: {id}"
        for data in launch_data(template):
            specifications = {one["ResourceType"]: one["Tags"] for one in data["TagSpecifications"]}
            assert set(specifications) == {"instance", "volume", "network-interface"}, title
            for tags in specifications.values():
                assert tagged(tags) == {"Name", *TAGS}, title
                assert {"Key": names.TAG_OWNER, "Value": "ada"} in tags, title
                assert {"Key": names.TAG_STACK, "Value": lab.stack} in tags, title
        for fleet in of_type(template, "AWS::EC2::EC2Fleet").values():
            (specification,) = fleet["Properties"]["TagSpecifications"]
            assert specification["ResourceType"] == "fleet", title
            assert tagged(specification["Tags"]) == TAGS, title


def test_no_tag_is_empty(plain: Synthesis) -> None:
    """CloudFormation refuses a stack's tag without a value, and a lab's owner may be nobody."""
    for title, (_, template) in plain.labs.items():
        values = re.findall(r'"Key": "[^"]*", "Value": "([^"]*)"', str(template).replace("'", '"'))
        assert values, title
        assert all(values), title


def test_nothing_of_a_lab_outlives_it(matrix: Synthesis, plain: Synthesis) -> None:
    for title, (_, template) in {**matrix.labs, **plain.labs}.items():
        for id, resource in template["Resources"].items():
            assert resource.get("DeletionPolicy", "Delete") == "Delete", f"{title}: {id}"
            assert resource.get("UpdateReplacePolicy", "Delete") == "Delete", f"{title}: {id}"


def test_nodes_wait_for_their_way_out_and_for_lustre(matrix: Synthesis) -> None:
    """No GPU is paid while Lustre is made, and no node boots, or is left, without a route."""
    for title, (lab, template) in matrix.labs.items():
        before = [{template["Resources"][id]["Type"] for id in waits_for(template, node) if id in template["Resources"]}
                  for node in nodes(template)]  # fmt: skip
        assert before, title
        for kinds in before:
            assert kinds >= {
                "AWS::EC2::Route", "AWS::EC2::VPCGatewayAttachment", "AWS::EC2::SubnetRouteTableAssociation",
                "AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress",
            }, title  # fmt: skip
            assert ("AWS::FSx::FileSystem" in kinds) == (lab.storage != "none"), title


def test_lustre_waits_for_its_rules(matrix: Synthesis) -> None:
    for title, (_, template) in matrix.labs.items():
        for id in of_type(template, "AWS::FSx::FileSystem"):
            ours = {
                rule
                for way in ("Ingress", "Egress")
                for rule in of_type(template, f"AWS::EC2::SecurityGroup{way}")
                if "Storage" in rule
            }
            assert ours, title
            assert ours <= waits_for(template, id), title


def test_user_data_stays_below_the_limit_of_ec2(matrix: Synthesis) -> None:
    for title, (_, template) in matrix.labs.items():
        for data in launch_data(template):
            text = resolve(data["UserData"], template)
            unknown = 200 * text.count("<")  # what CloudFormation fills in is shorter than that, each
            assert len(text.encode()) + unknown < LIMIT_BYTES, title


def test_templates_need_no_bucket(matrix: Synthesis, plain: Synthesis) -> None:
    """The CLI sends up to 50 KiB inline; beyond that an account must have been bootstrapped."""
    for title, (_, template) in {**matrix.labs, **plain.labs, "guard": (None, matrix.guard)}.items():
        assert yaml_bytes(template) <= 50 * 1024, title
        assert "Parameters" not in template, f"{title}: assets or a bootstrap version"


def test_no_date_stands_in_a_template(matrix: Synthesis) -> None:
    """A date would be over at the second deploy."""
    for title, (_, template) in {**matrix.labs, "guard": (None, matrix.guard)}.items():
        found = set(re.findall(r"\b20\d\d-\d\d-\d\d", str(template)))
        assert found <= {"2012-10-17"}, f"{title}: {found}"  # the version of IAM's policy language


def test_no_secret_and_no_private_key_travels(matrix: Synthesis) -> None:
    for title, (_, template) in matrix.labs.items():
        for data in launch_data(template):
            text = resolve(data["UserData"], template)
            packed = max(text.splitlines(), key=len)
            everything = text + gzip.decompress(base64.b64decode(packed)).decode()
            assert "PRIVATE KEY" not in everything, title
            assert "HF_TOKEN" not in everything, title
            assert "KeyName" not in data, title
