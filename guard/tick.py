"""The guard: every five minutes, one step towards the end of each lab whose time is up.

A lab's deadline is what `fab extend` or a budget wrote for it, else its stack's creation plus its ttl tag; a capacity
block that its nodes run in comes first. No date stands in a template, so a second deploy is guarded like the first.
What is left of a stack that is gone, or failed to go, ends at once. The nodes read the same deadline.
"""

import json
import os
import re
import traceback
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from guard.inventory import GUARD_STACK, TAG_TTL_HOURS, UNANSWERED, Clients, Inventory, Item, iso, look, why
from guard.notice import Notices
from guard.removal import DEADLINES, step, vanished

LONGEST_HOURS = 168.0
"""No lab lives longer without being extended, whatever its tag says or SSM refuses to say; and no extension reaches
further from when it was written."""
BLOCK_MARGIN = timedelta(minutes=40)
"""A lab in a capacity block ends so long before the block does: EC2 takes its instances 30 minutes before,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-capacity-blocks.html."""
BLOCK = "its capacity block ends"
ABORTED = ("DELETE_FAILED", "ROLLBACK_FAILED")
"""States of a stack that was meant to be gone."""


def deadline_of(clients: Clients, stack: Item) -> tuple[datetime, str]:
    """When a lab's stack ends, and by what: "extended", "ttl", or why neither could be read.

    What was written before the stack was created belongs to an earlier life and does not count.
    """
    created, denied = datetime.fromisoformat(stack.created), ""
    try:
        found = clients("ssm").get_parameter(Name=DEADLINES + stack.id)["Parameter"]
        if found["LastModifiedDate"].replace(microsecond=0) >= created:
            most = found["LastModifiedDate"].astimezone(UTC) + timedelta(hours=LONGEST_HOURS)
            return min(datetime.fromisoformat(found["Value"]).astimezone(UTC), most), "extended"
    except UNANSWERED as error:
        # What is denied stays denied, so the tag counts, as for the nodes' belt; who is silent is asked again.
        if not vanished(error):
            denied = why(error, "ssm")
            if "AccessDenied" not in denied:
                return created + timedelta(hours=LONGEST_HOURS), denied
    except ValueError:
        print(f"{DEADLINES}{stack.id} holds no ISO 8601 time: the tag counts")
    hours = ttl_hours(stack)
    by = denied or ("ttl" if hours else f"no readable tag {TAG_TTL_HOURS}")
    return created + timedelta(hours=hours or LONGEST_HOURS), by


def ttl_hours(stack: Item) -> float:
    """Hours that a lab's stack may live, by its tag; 0 where that cannot be read."""
    text = stack.tags.get(TAG_TTL_HOURS, "")
    return min(float(text), LONGEST_HOURS) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def block_end(seen: Inventory, name: str) -> datetime | None:
    """When the lab of a stack must end for the capacity block that its instances run in; None where there is none."""
    used = {item.facts.get("CapacityReservationId") for item in seen.items if item.stack == name}
    blocks = [item.facts for item in seen.items if item.id in used and item.facts.get("ReservationType")]
    ends = [block["EndDate"] for block in blocks if block["ReservationType"] == "capacity-block" and "EndDate" in block]
    return datetime.fromisoformat(min(ends)) - BLOCK_MARGIN if ends else None


def ending(clients: Clients, seen: Inventory, name: str, now: datetime) -> tuple[datetime, str, bool]:
    """When a lab ends, by what, and whether it does at once for it should be gone already.

    What a capacity block sets is written down, so that the nodes, and whoever asks for the deadline, learn of it.
    """
    stack = seen.stack(name)
    if stack is None or stack.state in ABORTED:
        return now, stack.state if stack else "its stack is gone", True
    deadline, by = deadline_of(clients, stack)
    block = block_end(seen, name)
    if block is None or deadline < block:
        return deadline, by, False
    if block < deadline:
        try:
            clients("ssm").put_parameter(Name=DEADLINES + name, Value=iso(block), Type="String", Overwrite=True)
        except UNANSWERED as error:
            print(f"the nodes of {name} do not learn that {BLOCK}: {why(error, 'ssm')}")
    return block, BLOCK, False


def tick(clients: Clients, now: datetime, topic: str = "") -> dict[str, Any]:
    """Look once, then make one step for every lab that is over. Returns what was seen and done."""
    seen = look(clients)
    labs = []
    notices = Notices(clients, topic, now)
    for name in sorted({item.stack for item in seen.left} - {"", GUARD_STACK}):
        deadline, by, at_once = ending(clients, seen, name, now)
        lab: dict[str, Any] = {"stack": name, "things": len(seen.of(name).left), "deadline": iso(deadline), "by": by}
        lab |= {"over": now >= deadline, "at_once": at_once}
        if lab["over"]:
            try:
                made = step(clients, name, seen)
                lab |= {"did": made.did, "pending": made.pending, "refused": made.refused}
            except Exception as error:  # whatever it is, the other labs must end too
                traceback.print_exc()
                lab |= {"did": [], "pending": [], "refused": [f"unexpected {type(error).__name__}: {error}"]}
        notices.of(lab)
        print(json.dumps(lab))
        labs.append(lab)
    if not seen.missed:
        notices.finish({lab["stack"] for lab in labs})
    return {"time": iso(now), "labs": labs, "not_looked_at": dict(seen.missed)}


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """What the account's schedule calls; `event["time"]` is the scheduled time, ISO 8601."""
    clients = _clients(os.environ["AWS_REGION"])
    return tick(clients, datetime.fromisoformat(event["time"]).astimezone(UTC), os.environ.get("TOPIC", ""))


@cache
def _clients(region: str) -> Clients:
    """Made once for all ticks of a warm sandbox: to make them takes longer than to ask them."""
    import boto3  # here, and not above: fab reads this file for its deadlines, and mostly needs no AWS
    from botocore.config import Config

    config = Config(retries={"mode": "standard", "total_max_attempts": 6})
    return cache(lambda service: boto3.client(service, region_name=region, config=config))
