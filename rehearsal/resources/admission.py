"""Who may talk to whom: security groups and their rules."""

from collections.abc import Mapping, Sequence
from typing import Any

from rehearsal.failure import Refused
from rehearsal.resources.handler import Call, Handler, retag, tag_specifications

Given = Mapping[str, Any]
_RULE = ("IpProtocol", "FromPort", "ToPort", "CidrIp", "CidrIpv6", "Description")
_INGRESS = (*_RULE, "SourceSecurityGroupId", "SourcePrefixListId")
_EGRESS = (*_RULE, "DestinationSecurityGroupId", "DestinationPrefixListId")


class SecurityGroup(Handler):
    type = "AWS::EC2::SecurityGroup"
    replaces = ("GroupDescription", "GroupName", "VpcId")
    updates = ("SecurityGroupIngress", "SecurityGroupEgress", "Tags")
    attributes = ("GroupId", "Id")
    named_by = "GroupName"

    def create(self, call: Call, given: Given) -> str:
        self._check(given)
        answer = call.api("ec2", "create_security_group", GroupName=given.get("GroupName") or call.name(255, False),
                          Description=given.get("GroupDescription"), VpcId=given.get("VpcId"),
                          TagSpecifications=tag_specifications("security-group", given))  # fmt: skip
        return str(answer["GroupId"])

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        if given.get("SecurityGroupEgress"):
            self._withdraw(call, physical_id, egress=True)  # rules of one's own replace the default "all outbound"
        self._authorise(call, physical_id, given)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"GroupId": physical_id, "Id": physical_id}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        self._check(new)
        for egress, name in ((False, "SecurityGroupIngress"), (True, "SecurityGroupEgress")):
            if old.get(name) == new.get(name):
                continue
            for rule in old.get(name) or ():
                call.remove("ec2", f"revoke_security_group_{'egress' if egress else 'ingress'}",
                            GroupId=physical_id, IpPermissions=[_permission(rule)])  # fmt: skip
            if egress and not old.get(name):
                self._withdraw(call, physical_id, egress=True)
            if egress and not new.get(name):
                call.api("ec2", "authorize_security_group_egress", GroupId=physical_id,
                         IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])  # fmt: skip
            self._authorise(call, physical_id, {name: new.get(name)})
        retag(call, physical_id, old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_security_group", GroupId=physical_id)

    def _check(self, given: Given) -> None:
        for name, known in (("SecurityGroupIngress", _INGRESS), ("SecurityGroupEgress", _EGRESS)):
            for rule in given.get(name) or ():
                unknown = sorted(set(rule) - set(known))
                if unknown:
                    raise Refused(f"{self.type}: property {name}/{unknown[0]} is not rehearsed")

    @staticmethod
    def _authorise(call: Call, physical_id: str, given: Given) -> None:
        for egress, name in ((False, "SecurityGroupIngress"), (True, "SecurityGroupEgress")):
            rules: Sequence[Given] = given.get(name) or ()
            if rules:
                call.api("ec2", f"authorize_security_group_{'egress' if egress else 'ingress'}",
                         GroupId=physical_id, IpPermissions=[_permission(rule) for rule in rules])  # fmt: skip

    @staticmethod
    def _withdraw(call: Call, physical_id: str, *, egress: bool) -> None:
        rules = call.api("ec2", "describe_security_group_rules",
                         Filters=[{"Name": "group-id", "Values": [physical_id]}])["SecurityGroupRules"]  # fmt: skip
        ids = [rule["SecurityGroupRuleId"] for rule in rules if rule["IsEgress"] == egress]
        if ids:
            call.api("ec2", "revoke_security_group_egress", GroupId=physical_id, SecurityGroupRuleIds=ids)


class Ingress(Handler):
    type = "AWS::EC2::SecurityGroupIngress"
    replaces = ("GroupId", *(name for name in _INGRESS if name != "Description"))
    fixed = ("Description",)
    attributes = ("Id",)
    direction = "ingress"

    def create(self, call: Call, given: Given) -> str:
        answer = call.api("ec2", f"authorize_security_group_{self.direction}", GroupId=given.get("GroupId"),
                          IpPermissions=[_permission(given)])  # fmt: skip
        return str(answer["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"Id": physical_id}

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", f"revoke_security_group_{self.direction}", GroupId=given["GroupId"],
                    SecurityGroupRuleIds=[physical_id])  # fmt: skip


class Egress(Ingress):
    type = "AWS::EC2::SecurityGroupEgress"
    replaces = ("GroupId", *(name for name in _EGRESS if name != "Description"))
    direction = "egress"


def _permission(rule: Given) -> dict[str, Any]:
    described = {"Description": rule["Description"]} if rule.get("Description") else {}
    permission: dict[str, Any] = {
        name: rule[name] for name in ("IpProtocol", "FromPort", "ToPort") if rule.get(name) is not None
    }
    for name, listed, key in (
        ("CidrIp", "IpRanges", "CidrIp"),
        ("CidrIpv6", "Ipv6Ranges", "CidrIpv6"),
        ("SourceSecurityGroupId", "UserIdGroupPairs", "GroupId"),
        ("DestinationSecurityGroupId", "UserIdGroupPairs", "GroupId"),
        ("SourcePrefixListId", "PrefixListIds", "PrefixListId"),
        ("DestinationPrefixListId", "PrefixListIds", "PrefixListId"),
    ):
        if rule.get(name):
            permission[listed] = [{key: rule[name], **described}]
    return permission


HANDLERS = (SecurityGroup, Ingress, Egress)
