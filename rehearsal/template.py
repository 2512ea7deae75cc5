"""A CloudFormation template: parsed, checked for form, pruned by its conditions, ordered by dependency.

The texts of `TemplateError` are CloudFormation's own, so that tools that match them behave as in an account.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs would be one more pin

from rehearsal.intrinsics import FUNCTIONS, Scope, TemplateError, prune, references

_SECTIONS = {
    "AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Mappings", "Conditions", "Resources",
    "Outputs",
}  # fmt: skip
_ATTRIBUTES = {
    "Type", "Properties", "DependsOn", "Condition", "DeletionPolicy", "UpdateReplacePolicy", "Metadata"
}  # fmt: skip
_POLICIES = ("Delete", "Retain", "RetainExceptOnCreate")
LONGEST_BODY = 51_200
"""Bytes of a template that travels in the request itself (CloudFormation's quota)."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One entry of the template's Resources, as written."""

    logical_id: str
    type: str
    properties: Mapping[str, Any]
    """With intrinsic functions, unresolved."""
    depends_on: tuple[str, ...]
    """Written in DependsOn only; references add to it in `Template.order`."""
    condition: str | None
    deletion_policy: str
    update_replace_policy: str
    metadata: Any


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the C loader where yaml has it
    """YAML as CloudFormation reads it: a date stays text, and `!Ref` is a function."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def _short_form(loader: Any, suffix: str, node: Any) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


@dataclass(frozen=True, kw_only=True)
class Template:
    """A parsed template."""

    body: str
    description: str
    parameters: Mapping[str, Mapping[str, Any]]
    mappings: Mapping[str, Any]
    conditions: Mapping[str, Any]
    resources: Mapping[str, Resource]
    outputs: Mapping[str, Mapping[str, Any]]

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Capabilities that creating these resources needs."""
        named = ("RoleName", "ManagedPolicyName", "InstanceProfileName")
        iam = [item for item in self.resources.values() if item.type.startswith("AWS::IAM::")]
        if any(name in item.properties for item in iam for name in named):
            return ("CAPABILITY_NAMED_IAM",)
        return ("CAPABILITY_IAM",) if iam else ()

    def active(self, scope: Scope) -> dict[str, Resource]:
        """The resources whose condition holds, with every Fn::If replaced by its branch.

        Raises:
            TemplateError: a reference to a resource that a condition left out.
        """
        kept = {
            name: Resource(**{**vars(item), "properties": prune(item.properties, scope)})
            for name, item in self.resources.items()
            if item.condition is None or scope.condition(item.condition)
        }
        for item in kept.values():
            missing = sorted(references(item.properties) & set(self.resources) - set(kept))
            if missing:
                raise TemplateError(_unresolved(missing, "Resources"))
        return kept

    def changed(self, other: "Template") -> bool:
        """Whether an update from one to the other says anything new; a description does not."""
        return any(
            getattr(self, part) != getattr(other, part)
            for part in ("parameters", "mappings", "conditions", "resources", "outputs")
        )


def needs(item: Resource, known: Mapping[str, Any]) -> tuple[str, ...]:
    """Logical ids that must exist before `item`: DependsOn and references, in the template's order."""
    wanted = references(item.properties) | set(item.depends_on)
    return tuple(name for name in known if name in wanted and name != item.logical_id)


def order(graph: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Names such that each follows all it needs; among equals, in the mapping's own order.

    Raises:
        TemplateError: a cycle.
    """
    place = {name: index for index, name in enumerate(graph)}
    sorter = TopologicalSorter({name: [need for need in wanted if need in graph] for name, wanted in graph.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        names = ", ".join(sorted(set(error.args[1])))
        raise TemplateError(f"Circular dependency between resources: [{names}]") from None
    ordered: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        ordered += ready
        sorter.done(*ready)
    return ordered


def parse(body: str) -> Template:
    """Read a template from JSON or YAML.

    Raises:
        TemplateError: not a template, or one that says something that the rehearsal does not know.
    """
    if len(body.encode()) > LONGEST_BODY:
        raise TemplateError(
            f"1 validation error detected: Value at 'templateBody' failed to satisfy constraint: "
            f"Member must have length less than or equal to {LONGEST_BODY}"
        )
    try:
        document = json.loads(body) if body.lstrip().startswith("{") else yaml.load(body, Loader=_Loader)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise TemplateError(f"Template format error: {error}") from None
    if not isinstance(document, dict):
        raise TemplateError("Template format error: unsupported structure.")
    if "Transform" in document or "Rules" in document:
        section = "Transform" if "Transform" in document else "Rules"
        raise TemplateError(f"Template format error: the section {section} is not rehearsed")
    unknown = sorted(set(document) - _SECTIONS)
    if unknown:
        raise TemplateError(f"Invalid template property or properties [{', '.join(unknown)}]")
    if not isinstance(document.get("Resources"), dict) or not document["Resources"]:
        raise TemplateError("Template format error: At least one Resources member must be defined.")
    template = Template(
        body=body,
        description=document.get("Description") or "",
        parameters=document.get("Parameters") or {},
        mappings=document.get("Mappings") or {},
        conditions=document.get("Conditions") or {},
        resources={name: _resource(name, item) for name, item in document["Resources"].items()},
        outputs=document.get("Outputs") or {},
    )
    _check(template)
    return template


def _resource(name: str, item: Any) -> Resource:
    if not isinstance(item, dict) or not isinstance(item.get("Type"), str):
        raise TemplateError(
            f"Template format error: [/Resources/{name}] Every Resources object must contain a Type member."
        )
    unknown = sorted(set(item) - _ATTRIBUTES)
    if unknown:
        raise TemplateError(f"Template format error: {name} ({item['Type']}): {', '.join(unknown)} is not rehearsed")
    policies = {
        "DeletionPolicy": item.get("DeletionPolicy", "Delete"),
        "UpdateReplacePolicy": item.get("UpdateReplacePolicy", "Delete"),
    }
    for attribute, policy in policies.items():
        if policy not in _POLICIES:
            raise TemplateError(
                f"Template format error: {name} ({item['Type']}): {attribute} {policy} is not rehearsed"
            )
    depends_on = item.get("DependsOn") or ()
    return Resource(
        logical_id=name,
        type=item["Type"],
        properties=item.get("Properties") or {},
        depends_on=(depends_on,) if isinstance(depends_on, str) else tuple(depends_on),
        condition=item.get("Condition"),
        deletion_policy=policies["DeletionPolicy"],
        update_replace_policy=policies["UpdateReplacePolicy"],
        metadata=item.get("Metadata"),
    )


def _check(template: Template) -> None:
    known = set(template.resources) | set(template.parameters)
    for item in template.resources.values():
        missing = (references(item.properties) | set(item.depends_on)) - known
        if missing:
            raise TemplateError(_unresolved(sorted(missing), "Resources"))
        if item.condition is not None and item.condition not in template.conditions:
            raise TemplateError(
                f"Template format error: Unrecognized condition {item.condition} in resource {item.logical_id}"
            )
    for name, output in template.outputs.items():
        if not isinstance(output, dict) or "Value" not in output:
            raise TemplateError(f"Template format error: Output {name} must have a Value member.")
        missing = references(output) - known
        if missing:
            raise TemplateError(_unresolved(sorted(missing), "Outputs"))
    properties = [item.properties for item in template.resources.values()]
    for function in _functions([template.conditions, template.outputs, properties]):
        if function not in FUNCTIONS:
            raise TemplateError(f"Template format error: the function {function} is not rehearsed")
    order({name: needs(item, template.resources) for name, item in template.resources.items()})


def _unresolved(missing: list[str], block: str) -> str:
    names = ", ".join(missing)
    return f"Template format error: Unresolved resource dependencies [{names}] in the {block} block of the template"


def _functions(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if len(value) == 1 and isinstance(key, str) and key.startswith("Fn::"):
                yield key
            yield from _functions(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _functions(inner)
