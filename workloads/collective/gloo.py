"""Over what gloo sends: always TCP, by the interface that it is told, else by the one of this host's own name."""

import os
import socket
import struct
from collections.abc import Mapping

_ASK_ADDRESS = 0x8915
"""SIOCGIFADDR of Linux: netdevice(7)."""


def transport(environment: Mapping[str, str] = os.environ) -> str:
    """For example "gloo: TCP over eth0, 10.0.1.17"."""
    if named := environment.get("GLOO_SOCKET_IFNAME"):
        return f"gloo: TCP over {named}, by GLOO_SOCKET_IFNAME"
    address = _own_address()
    interface = interface_of(address)
    return f"gloo: TCP over {interface}, {address}" if interface else f"gloo: TCP over {address}"


def _own_address() -> str:
    """What this host's name means, where that is an address of this host; else the loopback, as gloo does it."""
    try:
        for *_, place in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
                tried.bind((place[0], 0))
                return str(place[0])
    except OSError:
        pass  # gloo too takes the loopback then
    return "127.0.0.1"


def interface_of(address: str) -> str:
    """The interface that has this address; "" where the system does not tell."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asked.fileno(), _ASK_ADDRESS, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none, or this is no Linux
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""
