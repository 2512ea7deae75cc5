"""Templates of many labs from one CDK app, and what the policies ask of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws_cdk import App

from labs.catalog import LABS, Lab
from labs.names import GUARD_STACK
from stacks.guard import GuardStack
from stacks.lab import LabStack

ROOT = Path(__file__).resolve().parents[2]
FLAGS: dict[str, Any] = {
    **json.loads((ROOT / "cdk.json").read_text())["context"],
    "@aws-cdk/core:failSynthOnValidationErrors": False,  # as the CLI has it, which stops at selected stacks
}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0Rj7jcTmhZ9aRk1tQ0V1wYf3m3o8G1uY4m0yqZ0Q1x someone@example"
TYPES = ("t3.medium", "c7i.4xlarge", "g6.xlarge", "g6.12xlarge", "g6e.24xlarge", "p4d.24xlarge", "p5.4xlarge",
         "p5.48xlarge", "p5en.48xlarge", "p6-b300.48xlarge")  # fmt: skip
CAPACITIES = ("on-demand", "spot", "reservation:cr-0123456789abcdef0", "block:cr-0123456789abcdef0")
Template = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """What one app made of many labs."""

    labs: Mapping[str, tuple[Lab, Template]]
    """By "lab3 p5.48xlarge spot": the lab and its template."""
    refused: Mapping[str, str]
    """By the same: why the lab got no template."""
    guard: Template
    folder: Path


def app_in(folder: Path, **context: object) -> App:
    """An empty app with the flags of cdk.json and the given context."""
    return App(outdir=str(folder), context={**FLAGS, **context}, analytics_reporting=False, tree_metadata=False)


def synthesise(folder: Path, labs: Mapping[str, Mapping[str, object]], *, key: str = KEY) -> Synthesis:
    """Synthesise labs; each value holds the lab's `number` and what overrides it."""
    app = app_in(folder)
    guard = GuardStack(app, GUARD_STACK)
    made: dict[str, tuple[Lab, str]] = {}
    refused: dict[str, str] = {}
    for index, (title, wanted) in enumerate(labs.items()):
        given = dict(wanted)
        number = int(str(given.pop("number")))
        try:
            lab = LABS[number].override(**given)
            LabStack(app, f"Case{index}", lab=lab, guard=guard, ssh_public_key=key)
        except ValueError as error:
            refused[title] = str(error)
        else:
            made[title] = (lab, f"Case{index}")
    app.synth()
    return Synthesis(
        labs={title: (lab, read(folder, id)) for title, (lab, id) in made.items()},
        refused=refused,
        guard=read(folder, GUARD_STACK),
        folder=folder,
    )


def read(folder: Path, stack: str) -> Template:
    """One template that `App.synth` wrote."""
    template: Template = json.loads((folder / f"{stack}.template.json").read_text())
    return template


def of_type(template: Template, kind: str) -> dict[str, Any]:
    """Resources of one type, by logical id."""
    return {id: resource for id, resource in template["Resources"].items() if resource["Type"] == kind}


def launch_data(template: Template) -> list[dict[str, Any]]:
    """The data of every launch template."""
    found = of_type(template, "AWS::EC2::LaunchTemplate").values()
    return [resource["Properties"]["LaunchTemplateData"] for resource in found]


def references(value: Any) -> Iterator[str]:
    """Logical ids that a part of a template refers to."""
    if isinstance(value, dict):
        if "Ref" in value and isinstance(value["Ref"], str):
            yield value["Ref"]
        if "Fn::GetAtt" in value:
            yield value["Fn::GetAtt"][0]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def waits_for(template: Template, id: str) -> set[str]:
    """Logical ids of everything that stands before `id` is created."""
    resources = template["Resources"]
    seen: set[str] = set()
    left = [id]
    while left:
        resource = resources.get(left.pop())
        if resource is None:  # a pseudo parameter
            continue
        named = resource.get("DependsOn", [])
        for other in [*references(resource["Properties"]), *([named] if isinstance(named, str) else named)]:
            if other not in seen:
                seen.add(other)
                left.append(other)
    return seen


def resolve(value: Any, template: Template) -> str:
    """Text of an intrinsic, with `<Id.Attribute>` where only CloudFormation knows it."""
    if isinstance(value, str):
        return value
    ((name, given),) = value.items()
    if name == "Fn::Join":
        return str(given[0]).join(resolve(part, template) for part in given[1])
    if name == "Fn::FindInMap":
        return str(template["Mappings"][given[0]][given[1]][given[2]])
    if name == "Fn::Base64":
        return resolve(given, template)
    return f"<{given if isinstance(given, str) else '.'.join(given)}>"
