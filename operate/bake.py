"""Make an image of a ready node, so that later labs start from it instead of installing everything anew.

The image is taken without a reboot: one would end every session and take the scratch disk away, and cloud-init would
find the node changed. What an image must not be caught in the middle of is written out before: userdata/bake.sh ends
in `sync`, the root file system keeps a journal, and a node that starts from the image checks its Python before it is
ready. Its host keys and its operator's public key are in the image until a new instance first boots: keep it private.
"""

import json as documents
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import ClientError

from guard.inventory import Item
from labs.catalog import Lab
from labs.instances import instance_type
from labs.names import IMAGE_PARAMETER, TAG_BAKED, TAG_OWNER
from labs.prices import HOURS_PER_MONTH, dollars
from operate.account import Account
from operate.cluster import Cluster
from operate.launch import Place
from operate.money import price_of
from operate.nodes import Node
from operate.openssh import choose
from operate.problem import Problem
from operate.screen import Screen
from operate.shell import demand
from operate.standing import owner_of

KINDS = ("gpu", "cpu")
"""An image holds drivers for GPUs or it does not; -c image=baked takes the one that suits the type."""
LIMIT_S = 3600.0
"""Longest that an image may take: EC2 copies the root volume, 150 GiB on a node with GPUs."""
_PREPARE = "/opt/rooflab/bake.sh"
_PREPARE_S = 900.0
_PAUSE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Baked:
    """One image that `fab bake` made."""

    kind: str
    """One of `KINDS`."""
    image: str
    snapshots: tuple[str, ...]
    gib: int
    """Size of the volumes that the snapshots are of."""
    parameter: str
    """SSM parameter that names it."""

    @property
    def usd_per_month(self) -> float | None:
        """What its snapshots cost at most, as if the volumes had been full; None where no price is known."""
        item = Item(kind="snapshot", id="", stack="", facts={"VolumeSize": self.gib})
        hourly = price_of(item).usd_per_hour
        return None if hourly is None else hourly * HOURS_PER_MONTH

    def line(self) -> str:
        """For the terminal."""
        return (
            f"{self.image} is baked, for -c image=baked on types {'with' if self.kind == 'gpu' else 'without'} GPUs; "
            f"at most {dollars(self.usd_per_month)} a month ({self.gib} GiB of snapshots) until "
            f"fab bake --remove {self.kind}"
        )


def bake(cluster: Cluster, lab: Lab, node_name: str, screen: Screen, *, json: bool) -> None:
    """Make the image of a node of a deployed lab (the head, unless named) and print what it is.

    Raises:
        Problem: the node is not ready, still runs something, or EC2 could not make the image.
    """
    node, account = choose(cluster, node_name), cluster.account
    assert account is not None
    cluster.facts(screen)
    prepare(cluster, node, screen)
    made = take_image(account, lab, node, screen)
    print(documents.dumps({**asdict(made), "usd_per_month": made.usd_per_month}, indent=1)) if json else screen.note(
        made.line()
    )


def prepare(cluster: Cluster, node: Node, screen: Screen) -> None:
    """Bring the node into the state that its image is to have; it stays usable.

    Raises:
        Problem: a run goes on there, or the node's own bake.sh failed.
    """
    running = demand(cluster.shells.each(_running(cluster.place), among=(node.name,)), "say what it runs", "try again")
    if names := running[node.name].text.split():
        raise Problem(f"{node.name} still runs {', '.join(names)}, and an image takes a node's runs away",
                      "wait for it, or fab stop, then bake")  # fmt: skip
    if node.on_loopback:
        screen.warn(f"{node.name} shares this machine with others, so nothing on it was prepared for an image")
        return
    with screen.stage(f"preparing {node.name}", interrupted="bake again; the node is as usable as before"):
        demand(
            cluster.shells.each(f"sudo -n bash {_PREPARE}", timeout_s=_PREPARE_S, among=(node.name,)),
            "be made ready for an image", f"fab ssh --node {node.name}, and look at {_PREPARE}",
        )  # fmt: skip


def _running(place: Place) -> str:
    """Prints the names of runs on a node that have not ended."""
    return f'for run in {place.runs}/*/; do [ ! -d "$run" ] || [ -e "$run/exit" ] || basename "$run"; done'


def take_image(
    account: Account, lab: Lab, node: Node, screen: Screen, *, pause: Callable[[float], None] = time.sleep
) -> Baked:
    """Make the image, wait for it, let the parameter name it, and remove the one that it replaces.

    Raises:
        Problem: EC2 failed to make it, or Ctrl-C.
    """
    ec2, kind = account.client("ec2"), "gpu" if instance_type(node.instance_type).gpus else "cpu"
    older = find_baked(account, kind)
    tags = [{"Key": TAG_BAKED, "Value": str(lab.number)}, {"Key": TAG_OWNER, "Value": owner_of(account, lab.owner)}]
    image = ec2.create_image(
        InstanceId=node.instance_id,
        Name=f"{_prefix(kind)}{account.now():%Y%m%d-%H%M%S}",
        Description=f"Rooflab: {node.instance_type} of lab {lab.number}, set up and ready",
        NoReboot=True,
        TagSpecifications=[{"ResourceType": what, "Tags": tags} for what in ("image", "snapshot")],
    )["ImageId"]
    remedy = f"EC2 goes on with {image}; fab bake --remove {kind} takes it away"
    with screen.stage(f"baking {image}", interrupted=remedy) as say:
        _await(ec2, image, say, pause)
    parameter = IMAGE_PARAMETER.format(kind=kind)
    # A launch template resolves the parameter only if it is of this data type:
    # https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-ec2-aliases.html
    account.client("ssm").put_parameter(
        Name=parameter, Value=image, Type="String", DataType="aws:ec2:image", Overwrite=True
    )
    account.client("ssm").add_tags_to_resource(ResourceType="Parameter", ResourceId=parameter, Tags=tags)
    for old in older:
        _remove(account, old)
        screen.note(f"{old.image}, which it replaces, and its snapshots are removed")
    made = next(one for one in find_baked(account, kind) if one.image == image)
    return made


def _prefix(kind: str) -> str:
    return f"rooflab-{kind}-"


def _await(ec2: Any, image: str, say: Callable[[str], None], pause: Callable[[float], None]) -> None:
    waited_s = 0.0
    while True:
        found = ec2.describe_images(ImageIds=[image])["Images"][0]
        if found["State"] == "available":
            return
        if found["State"] in ("failed", "error", "invalid", "deregistered"):
            why = found.get("StateReason", {}).get("Message", "no reason")
            raise Problem(
                f"EC2 could not make {image} ({found['State']}: {why})", "bake again; fab bake --remove first"
            )
        if waited_s >= LIMIT_S:
            raise Problem(f"{image} is still {found['State']} after {waited_s:.0f} s", "look at it in the EC2 console")
        if snapshots := _snapshots(found):
            told = ec2.describe_snapshots(SnapshotIds=list(snapshots))["Snapshots"]
            say(", ".join(f"{one['VolumeSize']} GiB {one.get('Progress') or '0%'}" for one in told))
        pause(_PAUSE_S)
        waited_s += _PAUSE_S


def _snapshots(image: dict[str, Any]) -> tuple[str, ...]:
    devices = image.get("BlockDeviceMappings", ())
    return tuple(device["Ebs"]["SnapshotId"] for device in devices if device.get("Ebs", {}).get("SnapshotId"))


def find_baked(account: Account, kind: str) -> tuple[Baked, ...]:
    """Images of that kind that `fab bake` made in the account's region, also those that it did not finish."""
    answer = account.client("ec2").describe_images(
        Owners=["self"], Filters=[{"Name": "tag-key", "Values": [TAG_BAKED]}]
    )
    return tuple(
        Baked(
            kind=kind,
            image=image["ImageId"],
            snapshots=_snapshots(image),
            gib=sum(device.get("Ebs", {}).get("VolumeSize", 0) for device in image.get("BlockDeviceMappings", ())),
            parameter=IMAGE_PARAMETER.format(kind=kind),
        )
        for image in sorted(answer["Images"], key=lambda image: image.get("CreationDate", ""))
        if image["Name"].startswith(_prefix(kind))
    )


def remove(account: Account, kind: str, screen: Screen, *, json: bool) -> None:
    """Remove every image of that kind that `fab bake` made, its snapshots, and the parameter that names it.

    Raises:
        ValueError: there is no such kind.
    """
    found = find_baked(account, kind)
    parameter = IMAGE_PARAMETER.format(kind=kind)
    try:
        account.client("ssm").delete_parameter(Name=parameter)
        named = True
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise
        named = False
    for one in found:
        _remove(account, one)
    if json:
        print(documents.dumps({"removed": [asdict(one) for one in found], "parameter": parameter if named else None},
                              indent=1))  # fmt: skip
        return
    for one in found:
        screen.note(f"{one.image} and {', '.join(one.snapshots) or 'no snapshot'} are removed")
    if not found:
        screen.note(f"no {kind} image was baked in {account.region}: nothing was removed")


def check_kind(kind: str) -> str:
    """The kind, if it is one.

    Raises:
        ValueError: it is none.
    """
    if kind not in KINDS:
        raise ValueError(f"remove={kind!r} is no kind of image: write --remove {' or --remove '.join(KINDS)}")
    return kind


def _remove(account: Account, one: Baked) -> None:
    ec2 = account.client("ec2")
    ec2.deregister_image(ImageId=one.image)
    for snapshot in one.snapshots:
        try:
            ec2.delete_snapshot(SnapshotId=snapshot)
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidSnapshot.NotFound":
                raise
