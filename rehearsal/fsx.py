"""FSx for Lustre: AWS's rules of capacity, life cycle and links to S3. moto keeps any file system, of any size.

Rules: https://docs.aws.amazon.com/fsx/latest/APIReference/API_CreateFileSystem.html
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from moto.core.responses import ActionResult, BaseResponse
from moto.moto_api._internal import mock_random

from rehearsal import clock
from rehearsal.errors import AwsError, NotRehearsed

_MAKING_S = 0.2
"""Seconds of real time that a file system takes here; AWS takes about ten minutes."""
_THROUGHPUT = {"SCRATCH_2": (), "PERSISTENT_1": (50, 100, 200), "PERSISTENT_2": (125, 250, 500, 1000)}
_EFA_STEP_GIB = {125: 38400, 250: 19200, 500: 9600, 1000: 4800}
_HONOURED = {"ClientRequestToken", "FileSystemType", "FileSystemTypeVersion", "StorageCapacity", "StorageType",
             "SubnetIds", "SecurityGroupIds", "Tags", "LustreConfiguration"}  # fmt: skip
_HONOURED_OF_LUSTRE = {"DeploymentType", "PerUnitStorageThroughput", "DataCompressionType", "EfaEnabled",
                       "MetadataConfiguration", "AutomaticBackupRetentionDays", "WeeklyMaintenanceStartTime",
                       "CopyTagsToBackups"}  # fmt: skip


@dataclass(kw_only=True)
class FileSystem:
    """One file system."""

    id: str
    region: str
    account: str
    request: dict[str, Any]
    mount_name: str
    interface: Any
    """Its network interface in the subnet: a subnet with a file system in it cannot be deleted."""
    created: float
    """Virtual POSIX time."""
    born: float = field(default_factory=time.monotonic)

    @property
    def arn(self) -> str:
        return f"arn:aws:fsx:{self.region}:{self.account}:file-system/{self.id}"

    @property
    def described(self) -> dict[str, Any]:
        """As DescribeFileSystems shows it."""
        lustre = dict(self.request.get("LustreConfiguration") or {})
        return {
            "OwnerId": self.account,
            "CreationTime": self.created,
            "FileSystemId": self.id,
            "FileSystemType": "LUSTRE",
            "FileSystemTypeVersion": self.request.get("FileSystemTypeVersion", "2.10"),
            "Lifecycle": "AVAILABLE" if time.monotonic() - self.born >= _MAKING_S else "CREATING",
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


_lock = threading.RLock()
_systems: dict[str, FileSystem] = {}
_associations: dict[str, dict[str, Any]] = {}
_tokens: dict[str, str] = {}


def find(id: str) -> FileSystem | None:
    """The file system of that id, whatever its region."""
    return _systems.get(id)


def check(request: dict[str, Any]) -> None:
    """Refuse what AWS refuses.

    Raises:
        AwsError: BadRequest with the rule that is broken.
        NotRehearsed: a parameter that the rehearsal would have to ignore.
    """
    lustre = request.get("LustreConfiguration") or {}
    if request.get("FileSystemType") != "LUSTRE":
        raise NotRehearsed(f"FileSystemType {request.get('FileSystemType')}")
    for given, known in ((request, _HONOURED), (lustre, _HONOURED_OF_LUSTRE)):
        if unknown := sorted(set(given) - known):
            raise NotRehearsed(f"CreateFileSystem: {', '.join(unknown)}")
    kind = lustre.get("DeploymentType", "SCRATCH_1")
    if kind not in _THROUGHPUT:
        raise NotRehearsed(f"DeploymentType {kind}")
    rate = lustre.get("PerUnitStorageThroughput")
    if _THROUGHPUT[kind] and rate not in _THROUGHPUT[kind]:
        raise _bad(f"PerUnitStorageThroughput {rate} is not valid for {kind}: use one of {_THROUGHPUT[kind]}")
    if rate and not _THROUGHPUT[kind]:
        raise _bad(f"PerUnitStorageThroughput must not be given for {kind}")
    if len(request.get("SubnetIds") or []) != 1:
        raise _bad("Lustre file systems take exactly one subnet")
    capacity = int(request.get("StorageCapacity") or 0)
    if lustre.get("EfaEnabled"):
        if kind != "PERSISTENT_2" or not lustre.get("MetadataConfiguration"):
            raise _bad("EfaEnabled needs PERSISTENT_2 and a MetadataConfiguration")
        step = _EFA_STEP_GIB[int(rate or 0)]
        if capacity <= 0 or capacity % step:
            raise _bad(f"StorageCapacity {capacity} GiB: with EFA at {rate} MB/s/TiB use multiples of {step}")
    elif capacity != 1200 and (capacity <= 0 or capacity % 2400):
        raise _bad(f"StorageCapacity {capacity} GiB is not valid for {kind}: use 1200, 2400 or multiples of 2400")


def _bad(message: str) -> AwsError:
    return AwsError("BadRequest", message)


class Fsx(BaseResponse):  # type: ignore[misc]  # moto ships no types
    """FSx's API as far as Lustre needs it."""

    def __init__(self) -> None:
        super().__init__(service_name="fsx")
        self.automated_parameter_parsing = True

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
        with _lock:
            token = request.get("ClientRequestToken")
            if token and (known := _systems.get(_tokens.get(token, ""))):
                return ActionResult({"FileSystem": known.described})
            id = f"fs-0{mock_random.get_random_hex(16)}"
            interface = ec2.create_network_interface(
                subnet, [], group_ids=groups, description=f"AWS created network interface for {id}"
            )
            interface.requester_managed = True
            mount = mock_random.get_random_string(8, lower_case=True)
            system = FileSystem(
                id=id, region=self.region, account=self.current_account, request=request, mount_name=mount,
                interface=interface, created=clock.now().timestamp(),
            )  # fmt: skip
            _systems[id] = system
            if token:
                _tokens[token] = id
        return ActionResult({"FileSystem": system.described})

    def describe_file_systems(self) -> ActionResult:
        asked = self._get_param("FileSystemIds") or []
        chosen = [self._system(id) for id in asked] or [s for s in _systems.values() if s.region == self.region]
        return ActionResult({"FileSystems": [system.described for system in chosen]})

    def delete_file_system(self) -> ActionResult:
        with _lock:
            system = self._system(self._get_param("FileSystemId"))
            del _systems[system.id]
            system.interface.delete()
            for id in [id for id, row in _associations.items() if row["FileSystemId"] == system.id]:
                del _associations[id]
        return ActionResult({"FileSystemId": system.id, "Lifecycle": "DELETING"})

    def update_file_system(self) -> ActionResult:
        raise NotRehearsed("UpdateFileSystem")

    def create_data_repository_association(self) -> ActionResult:
        request = dict(self._get_params())
        with _lock:
            system = self._system(request["FileSystemId"])
            if system.described["FileSystemTypeVersion"] == "2.10":
                raise _bad("Data repository associations need FileSystemTypeVersion 2.12 or newer")
            if system.described["Lifecycle"] != "AVAILABLE":
                raise _bad(f"The file system {system.id} is not yet available")
            path = request.get("FileSystemPath", "")
            if not path.startswith("/"):
                raise _bad(f"FileSystemPath {path!r} must start with /")
            taken = [row["FileSystemPath"] for row in _associations.values() if row["FileSystemId"] == system.id]
            if any(_overlap(path, other) for other in taken):
                raise _bad(f"FileSystemPath {path} overlaps with an existing association")
            id = f"dra-0{mock_random.get_random_hex(16)}"
            arn = f"arn:aws:fsx:{system.region}:{system.account}:association/{system.id}/{id}"
            request.pop("ClientRequestToken", None)
            _associations[id] = {
                **request, "AssociationId": id, "ResourceARN": arn, "Lifecycle": "AVAILABLE",
                "CreationTime": clock.now().timestamp(),
            }  # fmt: skip
        return ActionResult({"Association": _associations[id]})

    def describe_data_repository_associations(self) -> ActionResult:
        asked = self._get_param("AssociationIds") or []
        rows = [self._association(id) for id in asked] or list(_associations.values())
        for wanted in self._get_param("Filters") or []:
            if wanted["Name"] != "file-system-id":
                raise NotRehearsed(f"DescribeDataRepositoryAssociations: filter {wanted['Name']}")
            rows = [row for row in rows if row["FileSystemId"] in wanted["Values"]]
        return ActionResult({"Associations": rows})

    def delete_data_repository_association(self) -> ActionResult:
        with _lock:
            row = self._association(self._get_param("AssociationId"))
            del _associations[row["AssociationId"]]
        return ActionResult({"AssociationId": row["AssociationId"], "Lifecycle": "DELETING"})

    def describe_backups(self) -> ActionResult:
        return ActionResult({"Backups": []})  # scratch file systems have none, and CreateBackup is not rehearsed

    def list_tags_for_resource(self) -> ActionResult:
        arn = self._get_param("ResourceARN")
        for system in _systems.values():
            if system.arn == arn:
                return ActionResult({"Tags": system.request.get("Tags") or []})
        raise AwsError("ResourceNotFound", f"{arn} does not exist")

    def tag_resource(self) -> ActionResult:
        arn, tags = self._get_param("ResourceARN"), self._get_param("Tags") or []
        for system in _systems.values():
            if system.arn == arn:
                merged = {tag["Key"]: tag for tag in [*(system.request.get("Tags") or []), *tags]}
                system.request["Tags"] = list(merged.values())
                return ActionResult({})
        raise AwsError("ResourceNotFound", f"{arn} does not exist")

    def _system(self, id: str) -> FileSystem:
        system = _systems.get(id)
        if system is None or system.region != self.region:
            raise AwsError("FileSystemNotFound", f"File system '{id}' does not exist.")
        return system

    def _association(self, id: str) -> dict[str, Any]:
        if id not in _associations:
            raise AwsError("DataRepositoryAssociationNotFound", f"Association '{id}' does not exist.")
        return _associations[id]


def _overlap(one: str, other: str) -> bool:
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)
