"""What CloudFormation does to a stack: create, update, roll back, delete. One resource after another, always.

A resource waits for all that it needs; those that need nothing of each other follow the template's order. That
makes a run repeatable: ids are drawn in the same order each time.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rehearsal.failure import Failed, failed_to
from rehearsal.intrinsics import TemplateError
from rehearsal.resources.handler import Cloud
from rehearsal.stack import Output, Plan, Stack, StackResource
from rehearsal.template import needs, order
from rehearsal.worker import Worker

Journal = list[tuple[StackResource | None, StackResource]]
"""What an update did, in order: each resource as it was (None: it was not) and as it was to be."""


class Operation:
    """One operation on one stack. The stack's status is IN_PROGRESS when a method begins, final when it returns."""

    def __init__(self, stack: Stack, cloud: Cloud) -> None:
        self.stack = stack
        self.worker = Worker(stack, cloud)

    def create(self, plan: Plan) -> None:
        """Make all resources; on a failure do what `stack.on_failure` says."""
        stack = self.stack
        stack.plan, stack.imports = plan, set(plan.imports)
        why = None
        try:
            self._demand_imports(plan)
            for name in _ordered(plan):
                self.worker.make(plan, self.worker.fresh(plan, name))
            stack.outputs = self._outputs(plan)
        except (Failed, TemplateError) as error:
            why = str(error)
        with stack.region.lock:
            if stack.cancelled.is_set():
                return  # the deletion that overtook this creation takes over
            if why is None:
                stack.set_status("CREATE_COMPLETE")
                return
            if stack.on_failure == "DO_NOTHING":
                stack.set_status("CREATE_FAILED", why)
                return
            verb = "DELETE" if stack.on_failure == "DELETE" else "ROLLBACK"
            stack.set_status(f"{verb}_IN_PROGRESS", f"{why.rstrip()} {verb.capitalize()} requested by user.")
        self._remove_all(verb, retain=("Retain",))  # RetainExceptOnCreate: not what a failed creation made

    def update(self, plan: Plan) -> None:
        """Bring the stack to a new plan, or back to where it was."""
        stack, before = self.stack, self.stack.plan
        assert before is not None
        journal: Journal = []
        stack.imports |= plan.imports
        try:
            self._demand_imports(plan)
            self._change_all(before, plan, journal)
            outputs = self._outputs(plan)
            self._demand_exports_free(outputs)
        except (Failed, TemplateError) as error:
            stack.imports = set(before.imports)
            self._roll_back(journal, str(error))
            return
        stack.plan, stack.outputs, stack.tags, stack.imports = plan, outputs, dict(plan.tags), set(plan.imports)
        stack.set_status("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        surplus: dict[str, StackResource] = {}
        for old, new in journal:
            if old is not None and old.physical_id != new.physical_id:
                policy = old.definition.update_replace_policy
                surplus[old.logical_id] = replace(old, definition=replace(old.definition, deletion_policy=policy))
        for name in [name for name in stack.resources if name not in plan.active]:
            surplus[name] = stack.resources.pop(name)
        self.worker.remove(surplus, keep=_is_kept)
        stack.set_status("UPDATE_COMPLETE")

    def delete(self, retain: Iterable[str] = (), *, force: bool = False) -> None:
        """Remove all resources; what a Retain policy or `retain` names stays and is forgotten."""
        self._remove_all("DELETE", retain=("Retain", "RetainExceptOnCreate"), names=frozenset(retain), force=force)

    def _remove_all(
        self, verb: str, *, retain: tuple[str, ...], names: frozenset[str] = frozenset(), force: bool = False
    ) -> None:
        stack = self.stack

        def keep(item: StackResource) -> bool:
            return item.logical_id in names or item.definition.deletion_policy in retain

        stuck = self.worker.remove(stack.resources, keep, force=force)
        stack.gone.update(stack.resources)
        for name in [name for name in stack.resources if name not in stuck]:
            del stack.resources[name]
        if stuck:
            stack.set_status(f"{verb}_FAILED", failed_to("delete", *stuck))
            return
        stack.outputs, stack.imports = [], set()
        stack.set_status(f"{verb}_COMPLETE")

    def _change_all(self, before: Plan, plan: Plan, journal: Journal) -> None:
        """Go through the new plan; what neither changed nor needs something that did is left alone."""
        stack = self.stack
        inputs_changed = (before.parameters, before.tags, before.template.mappings) != (
            plan.parameters, plan.tags, plan.template.mappings
        )  # fmt: skip
        touched: set[str] = set()
        for name in _ordered(plan):
            held, wanted = stack.resources.get(name), self.worker.fresh(plan, name)
            if held is None:
                journal.append((None, wanted))
                self.worker.make(plan, wanted)
                touched.add(name)
            elif (
                inputs_changed
                or touched & set(wanted.needs)
                or held.definition.properties != wanted.definition.properties
            ):
                journal.append((held, wanted))
                if self.worker.change(plan, held, wanted):
                    touched.add(name)
            else:
                quiet = replace(held, definition=wanted.definition, needs=wanted.needs)
                journal.append((held, quiet))
                stack.resources[name] = quiet

    def _roll_back(self, journal: Journal, why: str) -> None:
        stack = self.stack
        stack.set_status("UPDATE_ROLLBACK_IN_PROGRESS", why)
        surplus: dict[str, StackResource] = {}
        failed = []
        for old, new in journal:
            if new.physical_id and (old is None or old.physical_id != new.physical_id):
                surplus[new.logical_id] = new
            if old is None:
                stack.resources.pop(new.logical_id, None)
                continue
            try:
                self.worker.restore(old, new)
            except Failed:
                failed.append(old.logical_id)
        if failed:
            stack.set_status("UPDATE_ROLLBACK_FAILED", failed_to("update", *failed))
            return
        stack.set_status("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        self.worker.remove(surplus, keep=lambda _: False)
        stack.set_status("UPDATE_ROLLBACK_COMPLETE")

    def _demand_imports(self, plan: Plan) -> None:
        for name in sorted(plan.imports):
            self.stack.region.import_value(name)

    def _outputs(self, plan: Plan) -> list[Output]:
        scope, outputs = self.worker.scope(plan), []
        for key in plan.outputs:
            written = plan.template.outputs[key]
            export = scope.resolve(written["Export"]["Name"]) if "Export" in written else None
            for other, output in self.stack.region.exports():
                if export and output.export == export and other is not self.stack:
                    raise TemplateError(f"Export with name {export} is already exported by stack {other.name}.")
            value: Any = scope.resolve(written["Value"])
            if isinstance(value, (list, dict)):
                raise TemplateError(f"Template format error: Output {key} is malformed: its value is not text.")
            outputs.append(Output(key=key, value=str(value), description=written.get("Description"), export=export))
        return outputs

    def _demand_exports_free(self, outputs: list[Output]) -> None:
        after = {output.export: output.value for output in outputs if output.export}
        for output in self.stack.outputs:
            export = output.export or ""
            users = [name for name in self.stack.region.importers(export) if name != self.stack.name]
            if not users or after.get(export) == output.value:
                continue
            used = f"as it is in use by {', '.join(users)}."
            if export in after:
                raise TemplateError(f"Cannot update export {export} {used}")
            raise TemplateError(f"Export {export} cannot be deleted {used}")


def _ordered(plan: Plan) -> list[str]:
    return order({name: needs(item, plan.active) for name, item in plan.active.items()})


def _is_kept(item: StackResource) -> bool:
    return item.definition.deletion_policy in ("Retain", "RetainExceptOnCreate")
