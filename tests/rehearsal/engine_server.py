"""A bare moto server with the CloudFormation engine in it, in this process: for tests of the engine alone."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import moto.cloudformation.urls
import pytest
from botocore.exceptions import ClientError
from moto.moto_api._internal import mock_random
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from rehearsal import cloudformation
from rehearsal.engine import Engine

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Account:
    """The engine, and clients that reach it over HTTP."""

    def __init__(self, endpoint: str, engine: Engine) -> None:
        self.endpoint = endpoint
        self.engine = engine
        self.cloudformation = self.client("cloudformation")

    def client(self, service: str) -> Any:
        return self.engine.cloud.client(service, "us-east-1")

    def create(self, name: str, resources: dict[str, Any], **given: Any) -> dict[str, Any]:
        """CreateStack; returns the stack in its final state."""
        self.cloudformation.create_stack(StackName=name, **_body(resources, given))
        return self.stack(name)

    def update(self, name: str, resources: dict[str, Any], **given: Any) -> dict[str, Any]:
        """UpdateStack; returns the stack in its final state."""
        self.cloudformation.update_stack(StackName=name, **_body(resources, given))
        return self.stack(name)

    def delete(self, name: str, **given: Any) -> dict[str, Any]:
        """DeleteStack; returns the stack in its final state."""
        stack = self.stack(name)
        self.cloudformation.delete_stack(StackName=name, **given)
        return self.stack(stack["StackId"])

    def stack(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """Oldest first."""
        return list(reversed(self.cloudformation.describe_stack_events(StackName=name)["StackEvents"]))

    def told(self, name: str, status: str) -> list[str]:
        """Logical ids with an event of that status, oldest first."""
        return [event["LogicalResourceId"] for event in self.events(name) if event["ResourceStatus"] == status]

    def reason(self, name: str, status: str) -> str:
        """Reason of the last event of that status."""
        reasons = [e.get("ResourceStatusReason", "") for e in self.events(name) if e["ResourceStatus"] == status]
        return str(reasons[-1])

    def physical(self, name: str, logical_id: str) -> str:
        held = self.cloudformation.describe_stack_resource(StackName=name, LogicalResourceId=logical_id)
        return str(held["StackResourceDetail"]["PhysicalResourceId"])

    def outputs(self, name: str) -> dict[str, str]:
        return {item["OutputKey"]: item["OutputValue"] for item in self.stack(name).get("Outputs", ())}


def _body(resources: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    sections: dict[str, Any] = {
        key: given.pop(key) for key in ("Outputs", "Conditions", "Mappings", "Declared") if key in given
    }
    if "Declared" in sections:
        sections["Parameters"] = sections.pop("Declared")
    body = json.dumps({"Resources": resources, **sections})
    return {"TemplateBody": body, "Capabilities": ["CAPABILITY_NAMED_IAM"], **given}


@contextmanager
def serve() -> Iterator[Account]:
    """An account with nothing in it."""
    port: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        for key, value in ENVIRONMENT.items():
            patch.setenv(key, value)
        patch.setattr(moto.cloudformation.urls, "url_paths", moto.cloudformation.urls.url_paths)
        moto_api_backend.reset()
        mock_random.seed(0)
        # the clients here are patient: a call that starts an operation returns when that has ended, on any machine
        patch.setattr("rehearsal.engine.HOLD_S", 250.0)
        engine = cloudformation.install(lambda: f"http://localhost:{port[0]}")
        server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
        port.append(server.server_port)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield Account(f"http://localhost:{port[0]}", engine)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            moto_api_backend.reset()


def refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    """Code and message of an API's refusal."""
    found = error.value.response["Error"]
    return found["Code"], found["Message"]
