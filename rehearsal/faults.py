"""What goes wrong now: faults that have struck and are met by whoever asks."""

import math
import threading
from dataclasses import dataclass
from typing import Any

from rehearsal.errors import AwsError
from rehearsal.requests import Request


@dataclass(kw_only=True)
class _Refusals:
    """Calls that are refused."""

    action: str
    """Such as "ec2:RunInstances"; "" for any."""
    by: str
    """Whose; "" for anybody's."""
    error: AwsError
    left: float
    """How many more."""


class Faults:
    """Faults that have struck. `rehearsal.injection` lets them strike; the services ask here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._capacity: dict[tuple[str, str], int] = {}
            self._refusals: list[_Refusals] = []
            self._deletions: dict[str, int] = {}
            self._ticks: list[dict[str, str]] = []
            self.fleets_fail = False
            """Whether CreateFleet raises where it comes up with nothing, instead of answering with its errors alone."""
            self.vcpus: int | None = None
            """vCPUs that the quota allows to run; None: the account's own quota."""
            self.fsx_making_s = 0.0
            """How much longer a file system is CREATING than it would be, in the rehearsal's seconds."""
            self.fsx_going_s = 0.0
            """How much longer it is DELETING; infinite where it is stuck."""
            self.image_s = 0.0
            """How much longer an image is pending."""

    def limit(self, kind: str, zone: str, left: int) -> None:
        """Let a zone ("" for every zone) have only `left` more instances of a type ("" for all types together)."""
        with self._lock:
            self._capacity[kind, zone] = left

    def grant(self, kind: str, zone: str, wanted: int) -> int:
        """How many of the wanted instances the zone has; they count as taken."""
        with self._lock:
            limits = self._limits(kind, zone)
            granted = min([wanted, *(self._capacity[slot] for slot in limits)])
            for slot in limits:
                self._capacity[slot] -= granted
            return granted

    def room(self, kind: str, zone: str, wanted: int) -> int:
        """How many of the wanted instances the zone has; they are not taken."""
        with self._lock:
            return min([wanted, *(self._capacity[slot] for slot in self._limits(kind, zone))])

    def give_back(self, kind: str, zone: str, count: int) -> None:
        """Give back what `grant` took and nobody used."""
        with self._lock:
            for slot in self._limits(kind, zone):
                self._capacity[slot] += count

    def _limits(self, kind: str, zone: str) -> list[tuple[str, str]]:
        return [slot for slot in ((kind, zone), (kind, ""), ("", zone), ("", "")) if slot in self._capacity]

    def refuse(self, error: AwsError, *, action: str = "", by: str = "", times: int = 0) -> None:
        """Refuse so many calls (0: all from now on) of an action, of somebody's."""
        with self._lock:
            self._refusals.append(_Refusals(action=action, by=by, error=error, left=times or math.inf))

    def refusal(self, request: Request, by: str) -> AwsError | None:
        """The error that a request meets, if it meets one; it counts as met."""
        with self._lock:
            for refusals in self._refusals:
                if refusals.left > 0 and refusals.action in ("", request.name) and refusals.by in ("", by):
                    refusals.left -= 1
                    return refusals.error
        return None

    def keep(self, kind: str, times: int) -> None:
        """Let CloudFormation's next deletions of a resource type fail."""
        with self._lock:
            self._deletions[kind] = self._deletions.get(kind, 0) + times

    def kept(self, kind: str) -> bool:
        """Whether the deletion of a resource of that type fails now; it counts as failed."""
        with self._lock:
            left = self._deletions.get(kind, 0)
            self._deletions[kind] = max(0, left - 1)
            return left > 0

    def break_ticks(self, error: dict[str, str], times: int) -> None:
        """Let the guard's next ticks end in an error before they did anything."""
        with self._lock:
            self._ticks += [error] * times

    def tick(self) -> dict[str, Any] | None:
        """What a tick of the guard's answers instead of doing its work, if it does not do it."""
        with self._lock:
            return {"error": self._ticks.pop(0)} if self._ticks else None
