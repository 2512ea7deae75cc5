"""A lab's deadline: when the guard ends it, and how a user or a budget moves that.

The guard, the nodes and these functions read the same parameter and tag; see guard/tick.py.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from guard.inventory import Item, iso
from guard.tick import BLOCK, BLOCK_MARGIN, LONGEST_HOURS, deadline_of
from labs.names import DEADLINE_PARAMETER, Output
from operate.account import Account
from operate.problem import Problem
from operate.stack import Stack, deploy_command, find_stack


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When a lab ends."""

    stack: str
    at: datetime
    """Aware UTC."""
    by: str
    """"ttl", "extended" (by a user, a budget or the guard), its capacity block, or why none could be read."""
    left: timedelta
    """From the account's now; negative when it has passed."""

    def __str__(self) -> str:
        return f"{self.stack} ends at {iso(self.at)}, {self.span} ({self.by})"

    @property
    def span(self) -> str:
        """For example "in 3 h 59 min" or "0 h 04 min ago"."""
        minutes = int(abs(self.left).total_seconds() // 60)
        span = f"{minutes // 60} h {minutes % 60:02d} min"
        return f"{span} ago" if self.left < timedelta(0) else f"in {span}"


def read_deadline(account: Account, stack: str) -> Deadline:
    """When the guard ends `stack`.

    Raises:
        Problem: it is not deployed.
    """
    found = find_stack(account, stack)
    if found is None:
        raise Problem(f"{stack} is not deployed in {account.region}", deploy_command(stack))
    return deadline_of_stack(account, found)


def deadline_of_stack(account: Account, stack: Stack) -> Deadline:
    """When the guard ends a stack that is at hand already."""
    item = Item(kind="stack", id=stack.name, stack=stack.name, created=iso(stack.created), tags=stack.tags)
    at, by = deadline_of(account.client, item)
    try:
        block = _block_end(account, stack)
    except ClientError as error:
        block, by = None, f"{by}; whether {BLOCK} before is not known ({error.response['Error']['Code']})"
    if block and block <= at:
        at, by = block, BLOCK
    return Deadline(stack=stack.name, at=at, by=by, left=at - account.now())


def extend_deadline(account: Account, stack: str, hours: float) -> Deadline:
    """Move the deadline of `stack` by so many hours, at most to `LONGEST_HOURS` from now or its capacity block's end.

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
    most, whose = account.now() + timedelta(hours=LONGEST_HOURS), f"{LONGEST_HOURS:g} h from now"
    found = find_stack(account, stack)
    block = _block_end(account, found) if found else None
    if block and block < most:
        most, whose = block, f"40 min before {BLOCK}"
    if at > most:
        room = int(max(0.0, (most - now.at).total_seconds() / 3600) * 10) / 10
        remedy = f"write at most --hours {room:g}" if room else "deploy it again where there is more time"
        raise Problem(f"{now}; {hours:g} h more would be over {whose}",
                      f"{remedy}, and extend again later" if most != block else remedy)  # fmt: skip
    _write(account, stack, at)
    return read_deadline(account, stack)


def set_deadline(account: Account, stack: str, at: datetime) -> Deadline:
    """Bring the deadline of `stack` forward to `at`, as a budget does. Never back: that is `extend_deadline`.

    Raises:
        Problem: not deployed.
    """
    now = read_deadline(account, stack)
    if at >= now.at:
        return now
    _write(account, stack, at)
    return read_deadline(account, stack)


def _write(account: Account, stack: str, at: datetime) -> None:
    name = DEADLINE_PARAMETER.format(stack=stack)
    account.client("ssm").put_parameter(Name=name, Value=iso(at), Type="String", Overwrite=True)


def _block_end(account: Account, stack: Stack) -> datetime | None:
    """When a lab must end for its capacity block; None where it has none."""
    kind, _, block = stack.outputs.get(Output.CAPACITY, "").partition(":")
    if kind != "block":
        return None
    rows = account.client("ec2").describe_capacity_reservations(CapacityReservationIds=[block])["CapacityReservations"]
    ends = [row["EndDate"].astimezone(UTC) - BLOCK_MARGIN for row in rows if "EndDate" in row]
    return min(ends, default=None)
