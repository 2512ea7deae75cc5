"""End a lab from here, by the same steps as the guard in the account, and prove that nothing is left.

Ending it twice, or while the guard does, is harmless. If this process dies, the guard still ends the lab.
"""

import time
from collections.abc import Callable
from datetime import datetime

from guard.inventory import Inventory, iso
from guard.removal import Step, step
from guard.tick import ttl_hours
from labs.prices import total
from operate.account import Account
from operate.money import so_far
from operate.receipt import Receipt
from operate.sweep import Sweep, priced, sweep, swept

LIMIT_S = 3600.0
"""Longest that a teardown goes on: a file system alone may take a quarter of an hour."""
IDLE_STEPS = 6
"""After so many steps in a row that were only refused, no further step would help."""
RETRIES = 5
"""So often a stack that fails to delete is told to delete itself again."""
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.25, 10.0

Progress = Callable[[Step, float], None]
"""Called after each step with the seconds since the first."""


def teardown(
    account: Account,
    stack: str,
    *,
    run: str = "",
    usd_per_hour: float | None = None,
    progress: Progress = lambda made, elapsed: None,
    limit_s: float = LIMIT_S,
    pause: Callable[[float], None] = time.sleep,
) -> Receipt:
    """End the lab of `stack`, whatever state it is in, and return the receipt; see its `exit_code`.

    `usd_per_hour` is the price frozen when the run began; without it, what the lab's things cost now.

    Raises:
        Problem: there are no credentials.
    """
    first, last, gave_up = _end(account, stack, progress, limit_s, pause)
    final = swept(account, last.before) if last.done else sweep(account, stack)
    refused = (*last.refused, *((gave_up,) if gave_up else ()))
    return _receipt(account, stack, first, final, run=run, usd_per_hour=usd_per_hour, refused=refused)


def _end(
    account: Account, stack: str, progress: Progress, limit_s: float, pause: Callable[[float], None]
) -> tuple[Inventory, Step, str]:
    """Step after step; returns what there was at first, the last step, and why it gave up if it did."""
    began = time.monotonic()
    first: Inventory | None = None
    idle, retries, pause_s = 0, 0, _FIRST_PAUSE_S
    while True:
        made = step(account.client, stack)
        first = first or made.before
        elapsed = time.monotonic() - began
        progress(made, elapsed)
        retries += any(" again (" in line for line in made.did)
        idle = 0 if made.did or made.pending else idle + 1
        if made.done:
            return first, made, ""
        if elapsed > limit_s:
            return first, made, f"gave up after {elapsed:.0f} s"
        if idle >= IDLE_STEPS:
            return first, made, f"gave up after {idle} steps that could do nothing"
        if retries > RETRIES:
            return first, made, f"gave up: {stack} failed to delete {retries} times"
        pause_s = _FIRST_PAUSE_S if made.did else min(pause_s * 1.6, _LAST_PAUSE_S)
        pause(pause_s)


def _receipt(
    account: Account,
    stack: str,
    first: Inventory,
    final: Sweep,
    *,
    run: str,
    usd_per_hour: float | None,
    refused: tuple[str, ...],
) -> Receipt:
    had = tuple(priced(item, account.region) for item in first.left)
    standing, now = first.stack(stack), account.now()
    estimate = actual = None
    if standing:
        if usd_per_hour is None:
            usd_per_hour = total(item.usd_per_hour for item in had)
        actual = so_far(usd_per_hour, created=datetime.fromisoformat(standing.created), now=now)
        hours = ttl_hours(standing)
        estimate = None if usd_per_hour is None or not hours else usd_per_hour * hours
    return Receipt(
        run=run,
        stack=stack,
        region=account.region,
        started=standing.created if standing else "",
        ended=iso(now),
        usd_per_hour=usd_per_hour,
        estimate_usd=estimate,
        actual_usd=actual,
        created=had,
        sweep=final,
        refused=refused,
    )
