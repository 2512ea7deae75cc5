"""A resource type of the tests' own, with which a stack can be made to do anything."""

import threading

from rehearsal.failure import Refused
from rehearsal.resources.handler import Handler


class Thing(Handler):
    """Stands for any resource: keeps what exists, and fails or waits on demand."""

    type = "Test::Some::Thing"
    replaces = ("Name", "Kind")
    updates = ("Value", "Tags")
    fixed = ("Fixed",)
    attributes = ("Arn",)
    named_by = "Name"

    def __init__(self) -> None:
        self.standing: dict[str, dict] = {}
        self.deleted: list[str] = []
        self.undeletable: set[str] = set()
        self.started, self.go_on = threading.Event(), threading.Event()

    def create(self, call, given):
        if given.get("Kind") == "impossible":
            raise Refused("out of stock")
        name = given.get("Name") or call.name(60, False)
        self.standing[name] = dict(given)
        return name

    def complete(self, call, physical_id, given) -> None:
        if given.get("Kind") == "unready":
            raise ZeroDivisionError("division by zero")
        if given.get("Kind") == "slow":
            self.started.set()
            call.wait("readiness", self.go_on.is_set)

    def read(self, call, physical_id, given) -> dict:
        return {"Arn": call.arn("some", physical_id)}

    def update(self, call, physical_id, old, new) -> None:
        assert self.standing[physical_id] == old
        self.standing[physical_id] = dict(new)
        if new.get("Value") == "unacceptable":
            raise Refused("not that value")

    def delete(self, call, physical_id, given) -> None:
        if given.get("Kind") in self.undeletable:
            raise Refused("still in use")
        self.standing.pop(physical_id, None)
        self.deleted.append(physical_id)


def thing(**properties) -> dict:
    given = {"DependsOn": properties.pop("after")} if "after" in properties else {}
    for attribute in ("DeletionPolicy", "UpdateReplacePolicy"):
        if attribute in properties:
            given[attribute] = properties.pop(attribute)
    return {"Type": Thing.type, "Properties": properties, **given}
