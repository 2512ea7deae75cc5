"""The app as `cdk` runs it: context, refusals, determinism, and the checks that are on by default."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import app as rooflab_app
from labs.catalog import LABS
from labs.names import GUARD_STACK
from stacks import acknowledged
from tests.stacks.synthesis import FLAGS, KEY, ROOT, Synthesis, app_in, of_type, read, synthesise


def stacks_of(folder: Path, *, only: Iterable[int] = LABS, **context: object) -> dict:
    """Manifest entries of the stacks that the context gives, of all labs or of some."""
    app = app_in(folder, **context)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooflab_app, "LABS", {number: LABS[number] for number in only})
        rooflab_app.build(app)
    app.synth()
    artifacts = json.loads((folder / "manifest.json").read_text())["artifacts"]
    return {id: one for id, one in artifacts.items() if one["type"] == "aws:cloudformation:stack"}


def said(folder: Path, stack: dict, kind: str = "aws:cdk:error") -> list[str]:
    """What the CLI says when that stack is selected; at an error it stops."""
    path = folder / stack.get("additionalMetadataFile", "")
    metadata = json.loads(path.read_text()) if path.is_file() else stack.get("metadata", {})
    return [one["data"] for entries in metadata.values() for one in entries if one["type"] == kind]


def run(*arguments: str, folder: Path, context: dict | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Python on the app in a process of its own, with no credentials and nowhere to ask for any."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CDK_"))}
    given = {
        **clean, "CDK_OUTDIR": str(folder), "CDK_CONTEXT_JSON": json.dumps({**FLAGS, **(context or {})}),
        "AWS_EC2_METADATA_DISABLED": "true", "HTTPS_PROXY": "http://127.0.0.1:9", **environment,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=given, capture_output=True, text=True, check=False
    )


def test_there_is_a_stack_per_lab_and_each_depends_on_the_guard(folder: Path) -> None:
    stacks = stacks_of(folder)
    assert set(stacks) == {"GuardStack", *(f"Lab{number}Stack" for number in LABS)}
    for number in LABS:
        assert "GuardStack" in stacks[f"Lab{number}Stack"]["dependencies"]


def test_no_account_has_to_be_bootstrapped(folder: Path) -> None:
    for id, stack in stacks_of(folder).items():
        assert set(stack["properties"]) == {"templateFile", "terminationProtection", "tags", "validateOnSynth"}, id
        assert stack["environment"] == "aws://unknown-account/unknown-region", id


def test_stacks_carry_the_tags_that_the_guard_reads(folder: Path) -> None:
    stack = stacks_of(folder, only=[3], ttl_hours="1.5", owner="ada")["Lab3Stack"]
    assert stack["properties"]["tags"] == {
        "rooflab:lab": "3", "rooflab:stack": "Lab3Stack", "rooflab:owner": "ada", "rooflab:ttl-hours": "1.5",
    }  # fmt: skip


def test_context_replaces_fields_of_every_lab(folder: Path) -> None:
    stacks_of(folder, nodes="3", instance_type="t3.medium", capacity="on-demand", storage="none")
    for number in LABS:
        assert len(of_type(read(folder, f"Lab{number}Stack"), "AWS::EC2::Instance")) == 3


def test_a_name_changes_the_stack_and_not_the_command(folder: Path) -> None:
    stacks = stacks_of(folder, only=[3], name="alice")
    assert stacks["Lab3Stack"]["properties"]["stackName"] == "Lab3Stack-alice"
    assert "stackName" not in stacks["GuardStack"]["properties"]


def test_a_lab_that_cannot_take_the_context_fails_alone(folder: Path) -> None:
    """`cdk deploy Lab3Stack -c efa=on` works although lab 0's type has no EFA; `cdk deploy Lab0Stack` says why not."""
    stacks = stacks_of(folder, efa="on", name="alice")
    assert {id for id, stack in stacks.items() if said(folder, stack)} == {"Lab0Stack", "Lab1Stack"}
    (error,) = said(folder, stacks["Lab0Stack"])
    assert error.startswith("efa='on' is not allowed: write auto or off, for g6.xlarge takes no EFA")
    assert stacks["Lab0Stack"]["properties"]["stackName"] == "Lab0Stack-alice", "so that it can still be destroyed"


def test_a_deployment_is_told_its_price(folder: Path) -> None:
    """`cdk deploy Lab3Stack` prints the line of Lab 3, and of no other lab."""
    context: dict[str, Any] = {"nodes": "4", "capacity": "on-demand", "instance_type": "g6.12xlarge", "storage": "none"}
    stacks = stacks_of(folder, only=[3], **context)
    (line,) = said(folder, stacks["Lab3Stack"], "aws:cdk:info")
    assert line.startswith(
        "Lab3Stack costs $18.49 an hour, $73.97 in its 4 hours, by us-east-1's list prices; `fab cost`"
    )
    assert not said(folder, stacks["GuardStack"], "aws:cdk:info")


def test_whoever_is_to_be_notified_is_the_guards_to_know(folder: Path) -> None:
    stacks_of(folder / "told", only=[1], notify="me@example.org")
    (mail,) = of_type(read(folder / "told", "GuardStack"), "AWS::SNS::Subscription").values()
    assert (mail["Properties"]["Protocol"], mail["Properties"]["Endpoint"]) == ("email", "me@example.org")
    stacks_of(folder / "untold", only=[1])
    assert not of_type(read(folder / "untold", "GuardStack"), "AWS::SNS::Subscription")


@pytest.mark.parametrize(
    ("context", "line"),
    [
        ({"nodes": "0"}, "nodes='0'|nodes=0 is not allowed: write a whole number from 1 to 64"),
        ({"nodes": "two"}, "nodes='two' is not a number"),
        ({"instance_type": "g6"}, "instance_type='g6' is not an EC2 type: write FAMILY.SIZE"),
        ({"instance_type": "g6.13xlarge"}, "instance_type='g6.13xlarge' is not in labs/instances.json: did you mean"),
        ({"capacity": "cheap"}, "capacity='cheap' is not allowed: write on-demand"),
        ({"storage": "nfs"}, "storage='nfs' is not allowed: write none"),
        ({"zone": "us-east-1"}, "zone='us-east-1' is not allowed: write an availability zone"),
        ({"name": "Alice!"}, "name='Alice!': write 1 to 20 characters"),
        ({"node": "2"}, "context 'node' is not known: write nodes"),
        ({"instance-type": "t3.medium"}, "context 'instance-type' is not known: write instance_type"),
        ({"colour": "red"}, r"context 'colour' is not known: write .*instance_type"),
        ({"notify": "me"}, "notify='me' is no mail address: write notify=me@example.org"),
        ({"notfy": "me@example.org"}, "context 'notfy' is not known: write notify"),
        ({"access": "vpn"}, r"access='vpn' is not allowed: write auto \| public \| eice \| ssm"),
        ({"image": "ubuntu"}, "image='ubuntu' is not allowed: write ami-0123456789abcdef0"),
        ({"group": "mine"}, "group='mine' is not allowed: write it with capacity=reservation:cr-"),
        ({"data": "bucket/prefix"}, r"data='bucket/prefix' is not allowed: write s3://BUCKET/PREFIX \| results"),
        (
            {"alternatives": "g6.xlarge", "capacity": "on-demand"},
            "alternatives='g6.xlarge' is not allowed: write it with",
        ),
        ({"ssh_public_key": "-----BEGIN"}, "ssh_public_key='-----BEGIN'… is no OpenSSH public key"),
    ],
)
def test_wrong_context_is_one_clear_line(folder: Path, context: dict, line: str) -> None:
    with pytest.raises(ValueError, match=line) as raised:
        rooflab_app.build(app_in(folder, **context))
    assert "\n" not in str(raised.value)


def test_the_line_is_all_that_is_printed(folder: Path) -> None:
    ended = run("app.py", folder=folder, context={"nodes": "0"}, CDK_VALIDATION="false")
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1] == "nodes=0 is not allowed: write a whole number from 1 to 64"
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_the_operators_key_may_be_absent_given_or_set_up(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(rooflab_app, "_PUBLIC_KEY_FILE", tmp_path / "absent.pub")
    stacks_of(folder / "none", only=[1])
    assert "ssh_authorized_keys" not in str(read(folder / "none", "Lab1Stack"))

    stacks_of(folder / "given", only=[1], ssh_public_key=KEY)
    assert KEY in str(read(folder / "given", "Lab1Stack"))

    (tmp_path / "id.pub").write_text(f"{KEY}\n")
    monkeypatch.setattr(rooflab_app, "_PUBLIC_KEY_FILE", tmp_path / "id.pub")
    stacks_of(folder / "file", only=[1])
    assert KEY in str(read(folder / "file", "Lab1Stack"))


def test_the_same_context_gives_the_same_bytes(folder: Path) -> None:
    """In another process, with another hash seed, on another day."""
    context: dict[str, Any] = {
        "instance_type": "p5.48xlarge",
        "nodes": "2",
        "capacity": "on-demand",
        "ssh_public_key": KEY,
    }
    stacks_of(folder / "here", **context)
    stale = folder / "there" / "validation-report.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    ended = run(
        "app.py", folder=folder / "there", context=context, CDK_VALIDATION="false", PYTHONHASHSEED="7", TZ="Asia/Tokyo"
    )
    assert ended.returncode == 0, ended.stderr
    assert not stale.exists(), "the CLI would stop at what an earlier synthesis reported"
    for path in sorted((folder / "here").glob("*.template.json")):
        assert path.read_bytes() == (folder / "there" / path.name).read_bytes(), path.name


PROVED: dict[str, dict[str, str]] = {
    "a fleet": {"instance_type": "p5.48xlarge", "capacity": "spot", "nodes": "2", "storage": "scratch",
                "data": "results"},
    "instances": {"instance_type": "p5.48xlarge", "capacity": "on-demand", "nodes": "2", "storage": "efa"},
}  # fmt: skip
ONE = "import app; app.LABS = {3: app.LABS[3]}; "
"""Lab 3 alone: given all of these, the labs differ by their number."""


def findings(folder: Path, program: str, **context: str) -> set[str]:
    """Rules that CDK's own validation and cdk-nag, on by default, find broken in an app."""
    ended = run("-c", program, folder=folder, context=context)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    report = json.loads((folder / "validation-report.json").read_text())
    return {one["ruleName"] for plugin in report["pluginReports"] for one in plugin["violations"]}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What is found, by title, in syntheses side by side."""
    unexplained = f"{ONE}import stacks.network; stacks.network.acknowledge = lambda *given: None; app.main()"
    asked = {title: (f"{ONE}app.main()", {"notify": "me@example.org", **context}) for title, context in PROVED.items()}
    asked["unexplained"] = (unexplained, {})
    root = tmp_path_factory.mktemp("findings")
    with ThreadPoolExecutor(2) as pool:
        told = {title: pool.submit(findings, root / title, program, **context)
                for title, (program, context) in asked.items()}  # fmt: skip
        return {title: future.result() for title, future in told.items()}


@pytest.mark.parametrize("title", PROVED)
def test_synthesis_passes_every_check_with_no_network_and_no_account(found: dict[str, set[str]], title: str) -> None:
    assert found[title] == set()


@pytest.mark.parametrize("context", PROVED.values(), ids=PROVED)
def test_the_lab_that_is_checked_stands_for_all(context: dict[str, str]) -> None:
    given = [replace(lab.override(**context), number=3, title="", workloads=()) for lab in LABS.values()]
    assert len(set(given)) == 1


def test_what_is_not_acknowledged_is_found(found: dict[str, set[str]]) -> None:
    assert {rule.rpartition("::")[2] for rule in found["unexplained"]} == {"AwsSolutions-VPC7"}


def test_every_acknowledgement_gives_its_reason() -> None:
    given = [value for value in vars(acknowledged).values() if isinstance(value, dict) and "__name__" not in value]
    assert acknowledged.TOPIC in given
    for reasons in given:
        for finding, reason in reasons.items():
            assert finding.startswith("AwsSolutions-")
            assert len(reason.split()) >= 5, finding


LINTED = ("64 nodes", "4 nodes with an Elastic IP each", "alternatives without an address", "a reservation's group",
          "an image", "data", "Lustre over EFA", "many EFAs on spot", "a block", "Session Manager")  # fmt: skip


def test_the_templates_are_clean_for_cfn_lint(folder: Path, varied: Synthesis) -> None:
    """`make check` lints the labs as they are."""
    told = synthesise(folder, {}, notify="me@example.org")
    paths = [told.folder / f"{GUARD_STACK}.template.json", *map(varied.path, LINTED)]
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--template", *map(str, paths)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
