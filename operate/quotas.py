"""Quotas that a lab needs room in: vCPUs by family and market, Elastic IPs, VPCs.

Quotas are counted in vCPUs of running instances, spot and on demand apart:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html#ec2-on-demand-instances-limits,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-spot-limits.html
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from labs.catalog import Lab
from labs.instances import instance_types
from operate.account import Account
from operate.check import Check, failed, passed, warned


@dataclass(frozen=True, kw_only=True)
class Quota:
    """One quota of an account in a region."""

    service: str
    """Service Quotas' code of the service: "ec2" or "vpc"."""
    code: str
    """For example "L-DB2E81BA"; "" where only the name is known."""
    name: str
    limit: float | None = None
    """In its own unit; None: not known."""

    def request(self, wanted: float, region: str) -> str:
        """The command that asks for so much of it."""
        return (
            f"aws service-quotas request-service-quota-increase --region {region} --service-code {self.service} "
            f"--quota-code {self.code} --desired-value {math.ceil(wanted)}"
        )


_STANDARD = "Standard (A, C, D, H, I, M, R, T, Z)"
ON_DEMAND = {
    "G": Quota(service="ec2", code="L-DB2E81BA", name="Running On-Demand G and VT instances"),
    "P": Quota(service="ec2", code="L-417A185B", name="Running On-Demand P instances"),
    "standard": Quota(service="ec2", code="L-1216C47A", name=f"Running On-Demand {_STANDARD} instances"),
}
"""By class of families. Names and codes: `aws service-quotas list-service-quotas --service-code ec2`."""
SPOT = {
    "G": Quota(service="ec2", code="L-3819A6DF", name="All G and VT Spot Instance Requests"),
    "P4": Quota(service="ec2", code="L-7212CCBC", name="All P4, P3 and P2 Spot Instance Requests"),
    "P5": Quota(service="ec2", code="L-C4BD4855", name="All P5 Spot Instance Requests"),
    "P6": Quota(service="ec2", code="", name="All P6 Spot Instance Requests"),
    "standard": Quota(service="ec2", code="L-34B43A08", name=f"All {_STANDARD} Spot Instance Requests"),
}
"""The same for spot, where P is counted by generation; P6's code is looked up by its name."""
ADDRESSES = Quota(service="ec2", code="L-0263D0A3", name="EC2-VPC Elastic IPs")
VPCS = Quota(service="vpc", code="L-F678F1CE", name="VPCs per Region")
_RUNNING = ["pending", "running", "stopping", "shutting-down"]
_ASK = "ask for ec2:DescribeInstances and servicequotas:GetServiceQuota, or read the quota in the console"


def quota_of(instance_type: str, *, spot: bool) -> Quota:
    """The vCPU quota that instances of that type count towards, its limit not yet known."""
    family = re.match(r"[a-z]+\d*", instance_type)
    assert family, instance_type
    letters, digits = re.fullmatch(r"([a-z]+)(\d*)", family[0]).groups()  # type: ignore[union-attr]  # it just matched
    if letters in ("g", "gr", "vt"):
        kind = "G"
    elif letters == "p":
        kind = "P" if not spot else "P4" if digits in ("2", "3", "4") else f"P{digits}"
    else:
        kind = "standard"
    table = SPOT if spot else ON_DEMAND
    return table.get(kind) or Quota(service="ec2", code="", name=f"All {kind} Spot Instance Requests")


def read(account: Account, quota: Quota) -> Quota:
    """The quota with its limit, the account's own where it has one, else AWS's default.

    Raises:
        ClientError, BotoCoreError: AWS denies or does not answer it.
    """
    client = account.client("service-quotas")
    if not quota.code:
        pages = client.get_paginator("list_service_quotas").paginate(ServiceCode=quota.service)
        found = next((row for page in pages for row in page["Quotas"] if row["QuotaName"] == quota.name), None)
        if found is None:
            return quota
    else:
        try:
            found = client.get_service_quota(ServiceCode=quota.service, QuotaCode=quota.code)["Quota"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchResourceException":
                raise
            # An account that never changed a quota may have only the default:
            # https://docs.aws.amazon.com/servicequotas/2019-06-24/apireference/API_GetServiceQuota.html
            found = client.get_aws_default_service_quota(ServiceCode=quota.service, QuotaCode=quota.code)["Quota"]
    return Quota(service=quota.service, code=found["QuotaCode"], name=found["QuotaName"], limit=found["Value"])


def check_vcpus(account: Account, lab: Lab) -> list[Check]:
    """Whether the lab's nodes fit below the vCPU quota of each of its types, beside what runs.

    The nodes of this very lab, where it stands, are counted as running. A reservation's instances are in the quota
    since it was made, and a block's were bounded when it was bought.
    """
    if ":" in lab.capacity:
        return [passed("vCPU quota", f"not needed: {lab.capacity} was counted when it was made")]
    spot = lab.capacity == "spot"
    needs: dict[Quota, int] = {}
    for name in lab.types:  # a fleet takes one of them: the largest must fit
        quota = quota_of(name, spot=spot)
        needs[quota] = max(needs.get(quota, 0), lab.nodes * instance_types()[name].vcpus)
    used = running_vcpus(account, lab.stack)
    return [_vcpus(account, read(account, quota), need, used.get(quota.name, 0)) for quota, need in needs.items()]


def _vcpus(account: Account, quota: Quota, need: int, used: int) -> Check:
    name = "vCPU quota"
    if quota.limit is None:
        return warned(name, f"no quota is called {quota.name!r} here", "look for it in the Service Quotas console")
    what = f"{quota.name} ({quota.code}): {need} wanted, {quota.limit:g} allowed, {used} in use"
    if used + need <= quota.limit:
        return passed(name, what)
    return failed(name, f"{what}, {used + need - quota.limit:g} short",
                  f"ask for more, which may take days: {quota.request(used + need, account.region)}")  # fmt: skip


def running_vcpus(account: Account, except_stack: str = "") -> dict[str, int]:
    """vCPUs in use by name of the quota that they count towards, without those of one stack.

    On demand, what an active reservation holds unused counts as well:
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-capacity-reservations.html#capacity-reservations-limits
    """
    ec2, used = account.client("ec2"), dict[str, int]()

    def add(kind: str, spot: bool, vcpus: int) -> None:
        name = quota_of(kind, spot=spot).name
        used[name] = used.get(name, 0) + vcpus

    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "instance-state-name", "Values": _RUNNING}]
    )
    for instance in (item for page in pages for group in page["Reservations"] for item in group["Instances"]):
        market = instance.get("InstanceLifecycle", "")
        if market != "capacity-block" and except_stack not in _stacks(instance.get("Tags", ())):
            add(instance["InstanceType"], market == "spot", _vcpus_of(instance))
    for page in ec2.get_paginator("describe_capacity_reservations").paginate():
        for item in page["CapacityReservations"]:
            kind = instance_types().get(item["InstanceType"])
            unused = int(item.get("AvailableInstanceCount", 0))
            if kind and unused and item["State"] == "active" and item.get("ReservationType") != "capacity-block":
                add(kind.name, False, unused * kind.vcpus)
    return used


def _stacks(tags: Iterable[dict[str, str]]) -> set[str]:
    return {tag["Value"] for tag in tags if tag["Key"] == "rooflab:stack"}


def _vcpus_of(instance: dict[str, Any]) -> int:
    known = instance_types().get(instance["InstanceType"])
    if known:
        return known.vcpus
    options = instance.get("CpuOptions", {})
    return int(options.get("CoreCount", 1)) * int(options.get("ThreadsPerCore", 2))


def check_addresses(account: Account, lab: Lab) -> list[Check]:
    """Whether the lab's Elastic IPs fit below the quota; only the way "elastic" needs any."""
    if lab.way != "elastic":
        return [passed("Elastic IPs", f"none needed: nodes are reached by the way {lab.way!r}")]
    held = account.client("ec2").describe_addresses()["Addresses"]
    others = sum(1 for address in held if lab.stack not in _stacks(address.get("Tags", ())))
    quota = read(account, ADDRESSES)
    return [_counted(account, "Elastic IPs", quota, lab.nodes, others,
                     "release one, write -c access=eice, or ask for more")]  # fmt: skip


def check_vpcs(account: Account, lab: Lab) -> list[Check]:
    """Whether the lab's VPC fits below the quota."""
    pages = account.client("ec2").get_paginator("describe_vpcs").paginate()
    held = [vpc for page in pages for vpc in page["Vpcs"]]
    others = sum(1 for vpc in held if lab.stack not in _stacks(vpc.get("Tags", ())))
    return [_counted(account, "VPCs", read(account, VPCS), 1, others, "delete one that nobody uses, or ask for more")]


def _counted(account: Account, name: str, quota: Quota, need: int, used: int, remedy: str) -> Check:
    if quota.limit is None:
        return warned(name, f"the quota {quota.name!r} is not known", _ASK)
    what = f"{quota.name} ({quota.code}): {need} wanted, {quota.limit:g} allowed, {used} in use"
    if used + need <= quota.limit:
        return passed(name, what)
    return failed(name, what, f"{remedy}: {quota.request(used + need, account.region)}")
