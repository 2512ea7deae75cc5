"""Admits operations on stacks: what may start in which state, in CloudFormation's words, and starts it in a thread."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from botocore.exceptions import ClientError
from moto.moto_api._internal import mock_random
from moto.utilities.utils import get_partition

from rehearsal.errors import AwsError
from rehearsal.intrinsics import TemplateError
from rehearsal.operation import Operation
from rehearsal.planning import changes, make_plan
from rehearsal.resources.handler import Cloud
from rehearsal.stack import ChangeSet, Plan, Region, Stack
from rehearsal.template import Template, parse

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{0,127}")
_UPDATABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
_LOOK_S = 0.05
_STUCK_S = 60.0
HOLD_S = 8.0
"""Longest that the call which starts an operation waits for its end, in real seconds."""


class Engine:
    """All stacks of one rehearsal."""

    def __init__(self, endpoint: Callable[[], str]) -> None:
        self.cloud = Cloud(endpoint)
        self.told: Callable[[str, str], None] = lambda kind, status: None
        """See `Region.told`."""
        self.stays: Callable[[str], bool] = lambda kind: False
        """See `Region.stays`."""
        self._regions: dict[tuple[str, str], Region] = {}
        self._lock = threading.Lock()

    def region(self, account: str, name: str) -> Region:
        """The stacks of one account and region."""
        with self._lock:
            if (account, name) not in self._regions:
                region = self._regions[account, name] = Region(account, name, get_partition(name))
                region.told, region.stays = self.told, self.stays
            return self._regions[account, name]

    def settle(self) -> bool:
        """Wait while operations get on: time is not advanced past what takes real time.

        One that has looked twice in vain for what it waits for, and told nothing, waits for time itself, as for a file
        system that is slow to go. Returns whether any operation got on.
        """
        with self._lock:
            regions = list(self._regions.values())
        return any([_settle(stack) for region in regions for stack in list(region.stacks)])

    def prepare(
        self,
        stack: Stack,
        body: str | None,
        given: Mapping[str, str | None],
        tags: Mapping[str, str] | None,
        capabilities: Iterable[str],
    ) -> Plan:
        """The plan that a request asks for. `body` None keeps the template, a parameter None keeps its value.

        Raises:
            AwsError: ValidationError or InsufficientCapabilitiesException.
        """
        held = stack.plan
        if body is None and held is None:
            raise AwsError("ValidationError", "Either Template URL or Template Body must be specified.")
        try:
            template = parse(body) if body is not None else _template_of(held)
            kept = held.texts if held else {}
            values = {name: kept.get(name, "") if value is None else value for name, value in given.items()}
            plan = make_plan(stack, template, values, stack.tags if tags is None else tags, self.cloud)
        except TemplateError as error:
            raise AwsError("ValidationError", str(error)) from None
        granted = set(capabilities)
        if "CAPABILITY_NAMED_IAM" in granted:
            granted.add("CAPABILITY_IAM")
        missing = [name for name in template.capabilities if name not in granted]
        if missing:
            raise AwsError("InsufficientCapabilitiesException", f"Requires capabilities : [{', '.join(missing)}]")
        return plan

    def demand_role(self, region: Region, arn: str) -> None:
        """Raises: AwsError, no such role is there for CloudFormation to assume."""
        iam = self.cloud.client("iam", region.name)
        try:
            found = iam.get_role(RoleName=arn.rsplit("/", 1)[-1])["Role"]["Arn"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            found = None
        if found != arn:
            raise AwsError("ValidationError", f"Role {arn} is invalid or cannot be assumed")

    def new_stack(self, region: Region, name: str, tags: Mapping[str, str]) -> Stack:
        """A stack that exists in review only, not yet among the region's.

        Raises:
            AwsError: ValidationError, the name is not one.
        """
        if not _NAME.fullmatch(name):
            raise AwsError("ValidationError", f"1 validation error detected: Value '{name}' at 'stackName' failed to "
                           "satisfy constraint: Member must satisfy regular expression pattern: "
                           "[a-zA-Z][-a-zA-Z0-9]*")  # fmt: skip
        return Stack(region, name, tags=tags)

    def propose(
        self, stack: Stack, kind: str, name: str, plan: Plan, description: str | None, on_failure: str
    ) -> ChangeSet:
        """Keep a change set for `plan`; it is FAILED where nothing would change."""
        region = stack.region
        change_set = ChangeSet(
            id=region.arn(f"changeSet/{name}/{mock_random.uuid4()}"),
            name=name,
            type=kind,
            plan=plan,
            changes=changes(stack, plan),
            created=region.stamp(),
            description=description,
            on_failure=on_failure,
        )
        if kind == "UPDATE" and stack.plan is not None and not stack.plan.differs(plan):
            change_set.status, change_set.execution, change_set.reason = "FAILED", "UNAVAILABLE", NO_CHANGES
        stack.change_sets[name] = change_set
        return change_set

    def demand_updatable(self, stack: Stack) -> None:
        """Raises: AwsError, the stack's state takes no update."""
        if stack.status not in _UPDATABLE:
            raise AwsError("ValidationError", f"Stack:{stack.id} is in {stack.status} state and can not be updated.")

    def create(self, stack: Stack, plan: Plan, on_failure: str, token: str | None) -> None:
        """Start to create the stack's resources."""
        stack.on_failure, stack.tags = on_failure, dict(plan.tags)
        stack.begin("CREATE_IN_PROGRESS", token)
        self._run(stack, lambda: Operation(stack, self.cloud).create(plan))

    def update(self, stack: Stack, plan: Plan, token: str | None) -> None:
        """Start an update."""
        stack.begin("UPDATE_IN_PROGRESS", token)
        self._run(stack, lambda: Operation(stack, self.cloud).update(plan))

    def delete(self, stack: Stack, retain: Iterable[str], *, force: bool, token: str | None) -> None:
        """Start a deletion; it overtakes a creation that is under way. Nothing happens where one is under way already.

        Raises:
            AwsError: ValidationError, the stack is protected, in use, or in the middle of something else.
        """
        if stack.status in ("DELETE_IN_PROGRESS", "DELETE_COMPLETE"):
            return
        if stack.protected:
            raise AwsError("ValidationError", f"Stack [{stack.name}] cannot be deleted while TerminationProtection is "
                           "enabled")  # fmt: skip
        if stack.busy and stack.status != "CREATE_IN_PROGRESS":
            raise AwsError("ValidationError", f"Stack [{stack.id}] cannot be deleted while in status {stack.status}")
        if retain and stack.status != "DELETE_FAILED":
            raise AwsError("ValidationError", f"Invalid operation on stack [{stack.id}]. When you delete a stack, "
                           "specify which resources to retain only when the stack is in the DELETE_FAILED "
                           "state.")  # fmt: skip
        for output in stack.outputs:
            users = stack.region.importers(output.export) if output.export else []
            if users:
                raise AwsError("ValidationError", f"Delete canceled. Cannot delete export {output.export} as it is in "
                               f"use by {', '.join(users)}.")  # fmt: skip
        overtaken = stack.operation if stack.busy else None
        stack.cancelled.set()
        stack.begin("DELETE_IN_PROGRESS", token)

        def remove() -> None:
            if overtaken is not None:
                overtaken.join()
            stack.cancelled.clear()  # from here on a handler that waits, waits for its deletion
            Operation(stack, self.cloud).delete(retain, force=force)

        self._run(stack, remove)

    def _run(self, stack: Stack, action: Callable[[], None]) -> None:
        def work() -> None:
            try:
                action()
            except Exception as error:  # a fault of the engine's own must not leave the stack in progress for ever
                _LOG.exception("operation on %s", stack.name)
                status = {"CREATE": "CREATE_FAILED", "ROLLBACK": "ROLLBACK_FAILED", "DELETE": "DELETE_FAILED"}.get(
                    stack.status.split("_")[0], "UPDATE_ROLLBACK_FAILED"
                )
                stack.set_status(status, f"Internal failure of the rehearsal: {type(error).__name__}: {error}")

        stack.operation = threading.Thread(target=work, name=f"stack {stack.name}", daemon=True)
        stack.operation.start()


def _settle(stack: Stack) -> bool:
    begun, operation = len(stack.events), stack.operation
    told, looked, since = begun, stack.looks, time.monotonic()
    while stack.busy and operation is not None and stack.looks < looked + 2 and time.monotonic() < since + _STUCK_S:
        operation.join(_LOOK_S)
        if len(stack.events) > told:
            told, looked, since = len(stack.events), stack.looks, time.monotonic()
    return len(stack.events) > begun


def hold(stack: Stack) -> None:
    """Wait for the operation under way, but not for long."""
    if stack.operation is not None:
        stack.operation.join(HOLD_S)


def _template_of(plan: Plan | None) -> Template:
    assert plan is not None
    return plan.template
