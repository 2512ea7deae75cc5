"""FSx's API as far as Lustre needs it."""

from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult

from rehearsal.backups import Backups
from rehearsal.errors import AwsError
from rehearsal.filesystems import FileSystem, FileSystems, Row
from rehearsal.holds import Holds
from rehearsal.repository import Repository


def find(id: str) -> FileSystem | None:
    """The file system of that id, whatever its region."""
    return FileSystems.systems.get(id)


def service(holds: Holds, shared: Path) -> Any:
    """What is to answer FSx's requests; `shared` holds a folder for each file system."""
    bound: Any = type("Fsx", (Fsx,), {"holds": holds, "shared": shared, "repository": Repository()})
    return bound.dispatch


class Fsx(Backups):
    """File systems, associations, backups, and the tags of all."""

    def __init__(self) -> None:
        super().__init__(service_name="fsx")
        self.automated_parameter_parsing = True

    def list_tags_for_resource(self) -> ActionResult:
        return ActionResult({"Tags": self._tagged().get("Tags") or []})

    def tag_resource(self) -> ActionResult:
        held, tags = self._tagged(), self._get_param("Tags") or []
        held["Tags"] = list({tag["Key"]: tag for tag in [*(held.get("Tags") or []), *tags]}.values())
        return ActionResult({})

    def untag_resource(self) -> ActionResult:
        held, keys = self._tagged(), self._get_param("TagKeys") or []
        held["Tags"] = [tag for tag in held.get("Tags") or [] if tag["Key"] not in keys]
        return ActionResult({})

    def _tagged(self) -> Row:
        """What holds the tags of the resource that the request names."""
        arn = self._get_param("ResourceARN")
        held = {system.arn: system.request for system in self.systems.values()}
        held |= {row["ResourceARN"]: row for row in (*self.associations.values(), *self.backups.values())}
        if arn not in held:
            raise AwsError("ResourceNotFound", f"{arn} does not exist")
        return held[arn]
