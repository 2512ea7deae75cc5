"""The node's own half: output as it grows, and records that leave the node as soon as they are finished."""

import json
import os
import subprocess
from io import BytesIO

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto import mock_aws

from operate import ship, stream
from operate.fetch import fetch_shipped


class Raw(BytesIO):
    """A response's body as urllib3 would give it."""

    def stream(self, **_):
        yield self.read()


RUN = "20261120-093000-lab3"


@pytest.fixture
def folder(tmp_path):
    run = tmp_path / RUN
    (run / "logs").mkdir(parents=True)
    (run / "records").mkdir()
    return run


def lines(events):
    return [(event["log"], event["lines"]) for event in events if "log" in event]


def test_only_whole_lines_are_told_and_each_once(folder):
    reader = stream.Reader(folder, {})
    (folder / "logs/gemm.log").write_text("one\ntw")
    assert lines(reader.new(over=False)) == [("gemm", ["one"])]
    (folder / "logs/gemm.log").write_text("one\ntwo\n")
    assert lines(reader.new(over=False)) == [("gemm", ["two"])]
    assert lines(reader.new(over=False)) == []


def test_a_progress_bar_is_lines(folder):
    (folder / "logs/a.log").write_bytes(b"10%\r20%\r\n\xff\n")
    assert lines(stream.Reader(folder, {}).new(over=False)) == [("a", ["10%", "20%", "\ufffd"])]


def test_the_end_tells_a_last_line_that_has_none(folder):
    (folder / "logs/a.log").write_text("done")
    reader = stream.Reader(folder, {})
    assert lines(reader.new(over=False)) == []
    assert lines(reader.new(over=True)) == [("a", ["done"])]


def test_reading_goes_on_at_an_offset(folder):
    (folder / "logs/a.log").write_text("one\ntwo\n")
    assert lines(stream.Reader(folder, {"a": 4}).new(over=False)) == [("a", ["two"])]


def test_a_run_that_died_without_an_exit_code_is_over(folder):
    assert stream.ended(folder) is None, "it is about to start"
    gone = subprocess.Popen(["true"])
    gone.wait()
    (folder / "pid").write_text(str(gone.pid))
    assert stream.ended(folder) == -1
    (folder / "stopping").touch()
    assert stream.ended(folder) == 143, "it was fab stop that ended it"
    (folder / "pid").write_text(str(os.getpid()))
    assert stream.ended(folder) is None
    (folder / "exit").write_text("3\n")
    assert stream.ended(folder) == 3


def test_the_whole_stream_of_a_finished_run(folder, capsys):
    (folder / "logs/a.log").write_text("one\n")
    (folder / "codes").write_text("a 0 12\n")
    (folder / "exit").write_text("0\n")
    stream.stream(folder, {})
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [{"log": "a", "at": 4, "lines": ["one"]}, {"codes": {"a": [0, 12]}}, {"exit": 0}]
    stream.stream(folder.parent / "nosuch", {})
    assert json.loads(capsys.readouterr().out) == {"lost": "there is no run nosuch on it"}


@pytest.fixture
def bucket(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="results")
        monkeypatch.setenv("ROOFLAB_BUCKET", "results")
        monkeypatch.setenv("ROOFLAB_RUN", RUN)
        monkeypatch.setenv("ROOFLAB_NODE", "node1")
        yield s3


def test_records_leave_once_and_come_back_from_the_bucket(folder, bucket, tmp_path, capsys):
    (folder / "records/gemm.node1.json").write_text("{}")
    (folder / "records/half.partial").write_text("{")
    (folder / "logs/gemm.log").write_text("line\n")
    ship.main(folder)
    ship.main(folder)
    assert capsys.readouterr().out.splitlines() == [
        "shipped gemm.node1.json, gemm.log to s3://results",
        "shipped nothing new to s3://results",
    ]
    home = tmp_path / "home"
    written = fetch_shipped(bucket, "results", RUN, ["node0", "node1"], home)
    assert sorted(written) == ["logs/node1/gemm.log", "records/gemm.node1.json"]
    assert (home / "records/gemm.node1.json").read_text() == "{}"


def test_a_bucket_that_says_slow_down_ten_times_has_the_record_all_the_same(folder, bucket, monkeypatch, capsys):
    left = [503] * 10

    def busy(request, **_):
        slow = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
        return AWSResponse(request.url, left.pop(), {}, Raw(slow)) if left else None

    session = boto3.Session()
    session.events.register_first("before-send.s3.PutObject", busy)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (folder / "records/gemm.node1.json").write_text("{}")
    ship.main(folder)
    assert (left, capsys.readouterr().out) == ([], "shipped gemm.node1.json to s3://results\n")


def test_secrets_are_blanked_before_they_leave_the_node(folder, bucket, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv("MY_TOKEN", "it's mine")
    monkeypatch.setenv("ROOFLAB_SECRETS", "MY_TOKEN UNSET")
    (folder / "logs/gemm.log").write_text("a hf_0123456789 b it's mine c\nlast\n")
    (folder / "records/gemm.node1.json").write_text('{"token": "hf_0123456789"}')
    ship.main(folder)
    sent = {item["Key"]: bucket.get_object(Bucket="results", Key=item["Key"])["Body"].read()
            for item in bucket.list_objects_v2(Bucket="results")["Contents"]}  # fmt: skip
    blanked = b"a ************* b ********* c\nlast\n"
    assert sent[f"results/{RUN}/node1/gemm.log"] == blanked
    assert sent[f"results/{RUN}/node1/gemm.node1.json"] == b'{"token": "*************"}'
    assert (folder / "logs/gemm.log").read_bytes() == blanked, "a reader at an offset goes on where it was"


def test_what_cannot_be_blanked_is_not_shipped(folder, bucket, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    (folder / "logs/gemm.log").mkdir()
    ship.main(folder)
    assert capsys.readouterr().out.startswith("warning: not shipped, for secrets could not be blanked (")
    assert "Contents" not in bucket.list_objects_v2(Bucket="results")


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "warning: not shipped, for ROOFLAB_BUCKET is not set"), ("nosuch", "warning: not shipped to nosuch (")],
)
def test_what_cannot_be_shipped_is_one_warning_and_no_failure(folder, bucket, monkeypatch, capsys, name, said):
    monkeypatch.setenv("ROOFLAB_BUCKET", name)
    (folder / "records/gemm.node1.json").write_text("{}")
    ship.main(folder)
    told = capsys.readouterr().out
    assert told.startswith(said)
    assert told.count("\n") == 1
