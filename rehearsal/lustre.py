"""What FSx refuses of an order for a Lustre file system: pure functions.

Rules: https://docs.aws.amazon.com/fsx/latest/APIReference/API_CreateFileSystem.html
"""

from typing import Any

from rehearsal.errors import AwsError, NotRehearsed

_THROUGHPUT = {"SCRATCH_2": (), "PERSISTENT_1": (50, 100, 200), "PERSISTENT_2": (125, 250, 500, 1000)}
_EFA_STEP_GIB = {125: 38400, 250: 19200, 500: 9600, 1000: 4800}
_VERSIONS = ("2.10", "2.12", "2.15")
_HONOURED = {"ClientRequestToken", "FileSystemType", "FileSystemTypeVersion", "StorageCapacity", "StorageType",
             "SubnetIds", "SecurityGroupIds", "Tags", "LustreConfiguration"}  # fmt: skip
_HONOURED_OF_LUSTRE = {"DeploymentType", "PerUnitStorageThroughput", "DataCompressionType", "EfaEnabled",
                       "MetadataConfiguration", "AutomaticBackupRetentionDays", "WeeklyMaintenanceStartTime",
                       "CopyTagsToBackups"}  # fmt: skip


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
        raise bad(f"PerUnitStorageThroughput {rate} is not valid for {kind}: use one of {_THROUGHPUT[kind]}")
    if request.get("FileSystemTypeVersion", "2.10") not in _VERSIONS:
        raise bad(f"FileSystemTypeVersion {request['FileSystemTypeVersion']} is not valid: use one of {_VERSIONS}")
    if lustre.get("AutomaticBackupRetentionDays") and kind == "SCRATCH_2":
        raise bad("AutomaticBackupRetentionDays must not be given for SCRATCH_2")
    if rate and not _THROUGHPUT[kind]:
        raise bad(f"PerUnitStorageThroughput must not be given for {kind}")
    if len(request.get("SubnetIds") or []) != 1:
        raise bad("Lustre file systems take exactly one subnet")
    capacity = int(request.get("StorageCapacity") or 0)
    if lustre.get("EfaEnabled"):
        if kind != "PERSISTENT_2" or not lustre.get("MetadataConfiguration"):
            raise bad("EfaEnabled needs PERSISTENT_2 and a MetadataConfiguration")
        step = _EFA_STEP_GIB[int(rate or 0)]
        if capacity <= 0 or capacity % step:
            raise bad(f"StorageCapacity {capacity} GiB: with EFA at {rate} MB/s/TiB use multiples of {step}")
    elif capacity != 1200 and (capacity <= 0 or capacity % 2400):
        raise bad(f"StorageCapacity {capacity} GiB is not valid for {kind}: use 1200, 2400 or multiples of 2400")


def bad(message: str) -> AwsError:
    """What FSx answers to an order that breaks a rule."""
    return AwsError("BadRequest", message)
