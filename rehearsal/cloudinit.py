"""What cloud-init would take from an instance's user data: parts, and the keys that may log in.

Formats: https://cloudinit.readthedocs.io/en/latest/explanation/format.html
"""

import base64
import gzip
import warnings
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message

import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

LIMIT_BYTES = 16384
"""Most user data that EC2 takes, counted before base64.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html"""
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class UserData:
    """User data, unpacked."""

    parts: tuple[tuple[str, str], ...]
    """(content type, text) in order."""

    @property
    def text(self) -> str:
        """All parts' text, for finding what they name."""
        return "\n".join(text for _, text in self.parts)

    @property
    def authorized_keys(self) -> tuple[str, ...]:
        """Public keys of the default user, from `ssh_authorized_keys` of every cloud-config part."""
        keys: list[str] = []
        for kind, text in self.parts:
            if kind != "text/cloud-config":
                continue
            try:
                config = yaml.safe_load(text)
            except yaml.YAMLError as error:
                # cloud-init logs this and boots on without the part; so do we, and the node then refuses the login.
                warnings.warn(f"cloud-config is not YAML, its part is skipped: {error}", stacklevel=2)
                continue
            if isinstance(config, dict):
                keys += [str(key).strip() for key in config.get("ssh_authorized_keys") or []]
        return tuple(dict.fromkeys(keys))


def parse(encoded: str | None) -> UserData:
    """User data as EC2's API carries it: base64 of plain text, of MIME parts, or of a gzip of either."""
    return UserData(parts=tuple(_parts(base64.b64decode(encoded or ""))))


def _parts(raw: bytes) -> list[tuple[str, str]]:
    raw = _unzip(raw)
    if not raw.strip():
        return []
    head = raw.lstrip()[:4096].lower()
    if b"mime-version:" in head or head.startswith(b"content-type: multipart/"):
        message = message_from_bytes(raw.lstrip())
        return [part for leaf in message.walk() if not leaf.is_multipart() for part in _leaf(leaf)]
    text = raw.decode(errors="replace")
    return [(_kind(text), text)]


def _leaf(leaf: Message) -> list[tuple[str, str]]:
    payload = leaf.get_payload(decode=True)
    assert isinstance(payload, bytes)
    text = _unzip(payload).decode(errors="replace")
    kind = leaf.get_content_type()
    # A part of no particular type is known by its first line, as a whole user data is.
    return [(_kind(text) if kind in ("text/plain", "application/octet-stream", "application/gzip") else kind, text)]


def _unzip(raw: bytes) -> bytes:
    return gzip.decompress(raw) if raw.startswith(_GZIP) else raw


def _kind(text: str) -> str:
    first = text.lstrip("\ufeff").split("\n", 1)[0].strip()
    if first.startswith("#cloud-config"):
        return "text/cloud-config"
    return "text/x-shellscript" if first.startswith("#!") else "text/plain"
