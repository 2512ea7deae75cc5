"""What RunInstances makes of a request and a launch template, and what it refuses: pure functions.

Rules and texts: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html and
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-acc-inst-types.html
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

from labs.instances import InstanceType, instance_type
from rehearsal.cloudinit import LIMIT_BYTES
from rehearsal.errors import AwsError, NotRehearsed

Order = dict[str, Any]

_HONOURED = {
    "BlockDeviceMappings", "CapacityReservationSpecification", "ClientToken", "DisableApiTermination", "DryRun",
    "EbsOptimized", "IamInstanceProfile", "ImageId", "InstanceInitiatedShutdownBehavior", "InstanceMarketOptions",
    "InstanceType", "KeyName", "LaunchTemplate", "MaxCount", "MetadataOptions", "MinCount", "Monitoring",
    "NetworkInterfaces", "Placement", "SecurityGroupIds", "SubnetId", "TagSpecifications", "UserData",
}  # fmt: skip
_HONOURED_OF_INTERFACE = {
    "AssociatePublicIpAddress", "DeleteOnTermination", "Description", "DeviceIndex", "Groups", "InterfaceType",
    "Ipv6AddressCount", "Ipv6Addresses", "NetworkCardIndex", "NetworkInterfaceId", "PrivateIpAddress", "SubnetId",
}  # fmt: skip
_HONOURED_OF_PLACEMENT = {"AvailabilityZone", "GroupName", "Tenancy"}
_ADDRESSES = {"AssociatePublicIpAddress", "Ipv6AddressCount", "Ipv6Addresses", "PrivateIpAddress"}
_OF_A_NEW_ONE = {"Groups", "Ipv6AddressCount", "Ipv6Addresses", "PrivateIpAddress", "SubnetId"}
_TAGGABLE = {"instance", "volume", "network-interface", "spot-instances-request"}


def expand(request: Mapping[str, Any], template: Mapping[str, Any]) -> Order:
    """The request over the template: it replaces what it names; tags and network interfaces are merged one by one.

    Raises:
        NotRehearsed: the result holds a parameter that the rehearsal would have to ignore.
    """
    order = {key: value for key, value in {**template, **request}.items() if value not in (None, "", [], {})}
    order["TagSpecifications"] = _merge_tags(template, request)
    slots: dict[tuple[int, int], Order] = {}
    for source in (template, request):
        for interface in source.get("NetworkInterfaces") or []:
            slot = (int(interface.get("NetworkCardIndex") or 0), int(interface.get("DeviceIndex") or 0))
            slots[slot] = {**slots.get(slot, {}), **interface}
    order["NetworkInterfaces"] = [
        {**slots[slot], "NetworkCardIndex": slot[0], "DeviceIndex": slot[1]} for slot in sorted(slots)
    ]
    _only(order, _HONOURED, "RunInstances")
    _only(order.get("Placement") or {}, _HONOURED_OF_PLACEMENT, "Placement")
    for interface in order["NetworkInterfaces"]:
        _only(interface, _HONOURED_OF_INTERFACE, "NetworkInterfaces")
    return order


def _only(given: Iterable[str], known: set[str], where: str) -> None:
    if unknown := sorted(set(given) - known):
        raise NotRehearsed(f"{where}: {', '.join(unknown)}")


def _merge_tags(*sources: Mapping[str, Any]) -> list[Order]:
    merged: dict[str, dict[str, str]] = {}
    for source in sources:
        for specification in source.get("TagSpecifications") or []:
            kind = specification["ResourceType"]
            tags = {tag["Key"]: tag.get("Value") or "" for tag in specification.get("Tags") or []}
            merged.setdefault(kind, {}).update(tags)
    return [
        {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        for kind, tags in merged.items()
        if kind != "launch-template"  # moto keeps the template's own tags among those for what it launches
    ]


def tags_of(order: Order, kind: str) -> dict[str, str]:
    """The tags that the order gives resources of this kind."""
    return {
        tag["Key"]: tag["Value"]
        for specification in order["TagSpecifications"]
        if specification["ResourceType"] == kind
        for tag in specification["Tags"]
    }


def check(order: Order) -> InstanceType:
    """Refuse what EC2 refuses before it looks at the account, and return the order's instance type.

    Raises:
        AwsError: with AWS's code and, where it is public, its text.
    """
    for needed in ("ImageId", "InstanceType"):
        if not order.get(needed):
            raise AwsError("MissingParameter", f"The request must contain the parameter {needed}")
    try:
        kind = instance_type(str(order["InstanceType"]))
    except ValueError as error:
        raise AwsError("InvalidParameterValue", f"Invalid value for InstanceType: {error}") from None
    for specification in order["TagSpecifications"]:
        if specification["ResourceType"] not in _TAGGABLE:
            raise AwsError(
                "InvalidParameterValue",
                f"'{specification['ResourceType']}' is not a valid taggable resource type for this operation.",
            )
    _check_user_data(order.get("UserData"))
    _check_interfaces(order, kind)
    _check_market(order, kind)
    tokens = (order.get("MetadataOptions") or {}).get("HttpTokens", "optional")
    if tokens not in ("optional", "required"):
        raise AwsError("InvalidParameterValue", f"Invalid value '{tokens}' for HttpTokens.")
    return kind


def _check_user_data(encoded: str | None) -> None:
    try:
        raw = base64.b64decode(encoded or "", validate=True)
    except (binascii.Error, ValueError):
        raise AwsError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    if len(raw) > LIMIT_BYTES:
        raise AwsError("InvalidParameterValue", f"User data is limited to {LIMIT_BYTES} bytes")


def _check_interfaces(order: Order, kind: InstanceType) -> None:
    interfaces = order["NetworkInterfaces"]
    if not interfaces:
        return
    for parameter, text in (("SubnetId", "subnet ID"), ("SecurityGroupIds", "security groups")):
        if order.get(parameter):
            raise AwsError(
                "InvalidParameterCombination",
                f"Network interfaces and an instance-level {text} may not be specified on the same request",
            )
    if (interfaces[0]["NetworkCardIndex"], interfaces[0]["DeviceIndex"]) != (0, 0):
        raise AwsError("InvalidParameterCombination", "The primary network interface (card 0, device 0) is missing.")
    if len({interface.get("SubnetId") for interface in interfaces if not interface.get("NetworkInterfaceId")}) > 1:
        raise NotRehearsed("network interfaces of one instance in several subnets")
    for interface in interfaces:
        _check_interface(interface, kind, alone=len(interfaces) == 1)
    efas = [interface["NetworkCardIndex"] for interface in interfaces if _is_efa(interface)]
    if len(efas) > kind.efas:
        raise AwsError(
            "Unsupported" if not kind.efas else "AttachmentLimitExceeded",
            f"Interface type 'efa' exceeds what instance type '{kind.name}' takes: {kind.efas}, not {len(efas)}.",
        )
    if len(set(efas)) < len(efas):
        raise AwsError("InvalidParameterCombination", "A network card takes one EFA only.")


def _is_efa(interface: Order) -> bool:
    return interface.get("InterfaceType", "interface") in ("efa", "efa-only")


def _check_interface(interface: Order, kind: InstanceType, *, alone: bool) -> None:
    card, device = interface["NetworkCardIndex"], interface["DeviceIndex"]
    type_ = interface.get("InterfaceType", "interface")
    if type_ not in ("interface", "efa", "efa-only"):
        raise AwsError("InvalidParameterValue", f"Invalid value '{type_}' for InterfaceType.")
    if card >= len(kind.cards):
        raise AwsError(
            "InvalidParameterValue", f"Network card index {card} is out of range: '{kind.name}' has {len(kind.cards)}."
        )
    if device >= kind.cards[card].interfaces:
        raise AwsError(
            "AttachmentLimitExceeded",
            f"Device index {device} is too high: card {card} of '{kind.name}' holds {kind.cards[card].interfaces}.",
        )
    if _is_efa(interface) and kind.efas and not kind.cards[card].efa:
        raise AwsError("InvalidParameterCombination", f"Network card {card} of '{kind.name}' takes no EFA.")
    if type_ == "efa-only" and (card, device) == (0, 0):
        raise AwsError("InvalidParameterCombination", "The primary network interface cannot be efa-only.")
    if type_ == "efa-only" and (given := sorted(_ADDRESSES & {key for key, value in interface.items() if value})):
        raise AwsError("InvalidParameterCombination", f"An EFA-only network interface takes no IP address: {given[0]}.")
    if interface.get("NetworkInterfaceId") and (given := sorted(_OF_A_NEW_ONE & set(interface))):
        raise AwsError(
            "InvalidParameterCombination", f"A network interface with an ID takes no {given[0]} in the same request."
        )
    if interface.get("AssociatePublicIpAddress"):
        if not alone:
            raise AwsError(
                "InvalidParameterCombination",
                "The associatePublicIPAddress parameter cannot be specified when launching with multiple network "
                "interfaces.",
            )
        if interface.get("NetworkInterfaceId"):
            raise AwsError(
                "InvalidParameterCombination",
                "The associatePublicIPAddress parameter cannot be specified for a network interface with an ID.",
            )


def _check_market(order: Order, kind: InstanceType) -> None:
    options, market = order.get("InstanceMarketOptions") or {}, market_of(order)
    if market not in ("", "spot", "capacity-block"):
        raise AwsError("InvalidParameterValue", f"Invalid value '{market}' for MarketType.")
    if options.get("SpotOptions") and market != "spot":
        raise AwsError("InvalidParameterCombination", "SpotOptions may be given for MarketType spot only.")
    if market == "spot":
        _check_spot(options.get("SpotOptions") or {}, grouped=bool((order.get("Placement") or {}).get("GroupName")))
        if reservation_of(order):
            raise AwsError("InvalidParameterCombination", "A Spot Instance cannot run in a capacity reservation.")
    if market == "capacity-block" and not kind.capacity_block:
        raise AwsError("InvalidParameterCombination", f"Instance type '{kind.name}' is not sold as capacity blocks.")
    if market == "capacity-block" and not reservation_of(order):
        raise AwsError("MissingParameter", "A capacity block needs CapacityReservationTarget.CapacityReservationId.")


def _check_spot(options: Order, *, grouped: bool) -> None:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_SpotMarketOptions.html"""
    behaviour = options.get("InstanceInterruptionBehavior", "terminate")
    if behaviour not in ("terminate", "stop", "hibernate"):
        raise AwsError("InvalidParameterValue", f"Invalid value '{behaviour}' for InstanceInterruptionBehavior.")
    if behaviour != "terminate":
        if grouped:
            raise grouped_spot(behaviour)
        if options.get("SpotInstanceType", "one-time") != "persistent":
            raise AwsError(
                "InvalidParameterCombination", f"Interruption behavior '{behaviour}' needs a persistent Spot request."
            )
    if options.get("SpotInstanceType", "one-time") == "persistent":
        raise NotRehearsed("persistent Spot requests")


def grouped_spot(behaviour: str) -> AwsError:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/placement-strategies.html, "Limitations"."""
    return AwsError(
        "InvalidParameterCombination",
        f"A Spot Instance with interruption behavior '{behaviour}' cannot be launched in a placement group.",
    )


def market_of(order: Order) -> str:
    """ "spot", "capacity-block", or "" for on demand."""
    return str((order.get("InstanceMarketOptions") or {}).get("MarketType") or "")


def reservation_of(order: Order) -> str:
    """Id of the capacity reservation that the order targets, or ""."""
    target = (order.get("CapacityReservationSpecification") or {}).get("CapacityReservationTarget") or {}
    if target.get("CapacityReservationResourceGroupArn"):
        raise NotRehearsed("CapacityReservationResourceGroupArn")
    return str(target.get("CapacityReservationId") or "")
