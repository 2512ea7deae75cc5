"""The call log tells who asked for what, whatever protocol they spoke."""

import io
import json
from typing import Any

import pytest

from rehearsal import requests
from tests.rehearsal.worlds import World, final

SIGNED = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261121/us-east-1/{service}/aws4_request, SignedHeaders=host"


def _asked(service: str, method: str, path: str, query: str = "", body: str = "", **headers: str) -> requests.Request:
    form = {"CONTENT_TYPE": "application/x-www-form-urlencoded; charset=utf-8"} if body else {}
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "HTTP_USER_AGENT": "aws-cli",
        "HTTP_AUTHORIZATION": SIGNED.format(service=service), "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body.encode()), **form, **headers,
    }  # fmt: skip
    asked = requests.read(environ)
    assert environ["wsgi.input"].read() == body.encode(), "whoever answers still finds the body"
    return asked


@pytest.mark.parametrize(
    ("service", "method", "path", "query", "headers", "action"),
    [
        ("s3", "GET", "/", "", {}, "ListBuckets"),
        ("s3", "GET", "/bucket", "list-type=2&prefix=a", {}, "ListObjectsV2"),
        ("s3", "GET", "/bucket", "", {}, "ListObjects"),
        ("s3", "PUT", "/bucket/a/b.json", "", {}, "PutObject"),
        ("s3", "PUT", "/bucket/a/b.json", "", {"HTTP_X_AMZ_COPY_SOURCE": "/bucket/c"}, "CopyObject"),
        ("s3", "PUT", "/bucket/a/b.json", "partNumber=1&uploadId=x", {}, "UploadPart"),
        ("s3", "PUT", "/bucket", "policy", {}, "PutBucketPolicy"),
        ("s3", "GET", "/bucket/a/b.json", "", {}, "GetObject"),
        ("lambda", "POST", "/2015-03-31/functions/guard/invocations", "", {}, "Invoke"),
        ("lambda", "GET", "/2015-03-31/functions", "", {}, "ListFunctions"),
        ("ssm", "POST", "/", "", {"HTTP_X_AMZ_TARGET": "AmazonSSM.GetParameter"}, "GetParameter"),
        ("monitoring", "POST", "/service/GraniteServiceVersion20100801/operation/PutMetricData", "", {},
         "PutMetricData"),
        ("nobody", "GET", "/thing", "", {}, "GET"),
    ],
)  # fmt: skip
def test_a_request_is_known_by_its_operation(
    service: str, method: str, path: str, query: str, headers: dict[str, str], action: str
) -> None:
    assert _asked(service, method, path, query, **headers).name == f"{service}:{action}"


def test_a_form_names_its_action() -> None:
    asked = _asked("ec2", "POST", "/", body="Action=RunInstances&Version=2016-11-15&MinCount=1")
    assert (asked.name, asked.key, asked.agent) == ("ec2:RunInstances", "AKIAEXAMPLE", "aws-cli")


def test_a_presigned_address_names_its_signer() -> None:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/bucket/key", "QUERY_STRING":
               "X-Amz-Credential=AKIAEXAMPLE%2F20261121%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Expires=60"}  # fmt: skip
    assert requests.read(environ) == requests.Request(service="s3", action="GetObject", agent="", key="AKIAEXAMPLE")


def test_the_log_holds_a_line_for_every_request_with_who_asked(world: World) -> None:
    world.client("ec2").describe_vpcs()
    body = json.dumps({"Resources": {"Topic": {"Type": "AWS::Logs::LogGroup"}}})
    cloudformation = world.client("cloudformation")
    cloudformation.create_stack(StackName="Logged", TemplateBody=body)
    assert final(cloudformation, "Logged")["StackStatus"] == "CREATE_COMPLETE"
    cloudformation.delete_stack(StackName="Logged")
    world.status()  # puts every line on disk
    lines = [json.loads(line) for line in (world.state / "logs" / "calls.jsonl").read_text().splitlines()]
    assert all(set(line) == {"time", "service", "action", "agent", "by"} for line in lines)
    told = {(line["by"], f"{line['service']}:{line['action']}") for line in lines}
    assert {("operator", "ec2:DescribeVpcs"), ("operator", "cloudformation:CreateStack"),
            ("cloudformation", "logs:CreateLogGroup")} <= told  # fmt: skip
    assert next(line["agent"] for line in lines if line["action"] == "DescribeVpcs").startswith("Boto3/")
