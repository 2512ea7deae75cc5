"""Session Manager, as far as it is an API: sessions begin, are listed and end.

What flows through a session is not rehearsed: StreamUrl names this rehearsal, where no data channel answers, and never
AWS itself. https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_StartSession.html
"""

import json
import secrets
from typing import Any
from urllib.parse import unquote

from moto.core.responses import ActionResult
from moto.moto_api._internal import mock_random
from moto.ssm.responses import SimpleSystemManagerResponse

from rehearsal import clock
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.machines import Machines

_DOCUMENTS = ("AWS-StartSSHSession", "AWS-StartPortForwardingSession", "SSM-SessionManagerRunShell")
_HONOURED = {"Target", "DocumentName", "Parameters", "Reason"}
_AGENT = "ssmmessages:"
"""Actions that the agent on a node needs, without which no session reaches it."""

Row = dict[str, Any]


def service(machines: Machines, stream: str) -> Any:
    """What is to answer Systems Manager's requests; `stream`: where a data channel would be."""
    bound: Any = type("Ssm", (Sessions,), {"machines": machines, "stream": stream})
    return bound.dispatch


class Sessions(SimpleSystemManagerResponse):  # type: ignore[misc]  # moto ships no types
    """Start, list, end."""

    machines: Machines
    stream: str
    sessions: dict[str, Row] = {}  # noqa: RUF012  # the account's, whichever request asks

    def start_session(self) -> ActionResult:
        request = json.loads(self.body)
        if unknown := sorted(set(request) - _HONOURED):
            raise NotRehearsed(f"StartSession: {', '.join(unknown)}")
        target, document = request["Target"], request.get("DocumentName") or _DOCUMENTS[-1]
        if document not in _DOCUMENTS:
            raise AwsError("InvalidDocument", f"Document with name {document} does not exist.")
        if not self._connected(target):
            raise AwsError("TargetNotConnected", f"{target} is not connected.")
        id = f"operator-0{mock_random.get_random_hex(16)}"
        self.sessions[id] = {
            "SessionId": id, "Target": target, "Status": "Connected", "StartDate": clock.now().timestamp(),
            "DocumentName": document, "Owner": f"arn:aws:iam::{self.current_account}:user/operator",
            **({"Reason": request["Reason"]} if request.get("Reason") else {}),
        }  # fmt: skip
        return ActionResult({"SessionId": id, "TokenValue": secrets.token_urlsafe(32),
                           "StreamUrl": f"{self.stream}/v1/data-channel/{id}?role=publish_subscribe"})  # fmt: skip

    def describe_sessions(self) -> ActionResult:
        request = json.loads(self.body)
        rows = [
            row for row in self.sessions.values() if (row["Status"] == "Connected") == (request["State"] == "Active")
        ]
        for wanted in request.get("Filters") or []:
            if wanted["key"] not in _FILTERS:
                raise NotRehearsed(f"DescribeSessions: filter {wanted['key']}")
            rows = [row for row in rows if row[_FILTERS[wanted["key"]]] == wanted["value"]]
        return ActionResult({"Sessions": rows})

    def terminate_session(self) -> ActionResult:
        id = json.loads(self.body)["SessionId"]
        if row := self.sessions.get(id):  # one that is unknown or has ended is no error
            row.update(Status="Terminated", EndDate=clock.now().timestamp())
        return ActionResult({"SessionId": id})

    def _connected(self, target: str) -> bool:
        """Whether an agent answers there: the node runs, and its role lets the agent speak to Session Manager."""
        from moto.iam.models import iam_backends

        instance = self.machines.instance(target)
        if instance is None or instance.state != "running":
            return False
        iam, arn = iam_backends[self.current_account]["aws"], (instance.iam_instance_profile or {}).get("Arn", "")
        documents: list[Any] = []
        for profile in iam.instance_profiles.values():
            for role in profile.roles if profile.arn == arn else ():
                documents += [*role.policies.values(), *(_default(policy) for policy in role.managed_policies.values())]
        return any(_AGENT in unquote(text if isinstance(text, str) else json.dumps(text)) for text in documents)


_FILTERS = {"Target": "Target", "SessionId": "SessionId", "Status": "Status", "Owner": "Owner"}


def _default(policy: Any) -> Any:
    """Document of a managed policy's default version."""
    return next(version.document for version in policy.versions if version.is_default)
