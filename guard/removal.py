"""One step towards the end of a lab: do what is possible now, and say what is still pending.

A step may be repeated, interrupted, or made by the guard and by `fab teardown` at the same moment.
"""

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from guard.inventory import GUARD_STACK, TAG_STACK, UNANSWERED, Clients, Inventory, Item, look, why
from guard.order import LEAVING, SLOW, due

DEADLINES = "/rooflab/deadline/"
"""SSM parameters below this name hold a stack's deadline."""
ADOPT = {"ec2": ("create_tags", "Resources"), "elbv2": ("add_tags", "ResourceArns"),
         "fsx": ("tag_resource", "ResourceARN")}  # fmt: skip
"""Service -> what tags a thing of it, and the field that names the thing."""


def step(clients: Clients, stack: str, inventory: Inventory | None = None) -> "Step":
    """Make one step towards the end of `stack`. What AWS refuses is in `Step.refused`."""
    assert stack not in ("", GUARD_STACK), stack
    made = Step(clients, stack, (inventory or look(clients, stack)).of(stack))
    made.run()
    return made


class Step:
    """One step, as it is being made, and afterwards what it did."""

    def __init__(self, clients: Clients, name: str, before: Inventory) -> None:
        self.clients, self.name = clients, name
        self.before = before
        """What there was when the step began."""
        self.stack = before.stack(name)
        self.did: list[str] = []
        self.pending: list[str] = []
        """What is on its way out, or goes with something else."""
        self.refused: list[str] = []
        """What AWS refused, and why; the next step tries again."""

    @property
    def done(self) -> bool:
        """Whether nothing was left to remove, as far as could be looked; see `before.missed`."""
        return not self.before.left and "stack" not in self.before.missed

    def run(self) -> None:
        """Remove what can go now and, when nothing has to be waited for, the stack."""
        if "stack" in self.before.missed:
            self.refused.append(f"cannot tell whether {self.name} exists: {self.before.missed['stack']}")
            return
        self.adopt()
        waits = self.by_hand()
        # A stack that is still being made would go on making: it is told to stop at once.
        if self.stack and (not waits or self.stack.state.endswith("_IN_PROGRESS")):
            self.delete_stack(self.stack)
        if not self.before.left:  # what was written for this life must not rule the next one
            self.ask("ssm", "delete_parameter", Name=DEADLINES + self.name)

    def adopt(self) -> None:
        """Tag what was made by hand: once what it hangs on is gone, only a tag tells whose it is.

        The guard's role may remove only what carries a lab's tag.
        """
        for item in self.before.left:
            service = item.calls[-1].service
            if TAG_STACK in item.tags or service not in ADOPT or item.state in LEAVING:
                continue
            operation, field = ADOPT[service]
            ident = item.facts.get(field, [item.id])  # FSx wants the ARN
            self.ask(service, operation, **{field: ident}, Tags=[{"Key": TAG_STACK, "Value": self.name}])

    def by_hand(self) -> bool:
        """Remove rank after rank. Returns whether something has to be waited for."""
        return any(any([self.remove(item) for item in items]) for items in due(self.before, self.stack, self.owned()))

    def remove(self, item: Item) -> bool:
        """Remove one item. Returns whether it has to be waited for."""
        if item.state in LEAVING or item.facts.get("RequesterManaged"):  # the latter goes with what made it
            self.pending.append(str(item))
            return item.state in LEAVING
        if all(self.ask(call.service, call.operation, **call.params) for call in item.calls):
            self.did.append(f"remove {item.kind} {item.id}")
            return item.kind in SLOW
        return False

    def delete_stack(self, stack: Item) -> None:
        """Delete the stack, unless that is under way; one that failed to delete is tried again."""
        if stack.state == "DELETE_IN_PROGRESS":
            self.pending.append(str(stack))
        elif self.ask("cloudformation", "delete_stack", StackName=self.name):
            again = (
                f" again ({stack.facts.get('StackStatusReason', 'no reason given')})"
                if stack.state == "DELETE_FAILED"
                else ""
            )
            self.did.append(f"delete stack {self.name}{again}")

    def owned(self) -> Iterator[str]:
        """Ids of what the stack made and will delete itself."""
        if self.stack:
            pages = self.clients("cloudformation").get_paginator("list_stack_resources").paginate(StackName=self.name)
            try:
                for page in pages:
                    yield from (row.get("PhysicalResourceId", "") for row in page["StackResourceSummaries"])
            except UNANSWERED as error:
                if not vanished(error):
                    self.refused.append(why(error, "cloudformation"))

    def ask(self, service: str, operation: str, **params: Any) -> bool:
        """Make one request. False if AWS refused it; what is gone already counts as removed."""
        try:
            getattr(self.clients(service), operation)(**params)
        except UNANSWERED as error:
            if not vanished(error):
                self.refused.append(f"{next(iter(params.values()))}: {why(error, service)}")
                return False
        return True


def vanished(error: Exception) -> bool:
    """Whether AWS says that the thing does not exist."""
    if not isinstance(error, ClientError):
        return False
    answer = error.response["Error"]
    return "NotFound" in answer["Code"] or "does not exist" in answer.get("Message", "") or ".Unknown" in answer["Code"]
