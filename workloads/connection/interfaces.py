"""This node's network interfaces, and which address its collectives will give to their peers.

gloo: the interfaces that GLOO_SOCKET_IFNAME names, else whatever the host's own name resolves to, else loopback
(torch/csrc/distributed/c10d/ProcessGroupGloo.cpp). NCCL: the first interface that fits NCCL_SOCKET_IFNAME, a list of
prefixes, with = of whole names, with ^ of what to leave out; unset it chooses by itself, and is not foretold here.
https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-socket-ifname
"""

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a Unix: no interface's address can be asked for
    fcntl = None  # type: ignore[assignment]

GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
_GET_ADDRESS = (0x8915, 0xC0206921)
"""SIOCGIFADDR of Linux and of BSD."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one library will announce as this node's address."""

    by: str
    """How it came to be chosen, for example "GLOO_SOCKET_IFNAME=ens5"."""
    address: str = ""
    problem: str = ""
    """Why there is no address."""


def addresses() -> dict[str, str]:
    """Every interface and its first address, "" where it has none."""
    return {name: _address(name) for _, name in socket.if_nameindex()}


def _address(name: str) -> str:
    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        for code in _GET_ADDRESS if fcntl else ():
            try:
                return socket.inet_ntoa(fcntl.ioctl(end.fileno(), code, request)[20:24])
            except OSError:
                continue
    return _ipv6(name)


def _ipv6(name: str) -> str:
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else ():
        words = line.split()
        if words[-1] == name and words[3] == "00":  # of global scope
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0]))
    return ""


def choices(environment: Mapping[str, str], known: Mapping[str, str], *, gpus: bool) -> Iterator[Choice]:
    """What gloo, and with `gpus` NCCL, will announce; `known` are the interfaces with their addresses."""
    if named := environment.get(GLOO, ""):
        for name in named.split(","):
            yield _named(f"{GLOO}={named}", [name] if name in known else [], known)
    else:
        yield _by_host_name()
    if gpus and (pattern := environment.get(NCCL, "")):
        yield _named(f"{NCCL}={pattern}", matching(pattern, tuple(known)), known)


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The interfaces that fit NCCL's pattern, in their order."""
    out = pattern.startswith("^")
    whole = pattern.lstrip("^").startswith("=")
    wanted = [word for word in pattern.lstrip("^").lstrip("=").split(",") if word]
    return [
        name
        for name in names
        if any(name == word if whole else name.startswith(word) for word in wanted) != out
    ]  # fmt: skip


def _named(by: str, names: Sequence[str], known: Mapping[str, str]) -> Choice:
    if not names:
        return Choice(by=by, problem=f"{by} fits no interface: there are {', '.join(known)}")
    address = next((known[name] for name in names if known[name]), "")
    return Choice(by=by, address=address, problem="" if address else f"{by}: {names[0]} has no address")


def _by_host_name() -> Choice:
    name = socket.gethostname()
    by = f"{GLOO} unset, host name {name}"
    try:
        found = [item[4][0] for item in socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)]
    except OSError:
        found = []
    mine = next((str(address) for address in found if _is_mine(str(address))), "127.0.0.1")
    return Choice(by=by, address=mine)


def _is_mine(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as end:
        try:
            end.bind((address, 0))
        except OSError:
            return False
    return True


def towards(address: str) -> str:
    """The address that packets to `address` leave from.

    Raises:
        OSError: there is no route, or the name does not resolve.
    """
    found = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(found[0], socket.SOCK_DGRAM) as end:
        end.connect(found[4])  # of UDP: sends nothing
        return str(end.getsockname()[0])


def mtu(address: str, known: Mapping[str, str]) -> str:
    """Bytes of the largest packet of the interface with that address; "" where it is not told."""
    name = next((name for name, own in known.items() if own == address), "")
    path = Path("/sys/class/net") / name / "mtu"
    return path.read_text().strip() if name and path.exists() else ""
