"""EC2's Filters on rows of an answer that moto does not make."""

from collections.abc import Iterable, Mapping
from typing import Any

from rehearsal.errors import AwsError

Row = dict[str, Any]


def matching(rows: Iterable[Row], filters: Mapping[str, list[str]], fields: Mapping[str, str]) -> list[Row]:
    """The rows that meet every filter: `fields` by a filter's name the field it looks at; tags besides.

    Raises:
        AwsError: a filter that is not among them.
    """
    kept = list(rows)
    for name, values in filters.items():
        kept = [row for row in kept if _value(row, name, fields) & set(values)]
    return kept


def _value(row: Row, name: str, fields: Mapping[str, str]) -> set[str]:
    if name in fields:
        return {row[fields[name]]}
    tags = row.get("Tags") or []
    if name == "tag-key":
        return {tag["Key"] for tag in tags}
    if name.startswith("tag:"):
        return {tag["Value"] for tag in tags if tag["Key"] == name.removeprefix("tag:")}
    raise AwsError("InvalidParameterValue", f"The filter '{name}' is invalid")
