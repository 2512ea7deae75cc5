"""From a template and its inputs to a plan, and from two plans to the list of changes that a change set shows."""

from collections.abc import Iterator, Mapping
from typing import Any

from rehearsal.intrinsics import Scope, TemplateError, prune, references
from rehearsal.parameters import decide
from rehearsal.resources import HANDLERS
from rehearsal.resources.handler import Cloud
from rehearsal.stack import Plan, Region, Stack
from rehearsal.template import Template


def make_plan(
    stack: Stack, template: Template, given: Mapping[str, str], tags: Mapping[str, str], cloud: Cloud
) -> Plan:
    """Decide parameters and conditions of `template` for `stack`.

    Raises:
        TemplateError: an input is missing or wrong, or a resource changes its type.
    """
    region = stack.region
    texts, values = decide(template.parameters, given, lambda names: _stored(cloud, region, names))
    scope = make_scope(stack, template, values, cloud)
    active = template.active(scope)
    changed = [name for name, item in active.items()
               if name in stack.resources and stack.resources[name].type != item.type]  # fmt: skip
    if changed:
        raise TemplateError("Update of resource type is not permitted. The new template modifies resource type of the "
                            f"following resources: [{', '.join(changed)}]")  # fmt: skip
    outputs = tuple(
        name
        for name, output in template.outputs.items()
        if "Condition" not in output or scope.condition(output["Condition"])
    )
    used = [*(item.properties for item in active.values()), *(prune(template.outputs[name], scope) for name in outputs)]
    return Plan(
        template=template,
        texts=texts,
        parameters=values,
        tags=dict(tags),
        active=active,
        outputs=outputs,
        imports=frozenset(str(scope.resolve(name)) for name in _imported(used)),
    )


def make_scope(stack: Stack, template: Template, parameters: Mapping[str, Any], cloud: Cloud) -> Scope:
    """What the functions of a stack's template may ask for, resources excepted."""
    region = stack.region
    return Scope(
        mappings=template.mappings,
        conditions=template.conditions,
        parameters=parameters,
        pseudo={
            "AWS::AccountId": region.account,
            "AWS::NotificationARNs": [],
            "AWS::Partition": region.partition,
            "AWS::Region": region.name,
            "AWS::StackId": stack.id,
            "AWS::StackName": stack.name,
            "AWS::URLSuffix": "amazonaws.com",
        },
        zones=lambda name: _zones(cloud, name),
        imports=region.import_value,
    )


def changes(stack: Stack, plan: Plan) -> list[dict[str, Any]]:
    """What a change set tells of each resource: Add, Modify or Remove, and whether Modify replaces it.

    Values that only exist once other resources do are compared as written, so Replacement may say Conditional.
    """
    listed = []
    touched: dict[str, str] = {}
    for name, item in plan.active.items():
        held = stack.resources.get(name)
        if held is None:
            listed.append(_change("Add", name, item.type, ""))
            continue
        differing = sorted(
            key
            for key in set(item.properties) | set(held.definition.properties)
            if item.properties.get(key) != held.definition.properties.get(key)
        )
        by_need = sorted(key for key, value in item.properties.items() if references(value) & set(touched))
        handler = HANDLERS.get(item.type)
        replacing = [key for key in differing if handler is None or key in handler.replaces]
        perhaps = [key for key in by_need if handler is None or key in handler.replaces]
        if differing or by_need:
            touched[name] = replacement = "True" if replacing else "Conditional" if perhaps else "False"
            listed.append(_change("Modify", name, item.type, held.physical_id, replacement, differing or by_need))
    for name, held in stack.resources.items():
        if name not in plan.active:
            listed.append(_change("Remove", name, held.type, held.physical_id))
    return listed


def _change(
    action: str,
    name: str,
    kind: str,
    physical_id: str,
    replacement: str | None = None,
    properties: list[str] | None = None,
) -> dict[str, Any]:
    change: dict[str, Any] = {
        "Action": action,
        "LogicalResourceId": name,
        "ResourceType": kind,
        "Scope": [],
        "Details": [],
    }
    if physical_id:
        change["PhysicalResourceId"] = physical_id
    if replacement is not None:
        change |= {"Replacement": replacement, "Scope": ["Properties"]}
        recreation = {"True": "Always", "Conditional": "Conditionally", "False": "Never"}[replacement]
        change["Details"] = [
            {
                "Target": {"Attribute": "Properties", "Name": name, "RequiresRecreation": recreation},
                "Evaluation": "Static",
                "ChangeSource": "DirectModification",
            }
            for name in properties or ()
        ]
    return {"Type": "Resource", "ResourceChange": change}


def _imported(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "Fn::ImportValue" and len(value) == 1:
                yield inner
            yield from _imported(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _imported(inner)


def _zones(cloud: Cloud, region: str) -> list[str]:
    answer = cloud.client("ec2", region).describe_availability_zones()
    return sorted(zone["ZoneName"] for zone in answer["AvailabilityZones"])


def _stored(cloud: Cloud, region: Region, names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(names), 10):  # GetParameters takes ten names
        answer = cloud.client("ssm", region.name).get_parameters(Names=names[start : start + 10])
        found |= {item["Name"]: item["Value"] for item in answer["Parameters"]}
    return found
