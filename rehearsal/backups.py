"""Backups of persistent Lustre file systems: they stay, and are billed, when the file system is gone.

https://docs.aws.amazon.com/fsx/latest/LustreGuide/using-backups-fsx.html
"""

from moto.core.responses import ActionResult
from moto.moto_api._internal import mock_random

from rehearsal import clock
from rehearsal.associations import Associations
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.filesystems import FileSystem, Row, lock
from rehearsal.lustre import bad

_OF_BACKUP = {
    "file-system-id": lambda row: row["FileSystem"]["FileSystemId"],
    "file-system-type": lambda row: row["FileSystem"]["FileSystemType"],
    "backup-type": lambda row: row["Type"],
}


class Backups(Associations):
    """Create, describe and delete."""

    backups: dict[str, Row] = {}  # noqa: RUF012  # the account's, whichever request asks

    def create_backup(self) -> ActionResult:
        if unknown := sorted(set(self._get_params()) - {"FileSystemId", "ClientRequestToken", "Tags"}):
            raise NotRehearsed(f"CreateBackup: {', '.join(unknown)}")
        with lock:
            system = self.system(self._get_param("FileSystemId"))
            if system.described(self.holds)["Lifecycle"] != "AVAILABLE":
                raise bad(f"The file system {system.id} is not available")
            made = self.back_up(system, self._get_param("Tags") or [])
        return ActionResult({"Backup": self._backup_shown(made)})

    def back_up(self, system: FileSystem, tags: list[dict[str, str]]) -> Row:
        shown = system.described(self.holds)
        if not shown["LustreConfiguration"].get("DeploymentType", "").startswith("PERSISTENT"):
            raise bad("Backups are not supported on scratch file systems")
        if any(row["FileSystemId"] == system.id for row in self.associations.values()):
            raise bad("Backups are not supported on file systems that are linked to an Amazon S3 data repository")
        id = f"backup-0{mock_random.get_random_hex(16)}"
        arn = f"arn:aws:fsx:{system.region}:{system.account}:backup/{id}"
        self.backups[id] = {
            "BackupId": id, "Type": "USER_INITIATED", "ResourceARN": arn, "OwnerId": system.account, "Tags": tags,
            "CreationTime": clock.now().timestamp(), "ResourceType": "FILE_SYSTEM", "created": clock.now(),
            "FileSystem": {key: value for key, value in shown.items() if key not in ("NetworkInterfaceIds",)},
        }  # fmt: skip
        return self.backups[id]

    def describe_backups(self) -> ActionResult:
        asked = self._get_param("BackupIds") or []
        rows = [self._backup(id) for id in asked] or list(self.backups.values())
        for wanted in self._get_param("Filters") or []:
            if wanted["Name"] not in _OF_BACKUP:
                raise NotRehearsed(f"DescribeBackups: filter {wanted['Name']}")
            rows = [row for row in rows if _OF_BACKUP[wanted["Name"]](row) in wanted["Values"]]
        return ActionResult({"Backups": [self._backup_shown(row) for row in rows]})

    def delete_backup(self) -> ActionResult:
        with lock:
            row = self._backup(self._get_param("BackupId"))
            if self._backup_shown(row)["Lifecycle"] == "CREATING":
                raise AwsError("BackupInProgress", f"The backup {row['BackupId']} is still being created")
            del self.backups[row["BackupId"]]
        return ActionResult({"BackupId": row["BackupId"], "Lifecycle": "DELETED"})

    def _backup_shown(self, row: Row) -> Row:
        over = self.holds.over("backup", row["created"])
        shown = {key: value for key, value in row.items() if key != "created"}
        return {**shown, "Lifecycle": "AVAILABLE" if over else "CREATING", "ProgressPercent": 100 if over else 0}

    def _backup(self, id: str) -> Row:
        if id not in self.backups:
            raise AwsError("BackupNotFound", f"Backup '{id}' does not exist.")
        return self.backups[id]
