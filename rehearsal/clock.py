"""The rehearsal's clock: real time plus an offset that `advance` enlarges. Every timestamp served follows it."""

import sys
from datetime import UTC, datetime, timedelta

_offset = timedelta()


def now() -> datetime:
    """Virtual time, aware, UTC."""
    return datetime.now(UTC) + _offset


def advance(seconds: float) -> datetime:
    """Move the clock forward and return the new time.

    Raises:
        ValueError: `seconds` is negative.
    """
    global _offset  # one process serves one rehearsal, and a rehearsal has one clock
    if seconds < 0:
        raise ValueError(f"seconds={seconds!r}: time only moves forward, write 0 or more")
    _offset += timedelta(seconds=seconds)
    return now()


def advance_to(moment: datetime) -> datetime:
    """Move the clock forward to `moment`, if that is still to come, and return the new time."""
    return advance(max(0.0, (moment - now()).total_seconds()))


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC to the second, as AWS writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _naive() -> datetime:
    return now().replace(tzinfo=None)


def install() -> None:
    """Make moto follow this clock. Modules loaded before hold their own name for `utcnow`: each is replaced."""
    from moto.core import utils  # late: a process that only wants `now` need not load moto

    original = utils.utcnow
    for name, module in list(sys.modules.items()):
        if name.startswith("moto.") and vars(module).get("utcnow") is original:
            vars(module)["utcnow"] = _naive
