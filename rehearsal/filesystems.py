"""Lustre file systems and their life cycle. moto keeps any file system, of any size, for ever available."""

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult, BaseResponse
from moto.moto_api._internal import mock_random

from rehearsal import clock
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.holds import Holds
from rehearsal.lustre import check

Row = dict[str, Any]
lock = threading.RLock()
"""Held while any of FSx's records change."""


@dataclass(kw_only=True)
class FileSystem:
    """One file system."""

    id: str
    region: str
    account: str
    request: Row
    mount_name: str
    interface: Any
    """Its network interface in the subnet: a subnet with a file system in it cannot be deleted."""
    created: datetime
    leaving: datetime | None = None
    """When its deletion began."""

    @property
    def arn(self) -> str:
        return f"arn:aws:fsx:{self.region}:{self.account}:file-system/{self.id}"

    def described(self, holds: Holds) -> Row:
        """As DescribeFileSystems shows it."""
        lustre = dict(self.request.get("LustreConfiguration") or {})
        made = "AVAILABLE" if holds.over("file-system-create", self.created) else "CREATING"
        return {
            "OwnerId": self.account,
            "CreationTime": self.created.timestamp(),
            "FileSystemId": self.id,
            "FileSystemType": "LUSTRE",
            "FileSystemTypeVersion": self.request.get("FileSystemTypeVersion", "2.10"),
            "Lifecycle": "DELETING" if self.leaving else made,
            "StorageCapacity": self.request["StorageCapacity"],
            "StorageType": self.request.get("StorageType", "SSD"),
            "VpcId": self.interface.vpc_id,
            "SubnetIds": self.request["SubnetIds"],
            "NetworkInterfaceIds": [self.interface.id],
            "DNSName": f"{self.id}.fsx.{self.region}.amazonaws.com",
            "ResourceARN": self.arn,
            "Tags": self.request.get("Tags") or [],
            "LustreConfiguration": {**lustre, "MountName": self.mount_name},
        }


class FileSystems(BaseResponse):  # type: ignore[misc]  # moto ships no types
    """Create, describe and delete."""

    holds: Holds
    systems: dict[str, FileSystem] = {}  # noqa: RUF012  # the account's, whichever request asks
    system_tokens: dict[str, str] = {}  # noqa: RUF012  # ids by client token

    def call_action(self) -> Any:
        """Answer a request, after what has run its course is finished."""
        with lock:
            self.settle()
        return super().call_action()

    def settle(self) -> None:
        """Finish what is over."""
        for id, system in list(self.systems.items()):
            if system.leaving and self.holds.over("file-system-delete", system.leaving):
                del self.systems[id]
                system.interface.delete()

    def create_file_system(self) -> ActionResult:
        request = dict(self._get_params())
        check(request)
        from moto.ec2.models import ec2_backends  # late: moto.ec2 takes over a second to load

        ec2 = ec2_backends[self.current_account][self.region]
        subnet = ec2.get_subnet(request["SubnetIds"][0])
        groups = request.get("SecurityGroupIds") or []
        for group in groups:
            if ec2.get_security_group_from_id(group) is None:
                raise AwsError("InvalidNetworkSettings", f"The security group {group} does not exist")
        with lock:
            token = request.get("ClientRequestToken")
            if token and (known := self.systems.get(self.system_tokens.get(token, ""))):
                return ActionResult({"FileSystem": known.described(self.holds)})
            id = f"fs-0{mock_random.get_random_hex(16)}"
            interface = ec2.create_network_interface(
                subnet, [], group_ids=groups, description=f"AWS created network interface for {id}"
            )
            interface.requester_managed = True
            mount = mock_random.get_random_string(8, lower_case=True)
            system = FileSystem(
                id=id, region=self.region, account=self.current_account, request=request, mount_name=mount,
                interface=interface, created=clock.now(),
            )  # fmt: skip
            self.systems[id] = system
            if token:
                self.system_tokens[token] = id
        return ActionResult({"FileSystem": system.described(self.holds)})

    def describe_file_systems(self) -> ActionResult:
        asked = self._get_param("FileSystemIds") or []
        chosen = [self.system(id) for id in asked] or [s for s in self.systems.values() if s.region == self.region]
        return ActionResult({"FileSystems": [system.described(self.holds) for system in chosen]})

    def delete_file_system(self) -> ActionResult:
        options = self._get_param("LustreConfiguration") or {}
        with lock:
            system = self.system(self._get_param("FileSystemId"))
            if str(options.get("SkipFinalBackup", True)).lower() == "false" and not system.leaving:
                self.back_up(system, options.get("FinalBackupTags") or [])
            system.leaving = system.leaving or clock.now()
        return ActionResult({"FileSystemId": system.id, "Lifecycle": "DELETING"})

    def back_up(self, system: FileSystem, tags: list[dict[str, str]]) -> Row:
        """Make a backup; `backups` does."""
        raise NotImplementedError

    def update_file_system(self) -> ActionResult:
        raise NotRehearsed("UpdateFileSystem")

    def system(self, id: str) -> FileSystem:
        """The file system of that id.

        Raises:
            AwsError: there is none.
        """
        system = self.systems.get(id)
        if system is None or system.region != self.region:
            raise AwsError("FileSystemNotFound", f"File system '{id}' does not exist.")
        return system
