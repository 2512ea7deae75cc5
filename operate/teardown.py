"""End a lab from here, by the same steps as the guard in the account, and prove that nothing is left.

Ending it twice, or while the guard does, is harmless. If this process dies, the guard still ends the lab.
"""

import time
from collections.abc import Callable
from dataclasses import asdict

from guard.inventory import Inventory, look
from guard.removal import Step, step
from operate.account import Account
from operate.bill import Frozen
from operate.life import read_life
from operate.receipt import Receipt
from operate.sweep import priced, swept

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
    frozen: Frozen | None = None,
    progress: Progress = lambda made, elapsed: None,
    limit_s: float = LIMIT_S,
    pause: Callable[[float], None] = time.sleep,
) -> Receipt:
    """End the lab of `stack`, whatever state it is in, and return the receipt; see its `exit_code`.

    `frozen` is the lab's price as `operate.bill` froze it; without it, what the lab's things cost now.

    Raises:
        Problem: there are no credentials.
    """
    first, last, gave_up = _end(account, stack, progress, limit_s, pause)
    life = read_life(account, stack, first, frozen)
    final = swept(account, last.before if last.done else look(account.client, stack), since=life.started)
    refused = (*last.refused, *((gave_up,) if gave_up else ()))
    return Receipt(
        run=run,
        stack=stack,
        region=account.region,
        created=tuple(priced(item, account.region) for item in first.left),
        sweep=final,
        refused=refused,
        **asdict(life),
    )


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
