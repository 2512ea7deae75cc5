"""The account that a rehearsal begins with: settings of moto, machine images, and moto's faults put right."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rehearsal import clock
from rehearsal.errors import NotRehearsed

REGION = "us-east-1"
IMAGES = {
    f"/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-{release}/latest/ami-id":
        f"Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu {release})"
    for release in ("22.04", "24.04")
} | {
    f"/aws/service/canonical/ubuntu/server/{release}/stable/current/amd64/hvm/ebs-{disk}/ami-id":
        f"ubuntu/images/hvm-ssd/ubuntu-{release}-amd64-server"
    for release, disk in (("22.04", "gp2"), ("24.04", "gp3"))
}  # fmt: skip
"""Public parameters of Systems Manager, and the names of the images that they lead to."""


def image_id(parameter: str) -> str:
    """Id of the image that a public parameter leads to; the same in every rehearsal."""
    return f"ami-0{hashlib.sha256(parameter.encode()).hexdigest()[:16]}"


def configure(state: Path) -> None:
    """Set moto's environment. Call it before moto is loaded."""
    images = state / "images.json"
    images.write_text(json.dumps([_image(parameter, name) for parameter, name in IMAGES.items()]))
    os.environ.update({
        "MOTO_AMIS_PATH": str(images),
        "MOTO_DISABLE_GLOBAL_CORS": "true",  # no web page may talk to this
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
        "MOTO_LAMBDA_DATA_DIR": str(state / "functions"),
    })  # fmt: skip


def _image(parameter: str, name: str) -> dict[str, Any]:
    return {
        "ami_id": image_id(parameter), "name": name, "description": name, "owner_id": "099720109477", "public": True,
        "virtualization_type": "hvm", "architecture": "x86_64", "state": "available", "platform": None,
        "image_type": "machine", "hypervisor": "xen", "root_device_name": "/dev/sda1", "root_device_type": "ebs",
        "sriov": "simple", "creation_date": "2026-10-09T00:00:00.000Z",
    }  # fmt: skip


def prepare(account: str, seed: int) -> None:
    """Seed ids, put moto's faults right and fill the account with what AWS itself keeps there."""
    from moto.core import responses
    from moto.moto_api._internal import mock_random

    clock.install()
    mock_random.seed(seed)
    # Request ids are drawn for every poll: from the seeded source they would make all other ids depend on timing.
    responses.gen_amzn_requestid_long = _request_id
    _answer_unknown_calls(responses.BaseResponse)
    _publish_images(account)
    _mend_buckets()


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
            return original(self)
        except NotImplementedError as error:
            refusal = NotRehearsed(f"{self.service_name} {self._get_action()} ({error})")
        status, headers, body = self.serialized(ActionResult(refusal))
        return status, headers, body

    base.call_action = call_action


def _publish_images(account: str) -> None:
    from moto.ssm.models import Parameter, ssm_backends

    parameters = ssm_backends[account][REGION]._parameters
    for name in IMAGES:
        parameters[name].append(
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
