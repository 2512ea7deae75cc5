"""Every type on every capacity it is sold on, every way, storage and image, deployed and destroyed in one rehearsal:
python -m tests.soak.combinations [TITLE ...] [--keep FILE]

Each lab's template is synthesised from real reservations and capacity blocks of the rehearsed account, given to its
CloudFormation, looked at, and deleted again; then nothing of it may be left. It tells each that did not hold.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labs import names
from labs.catalog import Lab
from labs.instances import instance_types
from labs.storage import SIZES
from operate.account import Account
from operate.sweep import sweep
from rehearsal import control
from tests.stacks.synthesis import Template, of_type, synthesise_apart

NAME = "combinations"
CAPACITIES = ("on-demand", "spot", "reservation", "block")
_WIDE = ("t3.medium", "g6.12xlarge", "g6e.24xlarge", "p5.4xlarge", "p5.48xlarge", "p6-b300.48xlarge")
"""Types whose interfaces differ, which are tried with each way to reach a node."""
_REGIONS = ("us-east-1", "us-east-2")
"""Which together sell every type; a lab goes to the first that sells its own."""
_GROUP, _BUCKET = "combinations", "combinations-data"
_ENDED = (
    "CREATE_COMPLETE",
    "CREATE_FAILED",
    "ROLLBACK_COMPLETE",
    "ROLLBACK_FAILED",
    "DELETE_COMPLETE",
    "DELETE_FAILED",
)
Given = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one combination."""

    title: str
    way: str
    nodes: int
    resources: int
    deploy_s: float
    destroy_s: float
    wrong: str
    """What did not hold; empty: all held."""


def cases() -> dict[str, Given]:
    """Title -> what overrides Lab 3, or the lab of `number`; reservations and blocks are not bought yet."""
    made: dict[str, Given] = {}
    for name, kind in instance_types().items():
        nodes = 2 if kind.efas else 1
        for capacity in CAPACITIES:
            if capacity != "block" or kind.capacity_block:
                made[f"{name} {capacity}"] = {"instance_type": name, "capacity": capacity, "nodes": nodes}
    for name in _WIDE:
        for capacity in CAPACITIES:
            if capacity != "block" or instance_types()[name].capacity_block:
                for access in ("eice", "ssm"):
                    given = {"instance_type": name, "capacity": capacity, "access": access, "nodes": 2}
                    made[f"{name} {capacity} {access}"] = given
    for storage in SIZES:
        made[f"storage {storage}"] = {"storage": storage}
        made[f"storage {storage} of twice the step"] = {"storage": storage, "storage_gib": 2 * SIZES[storage].step_gib}
    made |= {
        "data of a bucket": {"storage": "scratch", "data": f"s3://{_BUCKET}/some/prefix"},
        "results as data": {"storage": "persistent-250", "data": "results"},
        "a baked image": {"image": "baked"},
        "a baked image without a GPU": {"image": "baked", "instance_type": "t3.medium"},
        "a reservation's group": {"instance_type": "g6.24xlarge", "capacity": "reservation", "group": _GROUP},
        "alternatives": {"capacity": "spot", "alternatives": "g5.12xlarge+g6e.12xlarge"},
        "no EFA": {"instance_type": "p5.48xlarge", "efa": "off"},
        "EFA on one node": {"instance_type": "p5.48xlarge", "efa": "on", "nodes": 1},
        "a name and an owner": {"name": "alice", "owner": "alice@example.org"},
        "3 nodes of 32 EFAs": {"instance_type": "p5.48xlarge", "nodes": 3},
        "16 nodes": {"nodes": 16, "instance_type": "t3.medium"},
    }
    for number in range(5):
        made[f"lab {number} as it is"] = {"number": number}
    return made


class Place:
    """One region of a rehearsed account, and what the combinations ask for besides the guard."""

    def __init__(self, region: str) -> None:
        self.account = Account(region)
        self.ec2, self.cloudformation = self.account.client("ec2"), self.account.client("cloudformation")
        self._bought: dict[tuple[str, ...], tuple[str, str]] = {}

    def prepare(self) -> None:
        """What stands before any lab: a bucket with data and a placement group."""
        if self.account.region == _REGIONS[0]:  # S3 knows one bucket of a name in all regions
            self.account.client("s3").create_bucket(Bucket=_BUCKET)
        self.ec2.create_placement_group(GroupName=_GROUP, Strategy="cluster")

    def bought(self, given: Given) -> Given:
        """The same, its reservation or block bought, and in the zone of that or one that has the type."""
        kind, capacity = str(given.get("instance_type", "g6.12xlarge")), given.get("capacity", "")
        if given.keys() == {"number"}:
            return {**given, "zone": self._zone("g6e.12xlarge" if given["number"] == 4 else kind)}
        if capacity not in ("reservation", "block"):
            return {"number": 3, "storage": "none", **given, "zone": self._zone(kind)}
        group = str(given.get("group", ""))
        if (kind, capacity, group) not in self._bought:
            self._bought[kind, capacity, group] = self._buy(kind, capacity, group)
        id, zone = self._bought[kind, capacity, group]
        return {"number": 3, "storage": "none", **given, "capacity": f"{capacity}:{id}", "zone": zone}

    def sells(self, kind: str) -> bool:
        """Whether any of its zones has the type."""
        return bool(self._zone(kind))

    def _zone(self, kind: str) -> str:
        found = self.ec2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [kind]}]
        )["InstanceTypeOfferings"]
        return min((str(offer["Location"]) for offer in found), default="")

    def _buy(self, kind: str, capacity: str, group: str) -> tuple[str, str]:
        if capacity == "block":
            (offer,) = self.ec2.describe_capacity_block_offerings(
                InstanceType=kind, InstanceCount=2, CapacityDurationHours=24
            )["CapacityBlockOfferings"]
            made = self.ec2.purchase_capacity_block(
                CapacityBlockOfferingId=offer["CapacityBlockOfferingId"], InstancePlatform="Linux/UNIX"
            )["CapacityReservation"]
        else:
            group = group and self.ec2.describe_placement_groups(GroupNames=[group])["PlacementGroups"][0]["GroupArn"]
            made = self.ec2.create_capacity_reservation(
                InstanceType=kind, InstancePlatform="Linux/UNIX", AvailabilityZone=self._zone(kind), InstanceCount=2,
                InstanceMatchCriteria="targeted", EndDateType="unlimited",
                **({"PlacementGroupArn": group} if group else {}),
            )["CapacityReservation"]  # fmt: skip
        return str(made["CapacityReservationId"]), str(made["AvailabilityZone"])

    def bake(self) -> None:
        """Images where `fab bake` keeps them, of an instance that is ended again."""
        for kind, machine in (("gpu", "g6.xlarge"), ("cpu", "t3.medium")):
            image = f"resolve:ssm:{names.PUBLIC_IMAGES[kind]}"
            (node,) = self.ec2.run_instances(ImageId=image, InstanceType=machine, MinCount=1, MaxCount=1)["Instances"]
            self.ec2.get_waiter("instance_running").wait(InstanceIds=[node["InstanceId"]])
            made = self.ec2.create_image(InstanceId=node["InstanceId"], Name=f"combinations-{kind}")["ImageId"]
            control.advance(NAME, 1200)
            self.ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 1})
            self.account.client("ssm").put_parameter(
                Name=names.IMAGE_PARAMETER.format(kind=kind), Value=made, Type="String", DataType="aws:ec2:image"
            )
            self.ec2.terminate_instances(InstanceIds=[node["InstanceId"]])
            self.ec2.get_waiter("instance_terminated").wait(
                InstanceIds=[node["InstanceId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
            )

    def create(self, stack: str, template: Template, tags: Mapping[str, str]) -> str:
        """The stack's last status, and why where it failed."""
        self.cloudformation.create_stack(
            StackName=stack, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"],
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )  # fmt: skip
        return self._ended(stack)

    def delete(self, id: str) -> str:
        """The same, of its end."""
        self.cloudformation.delete_stack(StackName=id)
        return self._ended(id)

    def _ended(self, stack: str) -> str:
        until = time.monotonic() + 180
        while True:
            found = self.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
            if found["StackStatus"] in _ENDED or time.monotonic() > until:
                break
            time.sleep(0.05)
        status = str(found["StackStatus"])
        if status in ("CREATE_COMPLETE", "DELETE_COMPLETE"):
            return status
        events = self.cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        why = [event.get("ResourceStatusReason", "") for event in events if "FAILED" in event["ResourceStatus"]]
        return f"{status}: {why[-1] if why else 'no reason given'}"

    def look(self, lab: Lab) -> Iterator[str]:
        """What of a deployed lab is not as it was asked for."""
        found = self.ec2.describe_instances(
            Filters=[{"Name": f"tag:{names.TAG_STACK}", "Values": [lab.stack]},
                     {"Name": "instance-state-name", "Values": ["pending", "running"]}]
        )["Reservations"]  # fmt: skip
        nodes = [node for one in found for node in one["Instances"]]
        if len(nodes) != lab.nodes:
            yield f"{len(nodes)} nodes, not {lab.nodes}"
        market = {"spot": "spot", "block": "capacity-block"}.get(lab.capacity.partition(":")[0])
        for node in nodes:
            told = {
                "type": (node["InstanceType"] in lab.types, True),
                "interfaces": (len(node["NetworkInterfaces"]), len(lab.interfaces)),
                "public address": ("PublicIpAddress" in node, lab.way in ("address", "elastic")),
                "market": (node.get("InstanceLifecycle"), market),
                "reservation": (node.get("CapacityReservationId", ""), lab.capacity.partition(":")[2]),
                "zone": (node["Placement"]["AvailabilityZone"], lab.zone),
            }
            yield from (f"{what} is {it!r}, not {wanted!r}" for what, (it, wanted) in told.items() if it != wanted)
        systems = self.account.client("fsx").describe_file_systems()["FileSystems"]
        if [one["StorageCapacity"] for one in systems] != ([lab.capacity_gib] if lab.capacity_gib else []):
            yield f"file systems of {[one['StorageCapacity'] for one in systems]} GiB"

    def left(self) -> Iterator[str]:
        """What of a lab is there after its stack is gone."""
        found = sweep(self.account)
        yield from (f"left: {item.kind} {item.id} {item.state}" for item in found.left)
        yield from (f"not looked at: {kind}: {why}" for kind, why in found.not_looked_at.items())


def run(place: Place, title: str, lab: Lab, template: Template, tags: Mapping[str, str]) -> Outcome:
    """One combination's life."""
    began = time.perf_counter()
    status = place.create(lab.stack, template, tags)
    wrong = [] if status == "CREATE_COMPLETE" else [status]
    wrong += list(place.look(lab)) if not wrong else []
    stood = time.perf_counter()
    id = place.cloudformation.describe_stacks(StackName=lab.stack)["Stacks"][0]["StackId"]
    status = place.delete(id)
    gone = time.perf_counter()
    wrong += [] if status == "DELETE_COMPLETE" else [status]
    wrong += list(place.left())
    return Outcome(
        title=title, way=lab.way, nodes=lab.nodes, resources=len(template["Resources"]),
        deploy_s=round(stood - began, 2), destroy_s=round(gone - stood, 2), wrong="; ".join(wrong),
    )  # fmt: skip


def main() -> int:
    """See the module. Returns 1 where a combination did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.combinations", description=__doc__)
    parser.add_argument("titles", nargs="*", metavar="TITLE", help="only those whose title holds one of these words")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write what was measured there, as JSON")
    asked = parser.parse_args()
    chosen = {
        title: given
        for title, given in cases().items()
        if not asked.titles or any(word in title for word in asked.titles)
    }
    control.start(NAME)
    try:
        os.environ.update(control.environment(NAME))
        outcomes = [one for hand in _regions(chosen) for one in _outcomes(*hand)]
    finally:
        control.stop(NAME)
    failed = [one for one in outcomes if one.wrong]
    print(f"{len(outcomes)} combinations, {len(outcomes) - len(failed)} as they should be")
    if asked.keep:
        asked.keep.write_text(json.dumps(document(outcomes), indent=1, ensure_ascii=False) + "\n")
    return 1 if failed or len(outcomes) != len(chosen) else 0


def _regions(chosen: Mapping[str, Given]) -> Iterator[tuple[Place, dict[str, Given]]]:
    left = dict(chosen)
    for region in _REGIONS:
        place = Place(region)
        here = {t: given for t, given in left.items() if place.sells(str(given.get("instance_type", "g6.12xlarge")))}
        left = {title: given for title, given in left.items() if title not in here}
        if here:
            yield place, here


def _outcomes(place: Place, chosen: Mapping[str, Given]) -> Iterator[Outcome]:
    place.prepare()
    if any("baked" in title for title in chosen):
        place.bake()
    wanted = {title: place.bought(given) for title, given in chosen.items()}
    with tempfile.TemporaryDirectory(prefix="rooflab-combinations-") as folder:
        made = synthesise_apart(Path(folder), wanted, processes=min(2, len(wanted)))
    for title, reason in made.refused.items():
        print(f"{title}: refused: {reason}", file=sys.stderr)
    assert place.create(names.GUARD_STACK, made.guard, {}) == "CREATE_COMPLETE"
    for title, (lab, template) in made.labs.items():
        vpc = next(iter(of_type(template, "AWS::EC2::VPC").values()))
        tags = {one["Key"]: one["Value"] for one in vpc["Properties"]["Tags"] if one["Key"] != "Name"}
        outcome = run(place, title, lab, template, tags)
        print(
            f"{title}: {outcome.wrong or 'as it should be'} ({outcome.deploy_s} s, {outcome.destroy_s} s)", flush=True
        )
        yield outcome


def document(outcomes: list[Outcome]) -> dict[str, Any]:
    """What was measured, with where and when."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "combinations": len(outcomes),
        "as they should be": sum(not one.wrong for one in outcomes),
        "outcomes": [asdict(one) for one in outcomes],
    }


if __name__ == "__main__":
    sys.exit(main())
