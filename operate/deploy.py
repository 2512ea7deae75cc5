"""Deploy one lab's stack by the CDK CLI, and say what CloudFormation makes of it."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path

from botocore.exceptions import ClientError

from labs.catalog import LABS, Lab
from operate import laptop
from operate.account import Account
from operate.problem import Problem
from operate.screen import Screen
from operate.tools import cdk

_EVENT = re.compile(r"(\S+) \| +(\d+/\d+) \| [^|]*\| (\w+) +\| (\S+) +\| (.*)")
"""A line of the CLI's: stack, count, time, status, type, logical id and reason."""
_APP_FAILED = re.compile(r"Subprocess exited with error")
_HANDLER = re.compile(
    r'Resource handler returned message: "(.*)" \((?:RequestToken: [^,)]*, )?HandlerErrorCode: (\w+)\)', re.DOTALL
)
_REQUEST = re.compile(r" \((?:Service|Operation|Request)[^()]*\)")
_CANCELLED = "cancelled"
_SLACK = timedelta(seconds=5)
_SHORTAGE = re.compile(
    r"InsufficientInstanceCapacity|InsufficientHostCapacity|InsufficientCapacity|UnfulfillableCapacity"
    r"|not have (enough|sufficient) .*capacity|no Spot capacity|insufficient .*capacity"
    r"|not supported in your requested Availability Zone",
    re.IGNORECASE | re.DOTALL,
)
"""EC2's and FSx's words for "not here, not now": CloudFormation hands on the message and drops the error's code.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshooting-launch.html"""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What one run of `cdk deploy` came to."""

    code: int
    """Its exit code."""
    said: str
    """Its last line, or what the app itself said last where that failed."""
    log: Path
    """All that it wrote."""


def is_shortage(reason: str) -> bool:
    """Whether AWS says that it has no capacity there now; a quota, for one, is another matter."""
    return bool(_SHORTAGE.search(reason))


def context(lab: Lab) -> dict[str, str]:
    """The lab's fields that differ from the catalogue's, as CDK context."""
    usual = LABS[lab.number]
    names = [field.name for field in fields(lab) if field.name not in ("number", "title", "workloads")]
    values = {name: getattr(lab, name) for name in names if getattr(lab, name) != getattr(usual, name)}
    return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in values.items()}


def words(lab: Lab, *, output: Path, notify: str = "") -> list[str]:
    """The command that deploys the lab's stack, and GuardStack before it.

    Raises:
        Problem: the CDK CLI is not here.
    """
    program = cdk()
    if not program:
        raise Problem("cdk is not here", "run ./setup.sh, and source .venv/bin/activate")
    given = context(lab) | ({"notify": notify} if notify else {})
    # An assembly folder of its own: the CLI locks it, and labs are deployed side by side.
    return [program, "deploy", f"Lab{lab.number}Stack", "--require-approval", "never", "--no-notices", "--progress",
            "events", "--output", str(output),
            *(word for name, value in given.items() for word in ("--context", f"{name}={value}"))]  # fmt: skip


def deploy(account: Account, lab: Lab, screen: Screen, *, notify: str = "") -> Deployment:
    """Run the CDK CLI to its end and show what happens, one line a stage; all of it goes to a log.

    Raises:
        Problem: the CLI is not here.
        KeyboardInterrupt: Ctrl-C. The CLI is ended; CloudFormation goes on with what it began.
    """
    folder = laptop.state(lab.stack, account.endpoint)
    command = words(lab, output=folder / "cdk.out", notify=notify)
    # The app runs on this Python, and asks the region that was looked at.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "AWS_REGION": account.region}
    log, last = folder / "deploy.log", ""
    told = _Told(lab.stack)
    with screen.moving(lambda: told.now), log.open("w") as kept:
        process = subprocess.Popen(
            command, cwd=laptop.ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                kept.write(line)
                if not _APP_FAILED.search(line):
                    last = line.strip() or last
                if note := told.read(line):
                    screen.note(note)
            process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            process.stdout.close()
    return Deployment(code=process.returncode, said=last, log=log)


class _Told:
    """What to show of the CLI's many lines: where it is, and each thing that failed."""

    def __init__(self, stack: str) -> None:
        self.now = f"deploying {stack}: synthesising"
        self._stack = ""

    def read(self, line: str) -> str:
        """Take one line; returns one to keep on the screen, or ""."""
        found = _EVENT.match(line)
        if not found:
            return ""
        stack, count, status, kind, rest = found.groups()
        self.now = f"deploying {stack} {count}: {status} {kind.removeprefix('AWS::')} {rest.split(' ')[0]}"
        if status.endswith("_FAILED") and _CANCELLED not in rest:
            return f"{stack} {status} {kind} {_brief(rest.strip())}"
        if stack != self._stack:
            self._stack = stack
            return f"deploying {stack}"
        if kind == "AWS::CloudFormation::Stack" and not status.endswith("_IN_PROGRESS"):
            return f"{stack} {count} {status}"
        return ""


def failures(account: Account, stack: str, since: datetime) -> tuple[str, ...]:
    """Why CloudFormation failed to make things of `stack` since then, the first one first, in the services' words."""
    try:
        pages = account.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=stack)
        events = [event for page in pages for event in page["StackEvents"]]
    except ClientError as error:
        if "does not exist" in error.response["Error"].get("Message", ""):
            return ()
        raise
    wrong = [
        event
        for event in sorted(events, key=lambda event: event["Timestamp"])
        if event["ResourceStatus"].endswith("_FAILED")
        and event["Timestamp"] >= since - _SLACK
        and _CANCELLED not in event.get("ResourceStatusReason", "")
        and event["PhysicalResourceId"] != event["StackId"]
    ]
    return tuple(
        f"{event['LogicalResourceId']}: {_brief(event.get('ResourceStatusReason', 'no reason'))}" for event in wrong
    )


def _brief(reason: str) -> str:
    """What the service said, without the words that CloudFormation and the SDK put around it."""
    return _REQUEST.sub("", _HANDLER.sub(r"\1 (\2)", reason))
