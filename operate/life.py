"""How long a lab lived and what that cost: its things, each for as long as it was there, at the frozen price."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from guard.inventory import Inventory, Item, iso
from guard.tick import ttl_hours
from labs.prices import total
from operate.account import Account
from operate.bill import Frozen, priced_things, spent
from operate.stack import last_life

_ENDED = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")
"""In an instance's StateTransitionReason: "User initiated (2026-11-20 13:00:05 GMT)"."""


@dataclass(frozen=True, kw_only=True)
class Life:
    """One life of a lab's stack, in the fields of a receipt."""

    started: str
    """ISO 8601 UTC, when the stack was created; "" where that is not known."""
    ended: str
    """ISO 8601 UTC: when the stack was deleted, where CloudFormation says so, else now."""
    usd_per_hour: float | None = None
    estimate_usd: float | None = None
    actual_usd: float | None = None
    planned_hours: float | None = None
    lived_hours: float | None = None
    frozen: str = ""
    lines: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def read_life(account: Account, stack: str, first: Inventory, frozen: Frozen | None) -> Life:
    """The life that a teardown has just ended, or found ended; `first` is what its first look saw.

    Of what was there when the price was frozen and is gone before the teardown, EC2 tells an instance's end for about
    an hour; what it does not tell is counted to the lab's end, and a note says so.
    """
    now = account.now()
    standing = first.stack(stack)
    before = None if standing else last_life(account, stack)
    if standing:
        started, ended = standing.created, iso(now)
    elif before:
        started, ended = iso(before.created), iso(before.deleted or now)
    else:
        started, ended = "", iso(now)
    if frozen and frozen["created"] != started:
        frozen = None  # of another life
    if first.left and not standing:
        ended = iso(now)  # the stack is gone, and what it left went on billing
    present, notes = priced_things(account, first.left)
    things = _joined(frozen["things"] if frozen else (), present)
    if not things:
        said = ("what it was made of is not known here: the price was not frozen on this machine",) if started else ()
        return Life(started=started, ended=ended, lived_hours=_hours(started, ended), notes=said)
    gone = [thing for thing in things if thing["id"] not in {one["id"] for one in present}]
    ends, unknown = _ends(account, gone)
    lived = _hours(started, ended)
    if unknown:
        notes.append(f"counted to the end, for when it went is not told: {', '.join(unknown)}")
    price = frozen["usd_per_hour"] if frozen else total(thing["usd_per_hour"] for thing in present)
    planned = frozen["planned_hours"] if frozen else _planned(standing)
    return Life(
        started=started,
        ended=ended,
        usd_per_hour=price,
        estimate_usd=None if price is None or planned is None else price * planned,
        actual_usd=spent(things, datetime.fromisoformat(ended), ends),
        planned_hours=planned,
        lived_hours=lived,
        frozen=frozen["frozen"] if frozen else "",
        lines=tuple(frozen["lines"]) if frozen else (),
        notes=(*dict.fromkeys((*(frozen["notes"] if frozen else ()), *notes)),),
    )


def _joined(frozen: Sequence[Mapping[str, Any]], present: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What was frozen, at its frozen price, and what came later."""
    known = {thing["id"] for thing in frozen}
    return [*frozen, *(thing for thing in present if thing["id"] not in known)]


def _planned(stack: Item | None) -> float | None:
    return (ttl_hours(stack) or None) if stack else None


def _hours(started: str, ended: str) -> float | None:
    if not started:
        return None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds() / 3600


def _ends(account: Account, gone: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """When things went that are not there any more: id -> ISO 8601 UTC, and ids of which that is not told."""
    ids = [thing["id"] for thing in gone if thing["kind"] == "instance"]
    told: dict[str, str] = {}
    if ids:
        filters = [{"Name": "instance-id", "Values": ids}]  # an unknown id is no error here
        try:
            answer = account.client("ec2").describe_instances(Filters=filters)
        except ClientError:  # denied: as if EC2 had forgotten them, which the note tells
            return {}, [thing["id"] for thing in gone]
        for row in (row for group in answer["Reservations"] for row in group["Instances"]):
            if found := _ENDED.search(row.get("StateTransitionReason", "")):
                told[row["InstanceId"]] = iso(datetime.fromisoformat(found[1]).replace(tzinfo=UTC))
    if ids and len(told) == len(ids):  # their volumes and addresses went with them
        told |= {thing["id"]: max(told.values()) for thing in gone if thing["kind"] not in ("instance", "file-system")}
    return told, [thing["id"] for thing in gone if thing["id"] not in told]
