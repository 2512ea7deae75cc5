"""Templates: parsing, parameters, conditions, functions, order. Error texts are CloudFormation's."""

import json

import pytest

from rehearsal.intrinsics import Scope, TemplateError, references
from rehearsal.parameters import decide
from rehearsal.template import LONGEST_BODY, needs, order, parse


def scope(**given) -> Scope:
    return Scope(
        **{
            "mappings": {"Sizes": {"us-east-1": {"small": "t3.micro"}}},
            "conditions": {
                "Yes": {"Fn::Equals": [{"Ref": "Kind"}, "a"]},
                "No": {"Fn::Not": [{"Condition": "Yes"}]},
                "Both": {"Fn::And": [{"Condition": "Yes"}, {"Fn::Equals": ["1", 1]}]},
                "Either": {"Fn::Or": [{"Condition": "No"}, {"Condition": "Yes"}]},
                "Loop": {"Fn::Not": [{"Condition": "Loop"}]},
            },
            "parameters": {"Kind": "a", "List": ["x", "y"]},
            "pseudo": {"AWS::Region": "us-east-1", "AWS::AccountId": "123456789012", "AWS::Partition": "aws"},
            "zones": lambda region: [f"{region}a", f"{region}b"],
            "imports": lambda name: {"Other:Id": "vpc-1"}[name],
            "reference": lambda name: f"id-of-{name}",
            "attribute": lambda name, attribute: f"{name}/{attribute}",
            **given,
        }
    )


@pytest.mark.parametrize(
    ("written", "resolved"),
    [
        ({"Ref": "Thing"}, "id-of-Thing"),
        ({"Ref": "List"}, ["x", "y"]),
        ({"Ref": "AWS::Region"}, "us-east-1"),
        ({"Fn::GetAtt": ["Thing", "Arn"]}, "Thing/Arn"),
        ({"Fn::GetAtt": "Thing.Endpoint.Address"}, "Thing/Endpoint.Address"),
        ({"Fn::Sub": "${Thing}-${Thing.Arn}-${AWS::Region}-${!kept}"}, "id-of-Thing-Thing/Arn-us-east-1-${kept}"),
        ({"Fn::Sub": ["${a}${Kind}", {"a": {"Ref": "Thing"}}]}, "id-of-Thinga"),
        ({"Fn::Join": ["-", ["a", 1, True, {"Ref": "Kind"}]]}, "a-1-true-a"),
        ({"Fn::Join": [",", {"Ref": "List"}]}, "x,y"),
        ({"Fn::Select": ["1", {"Fn::GetAZs": ""}]}, "us-east-1b"),
        ({"Fn::Select": [0, {"Fn::Split": ["|", "p|q"]}]}, "p"),
        ({"Fn::ImportValue": {"Fn::Join": ["", ["Other", ":Id"]]}}, "vpc-1"),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "AWS::Region"}, "small"]}, "t3.micro"),
        ({"Fn::Base64": "hé"}, "aMOp"),
        ({"Fn::Cidr": ["10.0.0.0/16", 3, 8]}, ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]),
        ({"Fn::If": ["Both", 1, 2]}, 1),
        ({"Fn::If": ["No", 1, {"Fn::If": ["Either", 2, 3]}]}, 2),
        ({"a": {"Ref": "AWS::NoValue"}, "b": [{"Ref": "AWS::NoValue"}, 1]}, {"b": [1]}),
        ({"Ref": "Kind", "Other": 1}, {"Ref": "Kind", "Other": 1}),
    ],
)
def test_a_function_resolves(written, resolved) -> None:
    assert scope().resolve(written) == resolved


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"Fn::Select": [2, ["a"]]}, "Fn::Select cannot select nonexistent value at index 2"),
        ({"Fn::FindInMap": ["Sizes", "eu-west-1", "small"]}, "Unable to get mapping for Sizes::eu-west-1::small"),
        ({"Fn::Join": ["-", "text"]}, "every Fn::Join object requires two parameters"),
        ({"Fn::Sub": "${List}"}, "Fn::Sub: List is not text"),
        ({"Fn::If": ["Nobody", 1, 2]}, "Unresolved condition dependency Nobody"),
        ({"Fn::If": ["Loop", 1, 2]}, "Circular dependency in condition Loop"),
        ({"Ref": "AWS::Nothing"}, "Ref to AWS::Nothing is not possible here"),
    ],
)
def test_a_function_that_cannot_resolve_says_why(written, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        scope().resolve(written)


def test_a_condition_may_not_ask_for_a_resource() -> None:
    asking = scope(conditions={"C": {"Fn::Equals": [{"Ref": "Thing"}, "x"]}}, reference=None)
    with pytest.raises(TemplateError, match="Ref to Thing is not possible here"):
        asking.condition("C")


def test_references_leave_out_what_sub_is_given() -> None:
    sub = ["${A.Arn} ${b} ${AWS::Region} ${!C}", {"b": {"Ref": "D"}}]
    written = {"a": {"Fn::Sub": sub}, "e": {"Fn::GetAtt": "E.x"}}
    assert references(written) == {"A", "D", "E"}


def template(resources, **sections) -> str:
    return json.dumps({"Resources": resources, **sections})


def test_yaml_is_read_as_cloudformation_reads_it() -> None:
    parsed = parse(
        """
        Resources:
          Role:
            Type: AWS::IAM::Role
            Properties:
              AssumeRolePolicyDocument: {Version: 2012-10-17}
              RoleName: !Sub "${Topic}-x"
              Path: !GetAtt Topic.TopicName
              Tags: !If [C, [], !Ref AWS::NoValue]
          Topic: {Type: AWS::SNS::Topic}
        Conditions: {C: !Equals [a, a]}
        """
    )
    assert parsed.resources["Role"].properties == {
        "AssumeRolePolicyDocument": {"Version": "2012-10-17"},
        "RoleName": {"Fn::Sub": "${Topic}-x"},
        "Path": {"Fn::GetAtt": ["Topic", "TopicName"]},
        "Tags": {"Fn::If": ["C", [], {"Ref": "AWS::NoValue"}]},
    }
    assert parsed.capabilities == ("CAPABILITY_NAMED_IAM",)


def test_each_resource_follows_all_it_needs_and_equals_keep_the_templates_order() -> None:
    parsed = parse(
        template(
            {
                "Z": {"Type": "T", "Properties": {"A": {"Fn::Sub": "${B}"}}},
                "Y": {"Type": "T"},
                "B": {"Type": "T", "DependsOn": "Y"},
                "A": {"Type": "T"},
            }
        )
    )
    graph = {name: needs(item, parsed.resources) for name, item in parsed.resources.items()}
    assert graph == {"Z": ("B",), "Y": (), "B": ("Y",), "A": ()}
    assert order(graph) == ["Y", "A", "B", "Z"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "Template format error: "),
        ("just text", "unsupported structure"),
        (template({}), "At least one Resources member must be defined"),
        (template({"A": {"Type": "T"}}, Rules={}), "the section Rules is not rehearsed"),
        (template({"A": {"Type": "T"}}, Transform="AWS::Serverless"), "the section Transform is not rehearsed"),
        (template({"A": {"Type": "T"}}, Resouces={}), r"Invalid template property or properties \[Resouces\]"),
        (template({"A": {}}), r"\[/Resources/A\] Every Resources object must contain a Type member"),
        (template({"A": {"Type": "T", "CreationPolicy": {}}}), r"A \(T\): CreationPolicy is not rehearsed"),
        (template({"A": {"Type": "T", "DeletionPolicy": "Snapshot"}}), "DeletionPolicy Snapshot is not rehearsed"),
        (template({"A": {"Type": "T", "Properties": {"x": {"Ref": "B"}}}}),
         r"Unresolved resource dependencies \[B\] in the Resources block of the template"),
        (template({"A": {"Type": "T", "DependsOn": ["B"]}}), r"Unresolved resource dependencies \[B\]"),
        (template({"A": {"Type": "T", "Condition": "C"}}), "Unrecognized condition C in resource A"),
        (template({"A": {"Type": "T"}}, Outputs={"O": {"Value": {"Ref": "B"}}}), r"\[B\] in the Outputs block"),
        (template({"A": {"Type": "T"}}, Outputs={"O": {}}), "Output O must have a Value member"),
        (template({"A": {"Type": "T", "Properties": {"x": {"Fn::Length": []}}}}),
         "the function Fn::Length is not rehearsed"),
        (template({"A": {"Type": "T", "DependsOn": "B"}, "B": {"Type": "T", "Properties": {"x": {"Ref": "A"}}}}),
         r"Circular dependency between resources: \[A, B\]"),
        (template({"A": {"Type": "T", "Metadata": "x" * LONGEST_BODY}}), "less than or equal to 51200"),
    ],
)  # fmt: skip
def test_a_template_with_a_fault_is_refused(body: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        parse(body)


def test_a_condition_leaves_out_resources_and_branches() -> None:
    parsed = parse(
        template(
            {
                "Left": {"Type": "T", "Condition": "No"},
                "Kept": {"Type": "T", "Condition": "Yes", "Properties": {"x": {"Fn::If": ["No", {"Ref": "Left"}, 1]}}},
            },
            Conditions=scope().conditions,
        )
    )
    active = parsed.active(scope())
    assert list(active) == ["Kept"]
    assert active["Kept"].properties == {"x": 1}


def test_a_reference_to_a_resource_that_a_condition_left_out_is_refused() -> None:
    parsed = parse(
        template(
            {"Left": {"Type": "T", "Condition": "No"}, "Kept": {"Type": "T", "Properties": {"x": {"Ref": "Left"}}}},
            Conditions=scope().conditions,
        )
    )
    with pytest.raises(TemplateError, match=r"Unresolved resource dependencies \[Left\]"):
        parsed.active(scope())


def stored(names: list[str]) -> dict[str, str]:
    return {name: "ami-1,ami-2" for name in names if name == "/images"}


def test_parameters_take_defaults_lists_and_stored_values() -> None:
    texts, values = decide(
        {
            "Given": {"Type": "String", "Default": "a"},
            "Default": {"Type": "Number", "Default": 2, "MinValue": 1, "MaxValue": 3},
            "List": {"Type": "CommaDelimitedList", "Default": "a, b"},
            "Subnets": {"Type": "List<AWS::EC2::Subnet::Id>", "Default": "subnet-1"},
            "Image": {"Type": "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>", "Default": "/images"},
            "Images": {"Type": "AWS::SSM::Parameter::Value<List<String>>", "Default": "/images"},
        },
        {"Given": "b"},
        stored,
    )
    assert texts["Image"] == "/images"
    assert values == {
        "Given": "b", "Default": "2", "List": ["a", "b"], "Subnets": ["subnet-1"], "Image": "ami-1,ami-2",
        "Images": ["ami-1", "ami-2"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "given", "message"),
    [
        ({"A": {"Type": "String"}, "B": {"Type": "String"}}, {}, r"Parameters: \[A, B\] must have values"),
        ({}, {"C": "1"}, r"Parameters: \[C\] do not exist in the template"),
        ({"A": {"Type": "String", "AllowedValues": ["x"]}}, {"A": "y"}, "'A' must be one of AllowedValues"),
        ({"A": {"Type": "String", "AllowedPattern": "[a-z]+"}}, {"A": "1"}, r"'A' must match pattern \[a-z\]\+"),
        ({"A": {"Type": "String", "MinLength": 2}}, {"A": "x"}, "'A' must contain at least 2 characters"),
        ({"A": {"Type": "String", "MaxLength": 2}}, {"A": "xyz"}, "'A' must contain at most 2 characters"),
        ({"A": {"Type": "Number"}}, {"A": "x"}, "'A' must be a number"),
        ({"A": {"Type": "Number", "MinValue": 3}}, {"A": "2"}, "'A' must be a number not less than 3"),
        ({"A": {"Type": "Number", "MaxValue": 1}}, {"A": "2"}, "'A' must be a number not greater than 1"),
        ({"A": {"Type": "Strng"}}, {"A": "2"}, "Unrecognized parameter type: Strng"),
        ({"A": {"Type": "AWS::SSM::Parameter::Value<String>"}}, {"A": "/none"},
         r"Unable to fetch parameters \[/none\] from parameter store"),
        ({"A": {"Type": "String", "AllowedValues": ["x"], "ConstraintDescription": "must be x."}}, {"A": "y"},
         "Parameter A failed to satisfy constraint: must be x."),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_refused(declared, given, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        decide(declared, given, stored)
