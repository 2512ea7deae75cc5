"""What `fab` says when something is wrong: one line, an exit code, no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from operate import laptop
from operate.account import explain
from operate.launch import secrets
from operate.problem import Problem
from operate.verb import as_problem, fail, number

ROOT = Path(__file__).parents[2]


def fab(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
               "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip
    program = Path(sys.executable).with_name("fab")
    return subprocess.run([program, *words], cwd=ROOT, env={**kept, **nowhere, **environment}, capture_output=True,
                          text=True, check=False)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nodes", "--lab", "9"), "problem: lab='9' does not exist: write one of 0 (First light"),
        (("nodes",), "problem: no lab was named: write --lab 3, for example"),
        (("nodes", "--lab", "3"), "problem: no AWS region is set: export AWS_REGION=us-east-1"),
        (("run-lab", "--lab", "3", "--name", "A_"), "problem: name='A_': write 1 to 20 characters"),
        (
            ("run-lab", "--lab", "1", "--only", "gem"),
            "problem: only='gem' is no workload of Lab 1: write some of bandwid",
        ),
        (("run-lab", "--lab", "1", "--on", "mars"), "problem: on='mars' is not allowed: write --on local"),
        (("run-lab", "--lab", "1", "--on", "local", "--hosts", "a"), "problem: --on and --hosts were both given"),
        (("run-lab", "--lab", "1", "--hosts", "a,a"), "problem: hosts='a,a' is not allowed: write different hosts"),
        (("run", "--on", "local"), "problem: nothing was said to run: write it after --"),
        (("run", "--on", "local", "--", "nosuch.py"), "nosuch.py does not exist: name a Python file"),
        (("run", "--on", "local", "--env", "NOSUCH", "--", "ls"), "problem: env='NOSUCH' is not set here"),
        (
            ("nodes", "--lab", "3", "--wait", "soon"),
            "problem: wait='soon' is not a number: write for example --wait",
        ),
        (
            ("cost", "--lab", "3", "--context", "nodes"),
            "problem: context='nodes' has no value: write --context nodes=4",
        ),
        (("cost", "--lab", "3", "--context", "nodes=0"), "problem: nodes=0 is not allowed: write a whole number"),
        (("logs", "--run", "../../etc"), "problem: run='../../etc' is not a run's name"),
        (("tunnel", "--lab", "3", "--port", "http"), "problem: port='http' is not a port: write 1 to 65535"),
    ],
)
def test_bad_input_gets_one_line_and_an_exit_code(words, said):
    done = fab(*words)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""


def test_a_lab_is_priced_without_an_account():
    told = json.loads(fab("cost", "--lab", "3", "--context", "nodes=4,storage=none", "--json").stdout)
    assert told["lines"][0]["usd_per_hour"] == pytest.approx(4 * 4.6016)
    assert told["usd"] == pytest.approx(told["usd_per_hour"] * 4)
    assert "guard ends Lab3Stack" in fab("cost", "--lab", "3").stdout


def test_without_credentials_the_two_ways_out_are_named():
    done = fab("nodes", "--lab", "3", AWS_REGION="us-east-1")
    assert done.returncode == 1
    assert "problem: no AWS credentials were found: run `aws configure`" in done.stderr
    assert "fab rehearsal.start" in done.stderr


def test_an_endpoint_that_does_not_answer_is_named():
    done = fab("nodes", "--lab", "3", AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x",
               AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1")  # fmt: skip
    assert done.returncode == 1
    assert "problem: http://127.0.0.1:1 does not answer" in done.stderr
    assert "fab rehearsal.status" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_fabfile_loads_where_the_other_rooms_libraries_are_absent():
    absent = (
        "import sys\nfor name in ('aws_cdk', 'moto', 'torch', 'transformers', 'asyncssh'): sys.modules[name] = None\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", absent + "import fabfile"], cwd=ROOT,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_verb_explains_itself_and_its_flags():
    listed = fab("--list").stdout
    for verb in ("run-lab", "attach", "teardown", "rehearsal.env"):
        assert f"  {verb}" in listed
    shown = fab("--help", "run-lab").stdout
    assert "Push, run a lab's workloads on all nodes" in shown
    assert "--wait=STRING Longest wait for the nodes to answer, in seconds." in " ".join(shown.split())


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        ("ExpiredToken", "", "the AWS credentials have expired: run `aws configure`"),
        ("AuthFailure", "", r"AWS does not accept these credentials \(AuthFailure\)"),
        ("AccessDenied", "User: x is not authorized to perform: ec2:RunInstances on *", "AWS denies ec2:RunInstances"),
        ("UnauthorizedOperation", "no", "AWS denies DescribeInstances to these credentials"),
        ("Throttling", "", "AWS throttles DescribeInstances: wait a minute"),
        ("Odd", "what\nis this", r"AWS refused DescribeInstances \(Odd: what is this\)"),
    ],
)
def test_what_aws_refuses_is_told_with_its_remedy(code, message, said):
    with pytest.raises(Problem, match=said):
        raise explain(ClientError({"Error": {"Code": code, "Message": message}}, "DescribeInstances"))


def test_what_botocore_cannot_do_is_told_too(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert "no AWS credentials" in str(as_problem(NoCredentialsError()))
    assert str(as_problem(EndpointConnectionError(endpoint_url="https://ec2"))).startswith("AWS does not answer")


def test_a_bug_leaves_its_traceback_in_a_file_and_a_users_value_does_not(clone):
    try:
        int("x")
    except ValueError as error:
        problem = as_problem(error)
    assert problem.cause.startswith("unexpected ValueError")
    (saved,) = (laptop.ROOT / ".rooflab" / "tracebacks").iterdir()
    assert 'int("x")' in saved.read_text()
    assert str(saved) in problem.remedy


def test_a_value_error_of_ours_is_the_users(monkeypatch):
    monkeypatch.setattr(laptop, "ROOT", ROOT)
    for wrong in (lambda: number("wait", "soon"), lambda: secrets({}, ["A"])):
        with pytest.raises(ValueError, match="=") as caught:
            wrong()
        assert "write" in as_problem(caught.value).remedy


def test_a_problem_is_one_line_with_its_own_exit_code(capsys):
    with pytest.raises(SystemExit) as ended:
        fail(Problem("two\nlines.", "do\n  this", exit_code=7))
    assert ended.value.code == 7
    assert capsys.readouterr().err == "problem: two lines: do this\n"
