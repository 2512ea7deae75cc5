"""What stands in the account already that a lab would meet: GuardStack, its own stack, its bucket, its image."""

import getpass
import os
import re

from botocore.exceptions import ClientError

from labs.catalog import Lab
from labs.names import (
    GUARD_STACK,
    IMAGE_PARAMETER,
    PUBLIC_IMAGES,
    TAG_LAB,
    TAG_OWNER,
    Output,
    stack_name,
)
from operate.account import Account
from operate.check import Check, failed, passed, warned
from operate.nodes import find_nodes
from operate.problem import Problem
from operate.stack import destroy_command, find_stack

USABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
"""States of a stack that a deployment may start from."""
_NOBODY = ("", "-")
_WAIT = "wait until CloudFormation is done, then try again"


def owner_of_caller(arn: str) -> str:
    """The user part of a caller's ARN: the user's name, the session's of an assumed role, "root".

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
    """
    return re.sub(r"[^\w.@+-]", "-", arn.rpartition(":")[2].rpartition("/")[2])[:64]


def owner_of(account: Account, given: str) -> str:
    """Who answers for a lab: `given`, else whoever the credentials belong to, else this machine's user."""
    if given:
        return given
    try:
        answer = account.client("sts").get_caller_identity()
    except ClientError:  # denied, or a rehearsal without it: the shell's user is an owner as well
        return os.environ.get("USER", "") or getpass.getuser()
    return owner_of_caller(answer["Arn"])


def demand_mine(account: Account, lab: Lab, owner: str) -> None:
    """Nothing, if no stack of that name is another's.

    Raises:
        Problem: it is.
    """
    stack = find_stack(account, lab.stack)
    whose = stack.tags.get(TAG_OWNER, "") if stack else ""
    if stack and whose not in (*_NOBODY, owner):
        raise Problem(f"{lab.stack} is {whose}'s, and you are {owner or 'nobody'}", _beside(lab, owner))


def check_stack(account: Account, lab: Lab, owner: str) -> list[Check]:
    """Whether the lab's stack stands already, whose it is, and whether a deployment may start from its state."""
    stack = find_stack(account, lab.stack)
    if stack is None:
        return [passed("stack", f"{lab.stack} does not stand yet")]
    whose = stack.tags.get(TAG_OWNER, "")
    seen = f"{lab.stack} stands since {stack.created:%Y-%m-%d %H:%M} UTC ({stack.status})"
    if whose not in (*_NOBODY, owner):
        return [failed("stack", f"{seen} and is {whose}'s, not {owner or 'nobody'}'s", _beside(lab, owner))]
    if stack.tags.get(TAG_LAB, str(lab.number)) != str(lab.number):
        return [failed("stack", f"{seen} and is no stack of lab {lab.number}", _beside(lab, owner))]
    if stack.status in USABLE:
        return [passed("stack", f"{seen}; deploying changes it in its zone")]
    if stack.status.endswith("_IN_PROGRESS") and stack.status != "REVIEW_IN_PROGRESS":
        return [failed("stack", seen, _WAIT)]
    return [warned("stack", seen, f"fab up takes it away first; so does {destroy_command(lab.stack)}")]


def _beside(lab: Lab, owner: str) -> str:
    name = re.sub(r"[^a-z0-9-]", "-", owner.lower()).strip("-0123456789")[:20].rstrip("-") or "mine"
    return f"deploy your own beside it: fab up --lab {lab.number} --name {name} ({stack_name(lab.number, name)})"


def nodes_standing(account: Account, stack: str) -> int:
    """Nodes of the stack that run, or are about to."""
    return len(find_nodes(account, stack))


def check_guard(account: Account) -> list[Check]:
    """Whether GuardStack stands; where it does not, the deployment brings it first."""
    stack = find_stack(account, GUARD_STACK)
    if stack is None:
        return [passed("guard", f"{GUARD_STACK} is deployed first")]
    if stack.status in USABLE:
        return [passed("guard", f"{GUARD_STACK} stands ({stack.status}), results go to "
                                f"{stack.outputs.get(Output.RESULTS_BUCKET, 'its bucket')}")]  # fmt: skip
    if stack.status.endswith("_IN_PROGRESS") and stack.status != "REVIEW_IN_PROGRESS":
        return [
            failed("guard", f"{GUARD_STACK} is {stack.status}", "wait until CloudFormation is done, then try again")
        ]
    if stack.status in ("ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS"):
        return [warned("guard", f"{GUARD_STACK} is {stack.status}", "the deployment makes it anew")]
    return [failed("guard", f"{GUARD_STACK} is {stack.status}, so no lab would be guarded",
                   f"look at it in the CloudFormation console, or {destroy_command(GUARD_STACK)}")]  # fmt: skip


def check_bucket(account: Account, lab: Lab) -> list[Check]:
    """Whether the bucket that the lab's file system shows is there, and in this region."""
    if not lab.data.startswith("s3://"):
        return []
    bucket = lab.data.removeprefix("s3://").partition("/")[0]
    try:
        answer = account.client("s3").head_bucket(Bucket=bucket)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("404", "NoSuchBucket"):
            return [failed("data", f"there is no bucket {bucket}", "write -c data=s3://BUCKET/PREFIX of one there is")]
        if code in ("301", "PermanentRedirect", "400"):
            return [failed("data", f"{bucket} is not in {account.region}",
                           "FSx takes a bucket of its own region: write another -c data=")]  # fmt: skip
        return [warned("data", f"whether {bucket} is there is not known ({code})", "ask its owner for s3:ListBucket")]
    where = answer.get("BucketRegion") or account.region
    if where != account.region:
        return [failed("data", f"{bucket} is in {where}, the lab would be in {account.region}",
                       f"FSx takes a bucket of its own region: export AWS_REGION={where}")]  # fmt: skip
    return [passed("data", f"{bucket} is there")]


def check_image(account: Account, lab: Lab) -> list[Check]:
    """Whether the image that the nodes start from is there."""
    kind = "gpu" if lab.instance.gpus else "cpu"
    if lab.image.startswith("ami-"):
        return [_image(account, lab, lab.image, lab.image)]
    name = IMAGE_PARAMETER.format(kind=kind) if lab.image else PUBLIC_IMAGES[kind]
    try:
        image = account.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise
        if lab.image:
            return [failed("image", f"no image was baked ({name} is not there)",
                           f"bake one: fab bake --lab {lab.number}, or leave -c image= out")]  # fmt: skip
        return [failed("image", f"{name} is not in {account.region}", "write -c image=ami-… of one that is")]
    return [_image(account, lab, image, f"{name} is {image}") if lab.image else passed("image", f"{name} is {image}")]


def _image(account: Account, lab: Lab, image: str, seen: str) -> Check:
    try:
        found = account.client("ec2").describe_images(ImageIds=[image])["Images"]
    except ClientError as error:
        if not error.response["Error"]["Code"].startswith("InvalidAMIID"):
            raise
        found = []
    if not found:
        return failed("image", f"{seen}, which is not in {account.region}", "write another -c image=, or leave it out")
    state, arch = found[0].get("State", "available"), found[0].get("Architecture", "x86_64")
    if state != "available":
        return warned("image", f"{seen}, which is {state}", "wait until it is available")
    if arch != "x86_64":
        return failed("image", f"{seen}, for {arch}", f"{lab.instance_type} takes x86_64")
    return passed("image", f"{seen} ({found[0].get('Name', 'no name')})")
