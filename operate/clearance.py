"""`fab teardown --all`: every lab of the account and region, then what stood for them: GuardStack, bucket, parameters.

What stands on purpose and is not Rooflab's to take, such as a baked image or the user's own reservation, stays.
"""

import json as documents
import sys
import time
from collections.abc import Callable, Sequence

from guard.inventory import everything
from guard.notice import TOLD
from guard.removal import DEADLINES
from labs.names import GUARD_STACK
from operate.account import Account
from operate.choice import lab_of
from operate.farewell import leftover, part_with
from operate.problem import Problem
from operate.receipt import Receipt
from operate.screen import Screen
from operate.stack import find_stack
from operate.sweep import Found, Sweep, sweep
from operate.teardown import teardown

_LIMIT_S = 600.0
"""GuardStack holds nothing slow."""


def clear_account(account: Account, screen: Screen, *, yes: bool, json: bool) -> None:
    """End all labs, remove what stood for them, and print what is left: nothing but what stands on purpose.

    Raises:
        Problem: it was not confirmed, or something is left.
    """
    before = sweep(account)
    labs = sorted({item.stack for item in before.left if item.stack})
    buckets = [item.id for item in before.standing if item.kind == "bucket"]
    _announce(account, before, labs, buckets, screen)
    if not yes:
        _confirm()
    receipts = [_end(account, stack, screen, json=json) for stack in labs]
    for receipt in receipts:
        leftover(receipt.sweep, receipt.stack)  # while one lab is left, its guard stays
    removed = remove_standing(account, buckets, screen)
    after = sweep(account)
    if json:
        told = {"receipts": [receipt.as_json() for receipt in receipts], "removed": removed, "after": after.as_json()}
        print(documents.dumps(told, indent=1))
    else:
        for line in after.lines():
            screen.note(line)
    leftover(after)
    if still := [item for item in after.standing if item.stack == GUARD_STACK]:
        raise Problem(f"of {GUARD_STACK} there is still {_named(still)}", "run the same command again")


def remove_standing(
    account: Account, buckets: Sequence[str], screen: Screen, *, pause: Callable[[float], None] = time.sleep
) -> list[str]:
    """Remove GuardStack, the results buckets with all they hold, and the parameters. Returns what was removed.

    Raises:
        Problem: GuardStack does not go.
    """
    removed = []
    for bucket in buckets:  # first: when GuardStack is gone, nothing says whose a bucket is but its tag
        with screen.stage(f"emptying {bucket}"):
            count = empty(account, bucket)
        removed.append(f"{count} objects of {bucket}")
    if find_stack(account, GUARD_STACK):
        with screen.stage(f"removing {GUARD_STACK}"):
            _delete_guard(account, pause)
        removed.append(f"stack {GUARD_STACK}")
    for bucket in buckets:
        account.client("s3").delete_bucket(Bucket=bucket)
        removed.append(f"bucket {bucket}")
    ssm = account.client("ssm")
    for path in (DEADLINES, TOLD):
        for row in everything(ssm, "get_parameters_by_path", "Parameters", Path=path[:-1]):
            ssm.delete_parameter(Name=row["Name"])
            removed.append(f"parameter {row['Name']}")
    for line in removed:
        screen.note(f"removed {line}")
    return removed


def empty(account: Account, bucket: str) -> int:
    """Delete every object of a bucket, in all versions. Returns how many there were."""
    s3, count = account.client("s3"), 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        rows = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        names = [{"Key": row["Key"], "VersionId": row["VersionId"]} for row in rows]
        if names:
            refused = s3.delete_objects(Bucket=bucket, Delete={"Objects": names, "Quiet": True}).get("Errors")
            if refused:
                first = refused[0]
                raise Problem(f"{bucket} keeps {first['Key']} ({first['Code']})", "allow s3:DeleteObjectVersion there")
            count += len(names)
    return count


def _announce(account: Account, before: Sweep, labs: Sequence[str], buckets: Sequence[str], screen: Screen) -> None:
    screen.note(f"this takes away, in {account.region}:")
    for stack in labs:
        things = [item for item in before.left if item.stack == stack]
        screen.note(f"  {stack}: {len(things)} things, with whatever runs there")
    if find_stack(account, GUARD_STACK):
        screen.note(f"  {GUARD_STACK}: the guard and the nodes' role; the next cdk deploy makes them anew")
    for bucket in buckets:
        count, size = _held(account, bucket)
        screen.note(f"  {bucket}: {count} objects, {size / 1e6:.1f} MB of results, for good")
    for item in before.standing:
        if item.stack != GUARD_STACK:
            screen.note(f"this stays: {item.kind} {item.id}, {item.why}")


def _held(account: Account, bucket: str) -> tuple[int, int]:
    pages = account.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
    sizes = [row["Size"] for page in pages for row in page.get("Contents", ())]
    return len(sizes), sum(sizes)


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise Problem("nobody can be asked whether to take all that away", "add --yes if you mean it")
    if input("Type yes to go on: ").strip() != "yes":
        raise Problem("nothing was taken away", "run the same command again if you mean it")


def _end(account: Account, stack: str, screen: Screen, *, json: bool) -> Receipt:
    try:
        lab = lab_of(stack)
    except (Problem, ValueError):  # a tag of a lab that this clone does not know; what carries it ends all the same
        return teardown(account, stack)
    receipt, _ = part_with(account, lab, screen)
    if not json:
        screen.console.print(receipt.render())
    return receipt


def _delete_guard(account: Account, pause: Callable[[float], None]) -> None:
    cloudformation, began = account.client("cloudformation"), time.monotonic()
    cloudformation.delete_stack(StackName=GUARD_STACK)
    while stack := find_stack(account, GUARD_STACK):
        if stack.status == "DELETE_FAILED" or time.monotonic() - began > _LIMIT_S:
            raise Problem(f"{GUARD_STACK} does not go ({stack.status})", "its events say why; then run this again")
        pause(1.0)


def _named(items: Sequence[Found]) -> str:
    return ", ".join(f"{item.kind} {item.id}" for item in items)
