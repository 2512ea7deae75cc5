"""The account that a rehearsal begins with: seeded ids, machine images, and moto's faults put right."""

import json
import uuid
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

from rehearsal import clock
from rehearsal.errors import NotRehearsed
from rehearsal.settings import IMAGES, image_id

_INCOMPLETE = {"resourcegroupstaggingapi": "fleets, placement groups and file systems would be missing"}
"""Services whose answers would look whole and are not, by what they lack."""


def prepare(account: str, seed: int) -> None:
    """Seed ids, put moto's faults right and fill the account with what AWS itself keeps there."""
    from moto.core import responses
    from moto.moto_api._internal import mock_random

    clock.install()
    mock_random.seed(seed)
    # Request ids are drawn for every poll: from the seeded source they would make all other ids depend on timing.
    responses.gen_amzn_requestid_long = _request_id
    # moto lists all methods of a service's class, 700 for EC2, for every request.
    responses.method_names_from_class = cache(responses.method_names_from_class)
    _answer_unknown_calls(responses.BaseResponse)
    _publish_images(account)
    _mend_buckets()


def load_ec2() -> None:
    """Load moto's EC2. It reads EC2's whole API three times, 0.3 s each, unless its sessions are one."""
    import boto3

    real, shared = boto3.Session, boto3.Session()
    boto3.Session = lambda: shared
    try:
        import moto.ec2.models  # noqa: F401  # loading it is all: it asks for a session as it loads
    finally:
        boto3.Session = real


def _request_id(headers: dict[str, Any] | None = None) -> str:
    id = str(uuid.uuid4())
    if headers is not None:
        headers["x-amzn-requestid"] = id
    return id


def _answer_unknown_calls(base: Any) -> None:
    """A call that moto lacks or trips over is an AWS error, not a page of HTML that an SDK retries for a minute."""
    original: Callable[[Any], Any] = base.call_action

    def call_action(self: Any) -> Any:
        from moto.core.responses import ActionResult

        try:
            if self.service_name in _INCOMPLETE:
                raise NotImplementedError(_INCOMPLETE[self.service_name])
            return original(self)
        except NotImplementedError as error:
            refusal = NotRehearsed(f"{self.service_name} {self._get_action()} ({error})")
        status, headers, body = self.serialized(ActionResult(refusal))
        return status, headers, body

    base.call_action = call_action


def _publish_images(account: str) -> None:
    from moto.ssm.models import Parameter, ssm_backends

    backends = ssm_backends[account]
    for region, name in product(backends.regions, IMAGES):
        backends[region]._parameters[name].append(
            Parameter(
                account_id=account, name=name, value=image_id(name), parameter_type="String", description=None,
                allowed_pattern=None, keyid=None, last_modified_date=clock.now(), version=1, data_type="aws:ec2:image",
            )
        )  # fmt: skip


def _mend_buckets() -> None:
    from moto.s3.models import FakeBucket

    permission, create = FakeBucket.get_permission, FakeBucket.__init__

    def get_permission(self: Any, action: str, resource: str) -> Any:
        # moto looks at no condition: a Deny of requests without TLS would deny every request. Loopback counts as TLS.
        policy = self.policy
        try:
            self.policy = policy and _without_transport_rules(policy)
            return permission(self, action, resource)
        finally:
            self.policy = policy

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        self.creation_date = clock.now()

    FakeBucket.get_permission, FakeBucket.__init__ = get_permission, __init__


def _without_transport_rules(policy: bytes) -> bytes | None:
    document = json.loads(policy)
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    kept = [s for s in statements if s.get("Condition") != {"Bool": {"aws:SecureTransport": "false"}}]
    return json.dumps({**document, "Statement": kept}).encode() if kept else None
