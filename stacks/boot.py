"""User data of a node: the files of `userdata/` that its lab needs, packed, behind a few lines in plain text.

What only CloudFormation knows (the file system's host name, the bucket) stands in the plain lines, so that all the
rest is compressed when the template is made. Before that, and before its sshd starts, a new instance forgets what an
image that was baked from a node may still say of that one's life.
"""

import base64
import gzip
import io
import shlex
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from labs.catalog import Lab

_ROOT = Path(__file__).resolve().parent.parent
_FOLDER = _ROOT / "userdata"
LIMIT_BYTES = 16 * 1024
"""EC2's limit on user data before base64."""
_BOUNDARY = "rooflab-user-data"
NOTICE_S = 600
"""Workloads are told this many seconds before their lab's deadline, or a sixth of its hours where that is less."""
STALE = (
    "/home/ubuntu/.rooflab",
    "/home/ubuntu/rooflab-runs",
    "/home/ubuntu/.ssh/authorized_keys",
    "/opt/rooflab/boot.env",
    "/var/lib/rooflab/deadline",
    "/var/lib/rooflab/notice",
)
"""What a baked image still says of the node it was made from."""
# bootcmd and write_files come before sshd, before the keys and before apt's timers, which would upgrade the kernel:
# https://cloudinit.readthedocs.io/en/latest/reference/modules.html#bootcmd
_FIRST = f"""\
#cloud-config
bootcmd:
- [cloud-init-per, instance, rooflab, rm, -rf, {", ".join(STALE)}]
write_files:
- {{path: /etc/apt/apt.conf.d/99rooflab, content: 'APT::Periodic::Enable "0";'}}
"""
_ALONGSIDE = {"deadline": ("belt", "notice"), "spot": ("watch",)}
"""Files that a step installs."""


def steps(lab: Lab) -> tuple[str, ...]:
    """Files of `userdata/` that a node of the lab runs, in order: what limits the bill first, the longest last."""
    gpus = lab.instance.gpus > 0
    chosen = {
        "deadline": True,
        "spot": lab.capacity == "spot",
        "ipv6": ipv6_only(lab),
        "system": True,
        "nvme": True,
        "gpu": gpus,
        "efa": gpus and lab.efas > 0,
        "lustre": lab.storage != "none",
        "slurm": lab.nodes > 1,
        "python": True,
    }
    return tuple(step for step, wanted in chosen.items() if wanted)


def scripts(lab: Lab) -> tuple[str, ...]:
    """Files of `userdata/` that lie on a node of the lab, without their ending."""
    chosen = steps(lab)
    return ("boot", "bake", *(name for step in chosen for name in (step, *_ALONGSIDE.get(step, ()))))


def ipv6_only(lab: Lab) -> bool:
    """Whether the lab's nodes have no public IPv4 address, and so no way out but IPv6."""
    return lab.way in ("endpoint", "session")


def notice_s(lab: Lab) -> int:
    """Seconds before the deadline when workloads are told to save what they have and to end."""
    return min(NOTICE_S, int(lab.ttl_hours * 3600 / 6))


def packages(requirements: str) -> tuple[str, ...]:
    """Exact pins that a node installs: the lines of requirements.txt marked "# node", and boto3 to send records."""
    lines = [line.partition("#") for line in requirements.splitlines()]
    return tuple(pin.strip() for pin, _, mark in lines if mark.strip() == "node" or pin.strip().startswith("boto3=="))


@dataclass(frozen=True, kw_only=True)
class UserData:
    """User data of one lab's nodes."""

    packed: str
    """The files and the settings known here: tar, gzip, base64."""
    late: dict[str, str]
    """Settings whose values CloudFormation fills in: appended to the packed ones in plain text."""
    ssh_public_key: str = ""
    """Authorised for the login user; empty authorises none."""

    def text(self, packed: str) -> str:
        """The whole, as cloud-init reads it, with `packed` in its place (which may be a token for the same text)."""
        late = "\n".join(f"{key}={value}" for key, value in self.late.items())
        script = (
            "#!/bin/bash\n"
            "mkdir -p /opt/rooflab\n"
            f"base64 -d <<'ROOFLAB' | tar -xz -C /opt/rooflab\n{packed}\nROOFLAB\n"
            f"cat >>/opt/rooflab/boot.env <<'ROOFLAB'\n{late}\nROOFLAB\n"
            # In the background: cloud-init prints the host keys to the console only after its scripts have ended.
            "systemd-run --unit rooflab-boot bash /opt/rooflab/boot.sh\n"
        )
        first = _FIRST + (f'ssh_authorized_keys: ["{self.ssh_public_key}"]\n' if self.ssh_public_key else "")
        parts = [("text/cloud-config", first), ("text/x-shellscript", script)]
        body = "".join(f"--{_BOUNDARY}\nContent-Type: {kind}\n\n{text}\n" for kind, text in parts)
        return f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{_BOUNDARY}"\n\n{body}--{_BOUNDARY}--\n'


def user_data(lab: Lab, *, region: str, bucket: str, ssh_public_key: str, mount: tuple[str, str] | None) -> UserData:
    """User data of the lab's nodes.

    `mount` is the Lustre file system's host name and mount name; `region`, `bucket` and `mount` may be tokens.
    """
    settings = {
        "ROOFLAB_STACK": lab.stack,
        "ROOFLAB_TTL_HOURS": f"{lab.ttl_hours:g}",
        "ROOFLAB_NOTICE_S": str(notice_s(lab)),
        "ROOFLAB_IPV6_ONLY": str(int(ipv6_only(lab))),
        "ROOFLAB_GPUS": str(lab.instance.gpus),
        "ROOFLAB_EFAS": str(lab.efas),
        "ROOFLAB_STORAGE": lab.storage,
        "ROOFLAB_STORAGE_GIB": str(lab.capacity_gib),
        "ROOFLAB_STEPS": " ".join(steps(lab)),
        "ROOFLAB_PACKAGES": " ".join(packages((_ROOT / "requirements.txt").read_text())),
    }
    files = {
        "boot.env": "".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items()),
        **{f"{name}.sh": _spared(name) for name in scripts(lab)},
    }
    late = {"ROOFLAB_REGION": region, "ROOFLAB_BUCKET": bucket}
    if mount is not None:
        late["ROOFLAB_FSX_HOST"], late["ROOFLAB_FSX_NAME"] = mount
    return UserData(packed=_packed(tuple(files.items())), late=late, ssh_public_key=ssh_public_key)


@cache
def _spared(name: str) -> str:
    return spare((_FOLDER / f"{name}.sh").read_text())


@cache
def _packed(files: tuple[tuple[str, str], ...]) -> str:
    return pack(dict(files))


def spare(script: str) -> str:
    """The script without lines that hold a comment only: they are a fifth of what a template could else not hold."""
    return "".join(line for line in script.splitlines(keepends=True) if not line.lstrip().startswith("# "))


def pack(files: dict[str, str]) -> str:
    """The files as a gzipped tar in base64; the same files give the same text."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, text in files.items():
            content = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return base64.b64encode(gzip.compress(archive.getvalue(), mtime=0)).decode()
