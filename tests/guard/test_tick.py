"""The guard, as the account runs it."""

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import guard.removal
import guard.tick
from guard.inventory import look
from guard.tick import deadline_of, handler, tick
from tests.guard.bench import Bench

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("inventory.py", "order.py", "removal.py", "notice.py", "tick.py")


def later(hours: float) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def extend(bench: Bench, value: str) -> None:
    bench.clients("ssm").put_parameter(Name="/rooflab/deadline/Lab3Stack", Value=value, Type="String", Overwrite=True)


def joined() -> str:
    """What stacks inlines."""
    lines = [line for name in SOURCES for line in (ROOT / "guard" / name).read_text().splitlines()]
    return "\n".join(line for line in lines if not line.startswith("from guard.")) + "\n"


def test_a_lab_within_its_time_is_not_touched(bench: Bench) -> None:
    bench.instance(bench.subnet(bench.stack(ttl="4")))
    (lab,) = tick(bench.clients, later(3.9))["labs"]
    assert (lab["over"], lab["by"]) == (False, "ttl")
    assert not {request for request in bench.asked if "Terminate" in request or "Delete" in request}


def test_a_lab_past_its_time_is_ended_step_by_step(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.made_by_hand(bench.subnet(bench.stack(ttl="4")))
    ticks = [tick(bench.clients, later(4.1)) for _ in range(4)]
    assert ticks[0]["labs"][0]["did"][0].startswith("remove instance")
    assert ticks[-1] == {"time": ticks[-1]["time"], "labs": [], "not_looked_at": {}}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == sum(len(made["labs"]) for made in ticks), "one line per lab and tick"
    assert look(bench.clients).items == ()


def test_only_the_lab_whose_time_is_up_ends(bench: Bench) -> None:
    bench.stack("Lab3Stack", ttl="1")
    bench.stack("Lab3Stack-alice", ttl="8")
    tick(bench.clients, later(2))
    names = [row["StackName"] for row in bench.clients("cloudformation").describe_stacks()["Stacks"]]
    assert names == ["Lab3Stack-alice"]


def test_an_extension_moves_the_deadline(bench: Bench) -> None:
    bench.stack(ttl="1")
    extend(bench, later(6).strftime("%Y-%m-%dT%H:%M:%SZ"))
    (lab,) = tick(bench.clients, later(5))["labs"]
    assert (lab["over"], lab["by"]) == (False, "extended")
    (lab,) = tick(bench.clients, later(7))["labs"]
    assert lab["over"]


def test_an_extension_of_an_earlier_life_does_not_count(bench: Bench) -> None:
    extend(bench, "2020-01-01T00:00:00Z")
    bench.stack(ttl="4")
    stack = look(bench.clients).stack("Lab3Stack")
    assert stack is not None
    value = bench.clients("ssm").get_parameter(Name="/rooflab/deadline/Lab3Stack")
    value["Parameter"]["LastModifiedDate"] = datetime(2020, 1, 1, tzinfo=UTC)
    bench.answers["ssm:GetParameter"] = {"Parameter": value["Parameter"]}
    assert deadline_of(bench.clients, stack)[1] == "ttl"


def test_an_unreadable_extension_falls_back_to_the_tag_and_says_so(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.stack(ttl="4")
    extend(bench, "tomorrow")
    assert tick(bench.clients, later(1))["labs"][0]["by"] == "ttl"
    assert "/rooflab/deadline/Lab3Stack holds no ISO 8601 time" in capsys.readouterr().out


def test_without_a_readable_tag_a_lab_ends_after_a_week(bench: Bench) -> None:
    bench.stack(ttl="soon")
    (lab,) = tick(bench.clients, later(167))["labs"]
    assert (lab["over"], lab["by"]) == (False, "no readable tag rooflab:ttl-hours")
    assert tick(bench.clients, later(169))["labs"][0]["over"]


def test_where_ssm_may_not_be_read_the_tag_counts_and_the_permission_is_named(bench: Bench) -> None:
    bench.stack(ttl="1")
    bench.refuse("ssm:GetParameter", "AccessDeniedException")
    (lab,) = tick(bench.clients, later(0.5))["labs"]
    assert lab["by"] == "no permission for ssm:GetParameter: allow it (AccessDeniedException)"
    assert not lab["over"]
    assert tick(bench.clients, later(2))["labs"][0]["over"]


def test_where_ssm_is_silent_an_extended_lab_is_not_ended(bench: Bench) -> None:
    bench.stack(ttl="1")
    bench.refuse("ssm:GetParameter", "ThrottlingException")
    assert not tick(bench.clients, later(2))["labs"][0]["over"]
    assert tick(bench.clients, later(169))["labs"][0]["over"]


def test_leftovers_without_a_stack_end_at_once(bench: Bench) -> None:
    bench.volume(TagSpecifications=bench.tags("volume"))
    (lab,) = tick(bench.clients, later(0))["labs"]
    assert lab["by"] == "its stack is gone"
    assert look(bench.clients).items == ()


def test_nothing_ends_while_stacks_cannot_be_seen(bench: Bench) -> None:
    bench.instance(bench.subnet(bench.stack(ttl="1")))
    bench.refuse("cloudformation:DescribeStacks", "AccessDenied")
    made = tick(bench.clients, later(2))
    assert made["labs"][0]["did"] == []
    assert made["not_looked_at"] == {
        "stack": "no permission for cloudformation:DescribeStacks: allow it (AccessDenied)"
    }


def test_no_extension_reaches_further_than_a_week_from_when_it_was_written(bench: Bench) -> None:
    bench.stack(ttl="1")
    extend(bench, "2099-01-01T00:00:00Z")
    assert not tick(bench.clients, later(167))["labs"][0]["over"]
    assert tick(bench.clients, later(169))["labs"][0]["over"]


@pytest.mark.parametrize("state", ["DELETE_FAILED", "ROLLBACK_FAILED"])
def test_what_failed_to_go_does_not_wait_for_a_deadline(bench: Bench, state: str) -> None:
    bench.instance(bench.subnet(bench.stack(ttl="8")))
    stacks = bench.clients("cloudformation").describe_stacks()["Stacks"]
    stacks[0]["StackStatus"] = state
    bench.answers["cloudformation:DescribeStacks"] = {"Stacks": stacks}
    (lab,) = tick(bench.clients, later(0))["labs"]
    assert (lab["over"], lab["by"]) == (True, state)
    assert lab["did"][0].startswith("remove instance")


def in_block(bench: Bench, end: datetime) -> None:
    """Let the lab's instance run in a capacity block that ends then."""
    bench.instance(bench.subnet(bench.stack(ttl="8")))
    rows = bench.ec2.describe_instances()["Reservations"]
    rows[0]["Instances"][0]["CapacityReservationId"] = "cr-1"
    bench.answers["ec2:DescribeInstances"] = {"Reservations": rows}
    block = {"CapacityReservationId": "cr-1", "State": "active", "ReservationType": "capacity-block", "EndDate": end}
    bench.answers["ec2:DescribeCapacityReservations"] = {"CapacityReservations": [block]}


def test_a_capacity_block_ends_a_lab_40_minutes_before_itself_and_the_nodes_learn_of_it(bench: Bench) -> None:
    end = later(3).replace(microsecond=0)
    in_block(bench, end)
    (lab,) = tick(bench.clients, later(1))["labs"]
    written = bench.clients("ssm").get_parameter(Name="/rooflab/deadline/Lab3Stack")["Parameter"]["Value"]
    assert datetime.fromisoformat(written) == end - timedelta(minutes=40)
    assert (lab["deadline"], lab["by"], lab["over"]) == (written, "its capacity block ends", False)
    (lab,) = tick(bench.clients, later(2.4))["labs"]
    assert (lab["over"], lab["by"]) == (True, "its capacity block ends")
    assert bench.asked.count("ssm:PutParameter") == 1


def test_a_capacity_block_that_outlasts_the_lab_changes_nothing(bench: Bench) -> None:
    in_block(bench, later(24))
    (lab,) = tick(bench.clients, later(1))["labs"]
    assert lab["by"] == "ttl"
    assert "ssm:PutParameter" not in bench.asked


def test_where_the_blocks_end_cannot_be_written_the_guard_still_keeps_to_it(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    in_block(bench, later(2))
    bench.refuse("ssm:PutParameter", "AccessDeniedException")
    assert tick(bench.clients, later(1.5))["labs"][0]["over"]
    assert "the nodes of Lab3Stack do not learn that its capacity block ends: no permission" in capsys.readouterr().out


def test_an_error_in_one_lab_does_not_keep_another_alive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stack("Lab1Stack", ttl="1")
    bench.stack("Lab3Stack", ttl="1")
    real = guard.removal.step

    def broken(clients, stack, seen):
        if stack == "Lab1Stack":
            raise KeyError("Shape")
        return real(clients, stack, seen)

    monkeypatch.setattr(guard.tick, "step", broken)
    labs = {lab["stack"]: lab for lab in tick(bench.clients, later(2))["labs"]}
    assert labs["Lab1Stack"]["refused"] == ["unexpected KeyError: 'Shape'"]
    assert labs["Lab3Stack"]["did"] == ["delete stack Lab3Stack"]


@pytest.mark.parametrize("text", ["2031-02-03T04:05:00Z", "2031-02-03T06:05:00+02:00"])
def test_the_handler_takes_the_scheduled_time(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("TOPIC", "arn:topic")
    monkeypatch.setattr(guard.tick, "tick", lambda clients, now, topic: {"now": now, "topic": topic})
    assert handler({"time": text}, None) == {"now": datetime(2031, 2, 3, 4, 5, tzinfo=UTC), "topic": "arn:topic"}


def test_the_files_make_one_that_runs_alone() -> None:
    text = joined()
    compile(text, "index.py", "exec")
    code = f"import sys\nsys.modules.update(dict.fromkeys(('labs', 'guard', 'rich')))\n{text}\nassert callable(handler)"
    outcome = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr


def test_no_name_is_defined_twice_in_the_joined_file() -> None:
    defined = re.findall(r"^(?:def|class) (\w+)|^([A-Za-z_]\w*)\s*[:=]", joined(), flags=re.MULTILINE)
    found = [one or other for one, other in defined]
    assert len(found) == len(set(found)), sorted(name for name in found if found.count(name) > 1)
