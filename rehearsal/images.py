"""Machine images made from a node, of which moto knows little: their snapshots have the size of nothing, and no tags.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html
"""

import re
from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.amis import Ami
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.ec2.utils import random_ami_id

from rehearsal import clock, launch
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.holds import Holds

_NAME = re.compile(r"[\w()\[\] ./'@-]{3,128}")
_HONOURED = {"InstanceId", "Name", "Description", "NoReboot", "TagSpecifications", "DryRun"}


class BakedImage(Ami):  # type: ignore[misc]  # moto ships no types
    """An image of an instance: one snapshot for each of its volumes."""

    def __init__(self, backend: Any, instance: Any, *, name: str, description: str, holds: Holds) -> None:
        self.ec2_backend = backend
        self.id = random_ami_id()
        source = backend.amis.get(instance.image_id)
        self._holds, self._made = holds, clock.now()
        self.name, self.description = name, description
        self.owner_id, self.owner_alias = backend.account_id, None
        self.image_type, self.image_location = "machine", f"{backend.account_id}/{name}"
        self.instance_id = instance.id
        self.virtualization_type, self.architecture = instance.virtualization_type, instance.architecture
        self.kernel_id, self.platform, self.hypervisor = None, instance.platform, "xen"
        self.root_device_name, self.root_device_type = instance.root_device_name, "ebs"
        self.sriov, self.boot_mode = "simple", source.boot_mode if source else "uefi"
        self.creation_date: datetime = self._made
        self.product_codes: set[str] = set()
        self.launch_permissions: list[dict[str, str]] = []
        text = f"Created by CreateImage({instance.id}) for {self.id}"
        self.snapshots = {}
        self._volumes = {}
        for device, mapping in sorted(instance.block_device_mapping.items()):
            self._volumes[device] = volume = backend.get_volume(mapping.volume_id)
            self.snapshots[device] = backend.create_snapshot(volume.id, text, backend.account_id)

    @property
    def state(self) -> str:
        """pending, then available."""
        return "available" if self._holds.over("image", self._made) else "pending"

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        return [
            {"DeviceName": device, "Ebs": {
                "SnapshotId": snapshot.id, "VolumeSize": self._volumes[device].size, "Encrypted": snapshot.encrypted,
                "VolumeType": self._volumes[device].volume_type, "DeleteOnTermination": True,
            }}
            for device, snapshot in self.snapshots.items()
        ]  # fmt: skip


class Images(EC2BaseResponse):  # type: ignore[misc]  # moto ships no types
    """Made, and taken from the list; its snapshots stay until they are deleted."""

    holds: Holds

    def create_image(self) -> ActionResult:
        request = dict(self._get_params())
        if unknown := sorted(set(request) - _HONOURED):
            raise NotRehearsed(f"CreateImage: {', '.join(unknown)}")
        self.error_on_dryrun()
        backend, name = self.ec2_backend, request.get("Name", "")
        instance = backend.get_instance(request["InstanceId"])
        if instance.state not in ("running", "stopped"):
            raise AwsError("IncorrectState", f"Instance '{instance.id}' is not 'running' or 'stopped'.")
        if not _NAME.fullmatch(name):
            raise AwsError("InvalidAMIName.Malformed", f"AMI names must be between 3 and 128 characters long, and may "
                           f"contain letters, numbers, and only some other characters: '{name}'")  # fmt: skip
        for ami in backend.amis.values():
            if ami.name == name and ami.owner_id == backend.account_id:
                raise AwsError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {ami.id}")
        for specification in request.get("TagSpecifications") or []:
            if specification["ResourceType"] not in ("image", "snapshot"):
                raise AwsError(
                    "InvalidParameterValue",
                    f"'{specification['ResourceType']}' is not a valid taggable resource type for this operation.",
                )
        made = BakedImage(backend, instance, name=name, description=request.get("Description") or "", holds=self.holds)
        backend.amis[made.id] = made
        tagged = {"TagSpecifications": request.get("TagSpecifications") or []}
        made.add_tags(launch.tags_of(tagged, "image"))
        for snapshot in made.snapshots.values():
            snapshot.add_tags(launch.tags_of(tagged, "snapshot"))
        return ActionResult({"ImageId": made.id})

    def deregister_image(self) -> ActionResult:
        if unknown := sorted(set(self._get_params()) - {"ImageId", "DryRun"}):
            raise NotRehearsed(f"DeregisterImage: {', '.join(unknown)}")
        id = self._get_param("ImageId")
        result = super().deregister_image()
        self.ec2_backend.tags.pop(id, None)
        return result

    def describe_snapshots(self) -> ActionResult:
        # moto leaves OwnerIds out of account: the snapshots behind public images would all be one's own.
        result = super().describe_snapshots()
        if owners := {id.replace("self", self.current_account) for id in self._get_param("OwnerIds", [])}:
            kept = [snapshot for snapshot in result.result["Snapshots"] if snapshot.owner_id in owners]
            return ActionResult({"Snapshots": kept})
        return result

    def delete_snapshot(self) -> ActionResult:
        id = self._get_param("SnapshotId")
        for ami in self.ec2_backend.amis.values():
            if isinstance(ami, BakedImage) and id in {snapshot.id for snapshot in ami.snapshots.values()}:
                raise AwsError("InvalidSnapshot.InUse", f"The snapshot {id} is currently in use by {ami.id}")
        result = super().delete_snapshot()
        self.ec2_backend.tags.pop(id, None)
        return result
