"""What a lab has in an account, found by asking each service and never by trusting a stack's own list.

A thing is a lab's if it carries the lab's tag, lies in a VPC that carries it, or came from something that does: an
instance of its launch template, a volume on its instance, an address on its interface. What the account does not
answer is kept in `missed`: a look that could not look everywhere is not a clean look.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

GUARD_STACK = "GuardStack"
TAG_LAB = "rooflab:lab"
TAG_STACK = "rooflab:stack"
TAG_TTL_HOURS = "rooflab:ttl-hours"
TAG_BAKED = "rooflab:baked"
LOG_GROUPS = "/rooflab/"
"""Log groups below this name are Rooflab's; those below /rooflab/STACK are a lab's."""

Clients = Callable[[str], Any]
"""Service name -> boto3 client of the region."""
UNANSWERED = (ClientError, ConnectionError, HTTPClientError)


@dataclass(frozen=True)
class Call:
    """One request to AWS: service, operation in boto3's spelling, parameters."""

    service: str
    operation: str
    params: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing in the account that bills, or that stands in the way of a removal."""

    kind: str
    id: str
    stack: str
    """Stack it belongs to, whether or not that still exists; "" where nothing says."""
    state: str = ""
    created: str = ""
    """ISO 8601 UTC; "" where the service does not say."""
    tags: Mapping[str, str] = field(default_factory=dict)
    found: str = "tag"
    """"tag", "name", or the field that points to something of the lab, for example "VpcId"."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What its price depends on, in AWS's words, for example {"InstanceType": "g6.xlarge"}."""
    stands: str = ""
    """Why nothing here removes it and no residual counts it; "" for what must go."""
    calls: tuple[Call, ...] = ()
    """What removes it, in order."""

    def __str__(self) -> str:
        return f"{self.kind} {self.id}" + (f" ({self.state})" if self.state else "")


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What one look over one region found."""

    items: tuple[Item, ...]
    missed: Mapping[str, str]
    """What could not be looked at: kind -> why."""
    unclaimed: tuple[Item, ...] = ()
    """What bills, carries no tag, and hangs on nothing of a lab's: nobody's, as far as can be told."""

    @property
    def left(self) -> tuple[Item, ...]:
        """All that must go before nothing bills."""
        return tuple(item for item in self.items if not item.stands)

    def of(self, stack: str) -> "Inventory":
        """The part that belongs to one stack."""
        return replace(self, items=tuple(item for item in self.items if item.stack == stack))

    def stack(self, name: str) -> Item | None:
        """The CloudFormation stack of that name, if it exists."""
        return next((item for item in self.items if item.kind == "stack" and item.id == name), None)


@dataclass(frozen=True)
class Kind:
    """How to ask for one kind of thing, and how to remove one."""

    rows: str
    """Where the answer to DescribeROWS holds them; for an instance that is one level deeper."""
    links: tuple[str, ...] = ()
    """Fields that name what it lies in or hangs on: that thing's stack is its own."""
    facts: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    """Operations, each with the fields that it takes, or by id alone; empty: DeleteROW by its id."""
    id: str = ""
    """Field with its id, if that is not ROWId."""
    service: str = "ec2"
    ask: Mapping[str, Any] = field(default_factory=dict)
    skip: Callable[[dict[str, Any]], bool] = lambda row: False
    """True for what comes and goes with something else, such as a VPC's default group."""

    @property
    def noun(self) -> str:
        """One of them in AWS's words, for example "NetworkInterface"."""
        return re.sub("(?<=ss)es$|s$", "", self.rows.split(".")[-1])


KINDS = (
    Kind("Vpcs"),
    Kind("Subnets", ("VpcId",)),
    Kind("LaunchTemplates"),
    # An instant fleet never launches again and its record lingers for days: its instances count instead.
    Kind("Fleets", ("LaunchTemplateConfigs.LaunchTemplateSpecification.LaunchTemplateId",),
         remove=("delete_fleets FleetId TerminateInstances",), skip=lambda row: row.get("Type") == "instant"),
    Kind("Reservations.Instances", ("VpcId", "Tags.aws:ec2launchtemplate:id", "Tags.aws:ec2:fleet-id"),
         ("InstanceType", "InstanceLifecycle", "CapacityReservationId"), ("terminate_instances",)),
    Kind("SpotInstanceRequests", ("InstanceId",), remove=("cancel_spot_instance_requests",)),
    Kind("Volumes", ("Attachments.InstanceId",), ("Size", "VolumeType", "Iops", "Throughput")),
    Kind("Images", remove=("deregister_image",), ask={"Owners": ["self"]}),
    Kind("Snapshots", ("SnapshotId", "VolumeId"), ("VolumeSize", "StorageTier"), ask={"OwnerIds": ["self"]}),
    Kind("NetworkInterfaces", ("VpcId",), ("Association.PublicIp", "Association.IpOwnerId", "RequesterManaged")),
    Kind("Addresses", ("NetworkInterfaceId", "InstanceId"), ("PublicIp",),
         ("disassociate_address AssociationId", "release_address"), "AllocationId"),
    Kind("NatGateways", ("VpcId",)),
    Kind("InstanceConnectEndpoints", ("VpcId",)),
    Kind("VpcEndpoints", ("VpcId",), ("VpcEndpointType", "SubnetIds"), ("delete_vpc_endpoints",)),
    Kind("LoadBalancers", ("VpcId",), ("Type",), id="LoadBalancerArn", service="elbv2"),
    Kind("SecurityGroups", ("VpcId",), id="GroupId", skip=lambda row: row["GroupName"] == "default"),
    Kind("RouteTables", ("VpcId",), skip=lambda row: any(dig(row, "Associations.Main") or ())),
    Kind("InternetGateways", ("Attachments.VpcId",),
         remove=("detach_internet_gateway InternetGatewayId Attachments.VpcId", "delete_internet_gateway")),
    Kind("EgressOnlyInternetGateways", ("Attachments.VpcId",)),
    Kind("NetworkAcls", ("VpcId",), skip=lambda row: row["IsDefault"]),
    Kind("PlacementGroups", id="GroupName"),
    Kind("CapacityReservations", (), ("InstanceType", "TotalInstanceCount", "ReservationType", "EndDate"),
         ("cancel_capacity_reservation",)),
    Kind("FileSystems", ("VpcId", "SubnetIds"),
         ("FileSystemType", "StorageCapacity", "StorageType", "LustreConfiguration.DeploymentType",
          "LustreConfiguration.PerUnitStorageThroughput", "ResourceARN"), service="fsx"),
    Kind("Backups", ("FileSystem.FileSystemId",), ("SizeInBytes",), service="fsx"),
    Kind("logGroups", (), ("storedBytes",), id="logGroupName", service="logs", ask={"logGroupNamePrefix": LOG_GROUPS}),
    # Last: whatever was seen before had its stack by then, so a lab that is just being made never looks ownerless.
    Kind("Stacks", (), ("StackStatusReason",), id="StackName", service="cloudformation"),
)  # fmt: skip
STATES = ("State.Name", "State.Code", "State", "Status", "FleetState", "Lifecycle", "StackStatus")
TIMES = ("LaunchTime", "CreateTime", "CreationTime", "CreationDate", "StartTime", "CreateDate", "CreatedTime",
         "CreatedAt", "CreationTimestamp", "creationTime", "Attachment.AttachTime")  # fmt: skip
NAMELESS = ("Instance", "Volume", "Snapshot", "NatGateway", "FileSystem")
"""Nouns of what is kept as unclaimed: it bills, and says when it was made and which tags it has."""
GONE = ("terminated", "deleted", "delete-complete", "deregistered", "closed", "cancelled", "expired", "failed",
        "DELETE_COMPLETE")  # fmt: skip


def dig(row: Any, path: str) -> Any:
    """The value at a dotted path, or None; through a list it gathers from every entry."""
    for name in path.split("."):
        if isinstance(row, list):
            found = [entry[name] for entry in row if isinstance(entry, dict) and name in entry]
            row = [one for value in found for one in (value if isinstance(value, list) else [value])]
        else:
            row = row.get(name) if isinstance(row, dict) else None
    return row


def tags_of(row: Mapping[str, Any]) -> dict[str, str]:
    """A thing's tags by key."""
    return {tag["Key"]: tag["Value"] for tag in row.get("Tags") or ()}


def listed(value: Any) -> list[Any]:
    """A value as a list of none, one or many."""
    return value if isinstance(value, list) else [] if value is None else [value]


def iso(moment: Any) -> str:
    """ISO 8601 UTC, to the second, of a time as a service gives it; "" for none."""
    if isinstance(moment, int):
        moment = datetime.fromtimestamp(moment / 1000, UTC)
    elif isinstance(moment, str) and moment:
        moment = datetime.fromisoformat(moment)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""


def why(error: Exception, service: str) -> str:
    """One clause that names what AWS refused and, where a permission is missing, which one."""
    if not isinstance(error, ClientError):
        return f"{service} did not answer ({error})"
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    action = f"{service.replace('elbv2', 'elasticloadbalancing')}:{error.operation_name}"
    if "AccessDenied" in code or "Unauthorized" in code:
        return f"no permission for {action}: allow it ({code})"
    return f"{action} was refused ({code}: {message.rstrip('.')})"


def everything(client: Any, operation: str, rows: str, **ask: Any) -> list[dict[str, Any]]:
    """All rows of a describe call, over all its pages."""
    if client.can_paginate(operation):
        return dig(client.get_paginator(operation).paginate(**ask).build_full_result(), rows) or []
    return dig(getattr(client, operation)(**ask), rows) or []


def look(clients: Clients, stack: str = "") -> Inventory:
    """Everything of one stack, or of all, in the clients' region, and what stands in it."""
    seen = Look()
    asked = {kind.service: clients(kind.service) for kind in KINDS}  # made here: making one is not for threads
    with ThreadPoolExecutor(8) as pool:
        answers = [(kind, pool.submit(rows_of, kind, asked[kind.service])) for kind in KINDS[:-1]]
    last = KINDS[-1]
    for kind, answer in (*answers, (last, None)):
        try:
            seen.add(kind, answer.result() if answer else rows_of(last, asked[last.service]))
        except UNANSWERED as error:
            seen.missed[xform_name(kind.noun, "-")] = why(error, kind.service)
    items = (seen.judge(item) for item in seen.items)
    return Inventory(
        items=tuple(one for one in items if stack in ("", one.stack) or one.stands),
        missed=seen.missed,
        unclaimed=tuple(seen.unclaimed),
    )


def rows_of(kind: Kind, client: Any) -> list[dict[str, Any]]:
    """All that there is of a kind, as AWS tells it."""
    return everything(client, "describe_" + xform_name(kind.rows.split(".")[-1]), kind.rows, **kind.ask)


class Look:
    """One pass over one region, kind by kind; later kinds find their stack through earlier ones."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.unclaimed: list[Item] = []
        self.missed: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        """Id of anything found -> its stack."""

    def add(self, kind: Kind, rows: list[dict[str, Any]]) -> None:
        """Add what there is of a kind."""
        for row in rows:
            row["Tags"] = tags = tags_of(row)
            ident = row.get(kind.id or kind.noun + "Id", "")
            state = next((text for path in STATES if isinstance(text := dig(row, path), str)), "")
            if state in GONE or state.startswith("deleted_") or kind.skip(row):
                continue
            links = [*self.links(kind, row, tags, ident)]
            stack, found = links[0] if links else ("", "")
            facts = {path: value for path in kind.facts if (value := dig(row, path))}
            item = Item(
                kind=xform_name(kind.noun, "-"), id=ident, stack=ident if kind.noun == "Stack" else stack, state=state,
                created=iso(next((time for path in TIMES if (time := dig(row, path))), "")), tags=tags, found=found,
                facts={path: iso(value) if isinstance(value, datetime) else value for path, value in facts.items()},
                calls=removal_of(kind, row),
            )  # fmt: skip
            if links:
                self.items.append(item)
                for one in (ident, *listed(dig(row, "BlockDeviceMappings.Ebs.SnapshotId"))):
                    self.owner[one] = stack
            elif kind.noun in NAMELESS and not tags and not row.get("Attachments"):
                self.unclaimed.append(item)

    def links(self, kind: Kind, row: dict[str, Any], tags: Mapping[str, str], ident: str) -> Iterator[tuple[str, str]]:
        """Stacks that a thing may belong to, the surest first, each with what says so."""
        if kind.noun == "logGroup":
            named = re.match(rf"{LOG_GROUPS}(Lab\d+Stack[^/]*)", ident)
            yield (named[1] if named else GUARD_STACK), "name"
        pointed = [
            (self.owner[one], path) for path in kind.links for one in listed(dig(row, path)) if one in self.owner
        ]
        if {TAG_STACK, TAG_LAB, TAG_BAKED} & set(tags):
            yield tags.get(TAG_STACK) or (pointed[0][0] if pointed else ""), "tag"
        yield from pointed
        if stack := tags_of(row.get("FileSystem") or {}).get(TAG_STACK):  # a backup outlives its file system
            yield stack, "FileSystem.Tags"
        if kind.noun == "CapacityReservation":
            yield "", "region"

    def judge(self, item: Item) -> Item:
        """The item, with the reason to let it stand if there is one."""
        since = next((one.created for one in self.items if one.kind == "stack" and one.id == item.stack), "9999")
        attached = item.found == "Attachments.InstanceId"
        reasons = {
            "of the guard, which stays while labs come and go": item.stack == GUARD_STACK,
            "baked on purpose, for -c image=baked": TAG_BAKED in item.tags,
            "a reservation of the user's own": item.kind == "capacity-reservation" and TAG_STACK not in item.tags,
            # No template makes either; their tags may be copies of the volume's or file system's.
            "a snapshot made by hand": item.kind == "snapshot" and item.found != "SnapshotId",
            "a backup made by hand": item.kind == "backup",
            "a volume older than the lab": attached and item.created < since,
            "a volume with tags of its owner": attached and bool(item.tags),
            "an address with tags of its owner": item.kind == "address" and item.found != "tag" and bool(item.tags),
        }
        return replace(item, stands=next((reason for reason, holds in reasons.items() if holds), ""))


def removal_of(kind: Kind, row: dict[str, Any]) -> tuple[Call, ...]:
    """The requests that remove a thing, in order, without those that it does not need."""
    key = kind.id or kind.noun + "Id"
    calls = []
    for line in kind.remove or ("delete_" + xform_name(kind.noun),):
        operation, *paths = line.split()
        values = {path: next(iter(listed(dig(row, path))), None) for path in paths or [key]}
        if "TerminateInstances" in values:
            values["TerminateInstances"] = True
        params = {path.split(".")[-1]: value for path, value in values.items()}
        if re.search("[^s]s$", operation):  # takes many
            params[key + "s"] = [params.pop(key)]
        if all(values.values()):
            calls.append(Call(kind.service, operation, params))
    # A group that another one's rule names cannot be deleted: rules between groups go first.
    kept = ("IpProtocol", "FromPort", "ToPort", "UserIdGroupPairs")
    for way, field_name in (("ingress", "IpPermissions"), ("egress", "IpPermissionsEgress")):
        rules = [{name: rule[name] for name in kept if name in rule} for rule in row.get(field_name) or ()]
        if rules := [rule for rule in rules if rule.get("UserIdGroupPairs")]:
            calls.insert(0, Call("ec2", f"revoke_security_group_{way}", {"GroupId": row[key], "IpPermissions": rules}))
    return tuple(calls)
