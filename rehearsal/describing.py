"""What the Describe and List actions of CloudFormation answer, in the shape of botocore's model."""

from typing import Any

from rehearsal.stack import ChangeSet, Event, Plan, Stack, StackResource
from rehearsal.template import Template

_NOT_CHECKED = {"StackDriftStatus": "NOT_CHECKED"}


def stack(item: Stack) -> dict[str, Any]:
    """One of DescribeStacks' Stacks."""
    document: dict[str, Any] = {
        **stack_summary(item),
        "ChangeSetId": item.change_set_id,
        "Description": item.plan.template.description or None if item.plan else None,
        "Parameters": _parameters(item.plan) if item.plan else [],
        "DisableRollback": item.on_failure == "DO_NOTHING",
        "RollbackConfiguration": {},
        "NotificationARNs": [],
        "Capabilities": list(item.plan.template.capabilities) if item.plan else [],
        "Outputs": [
            {"OutputKey": o.key, "OutputValue": o.value, "Description": o.description, "ExportName": o.export}
            for o in item.outputs
        ],
        "Tags": _tags(item.tags),
        "EnableTerminationProtection": item.protected,
    }
    document.pop("TemplateDescription")
    return document


def stack_summary(item: Stack) -> dict[str, Any]:
    """One of ListStacks' StackSummaries."""
    return {
        "StackId": item.id,
        "StackName": item.name,
        "TemplateDescription": item.plan.template.description or None if item.plan else None,
        "CreationTime": item.created,
        "LastUpdatedTime": item.updated,
        "DeletionTime": item.deleted,
        "StackStatus": item.status,
        "StackStatusReason": item.reason,
        "DriftInformation": _NOT_CHECKED,
    }


def event(item: Stack, told: Event) -> dict[str, Any]:
    """One of DescribeStackEvents' StackEvents."""
    return {
        "StackId": item.id,
        "EventId": told.id,
        "StackName": item.name,
        "LogicalResourceId": told.logical_id,
        "PhysicalResourceId": told.physical_id,
        "ResourceType": told.type,
        "Timestamp": told.at,
        "ResourceStatus": told.status,
        "ResourceStatusReason": told.reason,
        "ClientRequestToken": told.token,
        "OperationId": told.operation,
    }


def resources(item: Stack) -> list[StackResource]:
    """What the stack holds, or held before it was deleted."""
    held = item.gone if item.status in ("DELETE_COMPLETE", "ROLLBACK_COMPLETE") else item.resources
    return [resource for _, resource in sorted(held.items()) if resource.at is not None]


def resource(item: Stack, held: StackResource, time: str) -> dict[str, Any]:
    """One resource; `time` names the key of its timestamp, which differs between actions."""
    return {
        "StackName": item.name,
        "StackId": item.id,
        "LogicalResourceId": held.logical_id,
        "PhysicalResourceId": held.physical_id or None,
        "ResourceType": held.type,
        time: held.at,
        "ResourceStatus": held.status,
        "ResourceStatusReason": held.reason,
        "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
    }


def change_set(item: Stack, change: ChangeSet) -> dict[str, Any]:
    """DescribeChangeSet's answer."""
    return {
        **change_set_summary(item, change),
        "Parameters": _parameters(change.plan),
        "NotificationARNs": [],
        "RollbackConfiguration": {},
        "Capabilities": list(change.plan.template.capabilities),
        "Tags": _tags(change.plan.tags),
        "Changes": change.changes,
        "OnStackFailure": change.on_failure,
    }


def change_set_summary(item: Stack, change: ChangeSet) -> dict[str, Any]:
    """One of ListChangeSets' Summaries."""
    return {
        "ChangeSetName": change.name,
        "ChangeSetId": change.id,
        "StackId": item.id,
        "StackName": item.name,
        "Description": change.description,
        "CreationTime": change.created,
        "ExecutionStatus": change.execution,
        "Status": change.status,
        "StatusReason": change.reason,
        "IncludeNestedStacks": False,
    }


def template_summary(template: Template) -> dict[str, Any]:
    """GetTemplateSummary's answer."""
    return {
        **validated(template),
        "Parameters": [
            {
                "ParameterKey": name,
                "ParameterType": item.get("Type"),
                "DefaultValue": item.get("Default"),
                "Description": item.get("Description"),
                "NoEcho": bool(item.get("NoEcho", False)),
            }
            for name, item in template.parameters.items()
        ],
        "ResourceTypes": sorted({item.type for item in template.resources.values()}),
        "Version": "2010-09-09",
    }


def validated(template: Template) -> dict[str, Any]:
    """ValidateTemplate's answer."""
    needing = sorted({item.type for item in template.resources.values() if item.type.startswith("AWS::IAM::")})
    reason = f"The following resource(s) require capabilities: [{', '.join(needing)}]" if needing else None
    return {
        "Description": template.description or None,
        "Capabilities": list(template.capabilities),
        "CapabilitiesReason": reason,
        "Parameters": [
            {
                "ParameterKey": name,
                "DefaultValue": item.get("Default"),
                "Description": item.get("Description"),
                "NoEcho": bool(item.get("NoEcho", False)),
            }
            for name, item in template.parameters.items()
        ],
    }


def _parameters(plan: Plan) -> list[dict[str, Any]]:
    listed = []
    for name, text in plan.texts.items():
        value = plan.parameters[name]
        resolved = ",".join(value) if isinstance(value, list) else value
        hidden = bool(plan.template.parameters[name].get("NoEcho", False))
        entry = {"ParameterKey": name, "ParameterValue": "****" if hidden else text}
        if resolved != text and not hidden:
            entry["ResolvedValue"] = resolved
        listed.append(entry)
    return listed


def _tags(tags: Any) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
