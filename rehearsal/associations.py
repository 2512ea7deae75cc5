"""Data repository associations: what links a Lustre file system to a bucket.

https://docs.aws.amazon.com/fsx/latest/LustreGuide/create-dra-linked-data-repo.html
"""

import re
from pathlib import Path

from moto.core.responses import ActionResult
from moto.moto_api._internal import mock_random

from rehearsal import clock
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.filesystems import FileSystem, FileSystems, Row, lock
from rehearsal.lustre import bad
from rehearsal.repository import Import, Repository, exists

_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
_HONOURED = {"FileSystemId", "FileSystemPath", "DataRepositoryPath", "BatchImportMetaDataOnCreate", "S3", "Tags",
             "ImportedFileChunkSize", "ClientRequestToken"}  # fmt: skip
_MOST = 8
"""Associations that a file system may have."""


class Associations(FileSystems):
    """Create, describe and delete."""

    shared: Path
    """Holds a folder for each file system."""
    repository: Repository
    associations: dict[str, Row] = {}  # noqa: RUF012  # the account's, whichever request asks

    def settle(self) -> None:
        super().settle()
        for id, row in list(self.associations.items()):
            gone = row["FileSystemId"] not in self.systems
            if gone or (row["leaving"] and self.holds.over("association-delete", row["leaving"])):
                del self.associations[id]
                self.repository.remove(id)

    def create_data_repository_association(self) -> ActionResult:
        request = dict(self._get_params())
        if unknown := sorted(set(request) - _HONOURED):
            raise NotRehearsed(f"CreateDataRepositoryAssociation: {', '.join(unknown)}")
        s3 = request.get("S3") or {}
        if (s3.get("AutoExportPolicy") or {}).get("Events"):
            raise NotRehearsed("CreateDataRepositoryAssociation: AutoExportPolicy")
        with lock:
            system = self.system(request["FileSystemId"])
            links = [row for row in self.associations.values() if row["FileSystemId"] == system.id]
            where = self._check_association(system, request, links)
            id = f"dra-0{mock_random.get_random_hex(16)}"
            arn = f"arn:aws:fsx:{system.region}:{system.account}:association/{system.id}/{id}"
            request.pop("ClientRequestToken", None)
            self.associations[id] = {
                **request, "AssociationId": id, "ResourceARN": arn, "CreationTime": clock.now().timestamp(),
                "created": clock.now(), "leaving": None,
            }  # fmt: skip
            self.repository.add(
                id,
                Import(
                    bucket=where[1], prefix=f"{where[2].rstrip('/')}/" if where[2] else "",
                    folder=self.shared / system.id / request["FileSystemPath"].strip("/"),
                    events=frozenset((s3.get("AutoImportPolicy") or {}).get("Events") or ()),
                ),
                files=str(request.get("BatchImportMetaDataOnCreate", False)).lower() == "true",
            )  # fmt: skip
        return ActionResult({"Association": self._association_shown(self.associations[id])})

    def _check_association(self, system: FileSystem, request: Row, links: list[Row]) -> "re.Match[str]":
        shown = system.described(self.holds)
        if shown["FileSystemTypeVersion"] == "2.10":
            raise bad("Data repository associations need FileSystemTypeVersion 2.12 or newer")
        if shown["Lifecycle"] != "AVAILABLE":
            raise bad(f"The file system {system.id} is not yet available")
        path = request.get("FileSystemPath", "")
        if not path.startswith("/") or ".." in path.split("/"):
            raise bad(f"FileSystemPath {path!r} must start with /")
        if any(_overlap(path, row["FileSystemPath"]) for row in links):
            raise bad(f"FileSystemPath {path} overlaps with an existing association")
        if len(links) >= _MOST:
            raise AwsError("ServiceLimitExceeded", f"A file system takes {_MOST} data repository associations")
        where = _S3.fullmatch(request.get("DataRepositoryPath", ""))
        if not where:
            raise bad(f"DataRepositoryPath {request.get('DataRepositoryPath')!r} is not of the form s3://bucket/prefix")
        if not exists(where[1]):
            raise bad(
                "Amazon FSx is unable to validate access to the S3 bucket. Ensure the IAM role or user has "
                "s3:Get*, s3:List* and s3:PutObject permissions to the S3 bucket prior to creating an association."
            )
        return where

    def describe_data_repository_associations(self) -> ActionResult:
        asked = self._get_param("AssociationIds") or []
        rows = [self._association(id) for id in asked] or list(self.associations.values())
        for wanted in self._get_param("Filters") or []:
            if wanted["Name"] != "file-system-id":
                raise NotRehearsed(f"DescribeDataRepositoryAssociations: filter {wanted['Name']}")
            rows = [row for row in rows if row["FileSystemId"] in wanted["Values"]]
        return ActionResult({"Associations": [self._association_shown(row) for row in rows]})

    def delete_data_repository_association(self) -> ActionResult:
        if str(self._get_param("DeleteDataInFileSystem") or False).lower() == "true":
            raise NotRehearsed("DeleteDataRepositoryAssociation: DeleteDataInFileSystem")
        with lock:
            row = self._association(self._get_param("AssociationId"))
            row["leaving"] = row["leaving"] or clock.now()
        return ActionResult({"AssociationId": row["AssociationId"], "Lifecycle": "DELETING"})

    def _association_shown(self, row: Row) -> Row:
        made = "AVAILABLE" if self.holds.over("association-create", row["created"]) else "CREATING"
        shown = {key: value for key, value in row.items() if key not in ("created", "leaving")}
        return {**shown, "Lifecycle": "DELETING" if row["leaving"] else made}

    def _association(self, id: str) -> Row:
        if id not in self.associations:
            raise AwsError("DataRepositoryAssociationNotFound", f"Association '{id}' does not exist.")
        return self.associations[id]


def _overlap(one: str, other: str) -> bool:
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)
