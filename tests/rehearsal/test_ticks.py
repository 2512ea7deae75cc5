"""Schedules and functions run for real, on the rehearsal's clock."""

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal import control, ticks
from rehearsal.errors import NotRehearsed
from tests.rehearsal.worlds import World

BEGUN = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
CODE = """
import json, os, sys, time
import boto3
seen = []
def handler(event, context):
    print("tick", event.get("time"), context.function_name)
    if event.get("raise"): raise ValueError("asked to")
    if event.get("sleep"): time.sleep(event["sleep"])
    if event.get("die"): os._exit(3)
    seen.append(event.get("time"))
    boto3.client("ssm").put_parameter(Name="/seen", Value=json.dumps(seen), Type="String", Overwrite=True)
    return {"rooflab": any("rehearsal" in name for name in sys.modules), "env": os.environ["COLOUR"], "seen": len(seen)}
"""


def _schedule(expression: str, state: str = "ENABLED") -> Any:
    return SimpleNamespace(creation_date=BEGUN.timestamp(), schedule_expression=expression, state=state)


def test_a_rate_begins_with_its_schedule_and_goes_on_by_its_period() -> None:
    minute = timedelta(minutes=1)
    due = list(ticks.times(_schedule("rate(5 minutes)"), BEGUN - minute, BEGUN + 11 * minute))
    assert due == [BEGUN, BEGUN + 5 * minute, BEGUN + 10 * minute]
    assert list(ticks.times(_schedule("rate(5 minutes)"), BEGUN, BEGUN + 5 * minute)) == [BEGUN + 5 * minute]
    assert list(ticks.times(_schedule("rate(5 minutes)", "DISABLED"), BEGUN, BEGUN + 50 * minute)) == []
    assert list(ticks.times(_schedule("rate(1 hour)"), BEGUN, BEGUN + 59 * minute)) == []


def test_a_moment_falls_due_once() -> None:
    at = _schedule("at(2026-11-20T12:10:00)")
    moment = datetime(2026, 11, 20, 12, 10, tzinfo=UTC)
    assert list(ticks.times(at, BEGUN, moment)) == [moment]
    assert list(ticks.times(at, moment, moment + timedelta(days=1))) == []


@pytest.mark.parametrize("expression", ["cron(0 12 * * ? *)", "rate(0 minutes)", "rate(5 moons)"])
def test_other_expressions_are_refused_by_name(expression: str) -> None:
    with pytest.raises(NotRehearsed, match="ScheduleExpression"):
        ticks.period(expression)


@pytest.fixture
def function(world: World) -> Iterator[str]:
    iam, client = world.client("iam"), world.client("lambda")
    role = iam.create_role(RoleName="ticker", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as code:
        code.writestr("index.py", CODE)
    made = client.create_function(
        FunctionName="ticker", Runtime="python3.12", Role=role, Handler="index.handler", Timeout=200,
        Code={"ZipFile": packed.getvalue()}, Environment={"Variables": {"COLOUR": "blue"}},
        LoggingConfig={"LogGroup": "/of/the/ticker"},
    )  # fmt: skip
    yield made["FunctionArn"]
    client.delete_function(FunctionName="ticker")
    iam.delete_role(RoleName="ticker")


def _invoke(world: World, event: dict[str, Any]) -> dict[str, Any]:
    answer = world.client("lambda").invoke(FunctionName="ticker", Payload=json.dumps(event))
    value: dict[str, Any] = json.loads(answer["Payload"].read())
    return value


def test_a_function_runs_alone_with_its_own_environment_and_stays_warm(world: World, function: str) -> None:
    assert _invoke(world, {}) == {"rooflab": False, "env": "blue", "seen": 1}
    assert _invoke(world, {})["seen"] == 2
    assert _invoke(world, {"raise": True}) == {"errorType": "ValueError", "errorMessage": "asked to"}
    assert _invoke(world, {})["seen"] == 3


def test_a_function_that_hangs_or_dies_is_an_error_and_runs_again(world: World, function: str) -> None:
    assert _invoke(world, {"die": True})["errorMessage"] == "Task exited without an answer"
    world.client("lambda").update_function_configuration(FunctionName="ticker", Timeout=1)
    assert _invoke(world, {"sleep": 900})["errorMessage"] == "Task timed out after 1.00 seconds"
    world.client("lambda").update_function_configuration(FunctionName="ticker", Timeout=200)
    assert _invoke(world, {})["seen"] == 1


def test_advancing_the_clock_runs_every_tick_that_falls_due(world: World, function: str) -> None:
    scheduler, logs = world.client("scheduler"), world.client("logs")
    role = world.client("iam").get_role(RoleName="ticker")["Role"]["Arn"]
    scheduler.create_schedule(
        Name="often", ScheduleExpression="rate(10 minutes)", FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": function, "RoleArn": role, "Input": '{"time": "<aws.scheduler.scheduled-time>"}'},
    )  # fmt: skip
    begun = scheduler.get_schedule(Name="often")["CreationDate"]
    control.advance(world.name, 35 * 60, root=world.root)
    scheduler.delete_schedule(Name="often")
    control.advance(world.name, 35 * 60, root=world.root)
    seen = json.loads(world.client("ssm").get_parameter(Name="/seen")["Parameter"]["Value"])
    expected = [begun + timedelta(minutes=10 * index) for index in range(4)]
    assert seen == [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in expected]
    (stream,) = logs.describe_log_streams(logGroupName="/of/the/ticker")["logStreams"]
    events = logs.get_log_events(logGroupName="/of/the/ticker", logStreamName=stream["logStreamName"])["events"]
    assert f"tick {seen[-1]} ticker" in [event["message"] for event in events]


def test_a_schedule_that_nothing_would_run_is_refused(world: World, function: str) -> None:
    scheduler = world.client("scheduler")
    role = world.client("iam").get_role(RoleName="ticker")["Role"]["Arn"]
    sound: dict[str, Any] = {
        "Name": "odd", "ScheduleExpression": "rate(10 minutes)", "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {"Arn": function, "RoleArn": role},
    }  # fmt: skip
    for change, text in (
        ({"ScheduleExpression": "cron(0 12 * * ? *)"}, "NotRehearsed.*cron"),
        ({"Target": {"Arn": "arn:aws:sns:us-east-1:123456789012:x", "RoleArn": role}}, "only Lambda functions"),
        (
            {"Target": {"Arn": function, "RoleArn": "arn:aws:iam::123456789012:role/none"}},
            "role you provide must exist",
        ),
        ({"FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 5}}, "FlexibleTimeWindow"),
    ):
        with pytest.raises(ClientError, match=text):
            scheduler.create_schedule(**{**sound, **change})
