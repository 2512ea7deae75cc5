"""`fab cost`: what a lab would cost, and what a deployed one has cost; the first needs no account."""

import json as documents
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from labs.catalog import Lab
from labs.prices import Cost, cost_of, dollars
from operate.account import Account
from operate.bill import frozen_cost, line, spent
from operate.deadline import Deadline, deadline_of_stack
from operate.money import table
from operate.problem import Problem
from operate.rates import rates_of
from operate.screen import Screen
from operate.stack import find_stack


def show_cost(lab: Lab, screen: Screen, *, json: bool) -> None:
    """Print what the lab costs an hour and for its time to live; where it is deployed, what that has cost so far."""
    cost, notes, account = estimate(lab)
    standing = _standing(account, lab.stack, screen) if account else None
    whole = cost.usd(lab.ttl_hours)
    if json:
        deployed = _as_json(*standing) if standing else None
        told = {**cost.as_json(), "notes": [*cost.notes, *notes], "ttl_hours": lab.ttl_hours, "usd": whole}
        print(documents.dumps({**told, "deployed": deployed}, indent=1))
        return
    screen.console.print(table(cost, lab.ttl_hours))
    for note in notes:
        screen.aside(note)
    screen.note(f"{dollars(whole)} for {lab.ttl_hours:g} h, when the guard ends {lab.stack}")
    if standing:
        screen.note(f"deployed: {line(*standing)}")


def estimate(lab: Lab) -> tuple[Cost, tuple[str, ...], Account | None]:
    """What the lab would cost in the region that the shell is set to; notes on the prices; the account, if one answers.

    Without an account: the dated table.
    """
    try:
        account = Account()
        account.credentials()
    except Problem as problem:
        return cost_of(lab), (f"prices of the dated table, for no account was asked: {problem.cause}",), None
    spot = lab.capacity == "spot"
    rates, note = rates_of(account, lab.types, spot=spot)
    return cost_of(lab, region=account.region, rates=rates), (note,) if note else (), account


def _standing(account: Account, stack: str, screen: Screen) -> tuple[Mapping[str, Any], Deadline] | None:
    try:
        found = find_stack(account, stack)
        return (frozen_cost(account, found), deadline_of_stack(account, found)) if found else None
    except (BotoCoreError, ClientError, Problem) as error:
        screen.warn(f"whether {stack} is deployed cannot be told ({type(error).__name__})")
        return None


def _as_json(cost: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
    now = deadline.at - deadline.left
    return {**cost, "usd_so_far": spent(cost["things"], now), "usd_at_deadline": spent(cost["things"], deadline.at)}
