"""From EC2's records to machines: what an instance's node is given, and when its door is open."""

import ipaddress
import re
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID

from labs.names import TAG_SSH_PORT, TAG_SSH_USER
from rehearsal import cloudinit, firewall, fsx
from rehearsal.links import Place
from rehearsal.nodes import Boot, Node, Nodes

_OPERATOR = "127.0.0.1"
GRACE_S = 30.0
"""Longest, in real seconds, that processes may take to heed a SIGTERM when their node is terminated. Debian's and
Ubuntu's systemd gives them 90: https://www.freedesktop.org/software/systemd/man/latest/systemd-system.conf.html"""
_AT_ONCE_S = 0.1
_FILE_SYSTEM = re.compile(r"\bfs-[0-9a-f]{17}\b")


class Machines:
    """The nodes of all instances of the account."""

    def __init__(self, *, nodes: Nodes, shared: Path, endpoint: str, access_key: str, secret_key: str) -> None:
        self.nodes = nodes
        self._shared = shared
        self._endpoint = endpoint
        self._access_key = access_key
        self._secret_key = secret_key
        self._instances: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._settled = threading.Condition(self._lock)
        self._ending: dict[str, Callable[[str], None]] = {}
        """Machines that shut down -> who is told when they have."""

    def instance(self, id: str) -> Any | None:
        """moto's record of an instance that has a node."""
        return self._instances.get(id)

    def instances(self) -> list[Any]:
        """moto's records of all instances that have a node."""
        with self._lock:
            return list(self._instances.values())

    def credentials(self) -> dict[str, str]:
        """Environment that reaches this account."""
        return {
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_ACCESS_KEY_ID": self._access_key,
            "AWS_SECRET_ACCESS_KEY": self._secret_key,
        }

    def boot(self, instance: Any) -> Node:
        """Make the machine of a new instance, and tell EC2's records its address.

        Raises:
            OSError: no address is left, or the disk is full.
        """
        data = cloudinit.parse(str(instance.user_data or ""))
        environment, ready = self._environment(instance, data.text)
        keys = data.authorized_keys
        if instance.key_name:
            keys += (instance.ec2_backend.key_pairs[instance.key_name].public_key.strip(),)
        interface = instance.nics[0]
        node = self.nodes.create(
            Boot(instance=instance.id, authorized_keys=keys, environment=environment, ready=ready,
                 place=_place(instance, interface))
        )  # fmt: skip
        interface.rehearsal_subnet_address = interface.private_ip_address
        interface.private_ip_address = node.private
        interface.private_ip_addresses[0]["PrivateIpAddress"] = node.private
        if interface.public_ip and interface.public_ip_auto_assign:
            interface.public_ip = node.address
        instance.add_tags({TAG_SSH_USER: self.nodes.user, TAG_SSH_PORT: str(node.port)})
        with self._lock:
            self._instances[instance.id] = instance
        self.alias(interface)
        self.readmit()
        return node

    def _environment(self, instance: Any, text: str) -> tuple[dict[str, str], str]:
        region = instance.region_name
        environment = {
            **self.credentials(),
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{self._endpoint}/imds/{instance.id}",
        }
        if bucket := _bucket(text):
            environment["ROOFLAB_BUCKET"] = bucket
        # A node mounts the file system that its user data names; the folder of that id stands in for the mount.
        for id in dict.fromkeys(_FILE_SYSTEM.findall(text)):
            system = fsx.find(id)
            if system is None:
                return environment, f"failed: mount: {id} does not exist"
            folder = self._shared / id
            folder.mkdir(parents=True, exist_ok=True)
            environment["ROOFLAB_SHARED"] = str(folder)
        return environment, "ok"

    def readmit(self) -> None:
        """Look at every machine's security groups again and open or close its door."""
        with self._lock:
            ports = {id: node.port for id in self._instances if (node := self.nodes.find(id))}
            standing = {id: self._instances[id] for id in ports}
            operator = [id for id, instance in standing.items() if _admits_operator(instance, ports[id])]
            self.nodes.admit(operator, firewall.visitors(standing, ports))

    def alias(self, interface: Any) -> None:
        """Let the elastic addresses of an instance's first interface lead to its machine, and no others."""
        node = self.nodes.find(interface.instance.id) if interface.instance else None
        if node and interface is interface.instance.nics.get(0):
            held = {interface.public_ip} if interface.public_ip else set()
            for address in (node.aliases | held) - {node.address}:
                self.nodes.alias(node, address, present=address in held)

    def down(self, ids: Iterable[str]) -> None:
        """Stop machines; their disks stay."""
        self.nodes.stop(ids)

    def up(self, id: str) -> None:
        """Start a machine that was stopped."""
        node = self.nodes.find(id)
        if node and node.init is None:
            self.nodes.start(node)

    def end(self, ids: Iterable[str], gone: Callable[[str], None]) -> None:
        """Shut machines down: SIGTERM to everything on them, SIGKILL after `GRACE_S`, then their disks are erased.

        `gone` is told of each: before this returns where nothing ran on it, else by a thread, as it ends.
        """
        ended = list(ids)
        with self._lock:
            self._ending.update(dict.fromkeys(ended, gone))
        self.nodes.ask_to_end(ended, GRACE_S)
        slow = [id for id in ended if not self._over(id, _AT_ONCE_S)]
        if slow:
            threading.Thread(target=self._see_off, args=[slow], name="shutting down", daemon=True).start()

    def _see_off(self, ids: list[str]) -> None:
        for id in ids:
            while not self._over(id, GRACE_S):
                pass

    def _over(self, id: str, within_s: float) -> bool:
        """Wait for the end of one machine that shuts down, and see to what is left of it; whether it has ended."""
        if not self.nodes.ended(id, within_s):
            return False
        with self._lock:
            self._instances.pop(id, None)
            gone = self._ending.pop(id, None)
            if gone:
                gone(id)
            self._settled.notify_all()
        return True

    def settle(self) -> bool:
        """Wait until no machine is shutting down: that takes real time, and time is not advanced past it.

        Returns whether there was something to wait for, and it is over.
        """
        with self._settled:
            if not self._ending:
                return False
            return self._settled.wait_for(lambda: not self._ending, timeout=2 * GRACE_S)

    def kill(self) -> None:
        """End all machines at once, and those that shut down already without waiting any longer."""
        every = [node.instance for node in self.nodes.all()]
        self.nodes.ask_to_end(every, 0.0)
        self.settle()
        for id in every:
            self.nodes.ended(id, GRACE_S)


def _place(instance: Any, interface: Any) -> Place:
    network = instance.ec2_backend.get_vpc(instance.vpc_id)
    prefix = ipaddress.ip_network(network.cidr_block).prefixlen
    return Place(network=instance.vpc_id, address=str(interface.private_ip_address), prefix=prefix)


def _bucket(text: str) -> str:
    from moto.s3.models import s3_backends  # late: 30 ms that a rehearsal without nodes does not need

    names = [name for name in s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets if name in text]
    if len(names) > 1:
        warnings.warn(f"user data names several buckets, {names[0]} is taken: {', '.join(names)}", stacklevel=2)
    return str(names[0]) if names else ""


def _admits_operator(instance: Any, port: int) -> bool:
    rules = (rule for group in instance.nics[0].group_set for rule in group.ingress_rules)
    return firewall.admits(rules, groups=(), addresses=(_OPERATOR,), port=port)
