"""Bring a lab up: look before, choose the zone, deploy, count the nodes, and where EC2 is short try the next place."""

import json as documents
import re
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from labs.catalog import Lab
from labs.names import GUARD_STACK, TAG_TTL_HOURS, Output
from labs.prices import dollars
from operate import attempts, budget
from operate.account import Account
from operate.attempts import Attempt
from operate.bill import Frozen, frozen_cost, line, replanned
from operate.deadline import Deadline, deadline_of_stack, set_deadline
from operate.deploy import deploy, failures, is_shortage
from operate.nodes import find_nodes, fleet_errors
from operate.preflight import Preflight, preflight
from operate.problem import Problem
from operate.quote import Quotes, told
from operate.screen import Screen
from operate.stack import Stack, find_stack
from operate.standing import USABLE, demand_mine, owner_of
from operate.teardown import teardown
from operate.wish import Wish

_QUOTA = re.compile(r"VcpuLimitExceeded|vCPU limit|MaxSpotInstanceCountExceeded|spot instance count", re.IGNORECASE)
_COUNTED = re.compile(r"\d+ of \d+ nodes")


@dataclass(kw_only=True)
class Course:
    """One `fab up` under way: what it has tried, and what came of it."""

    wish: Wish
    account: Account
    screen: Screen
    tries: list[Attempt] = field(default_factory=list)
    look: Preflight | None = None
    up: Lab | None = None
    deadline: Deadline | None = None
    frozen: Frozen | None = None
    """The price of what stands."""
    ran_on: str = ""
    """Types of the nodes that came up: of a fleet's, the one it took."""
    quotes: Quotes = field(init=False)

    def __post_init__(self) -> None:
        self.quotes = Quotes(self.account, self.wish.lab.types)

    @property
    def spent(self) -> float:
        """Dollars of the tries that failed, at most; those whose cost is not known count as nothing."""
        return sum(one.usd or 0.0 for one in self.tries)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        up = self.up
        return {
            "stack": self.wish.lab.stack, "up": up is not None, "zone": up.zone if up else None,
            "nodes": up.nodes if up else 0, "instance_type": self.ran_on or None,
            "capacity": up.capacity if up else None,
            "usd_per_hour": self.frozen["usd_per_hour"] if self.frozen else None,
            "deadline": self.deadline.at.isoformat() if self.deadline else None,
            "attempts": [one.as_json() for one in self.tries],
            "preflight": self.look.as_json() if self.look else None,
        }  # fmt: skip


def bring_up(account: Account, wish: Wish, screen: Screen, *, json: bool) -> None:
    """Bring the lab up and say where it stands, at what price, until when (with `json`, one document).

    Raises:
        Problem: the preflight failed, the stack is another's, no place had the capacity, or Ctrl-C; the message says
            what stands and what takes it away.
    """
    course = Course(wish=wish, account=account, screen=screen)
    try:
        _run(course)
    except KeyboardInterrupt:
        raise _interrupted(course) from None
    finally:
        if len(course.tries) > 1 or (course.tries and not course.up):
            screen.console.print(attempts.table(course.tries))
        if json:
            print(documents.dumps(course.as_json(), indent=1, default=str))
    if not json:
        _show(course)


def _run(course: Course) -> None:
    account, wish, screen = course.account, course.wish, course.screen
    lab = wish.lab
    lab = replace(lab, owner=owner_of(account, lab.owner))
    demand_mine(account, lab, lab.owner)
    stack = find_stack(account, lab.stack)
    if stack and stack.status not in USABLE and not stack.status.endswith("_IN_PROGRESS"):
        screen.note(f"{lab.stack} is {stack.status}: taking it away first")
        _take_away(course, lab)
        stack = None
    if stack:
        lab = as_it_stands(account, stack, lab, wish.given)
    course.look = look = preflight(account, lab)
    if look.verdict != "pass":
        screen.console.print(look.table(all=False))
    screen.note(look.line())
    if not wish.force:
        look.demand()
    left = [lab] if stack else attempts.plan(lab, look.survey, look.reservation, fallback=wish.fallback)
    while left:
        one, *left = left
        made = _try(course, one, stands=stack is not None)
        course.tries.append(made)
        if made.outcome == "up":
            course.up = one
            _settle(course, one)
            return
        if stack or made.outcome == "failed":
            raise Problem(f"{lab.stack} did not come up: {made.why}", _remedy(lab, made, stands=stack is not None))
        left = attempts.hinted(left, one, made.why)
    tried = len(course.tries)
    raise Problem(
        f"{lab.stack} did not come up: no capacity in {tried} {'try' if tried == 1 else 'tries'}, and nothing is left "
        "of it",
        "try again later, or another -c instance_type= or AWS_REGION, "
        + ("or capacity=on-demand" if wish.fallback or lab.capacity != "spot" else "or --fallback on-demand"),
    )


def _try(course: Course, lab: Lab, *, stands: bool) -> Attempt:
    """Deploy once. Where not all nodes come up, everything is taken away again, unless it stood before."""
    account, screen, wish = course.account, course.screen, course.wish
    cost = course.quotes.cost(lab)
    price = cost.usd_per_hour
    where = lab.zone or "the region's first zone"
    began, since = time.monotonic(), account.now()

    def ended(outcome: str, why: str, usd: float | None = 0.0) -> Attempt:
        return Attempt(zone=lab.zone, types=" or ".join(lab.types), capacity=lab.capacity, outcome=outcome, why=why,
                       seconds=time.monotonic() - began, usd=usd)  # fmt: skip

    try:
        if wish.budget is not None:
            budget.hours_of(wish.budget - course.spent, lab, price)
    except Problem as problem:
        if not course.tries:
            raise
        return ended("left out", problem.cause)
    screen.note(f"{lab.stack}: {lab.nodes} × {' or '.join(lab.types)}, {lab.capacity}, in {where}; "
                f"{told(cost, lab.ttl_hours)}")  # fmt: skip
    done = deploy(account, lab, screen, notify=wish.notify)
    stack = find_stack(account, lab.stack)
    if done.code == 0 and stack:
        why = _missing(account, stack)
        if not why:
            return ended("up", "")
    else:
        said = failures(account, lab.stack if stack else GUARD_STACK, since)
        why = said[0] if said else f"cdk deploy ended with {done.code}: {done.said}; see {done.log}"
    outcome = "short" if is_shortage(why) else "failed"
    if stands:
        return ended(outcome, why)
    screen.note(f"{lab.stack} did not come up in {where}: {why}")
    if stack is None:
        return ended(outcome, why)
    _take_away(course, lab)
    return ended(outcome, why, None if price is None else price * (time.monotonic() - began) / 3600)


def _missing(account: Account, stack: Stack) -> str:
    """Why fewer nodes run than the stack asked for; "" where all do."""
    wanted = int(stack.outputs.get(Output.NODES, "1"))
    found = len(find_nodes(account, stack.name))
    if found >= wanted:
        return ""
    fleet = stack.outputs.get(Output.FLEET)
    said = "; ".join(fleet_errors(account, fleet)) if fleet else ""
    return f"{found} of {wanted} nodes: {said or 'the others were stopped or interrupted'}"


def _take_away(course: Course, lab: Lab) -> None:
    """End what there is of the lab.

    Raises:
        Problem: something is left.
    """
    with course.screen.moving(lambda: f"taking {lab.stack} away"):
        receipt = teardown(course.account, lab.stack)
    if receipt.exit_code:
        raise Problem(
            f"{lab.stack} did not come up, and {len(receipt.sweep.left)} things of it are left",
            f"fab teardown --lab {lab.number}{_named(lab)}, which says what and why; the guard ends them too",
        )


def as_it_stands(account: Account, stack: Stack, lab: Lab, given: frozenset[str]) -> Lab:
    """The lab as its stack was deployed, but for what the user wrote: another zone or type would replace its nodes."""
    outputs, fields = stack.outputs, {}
    told = {"nodes": Output.NODES, "instance_type": Output.INSTANCE_TYPE, "capacity": Output.CAPACITY}
    for name, output in told.items():
        if name not in given and output in outputs and str(getattr(lab, name)) != outputs[output]:
            fields[name] = outputs[output]
    if "ttl_hours" not in given and TAG_TTL_HOURS in stack.tags:
        fields["ttl_hours"] = stack.tags[TAG_TTL_HOURS]
    if "zone" not in given and Output.VPC in outputs:
        found = account.client("ec2").describe_subnets(Filters=[{"Name": "vpc-id", "Values": [outputs[Output.VPC]]}])
        fields["zone"] = next((subnet["AvailabilityZone"] for subnet in found["Subnets"]), "")
    return lab.override(**fields)


def _settle(course: Course, lab: Lab) -> None:
    """Freeze the price of what stands, and bring its deadline forward to where the budget is spent."""
    account, wish = course.account, course.wish
    stack = find_stack(account, lab.stack)
    assert stack is not None
    course.ran_on = " and ".join(sorted({node.instance_type for node in find_nodes(account, lab.stack)}))
    course.frozen = frozen_cost(account, stack)
    course.deadline = deadline_of_stack(account, stack)
    if wish.budget is None:
        return
    price = course.frozen["usd_per_hour"]
    if price is None:  # AWS did not tell all that stands
        price = course.quotes.cost(lab).usd_per_hour
    at = stack.created + timedelta(hours=budget.hours_of(wish.budget - course.spent, lab, price))
    if at > course.deadline.at:
        course.screen.note(f"{dollars(wish.budget)} would last until {at:%Y-%m-%d %H:%M} UTC; fab extend moves the end")
    course.deadline = set_deadline(account, lab.stack, at)
    course.frozen = replanned(account, stack, course.frozen, course.deadline.at)


def _show(course: Course) -> None:
    """What stands, in three lines."""
    lab, frozen, deadline = course.up, course.frozen, course.deadline
    assert lab is not None
    assert frozen is not None
    assert deadline is not None
    note = course.screen.note
    note(f"{lab.stack} is up in {lab.zone or 'the first zone'}: {lab.nodes} × {course.ran_on}, {lab.capacity}")
    note(line(frozen, deadline))
    note(f"next: fab nodes --lab {lab.number}{_named(lab)}, fab run-lab --lab {lab.number}{_named(lab)}; "
         f"fab teardown --lab {lab.number}{_named(lab)} ends it")  # fmt: skip


def _named(lab: Lab) -> str:
    return f" --name {lab.name}" if lab.name else ""


def _remedy(lab: Lab, made: Attempt, *, stands: bool) -> str:
    which = f"--lab {lab.number}{_named(lab)}"
    if stands and _COUNTED.match(made.why):
        return f"nodes that are lost do not come back: fab teardown {which}, then fab up {which}"
    if stands:
        return f"what stood before is kept: fab nodes {which}"
    if _QUOTA.search(made.why):
        return f"nothing is left of it; fab preflight {which} names the quota and the request"
    return "nothing is left of it; correct that and try again"


def _interrupted(course: Course) -> Problem:
    """What Ctrl-C leaves, as far as AWS says."""
    lab = course.wish.lab
    end = f"fab teardown --lab {lab.number}{_named(lab)}"
    try:
        stack = find_stack(course.account, lab.stack)
    except (BotoCoreError, ClientError, Problem):
        return Problem(f"interrupted: whether {lab.stack} stands cannot be asked, and it may bill",
                       f"{end} takes away what there is; else the guard does", exit_code=130)  # fmt: skip
    if stack is None:
        return Problem(f"interrupted: there is no {lab.stack}, so nothing bills", "run the same command again",
                       exit_code=130)  # fmt: skip
    going = ", CloudFormation goes on with it" if stack.status.endswith("_IN_PROGRESS") else ""
    return Problem(
        f"interrupted: {lab.stack} stands ({stack.status}){going}, and it may bill",
        f"{end} takes it away, fab up goes on; else the guard ends it "
        f"{lab.ttl_hours:g} h after {stack.created:%H:%M} UTC",
        exit_code=130,
    )
