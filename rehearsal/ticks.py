"""EventBridge schedules run for real, on the rehearsal's clock: the guard's tick is one of them.

A rate begins when the schedule is created. https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
"""

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda.models import lambda_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.scheduler.models import scheduler_backends
from moto.scheduler.responses import EventBridgeSchedulerResponse

from rehearsal import clock
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.faults import Faults
from rehearsal.functions import Functions
from rehearsal.settings import REGION

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_LOOK_S = 0.25
"""Seconds between looks for what has fallen due, in real time."""


def times(schedule: Any, after: datetime, until: datetime) -> Iterator[datetime]:
    """When a schedule falls due in (after, until], in order."""
    begun = datetime.fromtimestamp(float(schedule.creation_date), UTC)
    if at := _AT.fullmatch(schedule.schedule_expression):
        moments = iter([datetime.fromisoformat(at[1]).replace(tzinfo=UTC)])
    else:
        every = period(schedule.schedule_expression)
        first = max(0, -(-(after - begun) // every))
        moments = iter(begun + index * every for index in range(first, (until - begun) // every + 1))
    return (moment for moment in moments if after < moment <= until and schedule.state == "ENABLED")


def period(expression: str) -> timedelta:
    """The period of a rate expression.

    Raises:
        NotRehearsed: it is none that the rehearsal runs.
    """
    rate = _RATE.fullmatch(expression)
    if not rate or not int(rate[1]):
        raise NotRehearsed(f"ScheduleExpression {expression}: only rate(…) and at(…)")
    return timedelta(**{f"{rate[2]}s": int(rate[1])})


@dataclass(frozen=True, kw_only=True)
class _Due:
    moment: datetime
    name: str
    action: Callable[[], object]


class Ticks:
    """Runs what is due: as time passes, and at once when time is advanced."""

    def __init__(self, functions: Functions, faults: Faults) -> None:
        self._functions = functions
        self._faults = faults
        self.begun: Callable[[], None] = lambda: None
        """Called as each tick begins."""
        self.settles: tuple[Callable[[], bool], ...] = ()
        """Wait for what takes real time, such as a machine that shuts down: time is not advanced past it. Each says
        whether anything got on meanwhile."""
        self._lock = threading.Lock()
        self._done = clock.now()
        self._ended = threading.Event()
        self.runs: list[dict[str, Any]] = []
        """What has run: {"schedule", "time", "error"}."""
        self._later: list[_Due] = []

    def start(self) -> None:
        """Begin to follow the clock."""
        threading.Thread(target=self._follow, name="ticks", daemon=True).start()

    def stop(self) -> None:
        """Run nothing more."""
        self._ended.set()

    def advance(self, seconds: float) -> None:
        """Move the clock forward through every tick that falls due, running each before time goes on.

        Raises:
            ValueError: `seconds` is negative.
        """
        with self._lock:
            target = clock.now() + timedelta(seconds=seconds)
            if seconds < 0:
                clock.advance(seconds)
            while due := self._next(target):
                self._settle()
                self._meet(due)
            self._settle()
            clock.advance_to(target)

    def _settle(self) -> None:
        while any([settle() for settle in self.settles]):  # what got on may have set off something of another kind
            continue

    def _follow(self) -> None:
        while not self._ended.wait(_LOOK_S):
            with self._lock:
                while due := self._next(clock.now()):
                    self._meet(due)

    def after(self, seconds: float, name: str, action: Callable[[], object]) -> datetime:
        """Let something happen once, so many seconds from now on the rehearsal's clock; returns when."""
        moment = clock.now() + timedelta(seconds=seconds)
        self._later.append(_Due(moment=moment, name=name, action=action))
        return moment

    def _meet(self, due: "_Due") -> None:
        clock.advance_to(due.moment)
        if due in self._later:
            self._later.remove(due)
        due.action()

    def _next(self, until: datetime) -> "_Due | None":
        found = [due for due in self._later if due.moment <= until] + [
            _Due(moment=moment, name=schedule.name, action=partial(self._run, moment, schedule))
            for group in list(scheduler_backends[DEFAULT_ACCOUNT_ID][REGION].schedule_groups.values())
            for schedule in list(group.schedules.values())
            for moment in _first(times(schedule, self._done_of(schedule), until))
        ]
        return min(found, key=lambda due: (due.moment, due.name), default=None)

    def _done_of(self, schedule: Any) -> datetime:
        done: datetime = getattr(schedule, "rehearsal_done", self._done)
        return done

    def _run(self, moment: datetime, schedule: Any) -> None:
        schedule.rehearsal_done = moment
        text = schedule.target.get("Input") or "{}"
        for name, value in (
            ("scheduled-time", clock.iso(moment)), ("schedule-arn", schedule.arn), ("attempt-number", "1"),
            ("execution-id", str(uuid.uuid4())),
        ):  # fmt: skip
            text = text.replace(f"<aws.scheduler.{name}>", value)
        self.begun()
        answer = self._faults.tick() or self._call(schedule.target["Arn"], json.loads(text))
        run = {"schedule": schedule.name, "time": clock.iso(moment), "value": answer.get("value"),
               "error": answer.get("error")}  # fmt: skip
        self.runs.append(run)
        if run["error"]:
            print(f"tick of {schedule.name} at {run['time']}: {run['error']}", flush=True)

    def _call(self, arn: str, event: object) -> dict[str, Any]:
        functions = lambda_backends[DEFAULT_ACCOUNT_ID][REGION]._lambdas
        try:
            function = functions.get_function_by_name_or_arn_with_qualifier(arn)
        except UnknownFunctionException as error:
            return {"error": {"errorType": "ResourceNotFoundException", "errorMessage": str(error)}}
        return self._functions.invoke(function, event)


def _first(moments: Iterator[datetime]) -> list[datetime]:
    return [moment for moment, _ in zip(moments, range(1), strict=False)]


class Scheduler(EventBridgeSchedulerResponse):  # type: ignore[misc]  # moto ships no types
    """Refuses the schedules that nothing here would run."""

    def create_schedule(self) -> str:
        self._check()
        return str(super().create_schedule())

    def update_schedule(self) -> str:
        self._check()
        return str(super().update_schedule())

    def _check(self) -> None:
        from moto.iam.models import iam_backends

        expression, target = self._get_param("ScheduleExpression") or "", self._get_param("Target") or {}
        if not _AT.fullmatch(expression):
            period(expression)
        if (self._get_param("ScheduleExpressionTimezone") or "UTC") != "UTC":
            raise NotRehearsed("a schedule's time zone other than UTC")
        if (self._get_param("FlexibleTimeWindow") or {}).get("Mode") != "OFF":
            raise NotRehearsed("FlexibleTimeWindow other than OFF")
        if ":lambda:" not in target.get("Arn", ""):
            raise NotRehearsed(f"a schedule's target {target.get('Arn')}: only Lambda functions")
        roles = iam_backends[self.current_account]["aws"].roles.values()
        if target.get("RoleArn") not in {role.arn for role in roles}:
            raise AwsError("ValidationException", f"The execution role you provide must exist: {target.get('RoleArn')}")
