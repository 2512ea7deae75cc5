"""The order in which a lab ends: what bills most first, then what must be gone before something else can go."""

from collections.abc import Iterable
from itertools import groupby

from guard.inventory import Inventory, Item

RANKS = (
    ("fleet", "spot-instance-request", "instance", "capacity-reservation"),
    ("file-system", "nat-gateway", "load-balancer", "vpc-endpoint", "instance-connect-endpoint"),
    ("address", "network-interface", "volume", "image", "backup"),
    ("snapshot", "launch-template", "placement-group", "security-group", "log-group"),
    ("subnet", "internet-gateway", "egress-only-internet-gateway"),
    ("route-table", "network-acl"),
    ("vpc",),
)
"""What is slow to go in one rank holds up the next."""
SLOW = ("instance", "file-system", "nat-gateway", "load-balancer", "vpc-endpoint", "instance-connect-endpoint")
HOURLY = ("fleet", "spot-instance-request", "instance", "file-system")
"""Removed ahead of the stack that made them: a stack may take long, or fail, to delete."""
LEAVING = ("shutting-down", "deleting", "Deleting", "DELETING", "delete-in-progress")
"""States of what is on its way out and needs no second request."""


def due(inventory: Inventory, stack: Item | None, owned: Iterable[str]) -> list[list[Item]]:
    """What to remove by hand now, rank by rank.

    While the stack can still be deleted: what it does not own (made by hand, or by its fleet) and what bills by the
    hour. Once it is gone, or has failed to delete: everything.
    """
    kept = set(owned) if stack and stack.state != "DELETE_FAILED" else set()
    items = [item for item in inventory.left if item.kind in HOURLY or (item.id not in kept and item.kind != "stack")]
    items.sort(key=lambda item: (rank(item), item.kind, item.id))
    return [list(group) for _, group in groupby(items, key=rank)]


def rank(item: Item) -> int:
    """Place of an item in `RANKS`."""
    return next(place for place, kinds in enumerate(RANKS) if item.kind in kinds)
