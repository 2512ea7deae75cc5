"""Quotas of the account: what Service Quotas shows and what EC2 enforces.

Codes: https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html. Limits are what an account has
that asked for GPUs; a new account's are 0 for all of those.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from moto.core.responses import ActionResult, BaseResponse

from labs.instances import instance_type
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.faults import Faults

_VCPUS_TEXT = (
    "You have requested more vCPU capacity than your current vCPU limit of {limit:.0f} allows for the instance bucket "
    "that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request "
    "an adjustment to this limit."
)


@dataclass(frozen=True, kw_only=True)
class Quota:
    """One quota."""

    service: str
    code: str
    name: str
    usual: float
    """What the rehearsal's account has."""
    aws: float
    """What AWS gives a new account."""
    families: str = ""
    """Instance types it counts, by their name: a pattern; "" counts none."""
    spot: bool = False


_G, _P = r"(g|gr|vt)\d.*", r"p\d.*"
_STANDARD = r"[acdhimrtz]\d.*"
_EC2 = (
    Quota(service="ec2", code="L-1216C47A", usual=1152, aws=5, families=_STANDARD,
          name="Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
    Quota(service="ec2", code="L-DB2E81BA", usual=3072, aws=0, families=_G,
          name="Running On-Demand G and VT instances"),
    Quota(service="ec2", code="L-417A185B", usual=12288, aws=0, families=_P, name="Running On-Demand P instances"),
    Quota(service="ec2", code="L-34B43A08", usual=1152, aws=5, families=_STANDARD, spot=True,
          name="All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
    Quota(service="ec2", code="L-3819A6DF", usual=3072, aws=0, families=_G, spot=True,
          name="All G and VT Spot Instance Requests"),
    Quota(service="ec2", code="L-C4BD4855", usual=12288, aws=0, families=r"p5.*", spot=True,
          name="All P5 Spot Instance Requests"),
    Quota(service="ec2", code="L-7212CCBC", usual=12288, aws=0, families=_P, spot=True,
          name="All P4, P3 and P2 Spot Instance Requests"),
    Quota(service="ec2", code="L-0263D0A3", usual=5, aws=5, name="EC2-VPC Elastic IPs"),
)  # fmt: skip
_VPC = (Quota(service="vpc", code="L-F678F1CE", usual=100, aws=5, name="VPCs per Region"),)
QUOTAS = {quota.code: quota for quota in (*_EC2, *_VPC)}
ADDRESSES, VPCS = "L-0263D0A3", "L-F678F1CE"
_SERVICES = {"ec2": "Amazon Elastic Compute Cloud (Amazon EC2)", "vpc": "Amazon Virtual Private Cloud (Amazon VPC)"}


class Quotas:
    """The limits that hold now."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._set: dict[str, float] = {}

    def set(self, code: str, value: float) -> None:
        """Let a quota be `value`.

        Raises:
            ValueError: no such quota, or less than nothing.
        """
        if code not in QUOTAS:
            raise ValueError(f"code={code!r} is no quota here: write one of {', '.join(QUOTAS)}")
        if not value >= 0:
            raise ValueError(f"value={value!r}: write 0 or more")
        self._set[code] = value

    def limit(self, code: str) -> float:
        """What a quota allows now."""
        quota = QUOTAS[code]
        usual = self._set.get(code, quota.usual)
        return usual if self._faults.vcpus is None or not quota.families else min(usual, self._faults.vcpus)

    def demand_vcpus(self, kind: str, count: int, running: Iterable[Any], *, spot: bool) -> None:
        """Refuse a launch that the quota has no room for.

        Raises:
            AwsError: MaxSpotInstanceCountExceeded for spot, VcpuLimitExceeded else.
        """
        quota = _of(kind, spot=spot)
        used = sum(
            instance_type(instance.instance_type).vcpus
            for instance in running
            if (instance.lifecycle == "spot") == spot and _of(instance.instance_type, spot=spot) is quota
            if not getattr(instance, "capacity_reservation_id", None)  # counted when it was reserved
        )
        limit = self.limit(quota.code)
        if used + count * instance_type(kind).vcpus > limit:
            if spot:
                raise AwsError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
            raise AwsError("VcpuLimitExceeded", _VCPUS_TEXT.format(limit=limit))


def _of(kind: str, *, spot: bool) -> Quota:
    for quota in QUOTAS.values():
        if quota.families and quota.spot == spot and re.fullmatch(quota.families, kind):
            return quota
    raise NotRehearsed(f"the vCPU quota of {kind}")


def service(quotas: Quotas) -> Any:
    """What is to answer Service Quotas' requests."""
    bound: Any = type("ServiceQuotas", (ServiceQuotas,), {"quotas": quotas})
    return bound.dispatch


class ServiceQuotas(BaseResponse):  # type: ignore[misc]  # moto ships no types
    """Service Quotas' API, as far as it only tells."""

    quotas: Quotas

    def __init__(self) -> None:
        super().__init__(service_name="service-quotas")
        self.automated_parameter_parsing = True

    def list_service_quotas(self) -> ActionResult:
        return ActionResult({"Quotas": [self._shown(quota, self.quotas.limit(quota.code)) for quota in self._asked()]})

    def get_service_quota(self) -> ActionResult:
        (quota,) = self._one()
        return ActionResult({"Quota": self._shown(quota, self.quotas.limit(quota.code))})

    def list_aws_default_service_quotas(self) -> ActionResult:
        return ActionResult({"Quotas": [self._shown(quota, quota.aws) for quota in self._asked()]})

    def get_aws_default_service_quota(self) -> ActionResult:
        (quota,) = self._one()
        return ActionResult({"Quota": self._shown(quota, quota.aws)})

    def _asked(self) -> list[Quota]:
        service, code = self._get_param("ServiceCode"), self._get_param("QuotaCode")
        if service not in _SERVICES:
            raise NotRehearsed(f"quotas of service {service}")
        return [quota for quota in QUOTAS.values() if quota.service == service and code in (None, quota.code)]

    def _one(self) -> list[Quota]:
        if not (found := self._asked()):
            raise AwsError("NoSuchResourceException", "The request failed because the specified service quota does not "
                           "exist.")  # fmt: skip
        return found

    def _shown(self, quota: Quota, value: float) -> dict[str, Any]:
        return {
            "ServiceCode": quota.service, "ServiceName": _SERVICES[quota.service], "QuotaCode": quota.code,
            "QuotaArn": f"arn:aws:servicequotas:{self.region}:{self.current_account}:{quota.service}/{quota.code}",
            "QuotaName": quota.name, "Value": float(value), "Unit": "None", "Adjustable": True, "GlobalQuota": False,
            "QuotaAppliedAtLevel": "ACCOUNT",
        }  # fmt: skip
