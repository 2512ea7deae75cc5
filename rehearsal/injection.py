"""Lets the faults that were ordered strike, each at its moment."""

import random
import threading
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from rehearsal import clock, handmade, processes
from rehearsal.drills import Ordered
from rehearsal.errors import AwsError
from rehearsal.faults import Faults
from rehearsal.imds import Imds
from rehearsal.machines import Machines
from rehearsal.moments import Moment, moment
from rehearsal.nodes import Node
from rehearsal.requests import Request
from rehearsal.ticks import Ticks

_NOTICE_S = 120.0
_STRIKE_S = 30.0
"""How long whoever asks waits for a fault that is just striking."""
_THROTTLING = {"ec2": "RequestLimitExceeded", "s3": "SlowDown", "cloudformation": "Throttling"}
"""What a service calls it; the others say ThrottlingException."""


@dataclass(kw_only=True)
class _Waiting:
    """An ordered fault and what became of it."""

    order: Ordered
    moment: Moment
    struck: str = ""
    """When, ISO 8601; "" while it waits."""
    did: str = ""
    """What it did."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set when all that it does is done."""

    def described(self) -> dict[str, str]:
        if self.struck:
            self.over.wait(_STRIKE_S)
        return {"fault": str(self.order), "struck": self.struck, "did": self.did}


class Injection:
    """All faults that were ordered since the last `clear`."""

    def __init__(self, *, faults: Faults, machines: Machines, ticks: Ticks, imds: Imds, ec2: Any) -> None:
        """`ec2`: a client with AWS's own key, whose calls no fault meets."""
        self.faults = faults
        self._machines = machines
        self._ticks = ticks
        self._imds = imds
        self._ec2 = ec2
        self._lock = threading.Lock()
        self._orders: list[_Waiting] = []

    def order(self, order: Ordered) -> None:
        """Take a fault; one for `now` strikes before this returns.

        Raises:
            ValueError: it is to strike now and there is nothing that it could strike.
        """
        waiting = _Waiting(order=order, moment=moment(order.at, order.seed))
        with self._lock:
            self._orders.append(waiting)
        if waiting.moment.kind == "now":
            try:
                self._strike(waiting)
            except ValueError:
                self._orders.remove(waiting)
                raise
            finally:
                waiting.over.set()

    def clear(self) -> None:
        """Forget all faults, and let what they hold up go on. What has died stays dead, what was made stays."""
        with self._lock:
            self._orders.clear()
        self.faults.clear()
        for node in self._machines.nodes.all():
            self._machines.nodes.refuse(node, refused=False)
            self._machines.nodes.drop(node, every=0)

    def described(self) -> list[dict[str, str]]:
        """What was ordered and what has struck, in the order of the orders. Waits for what is just striking."""
        return [waiting.described() for waiting in self._orders]

    def happen(self, kind: str, name: str, request: Request | None = None, who: str = "") -> None:
        """Tell that a call is made (by whom), a stack's event told, or a tick begins."""
        if not self._orders:
            return
        with self._lock:
            due = [
                waiting
                for waiting in self._orders
                if not waiting.struck
                and (kind != "call" or waiting.moment.name or who == "operator")
                and waiting.moment.met(kind, name)
            ]
            for waiting in due:
                waiting.struck = clock.iso(clock.now())
        for waiting in due:
            try:
                self._strike(waiting, request)
            except (ValueError, ClientError) as error:
                waiting.did = f"nothing: {error}"
            finally:
                waiting.over.set()

    def _strike(self, waiting: _Waiting, request: Request | None = None) -> None:
        order = waiting.order
        chance = random.Random(f"{order.drill.name} {order.seed}")
        waiting.struck = clock.iso(clock.now())
        waiting.did = getattr(self, "_" + order.drill.name.replace("-", "_"))(order, chance, request)
        print(f"fault {order}: {waiting.did}", flush=True)

    def _no_capacity(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        left, kind, zone = order.number("left"), order.options["instance_type"], order.options["zone"]
        self.faults.limit(kind, zone, left)
        self.faults.fleets_fail = order.options["fleet"] == "fails"
        return f"{left} left of {kind or 'all types'} in {zone or 'all zones'}"

    def _quota(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        self.faults.vcpus = order.number("vcpus")
        return f"{self.faults.vcpus} vCPUs allowed"

    def _throttled(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        action = order.options["action"] or (request.name if request else "")
        service = action.partition(":")[0]
        error = AwsError(_THROTTLING.get(service, "ThrottlingException"), "Request limit exceeded.")
        # CloudFormation tries again by itself what it did not expect to be throttled.
        self.faults.refuse(error, action=action, by="" if action else "operator", times=order.number("times"))
        return f"{order.options['times']} calls of {action or 'any kind'} are refused"

    def _credentials_expired(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        error = AwsError("ExpiredToken", "The security token included in the request is expired")
        self.faults.refuse(error, by="operator", times=order.number("times"))
        return f"{order.options['times']} calls are refused" if order.number("times") else "all calls are refused"

    def _placement_group_in_use(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        error = AwsError("InvalidPlacementGroup.InUse", "The placement group is in use and may not be deleted.")
        self.faults.refuse(error, action="ec2:DeletePlacementGroup", times=order.number("times"))
        return f"{order.options['times']} calls of ec2:DeletePlacementGroup are refused"

    def _delete_failed(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        self.faults.keep(order.options["type"], order.number("times"))
        return f"{order.options['times']} deletions of {order.options['type']} fail"

    def _fsx_slow(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        self.faults.fsx_making_s = self.faults.fsx_going_s = float(order.number("seconds"))
        return f"a file system takes {order.options['seconds']} s to come and to go"

    def _image_slow(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        self.faults.image_s = float(order.number("seconds"))
        return f"an image takes {order.options['seconds']} s"

    def _fsx_stuck(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        self.faults.fsx_going_s = float(order.number("seconds") or "inf")
        return "file systems stay in DELETING"

    def _clock_jump(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        return f"now {clock.iso(clock.advance(float(order.number('seconds'))))}"

    def _guard_fails(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        raised = {"errorType": "RuntimeError", "errorMessage": "a fault of the drill's"}
        timed_out = {"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out"}
        self.faults.break_ticks(raised if order.options["how"] == "raises" else timed_out, order.number("times"))
        return f"{order.options['times']} ticks fail"

    def _laptop_killed(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        holders = processes.holders(request.port) if request else set()
        if not holders:
            raise ValueError("no client is asking: choose one of its calls, for example --at call:7")
        killed = processes.end(
            lambda: {pid for pid in holders if processes.started(pid)} | processes.descendants(holders)
        )
        return f"{len(killed)} processes of the client that asked for {request.name if request else ''} are killed"

    def _hand_made(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        try:
            return handmade.make(self._ec2, order.options["kind"], chance)
        except ClientError as error:
            raise ValueError(f"EC2 refuses it ({error.response['Error'].get('Message', '')})") from None

    def _spot_notice(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        node = self._node(order, chance, spot=True)
        # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
        ends = self._ticks.after(
            _NOTICE_S, node.instance, lambda: self._ec2.terminate_instances(InstanceIds=[node.instance])
        )
        self._imds.notices[node.instance] = {"action": "terminate", "time": clock.iso(ends)}
        return f"{node.instance} ends at {clock.iso(ends)}"

    def _node_death(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        node = self._node(order, chance)
        if order.options["how"] == "dead":
            self._machines.down([node.instance])
            return f"{node.instance} is dead and EC2 does not know"
        self._machines.down([node.instance])  # no SIGTERM: its host is gone
        self._ec2.terminate_instances(InstanceIds=[node.instance])
        return f"{node.instance} is gone"

    def _ssh_refused(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        node, nodes, seconds = self._node(order, chance), self._machines.nodes, order.number("seconds")
        nodes.refuse(node, refused=True)
        if seconds:
            self._ticks.after(seconds, node.instance, lambda: nodes.refuse(node, refused=False))
        return f"{node.instance} refuses SSH" + (f" for {seconds} s" if seconds else "")

    def _ssh_flapping(self, order: Ordered, chance: random.Random, request: Request | None) -> str:
        node = self._node(order, chance)
        self._machines.nodes.drop(node, every=order.number("every"))
        return f"{node.instance} drops its connections and each {order.options['every']}. new one"

    def _node(self, order: Ordered, chance: random.Random, *, spot: bool = False) -> Node:
        """The node that is named, or one that the seed chooses among those that run.

        Raises:
            ValueError: there is none.
        """
        named, what = order.options["instance"], "spot instance" if spot else "instance"
        found = [
            node
            for node in self._machines.nodes.all()
            if node.init is not None
            and named in ("", node.instance)
            and (instance := self._machines.instance(node.instance)) is not None
            and (not spot or instance.lifecycle == "spot")
        ]
        if not found:
            raise ValueError(f"instance={named!r} is no running {what}" if named else f"no {what} runs")
        return chance.choice(sorted(found, key=lambda node: node.address))
