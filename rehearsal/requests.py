"""Who asks a rehearsal for what: service, action and caller of an HTTP request, whatever protocol it speaks."""

import io
import re
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qs

import botocore.session
from botocore.exceptions import UnknownServiceError

Environ = dict[str, Any]
_KEY = re.compile(r"Credential=([A-Za-z0-9]+)/(?:\d{8}/[^/]*/([^/,& ]+)/aws4_request)?")
_RPC = re.compile(r"/service/[^/]+/operation/(\w+)")
_FORM_BYTES = 1 << 22
"""No form that AWS takes is larger."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request."""

    service: str
    """As in its signature, for example "ec2"; "" where it has none."""
    action: str
    """As AWS names the operation, for example "RunInstances"; the HTTP method where none is known."""
    agent: str
    """User-Agent header."""
    key: str
    """Access key id; "" where it is not signed."""
    port: int = 0
    """TCP port that it came from, on this machine."""

    @property
    def name(self) -> str:
        """For example "ec2:RunInstances"."""
        return f"{self.service}:{self.action}"


@dataclass(frozen=True, kw_only=True)
class _Operation:
    """How one operation of a REST service is asked for."""

    name: str
    method: str
    path: re.Pattern[str]
    literal: int
    """Characters of the path that are fixed."""
    query: frozenset[str]
    """Query parameters that it cannot be without."""
    headers: frozenset[str]
    """Headers that it cannot be without, as WSGI spells them."""


def read(environ: Environ) -> Request:
    """What a WSGI request asks. A form's body is read and put back."""
    query = environ.get("QUERY_STRING", "")
    signed = f"{environ.get('HTTP_AUTHORIZATION', '')} {query}".replace("X-Amz-Credential=", "Credential=")
    found = _KEY.search(signed.replace("%2F", "/"))
    key, service = (found[1], found[2] or "") if found else ("", "")
    action = _action(environ, service, query) if service else ""
    agent, port = environ.get("HTTP_USER_AGENT", ""), int(environ.get("REMOTE_PORT") or 0)
    return Request(service=service, action=action, agent=agent, key=key, port=port)


def _action(environ: Environ, service: str, query: str) -> str:
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rpartition(".")[2]
    path = environ.get("PATH_INFO", "/")
    if rpc := _RPC.fullmatch(path):
        return rpc[1]
    fields = query
    if "urlencoded" in environ.get("CONTENT_TYPE", ""):
        body = environ["wsgi.input"].read(min(int(environ.get("CONTENT_LENGTH") or 0), _FORM_BYTES))
        environ["wsgi.input"] = io.BytesIO(body)
        fields = body.decode(errors="replace")
    if action := parse_qs(fields, keep_blank_values=True).get("Action"):
        return action[0]
    given, method = set(parse_qs(query, keep_blank_values=True)), str(environ["REQUEST_METHOD"])
    fitting = (
        ((len(rule.query) + len(rule.headers), rule.literal, -len(rule.name)), rule.name)
        for rule in _operations(service)
        if rule.method == method
        and rule.query <= given
        and rule.headers <= environ.keys()
        and rule.path.fullmatch(path)
    )
    return max(fitting, default=((0, 0, 0), method))[1]  # of all that fit, the one that demands most


@cache
def _operations(service: str) -> tuple[_Operation, ...]:
    try:
        model = botocore.session.get_session().get_service_model(service)
    except UnknownServiceError:
        return ()
    return tuple(_rule(model.operation_model(name)) for name in model.operation_names)


def _rule(operation: Any) -> _Operation:
    path, _, query = operation.http.get("requestUri", "/").partition("?")
    parts = [re.escape(part) for part in re.split(r"\{\w+\+?\}", path.rstrip("/"))]
    holes = [".+" if hole.endswith("+}") else "[^/]+" for hole in re.findall(r"\{\w+\+?\}", path)]
    pattern = "".join(part + hole for part, hole in zip(parts, [*holes, ""], strict=True))
    shape = operation.input_shape
    needed = [shape.members[name].serialization for name in shape.required_members] if shape else []
    return _Operation(
        name=operation.name,
        method=operation.http["method"],
        path=re.compile(pattern + "/?"),
        literal=sum(map(len, parts)),
        query=frozenset(parse_qs(query, keep_blank_values=True))
        | {member["name"] for member in needed if member.get("location") == "querystring"},
        headers=frozenset(
            "HTTP_" + member["name"].upper().replace("-", "_")
            for member in needed
            if member.get("location") == "header"
        ),
    )
