"""Mail about a lab's end: each notice once, and none where nobody asked for it."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from guard.tick import tick
from tests.guard.bench import Bench

TOPIC = "arn:aws:sns:us-east-1:123456789012:notices"
TOLD = "/rooflab/told/Lab3Stack"


class Mail:
    """What a test's ticks send."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        self.subjects: list[str] = []
        self.texts: list[str] = []
        sns = bench.clients("sns")
        bench.answers["sns:Publish"] = {"MessageId": "1"}
        monkeypatch.setattr(sns, "publish", self.publish, raising=False)

    def publish(self, *, TopicArn: str, Subject: str, Message: str) -> None:
        assert TopicArn == TOPIC
        self.subjects.append(Subject)
        self.texts.append(Message)

    def tick(self, hours: float) -> list[str]:
        """One tick so many hours from now; returns the subjects of its mail."""
        before = len(self.subjects)
        tick(self.bench.clients, datetime.now(UTC) + timedelta(hours=hours), TOPIC)
        return [subject.removeprefix("Rooflab: Lab3Stack, ") for subject in self.subjects[before:]]


@pytest.fixture
def mail(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Mail:
    return Mail(bench, monkeypatch)


def parameters(bench: Bench) -> list[str]:
    return [row["Name"] for row in bench.clients("ssm").describe_parameters()["Parameters"]]


def test_a_life_is_told_hour_by_hour_and_each_notice_once(mail: Mail) -> None:
    mail.bench.stack(ttl="4")
    assert mail.tick(2.9) == []
    assert mail.tick(3.1) == ["soon"]
    assert mail.tick(3.5) == []
    assert mail.tick(4.1) == ["begins"]  # and the stack, which holds nothing slow, goes in this step
    assert mail.tick(4.2) == ["done"]
    assert mail.tick(4.3) == []
    assert "fab extend moves that" in mail.texts[0]
    assert mail.texts[2] == "Nothing is left of Lab3Stack: its residual is $0.00 per hour."
    assert parameters(mail.bench) == []


def test_a_deadline_that_was_moved_is_told_again(mail: Mail) -> None:
    mail.bench.stack(ttl="4")
    assert mail.tick(3.5) == ["soon"]
    value = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    mail.bench.clients("ssm").put_parameter(Name="/rooflab/deadline/Lab3Stack", Value=value, Type="String")
    assert mail.tick(3.6) == []
    assert mail.tick(5.5) == ["soon"]


def test_what_does_not_go_within_an_hour_is_stuck_and_says_why(mail: Mail) -> None:
    mail.bench.instance(mail.bench.subnet(mail.bench.stack(ttl="1")))
    mail.bench.refuse("ec2:TerminateInstances", message="no.")
    mail.bench.answers["cloudformation:DeleteStack"] = {}
    assert mail.tick(1.1) == ["begins"]
    assert mail.tick(1.9) == []
    assert mail.tick(2.2) == ["stuck"]
    assert "no permission for ec2:TerminateInstances" in mail.texts[-1]
    assert mail.tick(2.3) == []


def test_orphans_are_told_once_and_their_end_too(mail: Mail) -> None:
    mail.bench.volume(TagSpecifications=mail.bench.tags("volume"))
    assert mail.tick(0) == ["orphans"]
    assert "and its stack is gone" in mail.texts[0]
    assert mail.tick(0.1) == ["done"]


def test_what_outlives_its_stack_while_the_guard_ends_it_is_no_orphan(mail: Mail) -> None:
    mail.bench.stack(ttl="1")
    mail.bench.volume(TagSpecifications=mail.bench.tags("volume"))
    mail.bench.refuse("ec2:DeleteVolume")
    assert mail.tick(1.1) == ["begins"]
    assert mail.tick(1.2) == []
    del mail.bench.answers["ec2:DeleteVolume"]
    assert mail.tick(1.3) == []
    assert mail.tick(1.4) == ["done"]


def test_a_lab_that_its_owner_took_away_is_forgotten_in_silence(mail: Mail) -> None:
    mail.bench.stack(ttl="1")
    assert mail.tick(0.5) == ["soon"]
    mail.bench.clients("cloudformation").delete_stack(StackName="Lab3Stack")
    assert mail.tick(0.6) == []
    assert parameters(mail.bench) == []


def test_nothing_is_called_gone_by_a_look_that_did_not_see_all(mail: Mail) -> None:
    mail.bench.stack(ttl="1")
    assert mail.tick(1.1) == ["begins"]
    mail.bench.refuse("fsx:DescribeFileSystems", "AccessDeniedException")
    assert mail.tick(1.2) == []
    assert parameters(mail.bench) == [TOLD]


def test_a_notice_that_cannot_be_kept_does_not_go_out_and_the_lab_ends_all_the_same(
    mail: Mail, capsys: pytest.CaptureFixture[str]
) -> None:
    mail.bench.stack(ttl="1")
    mail.bench.refuse("ssm:PutParameter", "AccessDeniedException")
    assert mail.tick(1.1) == []
    assert "no notice: no permission for ssm:PutParameter" in capsys.readouterr().out
    assert mail.bench.clients("cloudformation").describe_stacks()["Stacks"] == []


@pytest.mark.parametrize("value", ["{", None])
def test_where_it_cannot_be_read_what_was_told_nobody_is_told_again(mail: Mail, value: str | None) -> None:
    mail.bench.stack(ttl="1")
    if value:
        mail.bench.clients("ssm").put_parameter(Name=TOLD, Value=value, Type="String")
    else:
        mail.bench.refuse("ssm:GetParametersByPath", "AccessDeniedException")
    assert mail.tick(1.1) == []


def test_without_a_topic_nothing_is_asked_of_sns_or_kept(mail: Mail) -> None:
    mail.bench.stack(ttl="1")
    tick(mail.bench.clients, datetime.now(UTC) + timedelta(hours=1.1))
    assert not {"ssm:PutParameter", "ssm:GetParametersByPath"} & set(mail.bench.asked)
    assert mail.subjects == []


def test_what_was_told_is_one_small_document(mail: Mail) -> None:
    mail.bench.stack(ttl="1")
    mail.tick(0.5)
    value = json.loads(mail.bench.clients("ssm").get_parameter(Name=TOLD)["Parameter"]["Value"])
    assert (set(value), value["told"]) == ({"of", "since", "told"}, ["soon"])
