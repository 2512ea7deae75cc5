"""Settings of moto, which reads them when it is loaded; hence nothing here loads it."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

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
