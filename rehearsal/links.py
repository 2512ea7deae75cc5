"""Links: each node in a network namespace of its own, on a bridge with the others of its network, its link limited.

A node has one interface, eth0, with the private address that EC2 tells; the bridges are in a namespace too, one a
network, so that nothing of it is seen on this machine, which cannot reach a private address any more than a laptop can
reach those of AWS. The limit holds at both ends of the link, for what the node sends and for what it is sent. What is
no traffic between nodes passes beside it: SSH comes as a connection that the node's init was given outside, and the AWS
endpoint and IMDS answer at the node's own localhost. The internet cannot be reached; of names a node knows its
neighbours', ip-10-0-0-4 and the like.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal import namespaces
from rehearsal.rates import Rate

INTERFACE = "eth0"
"""A node's only one."""
_FILE = "wires"
_LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost\n"

Answer = Callable[[socket.socket, Any], None]
"""Takes a connection and where it came from: the server's own."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a node is in its network."""

    network: str
    """Id of its VPC: nodes of another cannot be reached."""
    address: str
    """Its private address."""
    prefix: int
    """Bits of the address that all of the network share."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """What a node hangs on."""

    instance: str
    place: Place
    port: str
    """Name of the link's other end, on the bridge."""
    namespace: int
    """Descriptor of the node's."""
    endpoint: socket.socket
    """Listens at the node's localhost for what is the AWS endpoint's."""
    hosts: Path
    """What its processes see as /etc/hosts."""


class Links:
    """The bridges of a rehearsal, and who hangs on them."""

    def __init__(self, *, state: Path, rate: Rate, port: int, answer: Answer) -> None:
        """`port`: of the AWS endpoint, whose connections `answer` takes.

        Raises:
            OSError: the kernel lacks something.
        """
        self.rate = rate
        self._state = state
        self._port, self._answer = port, answer
        self._lock = threading.RLock()
        self._bridges: dict[str, str] = {}
        self._wires: dict[str, Wire] = {}
        self._made = 0
        self._hub = namespaces.new()
        with namespaces.within(self._hub):
            namespaces.order("ip", ["link set lo up"])
            namespaces.order("tc", [f"qdisc replace dev lo root {rate.shaping}"])  # before a node needs it: can it?
        self._write()

    def join(self, instance: str, place: Place) -> Wire:
        """Give a node its namespace and link.

        Raises:
            OSError: the kernel refuses it.
        """
        with self._lock:
            self._made += 1
            namespace, port = namespaces.new(), f"port{self._made}"
            try:
                with namespaces.within(self._hub):
                    namespaces.order("ip", [*self._bridge(place.network), *_cable(port, namespace)])
                    namespaces.order("ip", [f"link set {port} master {self._bridges[place.network]} up"])
                    namespaces.order("tc", [f"qdisc replace dev {port} root {self.rate.shaping}"])
                with namespaces.within(namespace):
                    namespaces.order("ip", ["link set lo up", f"link set {INTERFACE} up",
                                            f"addr add {place.address}/{place.prefix} dev {INTERFACE}"])  # fmt: skip
                    namespaces.order("tc", [f"qdisc replace dev {INTERFACE} root {self.rate.shaping}"])
                    endpoint = socket.create_server(("127.0.0.1", self._port), backlog=256)
            except OSError:
                os.close(namespace)
                raise
            wire = Wire(instance=instance, place=place, port=port, namespace=namespace, endpoint=endpoint,
                        hosts=self._state / f"hosts-{place.network}")  # fmt: skip
            self._wires[instance] = wire
            self._write()
        name = f"endpoint of {instance}"
        threading.Thread(target=_answer_all, args=(endpoint, self._answer), name=name, daemon=True).start()
        return wire

    def part(self, wire: Wire) -> None:
        """Take a node's link away; its namespace goes with the last process in it."""
        with self._lock:
            if self._wires.pop(wire.instance, None) is not wire:
                return
            with suppress(OSError):  # nothing comes in any more: its thread ends
                wire.endpoint.shutdown(socket.SHUT_RDWR)
            wire.endpoint.close()
            os.close(wire.namespace)
            with namespaces.within(self._hub), suppress(OSError):  # the namespace may have taken it along
                namespaces.order("ip", [f"link del {wire.port}"])
            self._write()

    def limit(self, rate: Rate) -> None:
        """Let every link be that fast from now on.

        Raises:
            OSError: the kernel refuses it.
        """
        with self._lock:
            self.rate = rate
            ends = {self._hub: [wire.port for wire in self._wires.values()]}
            ends |= {wire.namespace: [INTERFACE] for wire in self._wires.values()}
            for namespace, devices in ends.items():
                with namespaces.within(namespace):
                    lines = [f"qdisc replace dev {device} root {rate.shaping}" for device in devices]
                    namespaces.order("tc", lines) if lines else None

    def _bridge(self, network: str) -> list[str]:
        if network in self._bridges:
            return []
        name = self._bridges[network] = f"bridge{len(self._bridges)}"
        return [f"link add {name} type bridge forward_delay 0", f"link set {name} up"]

    def _write(self) -> None:
        partial = self._state / f"{_FILE}.partial"
        rows = (f"{w.instance}\t{w.place.network}\t{w.place.address}\n" for w in self._wires.values())
        partial.write_text("".join(rows))
        partial.replace(self._state / _FILE)
        for hosts in {wire.hosts for wire in self._wires.values()}:
            # Written in place: nodes have mounted the file itself, and would keep one that is replaced.
            hosts.write_text(_LOCALHOST + "".join(_host(w.place) for w in self._wires.values() if w.hosts == hosts))


def neighbour(state: Path, instance: str, address: str) -> str:
    """The instance that has `address` in the network of `instance`, or "" where nodes have no links of their own."""
    try:
        rows = [tuple(line.split("\t")) for line in (state / _FILE).read_text().splitlines()]
    except FileNotFoundError:
        return ""
    here = next((network for id, network, _ in rows if id == instance), None)
    return next((id for id, network, other in rows if (network, other) == (here, address)), "")


def _host(place: Place) -> str:
    """Two lines: who listens on IPv6 as well, as c10d does, sees a neighbour's address in IPv6's form and asks for it.

    By its short name a node is found at its IPv4 address alone.
    """
    name = f"ip-{place.address.replace('.', '-')}"
    return f"{place.address}\t{name}\n::ffff:{place.address}\t{name}.ec2.internal\n"


def _cable(port: str, namespace: int) -> list[str]:
    there = f"/proc/{os.getpid()}/fd/{namespace}"
    return [f"link add {port} type veth peer name {INTERFACE} netns {there}"]


def _answer_all(endpoint: socket.socket, answer: Answer) -> None:
    with suppress(OSError):  # the wire was taken away
        while True:
            answer(*endpoint.accept())
