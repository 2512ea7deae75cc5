"""Host keys of the nodes: read from EC2's console output, pinned, and written down for OpenSSH.

The console is the one way to a node's keys that an impostor on the network does not have. Nothing else is trusted:
no first connection, no accept-new.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from operate.account import Account
from operate.laptop import write
from operate.nodes import Node
from operate.problem import Problem

_BLOCK = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_KEY = re.compile(r"\b(ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa) ([A-Za-z0-9+/]+={0,2})")


def keys_in_console(text: str) -> tuple[str, ...]:
    """Host keys in cloud-init's last complete block, as "TYPE BASE64". Empty where there is none."""
    blocks = _BLOCK.findall(text)
    return tuple(dict.fromkeys(f"{kind} {key}" for kind, key in _KEY.findall(blocks[-1]))) if blocks else ()


def host_name(address: str, port: int) -> str:
    """How OpenSSH writes a host in known_hosts."""
    return address if port == 22 else f"[{address}]:{port}"


def pin(
    account: Account,
    nodes: Sequence[Node],
    folder: Path,
    *,
    limit_s: float = 300,
    tell: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Mapping[str, tuple[str, ...]]:
    """Host keys by node name, asked of EC2 where they are not pinned yet, and written to `folder`/known_hosts.

    A pin belongs to one launch of one instance: a new machine at an old address is asked for its own keys.

    Raises:
        Problem: a node's console shows no keys within `limit_s` seconds.
    """
    pins = folder / "pins.json"
    known = _read(pins)
    missing = [node for node in nodes if _pin(node) not in known]
    waited_s = 0.0
    while missing:
        with ThreadPoolExecutor(max_workers=min(16, len(missing))) as pool:
            seen = dict(zip(missing, pool.map(lambda node: _ask(account, node), missing), strict=True))
        known.update({_pin(node): keys for node, keys in seen.items() if keys})
        missing = [node for node, keys in seen.items() if not keys]
        if not missing:
            break
        listed = ", ".join(f"{node.name} ({node.instance_id})" for node in missing)
        if waited_s >= limit_s:
            raise Problem(
                f"after {limit_s:.0f} s the console of {listed} shows no SSH host keys",
                "it may still boot: try again in a minute; `aws ec2 get-console-output --latest` shows how far it is",
            )
        tell(f"waiting for the host keys of {listed}")
        sleep(5)
        waited_s += 5
    kept = {_pin(node): known[_pin(node)] for node in nodes}
    write(pins, json.dumps(kept, indent=1) + "\n")
    write(folder / "known_hosts", known_hosts((node, kept[_pin(node)]) for node in nodes))
    return {node.name: kept[_pin(node)] for node in nodes}


def known_hosts(pinned: Iterable[tuple[Node, Iterable[str]]]) -> str:
    """The text of a known_hosts file."""
    return "".join(f"{host_name(node.address, node.port)} {key}\n" for node, keys in pinned for key in keys)


def _pin(node: Node) -> str:
    return f"{node.instance_id} {node.launched.isoformat() if node.launched else ''}"


def _ask(account: Account, node: Node) -> tuple[str, ...]:
    """Latest=True is live on Nitro types; where it is refused, the buffered console of the boot is asked."""
    ec2 = account.client("ec2")
    for latest in ({"Latest": True}, {}):
        try:
            answer: dict[str, Any] = ec2.get_console_output(InstanceId=node.instance_id, **latest)
        except ec2.exceptions.ClientError as error:
            if not latest or error.response["Error"]["Code"] not in ("UnsupportedOperation", "InvalidParameterValue"):
                raise
            continue
        if keys := keys_in_console(_plain(answer.get("Output", ""))):
            return keys
    return ()


def _plain(output: str) -> str:
    """boto3 decodes the console's base64; some endpoints encode it twice."""
    if "-----BEGIN" in output:
        return output
    try:
        return base64.b64decode(output, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return output


def _read(pins: Path) -> dict[str, tuple[str, ...]]:
    try:
        return {instance: tuple(keys) for instance, keys in json.loads(pins.read_text()).items()}
    except (FileNotFoundError, ValueError):  # an unreadable pin is asked for again, never guessed
        return {}
