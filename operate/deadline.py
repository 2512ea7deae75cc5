"""A lab's deadline: when the guard ends it, and how a user moves that.

The guard and these functions read it by the same code; see guard/tick.py.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from guard.inventory import Item, iso
from guard.tick import deadline_of
from labs.names import DEADLINE_PARAMETER
from operate.account import Account
from operate.problem import Problem
from operate.stack import deploy_command, find_stack

LONGEST_HOURS = 168.0
"""A deadline is at most this far from now: seven days."""


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When a lab ends."""

    stack: str
    at: datetime
    """Aware UTC."""
    by: str
    """"ttl", "extended", or why neither could be read."""
    left: timedelta
    """From the account's now; negative when it has passed."""

    def __str__(self) -> str:
        minutes = int(abs(self.left).total_seconds() // 60)
        span = f"{minutes // 60} h {minutes % 60:02d} min"
        passed = self.left < timedelta(0)
        return f"{self.stack} ends at {iso(self.at)}, {f'{span} ago' if passed else f'in {span}'} ({self.by})"


def read_deadline(account: Account, stack: str) -> Deadline:
    """When the guard ends `stack`.

    Raises:
        Problem: it is not deployed.
    """
    found = find_stack(account, stack)
    if found is None:
        raise Problem(f"{stack} is not deployed in {account.region}", deploy_command(stack))
    item = Item(kind="stack", id=stack, stack=stack, created=iso(found.created), tags=found.tags)
    at, by = deadline_of(account.client, item)
    return Deadline(stack=stack, at=at, by=by, left=at - account.now())


def extend_deadline(account: Account, stack: str, hours: float) -> Deadline:
    """Move the deadline of `stack` by so many hours, at most to `LONGEST_HOURS` from now.

    Raises:
        ValueError: `hours` is not above 0.
        Problem: not deployed, too far away, or already past; the guard may have begun by then.
    """
    if not 0 < hours <= LONGEST_HOURS:
        raise ValueError(f"hours={hours:g} is not allowed: write a number above 0, up to {LONGEST_HOURS:g}")
    now = read_deadline(account, stack)
    if now.left <= timedelta(0):
        raise Problem(f"{now}", f"it is being ended; when it is gone, {deploy_command(stack)}")
    at = now.at + timedelta(hours=hours)
    most = account.now() + timedelta(hours=LONGEST_HOURS)
    if at > most:
        room = max(0.0, (most - now.at).total_seconds() / 3600)
        raise Problem(f"{now}; {hours:g} h more would be over {LONGEST_HOURS:g} h from now",
                      f"write at most --hours {int(room * 10) / 10:g}, and extend again later")  # fmt: skip
    return set_deadline(account, stack, at)


def set_deadline(account: Account, stack: str, at: datetime) -> Deadline:
    """Let `stack` end then: the guard and its nodes' belts read it from here on. Returns what was written, read back.

    Raises:
        Problem: it is not deployed.
    """
    name = DEADLINE_PARAMETER.format(stack=stack)
    value = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    account.client("ssm").put_parameter(Name=name, Value=value, Type="String", Overwrite=True)
    return read_deadline(account, stack)
