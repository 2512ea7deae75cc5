"""One verdict on a lab before anything is made: would it come up, for whom, where, at what price?

Every check is a line of what was seen and what to do. They run side by side and only read. What AWS denies or does not
answer is a warning that says so.
"""

import json as documents
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.table import Table
from rich.text import Text

from labs.catalog import Lab
from operate.account import Account, explain
from operate.check import Check, Verdict, answered, failed, passed, warned
from operate.fit import check_models
from operate.problem import Problem
from operate.quotas import check_addresses, check_vcpus, check_vpcs
from operate.reservation import Reservation, check_reservation, find_reservation
from operate.saving import check_notice
from operate.screen import Screen
from operate.standing import check_bucket, check_guard, check_image, check_stack, nodes_standing, owner_of_caller
from operate.tools import check_tools
from operate.zones import Survey, survey

SUBNET_ADDRESSES = 4091
"""Addresses of a lab's subnet, a /20, without the five that AWS keeps.
https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html"""
_STYLE: dict[Verdict, str] = {"pass": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """All checks of one lab in one region."""

    lab: Lab
    region: str
    caller: str
    """Who the credentials belong to: the user part of their ARN; "" where AWS does not say."""
    checks: tuple[Check, ...]
    survey: Survey | None
    """Zones, the best first; None where they could not be listed."""
    reservation: Reservation | None
    seconds: float
    """That it took."""

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks."""
        found = {check.verdict for check in self.checks}
        return "fail" if "fail" in found else "warn" if "warn" in found else "pass"

    def count(self, verdict: Verdict) -> int:
        """Checks that ended so."""
        return sum(check.verdict == verdict for check in self.checks)

    def line(self) -> str:
        """The verdict in one line."""
        return (
            f"preflight of {self.lab.stack} in {self.region}: {self.verdict} ({self.count('pass')} pass, "
            f"{self.count('warn')} warn, {self.count('fail')} fail; {self.seconds:.1f} s)"
        )

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "stack": self.lab.stack, "region": self.region, "caller": self.caller, "verdict": self.verdict,
            "checks": [asdict(check) for check in self.checks],
            "zones": [asdict(zone) for zone in self.survey.zones] if self.survey else None,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip

    def table(self, *, all: bool = True) -> Table:
        """The checks for the terminal; without `all`, those that did not pass."""
        shown = Table("check", "", "seen", "what to do")
        for check in self.checks:
            if all or check.verdict != "pass":
                shown.add_row(check.name, Text(check.verdict, style=_STYLE[check.verdict]), check.seen, check.remedy)
        return shown

    def demand(self) -> None:
        """Nothing, if no check failed.

        Raises:
            Problem: naming every check that did.
        """
        wrong = [check for check in self.checks if check.verdict == "fail"]
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise Problem(f"{self.lab.stack} would not come up: {wrong[0].name}, {wrong[0].seen}{more}",
                          wrong[0].remedy)  # fmt: skip


def show_preflight(found: Preflight, screen: Screen, *, json: bool) -> None:
    """Print all checks and the verdict (with `json`, one document).

    Raises:
        Problem: a check failed; raised last, when all is shown.
    """
    if json:
        print(documents.dumps(found.as_json(), indent=1, default=str))
    else:
        screen.console.print(found.table())
        screen.note(found.line())
    found.demand()


def preflight(account: Account, lab: Lab, *, owner: str = "") -> Preflight:
    """Check everything about `lab` in the account's region, in seconds; nothing is made.

    `owner` is who would deploy it; without it, whoever the credentials belong to.
    """
    began = time.monotonic()
    caller, identity = _identity(account)
    # Without an account there is nothing to ask it; this machine can still be looked at.
    mine = [check_models, check_notice, check_tools, _addresses_of_subnet]
    found: dict[str, Any] = {}
    theirs: list[tuple[str, Callable[[], list[Check]]]] = []
    if identity.verdict != "fail":
        theirs = [
            ("vCPU quota", lambda: check_vcpus(account, lab)),
            ("Elastic IPs", lambda: check_addresses(account, lab)),
            ("VPCs", lambda: check_vpcs(account, lab)),
            ("zones", lambda: _zones(account, lab, found)),
            ("reservation", lambda: _reservation(account, lab, found)),
            ("guard", lambda: check_guard(account)),
            ("stack", lambda: check_stack(account, lab, owner or lab.owner or caller)),
            ("data", lambda: check_bucket(account, lab)),
            ("image", lambda: check_image(account, lab)),
        ]
        for service in ("ec2", "service-quotas", "cloudformation", "ssm", "s3"):
            account.client(service)  # made one after the other: side by side they only wait for one another
    with ThreadPoolExecutor(max_workers=len(theirs) + len(mine)) as pool:
        pending = [pool.submit(answered, name, look) for name, look in theirs]
        pending += [pool.submit(look, lab) for look in mine]
        checks = [check for job in pending for check in job.result()]
    return Preflight(
        lab=lab,
        region=account.region,
        caller=caller,
        checks=(identity, *checks),
        survey=found.get("survey"),
        reservation=found.get("reservation"),
        seconds=time.monotonic() - began,
    )


def _identity(account: Account) -> tuple[str, Check]:
    """Who asks; a failure where there are no credentials, or AWS does not take them."""
    try:
        answer = account.client("sts").get_caller_identity()
        account.observe(answer)
    except Problem as problem:
        return "", failed("account", problem.cause, problem.remedy)
    except (BotoCoreError, ClientError) as error:
        why = explain(error)
        return "", failed("account", why.cause, why.remedy)
    where = f", at {account.endpoint}" if account.endpoint else ""
    seen = f"{answer['Arn']} in {account.region}{where}"
    return owner_of_caller(answer["Arn"]), passed("account", seen)


def _zones(account: Account, lab: Lab, found: dict[str, Any]) -> list[Check]:
    seen = found["survey"] = survey(account, lab)
    types = " or ".join(lab.types)
    names = ", ".join(zone.name for zone in seen.zones)
    if "offerings" in seen.unanswered:
        checks = [warned("zones", f"which zones offer {types} is not known: {seen.unanswered['offerings']}",
                         "fab up tries them one after the other")]  # fmt: skip
    elif not seen.zones:
        elsewhere = "us-east-2" if account.region == "us-east-1" else "us-east-1"
        checks = [failed("zones", f"no zone of {account.region} offers {types}",
                         f"export AWS_REGION={elsewhere}, for example, or write another instance_type")]  # fmt: skip
    elif lab.zone and lab.zone not in {zone.name for zone in seen.zones}:
        checks = [failed("zones", f"{lab.zone} does not offer {types}", f"write -c zone= one of {names}")]
    else:
        checks = [passed("zones", f"{types} in {names}")]
    return [*checks, _scores(lab, seen), _prices(lab, seen)]


def _scores(lab: Lab, seen: Survey) -> Check:
    name, spot = "spot score", lab.capacity == "spot"
    rated = [f"{zone.name} {zone.score}" for zone in seen.zones if zone.score is not None]
    if not rated:
        why = seen.unanswered.get("scores", "EC2 rates no zone")
        # An on-demand lab does not stand or fall by it.
        return warned(name, why, "fab up tries zone after zone") if spot else passed(name, "not known, and not needed")
    what = f"of 10, for {lab.nodes} nodes in one zone: {', '.join(rated)}"
    if spot and max(zone.score or 0 for zone in seen.zones) <= 3:
        return warned(name, what, "spot is likely to come up short: write --fallback on-demand, or other types")
    return passed(name, what)


def _prices(lab: Lab, seen: Survey) -> Check:
    name, spot = "spot price", lab.capacity == "spot"
    told = [
        f"{zone.name} ${zone.spot_usd:.3f}/h (at most ${zone.spot_most_usd:.3f} in 7 days)"
        for zone in seen.zones
        if zone.spot_usd is not None
    ]
    if told:
        return passed(name, f"{lab.instance_type}: {', '.join(told)}")
    why = seen.unanswered.get("prices", f"EC2 tells no spot price of {lab.instance_type} here")
    if spot:
        return warned(name, why, "the price told is the on-demand price, which spot never exceeds")
    return passed(name, "not known, and not needed")


def _reservation(account: Account, lab: Lab, found: dict[str, Any]) -> list[Check]:
    if ":" not in lab.capacity:
        return []
    try:
        one = found["reservation"] = find_reservation(account, lab)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if not code.startswith("InvalidCapacityReservationId"):
            raise
        return [failed("reservation", f"{lab.capacity} is not in {account.region} ({code})",
                       "see aws ec2 describe-capacity-reservations, and AWS_REGION")]  # fmt: skip
    assert one is not None
    mine = nodes_standing(account, lab.stack)
    return [check_reservation(lab, one, account.now(), mine=mine)]


def _addresses_of_subnet(lab: Lab) -> list[Check]:
    each = sum(interface.kind != "efa-only" for interface in lab.interfaces)
    need = lab.nodes * each + (1 if lab.way == "endpoint" else 0) + (2 if lab.storage != "none" else 0)
    what = f"{need} wanted, {SUBNET_ADDRESSES} in the lab's own subnet"
    if need <= SUBNET_ADDRESSES:
        return [passed("subnet addresses", what)]
    return [failed("subnet addresses", what, "write fewer -c nodes=")]
