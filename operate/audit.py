"""`fab audit`: what is in one region, or in every region of the account, what it costs and what removes it."""

import json as documents
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from labs.prices import dollars, total
from operate.account import Account, explain
from operate.farewell import leftover
from operate.problem import Problem
from operate.screen import Screen
from operate.sweep import Sweep, sweep

_AT_ONCE = 12
"""Regions that are looked at side by side."""


def show_audit(stack: str, screen: Screen, *, everywhere: bool, json: bool) -> None:
    """Print what there is of `stack`, or of all labs, here or in all regions.

    Raises:
        Problem: something is left, or could not be looked at.
    """
    account = Account()
    account.now()  # an account that does not answer at all is one problem, not one for every kind of thing
    if everywhere:
        _show_regions(account, stack, screen, json=json)
        return
    with screen.stage("looking"):
        found = sweep(account, stack)
    if json:
        print(documents.dumps(found.as_json(), indent=1))
    else:
        _show(found, screen)
        for line in found.lines():
            screen.note(line)
    leftover(found, stack)


def _show(found: Sweep, screen: Screen) -> None:
    if found.left:
        screen.console.print(found.table())


def _show_regions(account: Account, stack: str, screen: Screen, *, json: bool) -> None:
    enabled, others = regions(account)
    with screen.stage(f"looking into {len(enabled)} regions"), ThreadPoolExecutor(_AT_ONCE) as pool:
        sweeps = dict(zip(enabled, pool.map(lambda region: _sweep(account, region, stack), enabled), strict=True))
    found = {region: one for region, one in sweeps.items() if isinstance(one, Sweep)}
    denied = {region: str(one) for region, one in sweeps.items() if isinstance(one, Problem)}
    residual = None if denied else total(one.residual_usd_per_hour for one in found.values())
    clean = not denied and all(one.clean for one in found.values())
    if json:
        told: dict[str, Any] = {
            "regions": {region: one.as_json() for region, one in found.items()},
            "denied": denied, "not_enabled": others, "residual_usd_per_hour": residual, "clean": clean,
        }  # fmt: skip
        print(documents.dumps(told, indent=1))
    else:
        for region, one in found.items():
            if one.left or one.standing or one.suspects or one.not_looked_at:
                screen.note(f"{region}:")
                _show(one, screen)
                for line in one.lines():
                    screen.note(f"  {line}")
        for region, why in denied.items():
            screen.note(f"{region} was not looked at: {why}")
        empty = [region for region, one in found.items() if one.clean and not one.standing and not one.suspects]
        screen.note(f"nothing in {', '.join(empty) or 'no region'}")
        screen.note(f"not enabled, so not looked at: {', '.join(others) or 'none'}")  # what was there before bills on
        screen.note(f"residual {dollars(residual)}/h in {len(found)} regions")
    if clean:
        return
    if denied:
        raise Problem(f"whether anything is left cannot be told ({', '.join(denied)})", "allow what was refused there")
    where = [region for region, one in found.items() if not one.clean]
    raise Problem(
        f"something is there in {', '.join(where)}", "the commands above remove it, or AWS_REGION=… fab teardown --all"
    )


def regions(account: Account) -> tuple[Sequence[str], Sequence[str]]:
    """Names of the account's regions: those that it has enabled, and those that it has not.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeRegions.html
    """
    rows = account.client("ec2").describe_regions(AllRegions=True)["Regions"]
    disabled = sorted(row["RegionName"] for row in rows if row.get("OptInStatus") == "not-opted-in")
    return sorted({row["RegionName"] for row in rows} - set(disabled)), disabled


def _sweep(account: Account, region: str, stack: str) -> Sweep | Problem:
    try:
        return sweep(Account(region, beside=account), stack)
    except Problem as problem:
        return problem
    except (BotoCoreError, ClientError) as error:
        return explain(error)
