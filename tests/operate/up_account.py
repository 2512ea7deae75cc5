"""An account in which a lab would come up, for tests that take one thing of it away."""

from datetime import timedelta
from typing import Any

from labs.names import PUBLIC_IMAGES
from tests.operate.scripted import NOW, Refusal

ZONES = {"us-east-1a": "use1-az1", "us-east-1b": "use1-az2", "us-east-1c": "use1-az3"}


def no_stack(params: dict[str, Any]) -> Refusal:
    return Refusal("ValidationError", f"Stack with id {params['StackName']} does not exist")


def stack(name: str = "Lab3Stack", status: str = "CREATE_COMPLETE", *, owner: str = "ada", **outputs: str):
    """DescribeStacks, where that stack stands alone."""
    described = {
        "StackName": name, "StackId": f"arn:{name}", "StackStatus": status, "CreationTime": NOW - timedelta(hours=1),
        "Tags": [{"Key": "rooflab:owner", "Value": owner}, {"Key": "rooflab:ttl-hours", "Value": "4"}],
        "Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()],
    }  # fmt: skip
    return lambda params: {"Stacks": [described]} if params["StackName"] == name else no_stack(params)


def quota(code: str, name: str, value: float) -> dict[str, Any]:
    return {"Quota": {"QuotaCode": code, "QuotaName": name, "Value": value, "ServiceCode": "ec2"}}


def quotas(**values: float):
    """GetServiceQuota: by code with "_" for "-", 1000 for all others."""
    return lambda params: quota(
        params["QuotaCode"], f"quota {params['QuotaCode']}", values.get(params["QuotaCode"].replace("-", "_"), 1000)
    )


def instance(kind: str, *, lifecycle: str = "", stack: str = "") -> dict[str, Any]:
    tags = [{"Key": "rooflab:stack", "Value": stack}] if stack else []
    return {"InstanceId": "i-1", "InstanceType": kind, "State": {"Name": "running"}, "Tags": tags} | (
        {"InstanceLifecycle": lifecycle} if lifecycle else {}
    )


def instances(*found: dict[str, Any]) -> dict[str, Any]:
    return {"Reservations": [{"Instances": list(found)}]}


def offerings(*zones: str):
    """DescribeInstanceTypeOfferings: those zones offer all that is asked for."""

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        types = params["Filters"][0]["Values"]
        return {"InstanceTypeOfferings": [{"Location": zone, "InstanceType": kind} for zone in zones for kind in types]}

    return answer


def scores(**by_zone: int) -> dict[str, Any]:
    rows = [{"AvailabilityZoneId": ZONES[f"us-east-1{zone}"], "Score": score} for zone, score in by_zone.items()]
    return {"SpotPlacementScores": rows}


def prices(**by_zone: float):
    """DescribeSpotPriceHistory: those prices now, twice as much two days ago."""

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        return {
            "SpotPriceHistory": [
                {
                    "AvailabilityZone": f"us-east-1{zone}", "SpotPrice": str(price), "InstanceType": kind,
                    "Timestamp": NOW - timedelta(hours=hours),
                }
                for kind in params["InstanceTypes"]
                for zone, now in by_zone.items()
                for hours, price in ((1, now), (50, now * 2))
            ]
        }  # fmt: skip

    return answer


def healthy(**more: Any) -> dict[str, Any]:
    """Answers of an account with room for any lab."""
    images = dict.fromkeys(PUBLIC_IMAGES.values(), "ami-0123456789abcdef0")
    return {
        "service-quotas:GetServiceQuota": quotas(),
        "ec2:DescribeInstances": instances(),
        "ec2:DescribeCapacityReservations": {"CapacityReservations": []},
        "ec2:DescribeAddresses": {"Addresses": []},
        "ec2:DescribeVpcs": {"Vpcs": [{"VpcId": "vpc-default"}]},
        "ec2:DescribeAvailabilityZones": {
            "AvailabilityZones": [
                {"ZoneName": name, "ZoneId": id, "State": "available"} for name, id in ZONES.items()
            ]
        },
        "ec2:DescribeInstanceTypeOfferings": offerings(*ZONES),
        "ec2:GetSpotPlacementScores": scores(a=3, b=9, c=9),
        "ec2:DescribeSpotPriceHistory": prices(a=1.5, b=2.0, c=1.8),
        "cloudformation:DescribeStacks": no_stack,
        "ssm:GetParameter": lambda params: (
            {"Parameter": {"Name": params["Name"], "Value": images[params["Name"]]}}
            if params["Name"] in images
            else Refusal("ParameterNotFound")
        ),
        **more,
    }  # fmt: skip
