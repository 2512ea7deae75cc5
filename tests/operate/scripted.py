"""An account whose every answer a test writes down; botocore still checks what it is asked."""

import threading
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse

from operate.account import Account

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
_SCRIPTS: list["ScriptedAccount"] = []


@cache
def _client(service: str) -> Any:
    client = boto3.client(service, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    client.meta.events.register(f"provide-client-params.{service}.*", lambda params, **_: _SCRIPTS[-1].heard(params))
    client.meta.events.register("before-call", lambda model, **_: _SCRIPTS[-1].answer(service, model.name))
    return client


class Refusal:
    """An error of AWS's."""

    def __init__(self, code: str, message: str = "no.") -> None:
        self.code, self.message = code, message


class ScriptedAccount(Account):
    """`answers` by "service:Operation": a document, a `Refusal`, or a function of the request's parameters.

    What is not there is denied.
    """

    def __init__(self, answers: dict[str, Any], region: str = "us-east-1") -> None:
        self.region, self.endpoint = region, None
        self.answers = {
            "sts:GetCallerIdentity": {"Arn": "arn:aws:iam::123456789012:user/ada", "Account": "123456789012"},
            **answers,
        }
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._heard = threading.local()  # a preflight asks from many threads
        _SCRIPTS.append(self)

    def client(self, service: str, region: str = "") -> Any:
        return _client(service)

    def now(self) -> datetime:
        return NOW

    def observe(self, response: dict[str, Any]) -> None:
        """The clock stands still."""

    def requests(self, operation: str) -> list[dict[str, Any]]:
        """Parameters of every request of that "service:Operation"."""
        return [params for asked, params in self.asked if asked == operation]

    def heard(self, params: dict[str, Any]) -> None:
        self._heard.params = dict(params)

    def answer(self, service: str, operation: str) -> Any:
        name = f"{service}:{operation}"
        params = self._heard.__dict__.pop("params", {})
        self.asked.append((name, params))
        found = self.answers.get(name, Refusal("AccessDenied", f"not authorized to perform: {name}"))
        if callable(found):
            found = found(params)
        if isinstance(found, Refusal):
            found, status = {"Error": {"Code": found.code, "Message": found.message}}, 400
        else:
            status = 200
        meta = {"HTTPStatusCode": status, "HTTPHeaders": {}}
        return AWSResponse("", status, {}, None), {**found, "ResponseMetadata": meta}
