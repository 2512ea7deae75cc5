"""A deployed stack, as CloudFormation tells it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from botocore.exceptions import ClientError

from operate.account import Account
from operate.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One stack that stands."""

    name: str
    status: str
    """CloudFormation's word, for example CREATE_COMPLETE."""
    created: datetime
    """Aware UTC; the lab's time to live counts from here."""
    outputs: Mapping[str, str]
    """By the names of `labs.names.Output`."""
    tags: Mapping[str, str]
    id: str = ""
    """ARN, of this life alone."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One life of a stack that is gone."""

    id: str
    created: datetime
    """Aware UTC."""
    deleted: datetime | None
    """Aware UTC; None where CloudFormation does not say."""


def deploy_command(stack: str) -> str:
    """What the user types to deploy the stack of that name."""
    return _cdk("deploy", stack)


def destroy_command(stack: str) -> str:
    """What the user types to destroy the stack of that name."""
    return _cdk("destroy", stack)


def _cdk(verb: str, stack: str) -> str:
    # cdk knows a stack by its id, Lab3Stack; what it does not know it "destroys" with exit code 0.
    base, _, name = stack.partition("-")
    return f"cdk {verb} {base} -c name={name}" if name else f"cdk {verb} {base}"


def find_stack(account: Account, name: str) -> Stack | None:
    """The stack called `name`, or None where there is none. Sets the account's clock."""
    try:
        answer = account.client("cloudformation").describe_stacks(StackName=name)
    except ClientError as error:
        if "does not exist" in error.response["Error"].get("Message", ""):
            return None
        raise
    account.observe(answer)
    found = answer["Stacks"][0]
    if found["StackStatus"] == "DELETE_COMPLETE":
        return None
    return Stack(
        name=name,
        status=found["StackStatus"],
        created=found["CreationTime"],
        outputs={item["OutputKey"]: item["OutputValue"] for item in found.get("Outputs", [])},
        tags={item["Key"]: item["Value"] for item in found.get("Tags", [])},
        id=found["StackId"],
    )


def last_life(account: Account, name: str) -> Ended | None:
    """The newest life of a stack that is gone; CloudFormation tells of it for 90 days. None where it may not be asked.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ListStacks.html
    """
    lister = account.client("cloudformation").get_paginator("list_stacks")
    try:
        pages = lister.paginate(StackStatusFilter=["DELETE_COMPLETE"])
        rows = [row for page in pages for row in page["StackSummaries"] if row["StackName"] == name]
    except ClientError:  # a receipt without its times is better than none
        return None
    if not rows:
        return None
    row = max(rows, key=lambda row: row["CreationTime"])
    return Ended(id=row["StackId"], created=row["CreationTime"], deleted=row.get("DeletionTime"))


def deployed_stack(account: Account, name: str) -> Stack:
    """The stack called `name`, complete and usable.

    Raises:
        Problem: it is not deployed, or its deployment did not succeed.
    """
    stack = find_stack(account, name)
    if stack is None or stack.status == "REVIEW_IN_PROGRESS":
        raise Problem(f"{name} is not deployed in {account.region}", deploy_command(name))
    if stack.status in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"):
        return stack
    if stack.status.endswith("_IN_PROGRESS"):
        raise Problem(f"{name} is not ready yet ({stack.status})", "wait until CloudFormation is done, then try again")
    raise Problem(
        f"{name} did not come up ({stack.status})",
        f"take away what is left ({destroy_command(name)}), then {deploy_command(name)}",
    )
