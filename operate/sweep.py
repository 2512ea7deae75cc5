"""What is in the account now: everything of one lab, or of all, with its price and the command that removes it.

Read-only, and independent of what CloudFormation believes. `fab audit` shows it, and the receipt is made of it.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError
from rich.table import Table

from guard.inventory import UNANSWERED, Call, Inventory, Item, dig, everything, look, why
from labs.names import GUARD_STACK, TAG_LAB, TAG_STACK
from labs.prices import dollars, total
from operate.account import Account
from operate.money import price_of, region_note

_BUCKETS = "guardstack-results"
"""How CloudFormation begins the name of GuardStack's bucket, whose logical id is Results…."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One thing in the account."""

    kind: str
    id: str
    stack: str
    """Stack it belongs to, whether or not that still exists; "" where nothing says."""
    lab: str = ""
    """The lab's number, by tag."""
    state: str = ""
    created: str = ""
    """ISO 8601 UTC; "" where the service does not say."""
    usd_per_hour: float | None = None
    """None: not known."""
    price: str = ""
    """Where the price comes from, or why it is not known."""
    command: str = ""
    """What removes it, for a shell."""
    why: str = ""
    """Why it stands on purpose; "" for what is left."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What one look over one region found."""

    region: str
    left: tuple[Found, ...]
    """All that bills or blocks: of a lab that lives, all of it."""
    standing: tuple[Found, ...]
    """What stands on purpose, and what is the user's own."""
    not_looked_at: Mapping[str, str]
    """Kind -> why it could not be looked at."""
    suspects: tuple[Found, ...] = ()
    """What bills, carries no tag, hangs on nothing of a lab's and was made while one lived: not ours as far as can be
    told, so nothing removes it and no residual counts it."""

    @property
    def residual_usd_per_hour(self) -> float | None:
        """What is left costs this. None, unknown: a price is not known, or something could not be looked at."""
        return None if self.not_looked_at else total(item.usd_per_hour for item in self.left)

    @property
    def clean(self) -> bool:
        """Whether nothing is left, and everything was looked at."""
        return not self.left and self.residual_usd_per_hour == 0.0

    @property
    def exit_code(self) -> int:
        """0 only for a clean one."""
        return 0 if self.clean else 1

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"residual_usd_per_hour": self.residual_usd_per_hour, "clean": self.clean}

    def table(self) -> Table:
        """What is left, for the terminal; empty where nothing is."""
        shown = Table("kind", "id", "stack", "state", "$/h", "removed by")
        for item in self.left:
            shown.add_row(item.kind, item.id, item.stack, item.state, dollars(item.usd_per_hour), item.command)
        return shown

    def lines(self) -> list[str]:
        """What stands, what was not looked at, and the residual: one line each, for the terminal."""
        return [
            *(f"stands: {item.kind} {item.id}, {item.why} ({_bill(item)})" for item in self.standing),
            *(
                f"made while a lab lived, and nobody's by its tags: {item.kind} {item.id} ({_bill(item)}); "
                f"if it is yours: {item.command}"
                for item in self.suspects
            ),
            *(f"not looked at: {kind} because {why}" for kind, why in self.not_looked_at.items()),
            *(f"price unknown: {item.kind} {item.id}, {item.price}" for item in self.left if item.usd_per_hour is None),
            *region_note(self.region),
            f"residual {dollars(self.residual_usd_per_hour)}/h",
        ]


def sweep(account: Account, stack: str = "") -> Sweep:
    """Look for everything of `stack`, or of all labs, in the account's region. What is refused is in `not_looked_at`.

    Raises:
        Problem: there are no credentials.
    """
    return swept(account, look(account.client, stack))


def swept(account: Account, inventory: Inventory, *, since: str = "") -> Sweep:
    """An inventory with prices and commands, and the results bucket beside it.

    `since`: ISO 8601 UTC, from when on what is nobody's is suspect; "" takes the oldest lab's stack that stands.
    """
    labs = [item.created for item in inventory.items if item.kind == "stack" and not item.stands and item.created]
    since = since or min(labs, default="9999")
    missed = dict(inventory.missed)
    try:
        buckets = _buckets(account)
    except UNANSWERED as error:
        buckets, missed["bucket"] = (), why(error, "s3")
    found = [(item, priced(item, account.region)) for item in inventory.items]
    return Sweep(
        region=account.region,
        left=tuple(row for item, row in found if not item.stands),
        standing=(*(row for item, row in found if item.stands), *buckets),
        not_looked_at=missed,
        suspects=tuple(priced(item, account.region) for item in inventory.unclaimed if item.created >= since),
    )


def priced(item: Item, region: str) -> Found:
    """An item with its price and the command that removes it."""
    price = price_of(item)
    commands = " && ".join(shell(call, region) for call in item.calls)
    return Found(kind=item.kind, id=item.id, stack=item.stack, lab=item.tags.get(TAG_LAB, ""), state=item.state,
                 created=item.created, usd_per_hour=price.usd_per_hour, price=price.source, command=commands,
                 why=item.stands)  # fmt: skip


def shell(call: Call, region: str) -> str:
    """A request as a command of the AWS CLI."""
    words = ["aws", call.service, call.operation.replace("_", "-"), "--region", region]
    for name, value in call.params.items():
        words.append("--" + xform_name(name, "-"))
        if isinstance(value, list) and isinstance(value[0], str):
            words += value
        elif value is not True:
            words.append(value if isinstance(value, str) else json.dumps(value))
    return shlex.join(words)


def _bill(item: Found) -> str:
    return item.price if item.usd_per_hour is None else f"{dollars(item.usd_per_hour)}/h"


def _buckets(account: Account) -> tuple[Found, ...]:
    """The results bucket, also one that GuardStack left when it went: by the name CloudFormation gives, and its tag."""
    s3 = account.client("s3")
    found = []
    for name in dig(everything(s3, "list_buckets", "Buckets", Prefix=_BUCKETS, BucketRegion=account.region), "Name"):
        try:
            tags = s3.get_bucket_tagging(Bucket=name)["TagSet"]
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchTagSet", "NoSuchBucket"):
                raise
            continue  # somebody's with a like name
        if {"Key": TAG_STACK, "Value": GUARD_STACK} in tags:
            found.append(Found(kind="bucket", id=name, stack=GUARD_STACK, price="cents a month for what it holds",
                               why="keeps the results, each for 30 days"))  # fmt: skip
    return tuple(found)
