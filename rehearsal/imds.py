"""The instance metadata service, version 2 only, one for every node: /imds/INSTANCE/latest/...

Paths: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
"""

import json
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rehearsal import clock
from rehearsal.machines import Machines

_LONGEST_S = 21600


class Imds:
    """Answers the metadata requests of all nodes."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._tokens: dict[str, tuple[str, float]] = {}
        self.notices: dict[str, dict[str, str]] = {}
        """Spot interruption notices by instance id: what spot/instance-action shows."""

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """HTTP status and body for a path below /imds/."""
        id, _, rest = path.strip("/").partition("/")
        instance = self._machines.instance(id)
        if instance is None or not rest.startswith("latest/"):
            return 404, "Not Found"
        if rest == "latest/api/token":
            return self._token(id, method, headers.get("x-aws-ec2-metadata-token-ttl-seconds", ""))
        owner, expires = self._tokens.get(headers.get("x-aws-ec2-metadata-token", ""), ("", 0.0))
        if owner != id or time.monotonic() > expires:
            return 401, "Unauthorized"
        if method != "GET":
            return 405, "Method Not Allowed"
        return self._item(instance, rest.removeprefix("latest/"))

    def _token(self, id: str, method: str, ttl: str) -> tuple[int, str]:
        if method != "PUT":
            return 405, "Method Not Allowed"
        if not ttl.isdigit() or not 1 <= int(ttl) <= _LONGEST_S:
            return 400, "Bad Request"
        token = secrets.token_urlsafe(40)
        self._tokens[token] = (id, time.monotonic() + int(ttl))
        return 200, token

    def _item(self, instance: Any, path: str) -> tuple[int, str]:
        if path == "dynamic/instance-identity/document":
            return 200, json.dumps(_identity(instance))
        if not path.startswith("meta-data/"):
            return 404, "Not Found"
        name = path.removeprefix("meta-data/").rstrip("/")
        if name in _ITEMS:
            return 200, _ITEMS[name](instance)
        if name == "spot/instance-action" and instance.id in self.notices:
            return 200, json.dumps(self.notices[instance.id])
        tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
        if name.startswith("tags/instance") and instance.metadata_options.instance_metadata_tags == "enabled":
            wanted = name.removeprefix("tags/instance").lstrip("/")
            if not wanted:
                return 200, "\n".join(sorted(tags))
            return (200, tags[wanted]) if wanted in tags else (404, "Not Found")
        return self._credentials(instance, name)

    def _credentials(self, instance: Any, name: str) -> tuple[int, str]:
        role = _role(instance)
        if role and name == "iam/security-credentials":
            return 200, role
        if not role or name != f"iam/security-credentials/{role}":
            return 404, "Not Found"
        environment = self._machines.credentials()
        now = clock.now()
        return 200, json.dumps({
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": clock.iso(now),
            "AccessKeyId": environment["AWS_ACCESS_KEY_ID"], "SecretAccessKey": environment["AWS_SECRET_ACCESS_KEY"],
            "Token": "rehearsal", "Expiration": clock.iso(now + timedelta(hours=6)),
        })  # fmt: skip


def _role(instance: Any) -> str:
    from moto.iam.models import iam_backends

    arn = (instance.iam_instance_profile or {}).get("Arn", "")
    for profile in iam_backends[instance.owner_id]["aws"].instance_profiles.values():
        if profile.arn == arn and profile.roles:
            return str(profile.roles[0].name)
    return ""


def _identity(instance: Any) -> dict[str, str]:
    return {
        "accountId": instance.owner_id, "availabilityZone": instance.placement.zone, "imageId": instance.image_id,
        "instanceId": instance.id, "instanceType": instance.instance_type, "privateIp": instance.private_ip,
        "region": instance.region_name, "architecture": "x86_64", "version": "2017-09-30",
    }  # fmt: skip


_ITEMS: dict[str, Callable[[Any], str]] = {
    "ami-id": lambda instance: str(instance.image_id),
    "instance-id": lambda instance: str(instance.id),
    "instance-type": lambda instance: str(instance.instance_type),
    "instance-life-cycle": lambda instance: instance.lifecycle or "on-demand",
    "local-ipv4": lambda instance: str(instance.private_ip),
    "public-ipv4": lambda instance: str(instance.public_ip or ""),
    "local-hostname": lambda instance: str(instance.private_dns_name),
    "mac": lambda instance: str(instance.nics[0].mac_address),
    "placement/availability-zone": lambda instance: str(instance.placement.zone),
    "placement/region": lambda instance: str(instance.region_name),
    "placement/group-name": lambda instance: str(instance.placement.group_name),
}
