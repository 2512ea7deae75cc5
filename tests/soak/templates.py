"""Templates of the labs that the soak deploys, synthesised once: python -m tests.soak.templates FOLDER."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labs.names import GUARD_STACK

TTL_HOURS = 0.2
_KINDS: Mapping[str, Mapping[str, object]] = {
    "lab1 t3": {"number": 1, "instance_type": "t3.xlarge"},
    "lab1 g6 spot": {"number": 1, "instance_type": "g6.xlarge", "capacity": "spot"},
    "lab3 c7i": {"number": 3, "instance_type": "c7i.xlarge", "storage": "none"},
    "lab3 g6 fsx": {"number": 3, "instance_type": "g6.12xlarge", "storage": "scratch"},
    "lab3 g6 spot": {"number": 3, "instance_type": "g6.12xlarge", "capacity": "spot", "storage": "none"},
    "lab3 c7i spot fsx": {"number": 3, "instance_type": "c7i.xlarge", "capacity": "spot", "storage": "scratch"},
}
KINDS = tuple(_KINDS)


@dataclass(frozen=True, kw_only=True)
class Deployable:
    """What CloudFormation is asked to make."""

    stack: str
    template: str
    tags: Mapping[str, str]
    lab: int


def read(folder: Path) -> dict[str, Deployable]:
    """What `main` wrote, by kind; the guard's is "guard"."""
    return {kind: Deployable(**given) for kind, given in json.loads((folder / "labs.json").read_text()).items()}


def main(folder: Path, key: str) -> None:
    """Write labs.json."""
    from aws_cdk import App  # late: the soak itself need not load the CDK

    from labs.catalog import LABS
    from stacks.guard import GuardStack
    from stacks.lab import LabStack

    context = json.loads((Path(__file__).resolve().parents[2] / "cdk.json").read_text())["context"]
    app = App(outdir=str(folder), context=context, analytics_reporting=False, tree_metadata=False)
    guard = GuardStack(app, GUARD_STACK)
    labs = {}
    for index, (kind, given) in enumerate(_KINDS.items()):
        fields = {name: value for name, value in given.items() if name != "number"}
        lab = labs[kind] = LABS[int(str(given["number"]))].override(**fields, ttl_hours=TTL_HOURS)
        LabStack(app, f"Case{index}", lab=lab, guard=guard, ssh_public_key=key)
    app.synth()
    manifest = json.loads((folder / "manifest.json").read_text())["artifacts"]

    def template(id: str) -> str:
        return json.dumps(json.loads((folder / f"{id}.template.json").read_text()))  # without its blanks

    written: dict[str, dict[str, Any]] = {
        "guard": {"stack": GUARD_STACK, "template": template(GUARD_STACK), "tags": {}, "lab": -1}
    }
    for index, (kind, lab) in enumerate(labs.items()):
        tags = manifest[f"Case{index}"]["properties"].get("tags", {})
        written[kind] = {"stack": lab.stack, "template": template(f"Case{index}"), "tags": tags, "lab": lab.number}
    (folder / "labs.json").write_text(json.dumps(written))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
