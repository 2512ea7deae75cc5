"""What a resource handler is: the properties it honours and the calls that make, change and remove one thing."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event, RLock
from typing import Any, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from rehearsal.failure import Cancelled, Refused

_GONE = re.compile(r"NotFound|NoSuch|NotAttached|DoesNotExist|\.Unknown$")
_POLL_S = 0.05
WAIT_S = 120.0
"""Longest wait, in real seconds, for something to come up or to go away."""


class Cloud:
    """Clients of the rehearsal's own endpoint, one per service and region, with the credentials of the environment."""

    def __init__(self, endpoint: Callable[[], str]) -> None:
        self._endpoint = endpoint
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = RLock()

    def client(self, service: str, region: str) -> Any:
        """The boto3 client; made once, for making one takes long."""
        with self._lock:
            key = service, region
            if key not in self._clients:
                self._clients[key] = boto3.client(
                    service,
                    region_name=region,
                    endpoint_url=self._endpoint(),
                    config=Config(
                        retries={"max_attempts": 1},
                        s3={"addressing_style": "path"},
                        read_timeout=300,
                        max_pool_connections=16,
                    ),
                )
            return self._clients[key]


@dataclass(kw_only=True)
class Call:
    """One handler's work on one resource: who asks, and the way to the API."""

    cloud: Cloud
    account: str
    region: str
    partition: str
    type: str
    name: Callable[[int, bool], str]
    """Makes a name such as CloudFormation would, of at most that many characters, in lower case if asked."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """As `Handler.read` returned them when the resource was made or changed last."""
    cancelled: Event = field(default_factory=Event)
    in_vain: Callable[[], None] = lambda: None
    """Told each time that what is waited for has not come about yet."""

    def api(self, service: str, operation: str, **given: Any) -> dict[str, Any]:
        """Call the API. Arguments that are None are left out; text becomes a number or a boolean where one is wanted.

        Raises:
            ClientError: the service refused.
            ParamValidationError: the service does not know such a parameter.
        """
        client = self.cloud.client(service, self.region)
        shape = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation]).input_shape
        arguments = {name: _fit(value, shape.members.get(name)) for name, value in given.items() if value is not None}
        answer: dict[str, Any] = getattr(client, operation)(**arguments)
        return answer

    def remove(self, service: str, operation: str, **given: Any) -> None:
        """Call an API that removes something; what is gone already counts as removed."""
        try:
            self.api(service, operation, **given)
        except ClientError as error:
            if not is_gone(error):
                raise

    def wait(self, what: str, probe: Callable[[], bool]) -> None:
        """Poll until `probe` holds.

        Raises:
            Refused: it does not within `WAIT_S`.
            Cancelled: the stack is being deleted meanwhile.
        """
        until = time.monotonic() + WAIT_S
        while not probe():
            self.in_vain()
            if self.cancelled.is_set():
                raise Cancelled("Resource creation cancelled")
            if time.monotonic() > until:
                raise Refused(f"{self.type}: {what} did not happen within {WAIT_S:.0f} s")
            time.sleep(_POLL_S)

    def wait_gone(self, what: str, probe: Callable[[], bool]) -> None:
        """Poll until `probe` holds or the API no longer knows the thing."""

        def gone() -> bool:
            try:
                return probe()
            except ClientError as error:
                if is_gone(error):
                    return True
                raise

        self.wait(what, gone)

    def arn(self, service: str, resource: str) -> str:
        """An ARN in this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


def is_gone(error: ClientError) -> bool:
    """Whether the API says that the thing does not exist."""
    return bool(_GONE.search(error.response["Error"]["Code"]))


class Handler:
    """One resource type. Every property it honours stands in exactly one of three tuples; any other is refused."""

    type: ClassVar[str]
    replaces: ClassVar[tuple[str, ...]] = ()
    """Properties whose change makes a new resource, as in an account."""
    updates: ClassVar[tuple[str, ...]] = ()
    """Properties that `update` changes in place."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Properties that an account changes in place and the rehearsal does not: a change is refused by name."""
    attributes: ClassVar[tuple[str, ...]] = ()
    """Names that Fn::GetAtt may ask for; `read` returns each."""
    fresh: ClassVar[tuple[str, ...]] = ()
    """Attributes that another resource changes afterwards: read anew whenever they are asked for."""
    named_by: ClassVar[str | None] = None
    """Property that names the thing. Where it is given, nothing can be replaced while the old one stands."""
    tags_as_map: ClassVar[bool] = False
    """Whether Tags is {key: value} rather than [{Key, Value}]."""

    def tags_type(self) -> dict[str, str] | list[dict[str, str]]:
        """No tags, in the form that this type's Tags has."""
        return {} if self.tags_as_map else []

    def honours(self, name: str) -> bool:
        """Whether a template may set this property."""
        return name in self.replaces or name in self.updates or name in self.fixed

    def create(self, call: Call, given: Mapping[str, Any]) -> str:
        """Make the thing and return its physical id: one call, so that a failure leaves nothing behind."""
        raise NotImplementedError

    def complete(self, call: Call, physical_id: str, given: Mapping[str, Any]) -> None:
        """What must follow before the thing is ready: settings that need its id, waiting."""

    def read(self, call: Call, physical_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Attributes, after it was made or changed."""
        return {}

    def update(self, call: Call, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """Change `updates` in place."""
        raise Refused(f"{self.type}: an update in place is not rehearsed")

    def delete(self, call: Call, physical_id: str, given: Mapping[str, Any]) -> None:
        """Remove the thing and wait until it is gone. What is gone already counts as removed."""
        raise NotImplementedError


def tag_specifications(kind: str, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """EC2's TagSpecifications for one new thing; None without tags."""
    return [{"ResourceType": kind, "Tags": given["Tags"]}] if given.get("Tags") else None


def retag(call: Call, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Bring the tags of an EC2 resource from `old` to `new`."""
    before = {tag["Key"]: tag["Value"] for tag in old.get("Tags") or ()}
    after = {tag["Key"]: tag["Value"] for tag in new.get("Tags") or ()}
    dropped = [{"Key": key} for key in before if key not in after]
    written = [{"Key": key, "Value": value} for key, value in after.items() if before.get(key) != value]
    if dropped:
        call.api("ec2", "delete_tags", Resources=[physical_id], Tags=dropped)
    if written:
        call.api("ec2", "create_tags", Resources=[physical_id], Tags=written)


def _fit(value: Any, shape: Any) -> Any:
    kind = getattr(shape, "type_name", None)
    if kind == "structure" and isinstance(value, Mapping):
        return {name: _fit(inner, shape.members.get(name)) for name, inner in value.items()}
    if kind == "list" and isinstance(value, (list, tuple)):
        return [_fit(inner, shape.member) for inner in value]
    if kind == "map" and isinstance(value, Mapping):
        return {name: _fit(inner, shape.value) for name, inner in value.items()}
    if kind == "string" and isinstance(value, (bool, int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, str):
        return _from_text(value, kind)
    return value


def _from_text(value: str, kind: str | None) -> Any:
    try:
        if kind in ("integer", "long"):
            return int(value)
        if kind in ("float", "double"):
            return float(value)
    except ValueError:
        return value
    if kind == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value
