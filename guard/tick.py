"""The guard: every five minutes, one step towards the end of each lab whose time is up.

A lab's deadline is what `fab extend` wrote for it, else its stack's creation plus its ttl tag. No date stands in a
template, so a second deploy is guarded like the first. Where tagged things are left of a stack that is gone, the lab
is over at once. Nodes are not warned yet: results leave them as they are finished.
"""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from guard.inventory import GUARD_STACK, TAG_TTL_HOURS, UNANSWERED, Clients, Item, iso, look, why
from guard.removal import DEADLINES, step, vanished

LONGEST_HOURS = 168.0
"""No lab lives longer without being extended, whatever its tag says or SSM refuses to say."""


def deadline_of(clients: Clients, stack: Item) -> tuple[datetime, str]:
    """When a lab's stack ends, and by what: "extended", "ttl", or why neither could be read.

    What was written before the stack was created belongs to an earlier life and does not count.
    """
    created, denied = datetime.fromisoformat(stack.created), ""
    try:
        found = clients("ssm").get_parameter(Name=DEADLINES + stack.id)["Parameter"]
        if found["LastModifiedDate"].replace(microsecond=0) >= created:
            return datetime.fromisoformat(found["Value"]).astimezone(UTC), "extended"
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


def tick(clients: Clients, now: datetime) -> dict[str, Any]:
    """Look once, then make one step for every lab that is over. Returns what was seen and done."""
    seen = look(clients)
    labs = []
    for name in sorted({item.stack for item in seen.left} - {"", GUARD_STACK}):
        stack = seen.stack(name)
        lab: dict[str, Any] = {"stack": name, "things": len(seen.of(name).left)}
        deadline, by = deadline_of(clients, stack) if stack else (now, "its stack is gone")
        lab |= {"deadline": iso(deadline), "by": by, "over": now >= deadline}
        if lab["over"]:
            made = step(clients, name, seen)
            lab |= {"did": made.did, "pending": made.pending, "refused": made.refused}
        print(json.dumps(lab))
        labs.append(lab)
    return {"time": iso(now), "labs": labs, "not_looked_at": dict(seen.missed)}


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """What the account's schedule calls; `event["time"]` is the scheduled time, ISO 8601."""
    region = os.environ["AWS_REGION"]
    config = Config(retries={"mode": "standard", "total_max_attempts": 6})
    clients = cache(lambda service: boto3.client(service, region_name=region, config=config))
    return tick(clients, datetime.fromisoformat(event["time"]).astimezone(UTC))
