"""CloudFormation's API over the rehearsal's own engine, in place of moto's. Error codes and texts are AWS's.

An operation runs in a thread of its own; the call that starts it is held for a few seconds, so that a client that
polls slowly (the CDK CLI: every 5 s) finds it done at its first look.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import moto.cloudformation.urls
from moto.core.responses import ActionResult, BaseResponse

from rehearsal import describing
from rehearsal.engine import Engine, hold
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.intrinsics import TemplateError
from rehearsal.stack import ChangeSet, Region, Stack
from rehearsal.template import Template, parse

_UNHEARD = (
    "TemplateURL", "ResourcesToImport", "ImportExistingResources", "StackPolicyBody", "StackPolicyURL",
    "StackPolicyDuringUpdateBody", "StackPolicyDuringUpdateURL", "TimeoutInMinutes", "ResourceTypes",
)  # fmt: skip
"""Request parameters that would change the outcome and that the engine does not know: refused by name."""


class CloudFormation(BaseResponse):  # type: ignore[misc]  # moto ships no types
    """One request. moto finds the method by the action's name in snake case."""

    engine: ClassVar[Engine]

    def __init__(self) -> None:
        super().__init__(service_name="cloudformation")
        self.automated_parameter_parsing = True

    def create_change_set(self) -> ActionResult:
        """CreateChangeSet."""
        request = self._request()
        kind = request.get("ChangeSetType", "UPDATE")
        if kind not in ("CREATE", "UPDATE"):
            raise NotRehearsed(f"change sets of type {kind}")
        with self._home.lock:
            stack = self._home.find(request["StackName"])
            if kind == "CREATE":
                if stack is not None and stack.status != "REVIEW_IN_PROGRESS":
                    raise AwsError("ValidationError", f"Stack [{stack.name}] already exists and cannot be created "
                                   f"again with the changeSet [{request['ChangeSetName']}].")  # fmt: skip
                fresh = stack is None
                stack = stack or self.engine.new_stack(self._home, request["StackName"], _tags(request) or {})
            else:
                if stack is None:
                    raise AwsError("ValidationError", f"Stack [{request['StackName']}] does not exist")
                fresh = False
                self.engine.demand_updatable(stack)
            if request["ChangeSetName"] in stack.change_sets:
                raise AwsError("AlreadyExistsException", f"ChangeSet {request['ChangeSetName']} cannot be created due "
                               "to a mismatch with existing attribute ChangeSetName")  # fmt: skip
            plan = self._plan(stack, request)
            if fresh:
                self._home.stacks.append(stack)
                stack.set_status("REVIEW_IN_PROGRESS", "User Initiated")
            made = self.engine.propose(stack, kind, request["ChangeSetName"], plan, request.get("Description"),
                                       request.get("OnStackFailure", "ROLLBACK"))  # fmt: skip
        return ActionResult({"Id": made.id, "StackId": stack.id})

    def describe_change_set(self) -> ActionResult:
        """DescribeChangeSet."""
        stack, change_set = self._change_set()
        return ActionResult(describing.change_set(stack, change_set))

    def list_change_sets(self) -> ActionResult:
        """ListChangeSets."""
        stack = self._stack()
        listed = [describing.change_set_summary(stack, item) for item in stack.change_sets.values()]
        return ActionResult({"Summaries": listed})

    def delete_change_set(self) -> ActionResult:
        """DeleteChangeSet: an unknown one counts as deleted."""
        try:
            stack, change_set = self._change_set()
        except AwsError:
            return ActionResult({})
        del stack.change_sets[change_set.name]
        return ActionResult({})

    def execute_change_set(self) -> ActionResult:
        """ExecuteChangeSet."""
        request = self._request()
        with self._home.lock:
            stack, change_set = self._change_set()
            if change_set.execution != "AVAILABLE":
                raise AwsError("InvalidChangeSetStatus", f"ChangeSet [{change_set.id}] cannot be executed in its "
                               f"current execution status of [{change_set.execution}]")  # fmt: skip
            token = request.get("ClientRequestToken")
            stack.change_set_id = change_set.id
            if change_set.type == "CREATE":
                if stack.status != "REVIEW_IN_PROGRESS":
                    raise AwsError("ValidationError", f"Stack [{stack.name}] already exists")
                on_failure = "DO_NOTHING" if request.get("DisableRollback") else change_set.on_failure
                self.engine.create(stack, change_set.plan, on_failure, token)
            else:
                self.engine.demand_updatable(stack)
                self._demand_rollback(request)
                self.engine.update(stack, change_set.plan, token)
            stack.change_sets.clear()  # as in an account: executing one makes the others obsolete
            change_set.execution = "EXECUTE_COMPLETE"
            stack.change_sets[change_set.name] = change_set
        hold(stack)
        return ActionResult({})

    def create_stack(self) -> ActionResult:
        """CreateStack."""
        request = self._request()
        with self._home.lock:
            if self._home.find(request["StackName"]) is not None:
                raise AwsError("AlreadyExistsException", f"Stack [{request['StackName']}] already exists")
            stack = self.engine.new_stack(self._home, request["StackName"], _tags(request) or {})
            plan = self._plan(stack, request)
            stack.protected = bool(request.get("EnableTerminationProtection"))
            self._home.stacks.append(stack)
            on_failure = "DO_NOTHING" if request.get("DisableRollback") else request.get("OnFailure", "ROLLBACK")
            self.engine.create(stack, plan, on_failure, request.get("ClientRequestToken"))
        hold(stack)
        return ActionResult({"StackId": stack.id})

    def update_stack(self) -> ActionResult:
        """UpdateStack."""
        request = self._request()
        with self._home.lock:
            stack = self._home.find(request["StackName"])
            if stack is None or stack.status == "DELETE_COMPLETE":
                raise AwsError("ValidationError", f"Stack [{request['StackName']}] does not exist")
            self.engine.demand_updatable(stack)
            self._demand_rollback(request)
            plan = self._plan(stack, request)
            assert stack.plan is not None
            if not stack.plan.differs(plan):
                raise AwsError("ValidationError", "No updates are to be performed.")
            self.engine.update(stack, plan, request.get("ClientRequestToken"))
        hold(stack)
        return ActionResult({"StackId": stack.id})

    def delete_stack(self) -> ActionResult:
        """DeleteStack: an unknown one counts as deleted."""
        request = self._request()
        if request.get("DeletionMode", "STANDARD") not in ("STANDARD", "FORCE_DELETE_STACK"):
            raise NotRehearsed(f"DeletionMode {request['DeletionMode']}")
        with self._home.lock:
            stack = self._home.find(request["StackName"])
            if stack is None:
                return ActionResult({})
            retain = tuple(request.get("RetainResources") or ())
            force = request.get("DeletionMode") == "FORCE_DELETE_STACK"
            self.engine.delete(stack, retain, force=force, token=request.get("ClientRequestToken"))
        hold(stack)
        return ActionResult({})

    def update_termination_protection(self) -> ActionResult:
        """UpdateTerminationProtection."""
        stack = self._stack()
        stack.protected = bool(self._request()["EnableTerminationProtection"])
        return ActionResult({"StackId": stack.id})

    def describe_stacks(self) -> ActionResult:
        """DescribeStacks."""
        if self._request().get("StackName"):
            return ActionResult({"Stacks": [describing.stack(self._stack())]})
        living = [stack for stack in self._home.stacks if stack.status != "DELETE_COMPLETE"]
        return ActionResult({"Stacks": [describing.stack(stack) for stack in reversed(living)]})

    def list_stacks(self) -> ActionResult:
        """ListStacks."""
        wanted = self._request().get("StackStatusFilter")
        stacks = [stack for stack in reversed(self._home.stacks) if not wanted or stack.status in wanted]
        return ActionResult({"StackSummaries": [describing.stack_summary(stack) for stack in stacks]})

    def describe_stack_events(self) -> ActionResult:
        """DescribeStackEvents, newest first."""
        stack = self._stack("Stack [{name}] does not exist")
        return ActionResult({"StackEvents": [describing.event(stack, item) for item in reversed(stack.events)]})

    def describe_events(self) -> ActionResult:
        """DescribeEvents: the CDK CLI asks for findings of early validation, which the rehearsal has none of."""
        return ActionResult({"OperationEvents": []})

    def describe_stack_resources(self) -> ActionResult:
        """DescribeStackResources."""
        request = self._request()
        stack = (
            self._stack_of_physical(request["PhysicalResourceId"]) if "PhysicalResourceId" in request else self._stack()
        )
        wanted = request.get("LogicalResourceId")
        held = [item for item in describing.resources(stack) if wanted in (None, item.logical_id)]
        return ActionResult({"StackResources": [describing.resource(stack, item, "Timestamp") for item in held]})

    def describe_stack_resource(self) -> ActionResult:
        """DescribeStackResource."""
        stack, wanted = self._stack(), self._request()["LogicalResourceId"]
        for item in describing.resources(stack):
            if item.logical_id == wanted:
                return ActionResult({"StackResourceDetail": describing.resource(stack, item, "LastUpdatedTimestamp")})
        raise AwsError("ValidationError", f"Resource {wanted} does not exist for stack {stack.name}")

    def list_stack_resources(self) -> ActionResult:
        """ListStackResources."""
        stack = self._stack()
        items = [describing.resource(stack, item, "LastUpdatedTimestamp") for item in describing.resources(stack)]
        return ActionResult({"StackResourceSummaries": items})

    def list_exports(self) -> ActionResult:
        """ListExports."""
        listed = [
            {"ExportingStackId": stack.id, "Name": output.export, "Value": output.value}
            for stack, output in self._home.exports()
        ]
        return ActionResult({"Exports": sorted(listed, key=lambda item: str(item["Name"]))})

    def list_imports(self) -> ActionResult:
        """ListImports."""
        name = self._request()["ExportName"]
        importers = self._home.importers(name)
        if not importers:
            raise AwsError("ValidationError", f"Export '{name}' is not imported by any stack.")
        return ActionResult({"Imports": importers})

    def get_template(self) -> ActionResult:
        """GetTemplate."""
        if self._request().get("ChangeSetName"):
            body = self._change_set()[1].plan.template.body
        else:
            stack = self._stack()
            body = stack.plan.template.body if stack.plan else ""
        return ActionResult({"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]})

    def get_template_summary(self) -> ActionResult:
        """GetTemplateSummary."""
        return ActionResult(describing.template_summary(self._template()))

    def validate_template(self) -> ActionResult:
        """ValidateTemplate."""
        return ActionResult(describing.validated(self._template()))

    @property
    def _home(self) -> Region:
        return self.engine.region(self.current_account, self.region)

    def _request(self) -> dict[str, Any]:
        request: dict[str, Any] = self._get_params()
        for name in _UNHEARD:
            if request.get(name):
                raise NotRehearsed(f"CloudFormation's {name}")
        if request.get("RoleARN"):
            self.engine.demand_role(self._home, request["RoleARN"])
        return request

    def _plan(self, stack: Stack, request: dict[str, Any]) -> Any:
        given = {
            item["ParameterKey"]: None if item.get("UsePreviousValue") else item.get("ParameterValue", "")
            for item in request.get("Parameters") or ()
        }
        body = None if request.get("UsePreviousTemplate") else request.get("TemplateBody", "")
        return self.engine.prepare(stack, body, given, _tags(request), request.get("Capabilities") or ())

    def _template(self) -> Template:
        request = self._request()
        if request.get("StackName"):
            stack = self._stack()
            if stack.plan:
                return stack.plan.template
        try:
            return parse(request.get("TemplateBody", ""))
        except TemplateError as error:
            raise AwsError("ValidationError", str(error)) from None

    def _stack(self, unknown: str = "Stack with id {name} does not exist") -> Stack:
        name = self._request().get("StackName") or ""
        stack = self._home.find(name)
        if stack is None:
            raise AwsError("ValidationError", unknown.format(name=name))
        return stack

    def _stack_of_physical(self, physical_id: str) -> Stack:
        for stack in self._home.stacks:
            if any(item.physical_id == physical_id for item in stack.resources.values()):
                return stack
        raise AwsError("ValidationError", f"Stack for {physical_id} does not exist")

    def _change_set(self) -> tuple[Stack, ChangeSet]:
        request = self._request()
        wanted, of_stack = request["ChangeSetName"], request.get("StackName")
        stacks = self._home.stacks
        if of_stack:  # a name means a living stack: its dead namesakes had change sets of the same name
            chosen = self._home.find(of_stack)
            stacks = [chosen] if chosen else []
        for stack in stacks:
            for name, item in stack.change_sets.items():
                if wanted == item.id or (of_stack and wanted == name):
                    return stack, item
        raise AwsError("ChangeSetNotFound", f"ChangeSet [{wanted}] does not exist")

    @staticmethod
    def _demand_rollback(request: dict[str, Any]) -> None:
        if request.get("DisableRollback"):
            raise NotRehearsed("an update with DisableRollback")


def _tags(request: dict[str, Any]) -> dict[str, str] | None:
    return {tag["Key"]: tag["Value"] for tag in request["Tags"]} if request.get("Tags") else None


def install(endpoint: Callable[[], str]) -> Engine:
    """Put a fresh engine in the place of moto's CloudFormation; before moto's server answers its first request.

    `endpoint` gives the address of the server that the engine's own calls go to, for example http://localhost:5000.
    """
    bound: Any = type("CloudFormation", (CloudFormation,), {"engine": Engine(endpoint)})
    moto.cloudformation.urls.url_paths = {"{0}/$": bound.dispatch}
    engine: Engine = bound.engine
    return engine
