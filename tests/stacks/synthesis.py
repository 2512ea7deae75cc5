"""Templates of many labs from one CDK app, and what the policies ask of them."""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
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
ACCESS = ("auto", "eice", "ssm")
DIFFERENT = (1, 3, 4)
"""Labs that are tried with each; given a type and a capacity, 0 and 2 differ from 1 in their number only."""
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

    def path(self, title: str) -> Path:
        """Where the template of one lab lies; only where none was refused."""
        assert not self.refused
        return self.folder / f"Case{list(self.labs).index(title)}.template.json"


def app_in(folder: Path, **context: object) -> App:
    """An empty app with the flags of cdk.json and the given context."""
    given = {**FLAGS, **context}
    return App(outdir=str(folder), context=given, analytics_reporting=False, tree_metadata=False, stack_traces=False)


def synthesise(
    folder: Path, labs: Mapping[str, Mapping[str, object]], *, key: str = KEY, notify: str = ""
) -> Synthesis:
    """Synthesise labs; each value holds the lab's `number` and what overrides it."""
    app = app_in(folder)
    guard = GuardStack(app, GUARD_STACK, notify=notify)
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


def synthesise_apart(folder: Path, labs: Mapping[str, Mapping[str, object]], *, processes: int) -> Synthesis:
    """The same as `synthesise`, the labs dealt out to as many processes."""
    titles = list(labs)
    hands = [{title: labs[title] for title in titles[start::processes]} for start in range(processes)]
    # Spawned, not forked: jsii's process and its pipes belong to one.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(synthesise, [folder / str(index) for index in range(processes)], hands))
    return Synthesis(
        labs={title: made for part in parts for title, made in part.labs.items()},
        refused={title: reason for part in parts for title, reason in part.refused.items()},
        guard=parts[0].guard,
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


def yaml_bytes(template: Any) -> int:
    """Size of a template as the CDK CLI sends it, in YAML: 0 to 1 % more than what `cdk synth` prints, never less."""
    return _block(template, 0) - 1


def _block(value: Any, indent: int) -> int:
    if isinstance(value, dict):
        return 1 + sum(indent + len(key) + 1 + _after(part, indent) for key, part in value.items())
    return 1 + sum(indent + 2 + _item(part, indent + 2) for part in value)


def _after(value: Any, indent: int) -> int:
    """What follows a key's colon."""
    filled = isinstance(value, dict | list) and value
    return _block(value, indent + 2) if filled else 1 + _scalar(value, indent + 2) + 1


def _item(value: Any, indent: int) -> int:
    """What follows a list's dash: the first line of a block stands beside it."""
    filled = isinstance(value, dict | list) and value
    return _block(value, indent) - 1 - indent if filled else _scalar(value, indent) + 1


def _scalar(value: Any, indent: int) -> int:
    if isinstance(value, bool):
        return len(str(value))
    text = str(value)
    if "\n" in text:
        return 2 + sum(indent + len(line.encode()) + 1 for line in text.rstrip("\n").split("\n"))
    return len(text.encode()) + (2 if re.search(r"^$|^[\d.-]+$|^[*&!%@`\[{|>]|: | #", text) else 0)
