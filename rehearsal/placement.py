"""Placement groups, of which moto knows none."""

from dataclasses import dataclass, field
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.moto_api._internal import mock_random

from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.filters import matching

_FILTERS = {"group-name": "GroupName", "group-id": "GroupId", "group-arn": "GroupArn", "state": "State",
            "strategy": "Strategy"}  # fmt: skip


@dataclass(kw_only=True)
class PlacementGroup:
    """One placement group."""

    name: str
    id: str
    strategy: str
    region: str
    account: str
    members: set[str] = field(default_factory=set)
    """Ids of its instances that have not ended."""

    def described(self, tags: list[dict[str, str]]) -> dict[str, Any]:
        """As DescribePlacementGroups shows it."""
        arn = f"arn:aws:ec2:{self.region}:{self.account}:placement-group/{self.name}"
        return {
            "GroupName": self.name, "GroupId": self.id, "GroupArn": arn, "State": "available",
            "Strategy": self.strategy, "Tags": tags,
        }  # fmt: skip


class PlacementGroups(EC2BaseResponse):  # type: ignore[misc]  # moto ships no types
    """Create, describe and delete."""

    groups: dict[tuple[str, str], PlacementGroup] = {}  # noqa: RUF012  # the account's, whichever request asks

    def group(self, name: str) -> PlacementGroup:
        """The group of that name in this region.

        Raises:
            AwsError: there is none.
        """
        found = self.groups.get((self.region, name))
        if not found:
            raise AwsError("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
        return found

    def create_placement_group(self) -> ActionResult:
        self.error_on_dryrun()
        name, strategy = self._get_param("GroupName"), self._get_param("Strategy") or "cluster"
        if strategy != "cluster":
            raise NotRehearsed(f"CreatePlacementGroup: Strategy {strategy}")
        if (self.region, name) in self.groups:
            raise AwsError("InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists.")
        group = PlacementGroup(
            name=name, id=f"pg-{mock_random.get_random_hex(17)}", strategy=strategy, region=self.region,
            account=self.current_account,
        )  # fmt: skip
        self.groups[self.region, name] = group
        for key, value in (self._parse_tag_specification().get("placement-group") or {}).items():
            self.ec2_backend.create_tags([group.id], {key: value})
        return ActionResult({"PlacementGroup": group.described(self._tags(group))})

    def describe_placement_groups(self) -> ActionResult:
        names, ids = self._get_param("GroupNames", []), self._get_param("GroupIds", [])
        for name in names:
            self.group(name)
        shown = [
            group.described(self._tags(group))
            for (region, name), group in self.groups.items()
            if region == self.region and (not names or name in names) and (not ids or group.id in ids)
        ]
        return ActionResult({"PlacementGroups": matching(shown, self._filters_from_querystring(), _FILTERS)})

    def delete_placement_group(self) -> EmptyResult:
        self.error_on_dryrun()
        group = self.group(self._get_param("GroupName"))
        if group.members:
            raise AwsError(
                "InvalidPlacementGroup.InUse", f"The placement group {group.name} is in use and may not be deleted."
            )
        del self.groups[self.region, group.name]
        self.ec2_backend.tags.pop(group.id, None)
        return EmptyResult()

    def _tags(self, group: PlacementGroup) -> list[dict[str, str]]:
        return [{"Key": key, "Value": value} for key, value in self.ec2_backend.tags.get(group.id, {}).items()]
