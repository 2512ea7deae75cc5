"""What a deployed lab costs: its price, frozen when it was first seen whole, and the dollars so far.

The price is read from the things that stand, never from the catalogue's defaults: `-c nodes=4` at deploy is not known
here otherwise. It lies in .rooflab/STACK/cost.json, and in each run.json.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from guard.inventory import Item, iso, look
from labs.prices import Line, dollars, total
from operate import laptop
from operate.account import Account
from operate.deadline import Deadline, deadline_of_stack
from operate.money import price_of, region_note
from operate.problem import Problem
from operate.rates import rates_of
from operate.screen import Screen
from operate.stack import Stack, find_stack

URGENT = timedelta(minutes=30)
"""So long before its deadline a lab's line is not to be missed."""
Frozen = Mapping[str, Any]
"""The document: `labs.prices.Cost.as_json`'s keys, and of which life of the stack it is, its things, its plan."""


def frozen_cost(account: Account, stack: Stack | str) -> Frozen:
    """The price of a deployed lab, as it was when it was first asked for in this life of its stack.

    Raises:
        Problem: it is not deployed.
    """
    found = find_stack(account, stack) if isinstance(stack, str) else stack
    if found is None:
        raise Problem(f"{stack} is not deployed in {account.region}", "deploy it, then ask again")
    return kept_cost(account, found.name, found.id) or _freeze(account, found)


def kept_cost(account: Account, stack: str, life: str) -> Frozen | None:
    """The frozen price of one life of a stack, if this machine has seen it."""
    path = laptop.state(stack, account.endpoint) / "cost.json"
    try:
        kept: Frozen = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return kept if kept.get("stack_id") == life else None


def _freeze(account: Account, stack: Stack) -> Frozen:
    seen = look(account.client, stack.name)
    things, notes = priced_things(account, seen.left)
    lines = _lines(things)
    cost = {
        "stack": stack.name,
        "stack_id": stack.id,
        "region": account.region,
        "frozen": iso(account.now()),
        "created": iso(stack.created),
        **_plan(stack, deadline_of_stack(account, stack).at),
        "lines": [asdict(line) for line in lines],
        "usd_per_hour": total(line.usd_per_hour for line in lines),
        "notes": [*notes, *(f"not looked at: {kind}" for kind in seen.missed)],
        "things": things,
    }
    if not seen.missed and stack.status in ("CREATE_COMPLETE", "UPDATE_COMPLETE") and things:
        _keep(account, stack, cost)
    return cost


def replanned(account: Account, stack: Stack, frozen: Frozen, end: datetime) -> Frozen:
    """The frozen price with another end as its plan, where the user chose that end along with the lab."""
    cost = {**frozen, **_plan(stack, end)}
    if kept_cost(account, stack.name, stack.id):
        _keep(account, stack, cost)
    return cost


def _plan(stack: Stack, end: datetime) -> dict[str, Any]:
    hours = (end - datetime.fromisoformat(iso(stack.created))).total_seconds() / 3600
    return {"deadline": iso(end), "planned_hours": hours}


def _keep(account: Account, stack: Stack, cost: Frozen) -> None:
    path = laptop.state(stack.name, account.endpoint) / "cost.json"
    laptop.write(path, json.dumps(cost, indent=1) + "\n")


def priced_things(account: Account, items: Iterable[Item]) -> tuple[list[dict[str, Any]], list[str]]:
    """What bills of these, each with its price and since when; and what must be known of the prices."""
    listed = list(items)
    types = {item.facts["InstanceType"] for item in listed if item.kind == "instance" and "InstanceType" in item.facts}
    spot = {item.facts["InstanceType"] for item in listed if item.facts.get("InstanceLifecycle") == "spot"}
    rates, note = rates_of(account, types, spot=bool(spot)) if types else ({}, "")
    node = max((item.created for item in listed if item.kind == "instance"), default="")
    things = []
    for item in listed:
        price = price_of(item, rates)
        if price.usd_per_hour == 0.0:
            continue
        since = item.created or (node if item.kind in ("address", "network-interface") else "")
        things.append({"kind": item.kind, "id": item.id, "what": _what(item), "created": since,
                       "usd_per_hour": price.usd_per_hour, "least_usd_per_hour": price.least_usd_per_hour,
                       "source": price.source})  # fmt: skip
    return things, [*filter(None, (note,)), *region_note(account.region)]


def _what(item: Item) -> str:
    facts = item.facts
    if item.kind == "instance":
        lifecycle = {"spot": "spot", "capacity-block": "capacity block"}
        return f"{facts.get('InstanceType', '?')}, {lifecycle.get(facts.get('InstanceLifecycle', ''), 'on-demand')}"
    if item.kind == "volume":
        return f"{facts.get('Size', '?')} GiB volume, {facts.get('VolumeType', '?')}"
    if item.kind in ("address", "network-interface"):
        return "public IPv4 address"
    if item.kind == "file-system":
        deployment = facts.get("LustreConfiguration.DeploymentType", "?")
        return (
            f"FSx for {facts.get('FileSystemType', '?').title()}, {facts.get('StorageCapacity', '?')} GiB, {deployment}"
        )
    return item.kind


def _lines(things: Iterable[Mapping[str, Any]]) -> list[Line]:
    """One line for all things that are alike."""
    alike: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for thing in things:
        alike.setdefault((thing["what"], thing["source"]), []).append(thing)
    return [
        Line(
            what=f"{len(group)} × {what}",
            kind=group[0]["kind"],
            source=source,
            usd_per_hour=total(thing["usd_per_hour"] for thing in group),
            least_usd_per_hour=None
            if group[0]["least_usd_per_hour"] is None
            else total(thing["least_usd_per_hour"] for thing in group),
        )
        for (what, source), group in alike.items()
    ]


def spent(things: Iterable[Mapping[str, Any]], until: datetime, ended: Mapping[str, str] | None = None) -> float | None:
    """Dollars of things from when each was made to `until`, or to when it ended; None where a price is not known.

    `ended`: id -> ISO 8601 UTC, of those that ended before.
    """
    dollars_of = []
    for thing in things:
        end = datetime.fromisoformat(ended[thing["id"]]) if ended and thing["id"] in ended else until
        hours = (end - datetime.fromisoformat(thing["created"])).total_seconds() / 3600 if thing["created"] else 0.0
        usd = thing["usd_per_hour"]
        dollars_of.append(None if usd is None else usd * max(0.0, hours))
    return total(dollars_of)


def tell(account: Account, stack: Stack | str, screen: Screen) -> None:
    """Say in one line what a deployed lab has cost, and when and at how much it ends; a warning where AWS is silent."""
    try:
        found = find_stack(account, stack) if isinstance(stack, str) else stack
        if found is None:
            return
        deadline = deadline_of_stack(account, found)
        cost = frozen_cost(account, found)
    except (Problem, BotoCoreError, ClientError) as error:
        screen.warn(f"what {getattr(stack, 'name', stack)} has cost cannot be told ({type(error).__name__})")
        return
    screen.aside(line(cost, deadline), urgent=deadline.left <= URGENT)


def line(cost: Frozen, deadline: Deadline) -> str:
    """For example "Lab3Stack: $3.20 so far at $9.48/h; ends 14:00 UTC, in 2 h 10 min, at $37.92"."""
    so_far = dollars(spent(cost["things"], deadline.at - deadline.left))
    whole = dollars(spent(cost["things"], deadline.at))
    remedy = " (fab extend moves that)" if deadline.left <= URGENT else ""
    return (f"{deadline.stack}: {so_far} so far at {dollars(cost['usd_per_hour'])}/h; ends {deadline.at:%H:%M} UTC, "
            f"{deadline.span}, at {whole}{remedy}")  # fmt: skip
