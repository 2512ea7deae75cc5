"""Machines: launch templates, instances, fleets, placement groups."""

import base64
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.failure import Refused
from rehearsal.resources.handler import Call, Handler, is_gone, retag, tag_specifications

Given = Mapping[str, Any]


class PlacementGroup(Handler):
    type = "AWS::EC2::PlacementGroup"
    replaces = ("Strategy", "PartitionCount", "SpreadLevel", "Tags")
    attributes = ("GroupName", "GroupId")

    def create(self, call: Call, given: Given) -> str:
        name = call.name(255, False)
        wanted = {key: given.get(key) for key in ("Strategy", "PartitionCount", "SpreadLevel")}
        call.api("ec2", "create_placement_group", GroupName=name, **wanted,
                 TagSpecifications=tag_specifications("placement-group", given))  # fmt: skip
        return name

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        group = call.api("ec2", "describe_placement_groups", GroupNames=[physical_id])["PlacementGroups"][0]
        return {"GroupName": physical_id, "GroupId": group["GroupId"]}

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_placement_group", GroupName=physical_id)


class LaunchTemplate(Handler):
    """Every change of its data is a new version; the default version stays the first, as in an account."""

    type = "AWS::EC2::LaunchTemplate"
    replaces = ("LaunchTemplateName",)
    updates = ("LaunchTemplateData", "VersionDescription")
    fixed = ("TagSpecifications",)
    attributes = ("LaunchTemplateId", "LatestVersionNumber", "DefaultVersionNumber")
    named_by = "LaunchTemplateName"

    def create(self, call: Call, given: Given) -> str:
        answer = call.api("ec2", "create_launch_template",
                          LaunchTemplateName=given.get("LaunchTemplateName") or call.name(125, False),
                          LaunchTemplateData=given.get("LaunchTemplateData"),
                          VersionDescription=given.get("VersionDescription"),
                          TagSpecifications=given.get("TagSpecifications"))  # fmt: skip
        return str(answer["LaunchTemplate"]["LaunchTemplateId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        template = call.api("ec2", "describe_launch_templates", LaunchTemplateIds=[physical_id])["LaunchTemplates"][0]
        return {
            "LaunchTemplateId": physical_id,
            "LatestVersionNumber": str(template["LatestVersionNumber"]),
            "DefaultVersionNumber": str(template["DefaultVersionNumber"]),
        }

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        call.api("ec2", "create_launch_template_version", LaunchTemplateId=physical_id,
                 LaunchTemplateData=new.get("LaunchTemplateData"),
                 VersionDescription=new.get("VersionDescription"))  # fmt: skip

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "delete_launch_template", LaunchTemplateId=physical_id)


class Instance(Handler):
    type = "AWS::EC2::Instance"
    replaces = (
        "AvailabilityZone", "CpuOptions", "ImageId", "KeyName", "LaunchTemplate", "NetworkInterfaces",
        "PlacementGroupName", "PrivateIpAddress", "SubnetId",
    )  # fmt: skip
    updates = ("Tags",)
    fixed = (
        "BlockDeviceMappings", "DisableApiTermination", "EbsOptimized", "IamInstanceProfile",
        "InstanceInitiatedShutdownBehavior", "InstanceType", "MetadataOptions", "Monitoring",
        "SecurityGroupIds", "Tenancy", "UserData",
    )  # fmt: skip
    attributes = (
        "InstanceId", "PrivateIp", "PublicIp", "PrivateDnsName", "PublicDnsName", "AvailabilityZone", "VpcId"
    )  # fmt: skip

    def create(self, call: Call, given: Given) -> str:
        wanted = {name: value for name, value in given.items() if name != "Tags"}
        zone, group, tenancy = (wanted.pop(key, None) for key in ("AvailabilityZone", "PlacementGroupName", "Tenancy"))
        placement = {"AvailabilityZone": zone, "GroupName": group, "Tenancy": tenancy}
        wanted["Placement"] = {key: value for key, value in placement.items() if value is not None} or None
        if "Monitoring" in wanted:
            wanted["Monitoring"] = {"Enabled": wanted["Monitoring"]}
        if "IamInstanceProfile" in wanted:
            wanted["IamInstanceProfile"] = {"Name": wanted["IamInstanceProfile"]}
        if "UserData" in wanted:
            # boto3 encodes it on the way out, and a template holds it encoded already
            wanted["UserData"] = base64.b64decode(wanted["UserData"])
        if "NetworkInterfaces" in wanted:
            wanted["NetworkInterfaces"] = [_interface(item) for item in wanted["NetworkInterfaces"]]
        answer = call.api("ec2", "run_instances", MinCount=1, MaxCount=1, **wanted,
                          TagSpecifications=tag_specifications("instance", given))  # fmt: skip
        return str(answer["Instances"][0]["InstanceId"])

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        def running() -> bool:
            instance = _instances(call, [physical_id])[0]
            state = instance["State"]["Name"]
            if state in ("shutting-down", "terminated", "stopping", "stopped"):
                why = instance.get("StateReason", {}).get("Message") or instance.get("StateTransitionReason") or state
                raise Refused(f"{self.type}: {physical_id} did not stabilize: {why}")
            return bool(state == "running")

        call.wait(f"start of {physical_id}", running)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        instance = _instances(call, [physical_id])[0]
        return {
            "InstanceId": physical_id,
            "PrivateIp": instance.get("PrivateIpAddress", ""),
            "PublicIp": instance.get("PublicIpAddress", ""),
            "PrivateDnsName": instance.get("PrivateDnsName", ""),
            "PublicDnsName": instance.get("PublicDnsName", ""),
            "AvailabilityZone": instance["Placement"]["AvailabilityZone"],
            "VpcId": instance.get("VpcId", ""),
        }

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        retag(call, physical_id, old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("ec2", "terminate_instances", InstanceIds=[physical_id])
        _wait_terminated(call, [physical_id])


class Fleet(Handler):
    """A shortage is no error: CreateFleet answers with Errors, and the stack stands with too few nodes or none."""

    type = "AWS::EC2::EC2Fleet"
    replaces = (
        "LaunchTemplateConfigs", "OnDemandOptions", "ReplaceUnhealthyInstances", "SpotOptions", "TagSpecifications",
        "TerminateInstancesWithExpiration", "Type", "ValidFrom", "ValidUntil",
    )  # fmt: skip
    fixed = ("ExcessCapacityTerminationPolicy", "TargetCapacitySpecification")
    attributes = ("FleetId",)

    def create(self, call: Call, given: Given) -> str:
        if given.get("Type") != "instant":
            raise Refused(f"{self.type}: property Type={given.get('Type', 'maintain')} is not rehearsed, instant is")
        return str(call.api("ec2", "create_fleet", **given)["FleetId"])

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"FleetId": physical_id}

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        try:
            fleets = call.api("ec2", "describe_fleets", FleetIds=[physical_id])["Fleets"]
        except ClientError as error:
            if not is_gone(error):
                raise
            return
        instances = [name for fleet in fleets for group in fleet.get("Instances", ()) for name in group["InstanceIds"]]
        call.remove("ec2", "delete_fleets", FleetIds=[physical_id], TerminateInstances=True)
        if instances:
            _wait_terminated(call, instances)


def _interface(item: Given) -> dict[str, Any]:
    renamed = {"GroupSet": "Groups"}
    return {renamed.get(name, name): value for name, value in item.items()}


def _instances(call: Call, names: list[str]) -> list[dict[str, Any]]:
    answer = call.api("ec2", "describe_instances", InstanceIds=names)
    return [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]


def _wait_terminated(call: Call, names: list[str]) -> None:
    call.wait_gone(
        f"termination of {', '.join(names)}",
        lambda: all(instance["State"]["Name"] == "terminated" for instance in _instances(call, names)),
    )


HANDLERS = (PlacementGroup, LaunchTemplate, Instance, Fleet)
