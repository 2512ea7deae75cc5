"""What watches over a lab: functions, schedules, log groups, parameters."""

import io
import zipfile
from collections.abc import Mapping
from typing import Any

from rehearsal.failure import Refused
from rehearsal.resources.handler import Call, Handler

Given = Mapping[str, Any]


class Function(Handler):
    """A Lambda function whose code stands in the template."""

    type = "AWS::Lambda::Function"
    replaces = ("FunctionName",)
    updates = (
        "Code", "Description", "Environment", "EphemeralStorage", "Handler", "LoggingConfig", "MemorySize",
        "ReservedConcurrentExecutions", "Role", "Runtime", "Tags", "Timeout",
    )  # fmt: skip
    fixed = ("Architectures",)
    attributes = ("Arn",)
    named_by = "FunctionName"
    _configured = (
        "Description", "Environment", "EphemeralStorage", "Handler", "LoggingConfig", "MemorySize", "Role", "Runtime",
        "Timeout",
    )  # fmt: skip

    def create(self, call: Call, given: Given) -> str:
        name = given.get("FunctionName") or call.name(64, False)
        wanted = {key: given.get(key) for key in (*self._configured, *self.fixed)}
        call.api("lambda", "create_function", FunctionName=name, Code={"ZipFile": self._archive(given)}, **wanted,
                 Tags=_tag_map(given) or None)  # fmt: skip
        return str(name)

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        if "ReservedConcurrentExecutions" in given:
            call.api("lambda", "put_function_concurrency", FunctionName=physical_id,
                     ReservedConcurrentExecutions=given["ReservedConcurrentExecutions"])  # fmt: skip

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        answer = call.api("lambda", "get_function_configuration", FunctionName=physical_id)
        return {"Arn": answer["FunctionArn"]}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        if old.get("Code") != new.get("Code"):
            call.api("lambda", "update_function_code", FunctionName=physical_id, ZipFile=self._archive(new))
        if any(old.get(key) != new.get(key) for key in self._configured):
            wanted = {key: new.get(key) for key in self._configured}
            call.api("lambda", "update_function_configuration", FunctionName=physical_id, **wanted)
        if "ReservedConcurrentExecutions" in old and "ReservedConcurrentExecutions" not in new:
            call.remove("lambda", "delete_function_concurrency", FunctionName=physical_id)
        self.complete(call, physical_id, new)
        before, after = _tag_map(old), _tag_map(new)
        if set(before) - set(after):
            call.api("lambda", "untag_resource", Resource=call.attributes["Arn"],
                     TagKeys=sorted(set(before) - set(after)))  # fmt: skip
        if after != before and after:
            call.api("lambda", "tag_resource", Resource=call.attributes["Arn"], Tags=after)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("lambda", "delete_function", FunctionName=physical_id)

    def _archive(self, given: Given) -> bytes:
        code = given.get("Code") or {}
        unknown = sorted(set(code) - {"ZipFile"})
        if unknown or "ZipFile" not in code:
            raise Refused(f"{self.type}: property Code/{unknown[0] if unknown else 'ZipFile'} is not rehearsed, "
                          "code in the template (Code/ZipFile) is")  # fmt: skip
        if not str(given.get("Runtime")).startswith("python"):
            raise Refused(f"{self.type}: property Runtime={given.get('Runtime')} is not rehearsed, python is")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo("index.py"), code["ZipFile"])  # dated 1980: one text, one hash
        return buffer.getvalue()


class Permission(Handler):
    type = "AWS::Lambda::Permission"
    replaces = ("Action", "FunctionName", "Principal", "SourceAccount", "SourceArn")
    attributes = ("Id",)

    def create(self, call: Call, given: Given) -> str:
        name = call.name(100, False)
        call.api("lambda", "add_permission", StatementId=name, **given)
        return name

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Id": physical_id}

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("lambda", "remove_permission", FunctionName=given["FunctionName"], StatementId=physical_id)


class Schedule(Handler):
    type = "AWS::Scheduler::Schedule"
    replaces = ("Name",)
    updates = (
        "Description", "EndDate", "FlexibleTimeWindow", "KmsKeyArn", "ScheduleExpression",
        "ScheduleExpressionTimezone", "StartDate", "State", "Target",
    )  # fmt: skip
    fixed = ("GroupName",)
    attributes = ("Arn",)
    named_by = "Name"

    def create(self, call: Call, given: Given) -> str:
        name = given.get("Name") or call.name(64, False)
        call.api("scheduler", "create_schedule", **{**given, "Name": name})
        return str(name)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        found = call.api("scheduler", "get_schedule", Name=physical_id, GroupName=given.get("GroupName"))
        return {"Arn": found["Arn"]}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        call.api("scheduler", "update_schedule", **{**new, "Name": physical_id})

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("scheduler", "delete_schedule", Name=physical_id, GroupName=given.get("GroupName"))


class LogGroup(Handler):
    type = "AWS::Logs::LogGroup"
    replaces = ("LogGroupName",)
    updates = ("RetentionInDays", "Tags")
    fixed = ("LogGroupClass",)
    attributes = ("Arn",)
    named_by = "LogGroupName"

    def create(self, call: Call, given: Given) -> str:
        name = given.get("LogGroupName") or call.name(512, False)
        call.api("logs", "create_log_group", logGroupName=name, logGroupClass=given.get("LogGroupClass"),
                 tags=_tag_map(given) or None)  # fmt: skip
        return str(name)

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        if "RetentionInDays" in given:
            call.api("logs", "put_retention_policy", logGroupName=physical_id,
                     retentionInDays=given["RetentionInDays"])  # fmt: skip

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Arn": call.arn("logs", f"log-group:{physical_id}:*")}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        if "RetentionInDays" in old and "RetentionInDays" not in new:
            call.api("logs", "delete_retention_policy", logGroupName=physical_id)
        self.complete(call, physical_id, new)
        arn = call.arn("logs", f"log-group:{physical_id}")
        before, after = _tag_map(old), _tag_map(new)
        if set(before) - set(after):
            call.api("logs", "untag_resource", resourceArn=arn, tagKeys=sorted(set(before) - set(after)))
        if after != before and after:
            call.api("logs", "tag_resource", resourceArn=arn, tags=after)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("logs", "delete_log_group", logGroupName=physical_id)


class Parameter(Handler):
    type = "AWS::SSM::Parameter"
    replaces = ("Name",)
    updates = ("AllowedPattern", "DataType", "Description", "Tier", "Type", "Value")
    fixed = ("Tags",)
    attributes = ("Type", "Value")
    named_by = "Name"
    tags_as_map = True

    def create(self, call: Call, given: Given) -> str:
        name = given.get("Name") or call.name(512, False)
        wanted = {key: given.get(key) for key in self.updates}
        tags = [{"Key": key, "Value": value} for key, value in (given.get("Tags") or {}).items()]
        call.api("ssm", "put_parameter", Name=name, **wanted, Tags=tags or None)
        return str(name)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Type": given.get("Type"), "Value": given.get("Value")}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        call.api(
            "ssm", "put_parameter", Name=physical_id, Overwrite=True, **{key: new.get(key) for key in self.updates}
        )

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ssm", "delete_parameter", Name=physical_id)


class Metadata(Handler):
    """CDK's note about the constructs in use: nothing stands behind it."""

    type = "AWS::CDK::Metadata"
    updates = ("Analytics",)

    def create(self, call: Call, given: Given) -> str:
        return call.name(64, False)

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        return

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        return


def _tag_map(given: Given) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in given.get("Tags") or ()}


HANDLERS = (Function, Permission, Schedule, LogGroup, Parameter, Metadata)
