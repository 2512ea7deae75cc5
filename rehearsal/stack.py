"""A stack as CloudFormation keeps it: resources, events, outputs, change sets. `operation.py` brings it to life."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from moto.moto_api._internal import mock_random

from rehearsal import clock
from rehearsal.intrinsics import TemplateError
from rehearsal.template import Resource, Template

STACK_TYPE = "AWS::CloudFormation::Stack"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a stack's history."""

    id: str
    logical_id: str
    physical_id: str
    type: str
    status: str
    reason: str | None
    at: datetime
    """Later than the event before it by a millisecond or more: readers sort by milliseconds."""
    token: str | None
    operation: str
    """Id of the operation that it belongs to: the CDK CLI tells one attempt from the next by it."""


@dataclass(kw_only=True)
class StackResource:
    """One resource that a stack holds."""

    definition: Resource
    """As in the template, conditions decided."""
    needs: tuple[str, ...]
    """Logical ids that it depends on."""
    properties: dict[str, Any]
    """Resolved, as they were given to the handler."""
    physical_id: str = ""
    """Empty until the thing exists."""
    attributes: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    reason: str | None = None
    at: datetime | None = None

    @property
    def logical_id(self) -> str:
        """Name in the template."""
        return self.definition.logical_id

    @property
    def type(self) -> str:
        """For example "AWS::EC2::VPC"."""
        return self.definition.type


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a stack is to become: a template with its inputs decided."""

    template: Template
    texts: Mapping[str, str]
    """Parameters as given or by default."""
    parameters: Mapping[str, Any]
    """Parameters as Ref gives them: lists split, SSM values fetched."""
    tags: Mapping[str, str]
    active: Mapping[str, Resource]
    """Resources whose condition holds."""
    outputs: tuple[str, ...]
    """Outputs whose condition holds."""
    imports: frozenset[str]
    """Names of the exports that it imports."""

    def differs(self, other: "Plan") -> bool:
        """Whether going from one to the other is a change in CloudFormation's eyes."""
        return (
            self.template.changed(other.template)
            or dict(self.parameters) != dict(other.parameters)
            or dict(self.tags) != dict(other.tags)
        )


@dataclass(kw_only=True)
class ChangeSet:
    """A change that waits to be executed."""

    id: str
    name: str
    type: str
    """CREATE or UPDATE."""
    plan: Plan
    changes: list[dict[str, Any]]
    created: datetime
    description: str | None
    status: str = "CREATE_COMPLETE"
    reason: str | None = None
    execution: str = "AVAILABLE"
    on_failure: str = "ROLLBACK"
    """ROLLBACK, DELETE or DO_NOTHING, for a stack that is created."""


@dataclass(kw_only=True)
class Output:
    """One output of a stack."""

    key: str
    value: str
    description: str | None
    export: str | None


class Stack:
    """One stack, its history included. Its status changes only through `set_status`."""

    def __init__(self, region: "Region", name: str, *, tags: Mapping[str, str]) -> None:
        self.region = region
        self.name = name
        self.id = region.arn(f"stack/{name}/{mock_random.uuid4()}")
        self.created = region.stamp()
        self.updated: datetime | None = None
        self.deleted: datetime | None = None
        self.status = "REVIEW_IN_PROGRESS"
        self.reason: str | None = None
        self.tags = dict(tags)
        self.plan: Plan | None = None
        self.resources: dict[str, StackResource] = {}
        self.gone: dict[str, StackResource] = {}
        """Resources of a deleted stack, for those who ask by its id."""
        self.outputs: list[Output] = []
        self.events: list[Event] = []
        self.change_sets: dict[str, ChangeSet] = {}
        self.imports: set[str] = set()
        """Names of exports that this stack's template imports."""
        self.change_set_id: str | None = None
        self.on_failure = "ROLLBACK"
        self.protected = False
        """EnableTerminationProtection."""
        self.token: str | None = None
        """ClientRequestToken of the operation under way."""
        self.operation_id = str(mock_random.uuid4())
        self.cancelled = threading.Event()
        """Set when a deletion overtakes the creation."""
        self.operation: threading.Thread | None = None
        self.looks = 0
        """How often an operation has looked in vain for what it waits for."""
        self._named = 0

    @property
    def busy(self) -> bool:
        """Whether an operation is under way."""
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"

    def begin(self, status: str, token: str | None) -> None:
        """Enter the first status of a new operation."""
        self.token, self.operation_id = token, str(mock_random.uuid4())
        self.set_status(status, "User Initiated")

    def set_status(self, status: str, reason: str | None = None) -> None:
        """Enter a status and tell it as an event of the stack itself. A rollback is an operation of its own."""
        if status in ("ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS"):
            self.operation_id = str(mock_random.uuid4())
        at = self._event(self.name, self.id, STACK_TYPE, status, reason)
        if status in ("UPDATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS"):
            self.updated = at
        if status in ("DELETE_IN_PROGRESS", "DELETE_COMPLETE"):
            self.deleted = at
        self.status, self.reason = status, reason

    def look_in_vain(self) -> None:
        """Note that what the operation waits for has not come about yet."""
        self.looks += 1

    def tell(self, resource: StackResource, status: str, reason: str | None = None) -> None:
        """Enter a status of a resource and tell it as an event."""
        at = self._event(resource.logical_id, resource.physical_id, resource.type, status, reason)
        resource.status, resource.reason, resource.at = status, reason, at

    def new_name(self, logical_id: str, longest: int, lower: bool) -> str:
        """A name such as CloudFormation makes: STACK-LOGICAL-SUFFIX, never the same twice.

        It follows from the stack's id alone, so that one seed gives one set of names.
        """
        self._named += 1
        digest = int.from_bytes(sha256(f"{self.id} {logical_id} {self._named}".encode()).digest())
        suffix = ""
        while len(suffix) < 12:
            digest, place = divmod(digest, len(_ALPHABET))
            suffix += _ALPHABET[place]
        room = longest - len(suffix) - 2
        stack = self.name[: max(room - len(logical_id), room // 2)]
        name = f"{stack}-{logical_id[: room - len(stack)]}-{suffix}"
        return name.lower() if lower else name

    def _event(self, logical_id: str, physical_id: str, kind: str, status: str, reason: str | None) -> datetime:
        at = self.region.stamp()
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
        self.events.append(
            Event(
                id=f"{logical_id}-{status}-{stamp}",
                logical_id=logical_id,
                physical_id=physical_id,
                type=kind,
                status=status,
                reason=reason,
                at=at,
                token=self.token,
                operation=self.operation_id,
            )
        )
        self.region.told(kind, status)
        return at


class Region:
    """The stacks of one account in one region, deleted ones included."""

    def __init__(self, account: str, name: str, partition: str) -> None:
        self.account = account
        self.name = name
        self.partition = partition
        self.stacks: list[Stack] = []
        self.lock = threading.RLock()
        """Held while an operation is admitted, so that no two start on one stack."""
        self.told: Callable[[str, str], None] = lambda kind, status: None
        """Called with type and status of every event of every stack."""
        self.stays: Callable[[str], bool] = lambda kind: False
        """Whether a resource of that type refuses to be deleted now: a fault that was ordered."""
        self._stamping = threading.Lock()
        self._last = datetime.min.replace(tzinfo=UTC)

    def arn(self, resource: str) -> str:
        """ARN of a stack or a change set."""
        return f"arn:{self.partition}:cloudformation:{self.name}:{self.account}:{resource}"

    def stamp(self) -> datetime:
        """Now, in whole milliseconds, always at least one later than the stamp before."""
        with self._stamping:
            now = clock.now()
            now = now.replace(microsecond=now.microsecond // 1000 * 1000)
            self._last = max(now, self._last + timedelta(milliseconds=1))
            return self._last

    def find(self, name_or_id: str) -> Stack | None:
        """The living stack of that name, or the stack of that id whether it lives or not."""
        for stack in reversed(self.stacks):
            if stack.id == name_or_id or (stack.name == name_or_id and stack.status != "DELETE_COMPLETE"):
                return stack
        return None

    def exports(self) -> Iterator[tuple[Stack, Output]]:
        """Every export with the stack that makes it."""
        for stack in list(self.stacks):
            for output in list(stack.outputs):
                if output.export and stack.status != "DELETE_COMPLETE":
                    yield stack, output

    def importers(self, export: str) -> list[str]:
        """Names of the stacks that import it."""
        living = [stack for stack in list(self.stacks) if stack.status != "DELETE_COMPLETE"]
        return [stack.name for stack in living if export in stack.imports]

    def import_value(self, name: str) -> str:
        """Value of an export.

        Raises:
            TemplateError: no stack exports it.
        """
        for _, output in self.exports():
            if output.export == name:
                return output.value
        raise TemplateError(f"No export named {name} found.")
