"""The work on one resource of a stack: make, change, restore, remove. Every step is told as an event."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.failure import Cancelled, Failed, Refused, failed_to, reason
from rehearsal.intrinsics import Scope, TemplateError
from rehearsal.planning import make_scope
from rehearsal.resources import HANDLERS
from rehearsal.resources.handler import Call, Cloud, Handler
from rehearsal.stack import Plan, Stack, StackResource
from rehearsal.template import needs, order

_LOG = logging.getLogger(__name__)
_REPLACING = "Requested update requires the creation of a new physical resource; hence creating one."
_VERBS = {"CREATE_FAILED": "create", "UPDATE_FAILED": "update"}

Result = TypeVar("Result")


class Worker:
    """Works on the resources of one stack, one after another."""

    def __init__(self, stack: Stack, cloud: Cloud) -> None:
        self.stack = stack
        self.cloud = cloud

    def fresh(self, plan: Plan, name: str) -> StackResource:
        """The resource as the plan wants it, without a physical id yet."""
        item = plan.active[name]
        return StackResource(definition=item, needs=needs(item, plan.active), properties={})

    def make(self, plan: Plan, item: StackResource, verb: str = "CREATE") -> None:
        """Bring a new thing to life; it is among the stack's resources from its first event on.

        Raises:
            Failed: its event is told. What was made of it has a physical id.
        """
        stack = self.stack
        stack.resources[item.logical_id] = item
        if verb == "CREATE":
            stack.tell(item, "CREATE_IN_PROGRESS")

        def work() -> None:
            if stack.cancelled.is_set():
                raise Cancelled("Resource creation cancelled")
            self._settle_properties(plan, item)
            handler, call = _handler(item.type), self._call(item)
            item.physical_id = handler.create(call, item.properties)
            stack.tell(item, f"{verb}_IN_PROGRESS", "Resource creation Initiated")
            handler.complete(call, item.physical_id, item.properties)
            item.attributes = handler.read(call, item.physical_id, item.properties)

        self._attempt(item, f"{verb}_FAILED", work)
        stack.tell(item, f"{verb}_COMPLETE")

    def change(self, plan: Plan, held: StackResource, wanted: StackResource) -> bool:
        """Bring `held` to `wanted`, in place or by replacement. Returns whether there was anything to do.

        Raises:
            Failed: its event is told.
        """
        stack = self.stack
        wanted.physical_id, wanted.attributes = held.physical_id, held.attributes
        wanted.status, wanted.reason, wanted.at = held.status, held.reason, held.at
        wanted.properties = held.properties  # until its own are known: `restore` takes back what differs
        stack.resources[wanted.logical_id] = wanted
        self._attempt(wanted, "UPDATE_FAILED", lambda: self._settle_properties(plan, wanted))
        differing = _differing(held, wanted)
        if not differing:
            return False
        handler = _handler(wanted.type)
        try:
            self._attempt(wanted, "UPDATE_FAILED", lambda: _demand_possible(handler, held, wanted))
        except Failed:
            wanted.properties = held.properties
            raise
        if any(name in handler.replaces for name in differing):
            stack.tell(wanted, "UPDATE_IN_PROGRESS", _REPLACING)
            wanted.physical_id, wanted.attributes = "", {}
            self.make(plan, wanted, "UPDATE")
            return True
        stack.tell(wanted, "UPDATE_IN_PROGRESS")
        self._attempt(wanted, "UPDATE_FAILED", lambda: self._in_place(held, wanted))
        stack.tell(wanted, "UPDATE_COMPLETE")
        return True

    def restore(self, old: StackResource, new: StackResource) -> None:
        """Take a change back. A replaced thing is the stack's again; the new one is left to `remove`.

        Raises:
            Failed: its event is told.
        """
        stack = self.stack
        restored = replace(old, attributes=new.attributes) if old.physical_id == new.physical_id else old
        stack.resources[old.logical_id] = restored
        if old.physical_id != new.physical_id:
            stack.tell(restored, "UPDATE_COMPLETE")
        elif _differing(old, new):
            stack.tell(restored, "UPDATE_IN_PROGRESS")
            self._attempt(restored, "UPDATE_FAILED", lambda: self._in_place(new, restored))
            stack.tell(restored, "UPDATE_COMPLETE")

    def remove(
        self, held: Mapping[str, StackResource], keep: Callable[[StackResource], bool], *, force: bool = False
    ) -> list[str]:
        """Delete resources, dependents first. Returns the names of those that are still there.

        What `keep` holds for is left standing and forgotten; with `force`, so is what cannot be deleted.
        """
        stuck: list[str] = []
        for name in reversed(order({name: item.needs for name, item in held.items()})):
            item = held[name]
            if any(name in held[other].needs for other in stuck):
                stuck.append(name)  # something that uses it stands: CloudFormation does not try
            elif item.physical_id and keep(item):
                self.stack.tell(item, "DELETE_SKIPPED")
            elif item.physical_id:
                self.stack.tell(item, "DELETE_IN_PROGRESS")
                delete = partial(self._delete, item)
                try:
                    self._attempt(item, "DELETE_SKIPPED" if force else "DELETE_FAILED", delete)
                    self.stack.tell(item, "DELETE_COMPLETE")
                except Failed:
                    if not force:
                        stuck.append(name)
        return stuck

    def _delete(self, item: StackResource) -> None:
        if self.stack.region.stays(item.type):
            raise Refused(f"Resource of type '{item.type}' with identifier '{item.physical_id}' did not stabilize.")
        _handler(item.type).delete(self._call(item), item.physical_id, item.properties)

    def scope(self, plan: Plan) -> Scope:
        """What the functions of the plan's template may ask for, resources included."""
        scope = make_scope(self.stack, plan.template, plan.parameters, self.cloud)
        scope.reference = lambda name: self.stack.resources[name].physical_id
        scope.attribute = self._attribute
        return scope

    def _in_place(self, before: StackResource, after: StackResource) -> None:
        handler, call = _handler(after.type), self._call(after)
        handler.update(call, after.physical_id, before.properties, after.properties)
        after.attributes = handler.read(call, after.physical_id, after.properties)

    def _settle_properties(self, plan: Plan, item: StackResource) -> None:
        handler = _handler(item.type)
        for name in item.definition.properties:
            if not handler.honours(name):
                raise Refused(f"{item.type}: property {name} is not rehearsed")
        item.properties = self.scope(plan).resolve(item.definition.properties)
        if plan.tags and handler.honours("Tags"):  # CloudFormation hands a stack's tags on to all that takes tags
            own = item.properties.get("Tags") or handler.tags_type()
            if isinstance(own, dict):
                item.properties["Tags"] = {**plan.tags, **own}
            else:
                taken = {tag["Key"] for tag in own}
                handed = [{"Key": key, "Value": value} for key, value in plan.tags.items() if key not in taken]
                item.properties["Tags"] = [*own, *handed]

    def _attribute(self, name: str, attribute: str) -> object:
        held = self.stack.resources[name]
        if attribute not in _handler(held.type).attributes:
            raise TemplateError(f"{held.type}: attribute {attribute} (Fn::GetAtt of {name}) is not rehearsed")
        if attribute in _handler(held.type).fresh:
            held.attributes = _handler(held.type).read(self._call(held), held.physical_id, held.properties)
        return held.attributes[attribute]

    def _call(self, item: StackResource) -> Call:
        region = self.stack.region
        return Call(
            cloud=self.cloud,
            account=region.account,
            region=region.name,
            partition=region.partition,
            type=item.type,
            name=partial(self.stack.new_name, item.logical_id),
            attributes=item.attributes,
            cancelled=self.stack.cancelled,
            in_vain=self.stack.look_in_vain,
        )

    def _attempt(self, item: StackResource, status: str, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except (Refused, Cancelled, TemplateError, BotoCoreError, ClientError) as error:
            why, cause = reason(error), error
        except Exception as error:  # a handler's own fault must end in a final state too, and say what it was
            _LOG.exception("%s of %s", status, item.logical_id)
            why, cause = f"Internal failure of the rehearsal: {type(error).__name__}: {error}", error
        self.stack.tell(item, status, why)
        raise Failed(failed_to(_VERBS.get(status, "delete"), item.logical_id)) from cause


def _handler(kind: str) -> Handler:
    if kind not in HANDLERS:
        raise Refused(f"{kind}: this resource type is not rehearsed")
    return HANDLERS[kind]


def _demand_possible(handler: Handler, held: StackResource, wanted: StackResource) -> None:
    differing = _differing(held, wanted)
    if not any(name in handler.replaces for name in differing):
        for name in differing:
            if name in handler.fixed:
                raise Refused(f"{wanted.type}: an update of property {name} is not rehearsed")
        return
    own = held.properties.get(handler.named_by or "")
    if own and own == wanted.properties.get(handler.named_by or ""):
        raise Refused(
            "CloudFormation cannot update a stack when a custom-named resource requires replacing. "
            f"Rename {own} and update the stack again."
        )


def _differing(old: StackResource, new: StackResource) -> list[str]:
    names = sorted(set(old.properties) | set(new.properties))
    return [name for name in names if old.properties.get(name) != new.properties.get(name)]
