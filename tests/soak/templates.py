"""Templates of the labs that the soak deploys, synthesised once: python -m tests.soak.templates FOLDER."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TTL_HOURS = 0.2
_KINDS: Mapping[str, Mapping[str, object]] = {
    "lab1 t3": {"number": 1, "instance_type": "t3.xlarge"},
    "lab1 g6 spot": {"number": 1, "instance_type": "g6.xlarge", "capacity": "spot"},
    "lab3 c7i": {"number": 3, "instance_type": "c7i.xlarge", "storage": "none"},
    "lab3 g6 fsx": {"number": 3, "instance_type": "g6.12xlarge", "storage": "scratch"},
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
    from tests.stacks.synthesis import synthesise  # late: the soak itself need not load the CDK

    made = synthesise(folder, {kind: {**given, "ttl_hours": TTL_HOURS} for kind, given in _KINDS.items()}, key=key)
    assert not made.refused, made.refused
    manifest = json.loads((folder / "manifest.json").read_text())["artifacts"]
    written: dict[str, dict[str, Any]] = {
        "guard": {"stack": "GuardStack", "template": json.dumps(made.guard), "tags": {}, "lab": -1}
    }
    for index, (kind, (lab, template)) in enumerate(made.labs.items()):
        tags = manifest[f"Case{index}"]["properties"].get("tags", {})
        written[kind] = {"stack": lab.stack, "template": json.dumps(template), "tags": tags, "lab": lab.number}
    (folder / "labs.json").write_text(json.dumps(written))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
