"""Who may do what: IAM roles, policies and instance profiles."""

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.resources.handler import Call, Handler, is_gone

Given = Mapping[str, Any]


class Role(Handler):
    type = "AWS::IAM::Role"
    replaces = ("Path", "RoleName")
    updates = ("AssumeRolePolicyDocument", "Description", "ManagedPolicyArns", "MaxSessionDuration", "Policies", "Tags")
    fixed = ("PermissionsBoundary",)
    attributes = ("Arn", "RoleId")
    named_by = "RoleName"

    def create(self, call: Call, given: Given) -> str:
        name = given.get("RoleName") or call.name(64, False)
        wanted = {key: given.get(key) for key in ("Path", "Description", "MaxSessionDuration", "PermissionsBoundary")}
        call.api("iam", "create_role", RoleName=name, **wanted, Tags=given.get("Tags") or None,
                 AssumeRolePolicyDocument=json.dumps(given.get("AssumeRolePolicyDocument")))  # fmt: skip
        return str(name)

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        for arn in given.get("ManagedPolicyArns") or ():
            call.api("iam", "attach_role_policy", RoleName=physical_id, PolicyArn=arn)
        for policy in given.get("Policies") or ():
            call.api("iam", "put_role_policy", RoleName=physical_id, PolicyName=policy.get("PolicyName"),
                     PolicyDocument=json.dumps(policy.get("PolicyDocument")))  # fmt: skip

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        role = call.api("iam", "get_role", RoleName=physical_id)["Role"]
        return {"Arn": role["Arn"], "RoleId": role["RoleId"]}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        call.api("iam", "update_assume_role_policy", RoleName=physical_id,
                 PolicyDocument=json.dumps(new.get("AssumeRolePolicyDocument")))  # fmt: skip
        call.api("iam", "update_role", RoleName=physical_id, Description=new.get("Description", ""),
                 MaxSessionDuration=new.get("MaxSessionDuration", 3600))  # fmt: skip
        for arn in set(old.get("ManagedPolicyArns") or ()) - set(new.get("ManagedPolicyArns") or ()):
            call.remove("iam", "detach_role_policy", RoleName=physical_id, PolicyArn=arn)
        kept = {policy["PolicyName"] for policy in new.get("Policies") or ()}
        for policy in old.get("Policies") or ():
            if policy["PolicyName"] not in kept:
                call.remove("iam", "delete_role_policy", RoleName=physical_id, PolicyName=policy["PolicyName"])
        self.complete(call, physical_id, new)
        dropped = sorted({t["Key"] for t in old.get("Tags") or ()} - {t["Key"] for t in new.get("Tags") or ()})
        if dropped:
            call.api("iam", "untag_role", RoleName=physical_id, TagKeys=dropped)
        if new.get("Tags"):
            call.api("iam", "tag_role", RoleName=physical_id, Tags=new["Tags"])

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        for arn in given.get("ManagedPolicyArns") or ():
            call.remove("iam", "detach_role_policy", RoleName=physical_id, PolicyArn=arn)
        for policy in given.get("Policies") or ():
            call.remove("iam", "delete_role_policy", RoleName=physical_id, PolicyName=policy["PolicyName"])
        call.remove("iam", "delete_role", RoleName=physical_id)


class Policy(Handler):
    """An inline policy, written into each role it names."""

    type = "AWS::IAM::Policy"
    updates = ("PolicyDocument", "Roles")
    fixed = ("PolicyName",)

    def create(self, call: Call, given: Given) -> str:
        self.update(call, "", {}, given)
        return call.name(128, False)

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        for role in set(old.get("Roles") or ()) - set(new.get("Roles") or ()):
            call.remove("iam", "delete_role_policy", RoleName=role, PolicyName=old["PolicyName"])
        for role in new.get("Roles") or ():
            call.api("iam", "put_role_policy", RoleName=role, PolicyName=new.get("PolicyName"),
                     PolicyDocument=json.dumps(new.get("PolicyDocument")))  # fmt: skip

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        for role in given.get("Roles") or ():
            call.remove("iam", "delete_role_policy", RoleName=role, PolicyName=given["PolicyName"])


class ManagedPolicy(Handler):
    type = "AWS::IAM::ManagedPolicy"
    replaces = ("Description", "ManagedPolicyName", "Path")
    updates = ("Roles",)
    fixed = ("PolicyDocument",)
    attributes = ("PolicyArn", "PolicyId")
    named_by = "ManagedPolicyName"

    def create(self, call: Call, given: Given) -> str:
        answer = call.api("iam", "create_policy", PolicyName=given.get("ManagedPolicyName") or call.name(128, False),
                          Path=given.get("Path"), Description=given.get("Description"),
                          PolicyDocument=json.dumps(given.get("PolicyDocument")))  # fmt: skip
        return str(answer["Policy"]["Arn"])

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        for role in given.get("Roles") or ():
            call.api("iam", "attach_role_policy", RoleName=role, PolicyArn=physical_id)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        policy = call.api("iam", "get_policy", PolicyArn=physical_id)["Policy"]
        return {"PolicyArn": physical_id, "PolicyId": policy["PolicyId"]}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        for role in set(old.get("Roles") or ()) - set(new.get("Roles") or ()):
            call.remove("iam", "detach_role_policy", RoleName=role, PolicyArn=physical_id)
        self.complete(call, physical_id, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        for role in given.get("Roles") or ():
            call.remove("iam", "detach_role_policy", RoleName=role, PolicyArn=physical_id)
        call.remove("iam", "delete_policy", PolicyArn=physical_id)


class InstanceProfile(Handler):
    type = "AWS::IAM::InstanceProfile"
    replaces = ("InstanceProfileName", "Path")
    updates = ("Roles",)
    attributes = ("Arn",)
    named_by = "InstanceProfileName"

    def create(self, call: Call, given: Given) -> str:
        name = given.get("InstanceProfileName") or call.name(128, False)
        call.api("iam", "create_instance_profile", InstanceProfileName=name, Path=given.get("Path"))
        return str(name)

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        for role in given.get("Roles") or ():
            call.api("iam", "add_role_to_instance_profile", InstanceProfileName=physical_id, RoleName=role)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        profile = call.api("iam", "get_instance_profile", InstanceProfileName=physical_id)
        return {"Arn": profile["InstanceProfile"]["Arn"]}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        self._empty(call, physical_id)
        self.complete(call, physical_id, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        self._empty(call, physical_id)
        call.remove("iam", "delete_instance_profile", InstanceProfileName=physical_id)

    @staticmethod
    def _empty(call: Call, physical_id: str) -> None:
        try:
            profile = call.api("iam", "get_instance_profile", InstanceProfileName=physical_id)["InstanceProfile"]
        except ClientError as error:
            if not is_gone(error):
                raise
            return
        for role in profile["Roles"]:
            call.remove("iam", "remove_role_from_instance_profile", InstanceProfileName=physical_id,
                        RoleName=role["RoleName"])  # fmt: skip


HANDLERS = (Role, Policy, ManagedPolicy, InstanceProfile)
