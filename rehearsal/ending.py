"""Instances that end: shutting-down while their processes do, then terminated, with all that was made with them."""

import threading
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult

from rehearsal import clock
from rehearsal.errors import AwsError
from rehearsal.holds import Holds
from rehearsal.machines import Machines
from rehearsal.orders import Orders

_lock = threading.RLock()
_leaving: dict[str, tuple[Any, datetime]] = {}
"""Instances whose machine is down, and since when they are shutting down."""


class Endings(Orders):
    """TerminateInstances and what follows from it."""

    machines: Machines
    holds: Holds

    def call_action(self) -> Any:
        """Answer a request; before that, all that has run its course since the last one is finished."""
        self.settle()
        return super().call_action()

    def settle(self) -> None:
        """Finish what is over: instances whose machine is down, capacity blocks that have ended."""
        if ids := self.ending_blocks():
            self.terminate(ids)
        with _lock:
            for id, (instance, since) in list(_leaving.items()):
                if self.holds.over("instance", since):
                    del _leaving[id]
                    self._take_away(instance)
                    instance._reason = _asked(since)

    def standing(self) -> list[Any]:
        """Instances that have not ended."""
        return [instance for instance in self.ec2_backend.all_instances() if instance.state != "terminated"]

    def terminate_instances(self) -> ActionResult:
        ids = self._get_param("InstanceIds", [])
        self.error_on_dryrun()
        return ActionResult({"TerminatingInstances": self.terminate(ids)})

    def terminate(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        """End instances and all that was made with them. One that has ended already is left as it is."""
        backend = self.ec2_backend
        instances = backend.get_multi_instances_by_id(list(ids))
        for instance in instances:
            if instance.disable_api_termination:
                raise AwsError(
                    "OperationNotPermitted",
                    f"The instance '{instance.id}' may not be terminated. "
                    "Modify its 'disableApiTermination' instance attribute and try again.",
                )
        ended = [instance for instance in instances if instance.state in ("shutting-down", "terminated")]
        alive = {instance.id: instance for instance in instances if instance not in ended}
        changes = [_change(instance, instance.state, instance.state_code) for instance in ended]
        since = clock.now()
        for instance in alive.values():
            changes.append(_change(instance, "shutting-down", 32))
            instance._state.name, instance._state.code = "shutting-down", 32
            instance._reason = _asked(since)

        def down(id: str) -> None:
            with _lock:
                _leaving[id] = alive[id], since

        self.machines.end(alive, gone=down)
        return changes

    def _take_away(self, instance: Any) -> None:
        backend = self.ec2_backend
        for address in backend.addresses:
            if address.association_id and (address.instance is instance or address.eni in instance.nics.values()):
                kept = address.eni and not address.eni.delete_on_termination
                if not kept:
                    backend.disassociate_address(association_id=address.association_id)
        for interface in list(instance.nics.values()):
            if taken := getattr(interface, "rehearsal_subnet_address", None):
                interface.subnet.del_subnet_ip(taken)
                interface.private_ip_address = taken
                interface.private_ip_addresses[0]["PrivateIpAddress"] = taken
        devices = instance.block_device_mapping.values()
        volumes = [device.volume_id for device in devices if device.delete_on_termination]
        instance.terminate()
        for volume in volumes:
            backend.tags.pop(volume, None)
        for interface in list(instance.nics.values()):
            if interface.delete_on_termination:
                backend.tags.pop(interface.id, None)
            else:
                interface.attachment_id, interface.instance, interface.status = None, None, "available"
        if instance.placement.group_name:
            self.group(instance.placement.group_name).members.discard(instance.id)
        for reservation in self.capacity.values():
            reservation.users.discard(instance.id)


def _asked(at: datetime) -> str:
    """The reason of an end, with the time at which it was asked for: billing stops there, not when all is gone."""
    return f"User initiated ({at:%Y-%m-%d %H:%M:%S} GMT)"


def _change(instance: Any, name: str, code: int) -> dict[str, Any]:
    previous = {"Code": instance.state_code, "Name": instance.state}
    return {"InstanceId": instance.id, "CurrentState": {"Code": code, "Name": name}, "PreviousState": previous}
