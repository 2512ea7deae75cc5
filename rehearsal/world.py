"""One rehearsal, put together: moto's server with our answers in place of its own, and the control routes."""

import json
import os
import socketserver
import threading
import traceback
from collections.abc import Callable, Iterable
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Any

import boto3

from rehearsal import account, clock, drills, processes, requests
from rehearsal.calls import Calls
from rehearsal.errors import AwsError, NotRehearsed
from rehearsal.faults import Faults
from rehearsal.keeper import Keeper
from rehearsal.links import Links
from rehearsal.nodes import Nodes, record
from rehearsal.rates import Rate, rate
from rehearsal.settings import REGION

_BUSY = ("RequestLimitExceeded", "SlowDown")
"""Refusals that EC2 and S3 send as 503; the other services' "too many" is a 400."""
StartResponse = Callable[..., Any]
Environ = dict[str, Any]
WHO = ("operator", "guard", "node", "cloudformation", "aws")
"""Who may ask, each with a key of its own; "aws" is the provider itself, whose doings are no requests."""


class World:
    """A running rehearsal."""

    def __init__(
        self,
        *,
        name: str,
        state: Path,
        seed: int,
        port: int,
        keeper: Keeper,
        sshd: str,
        keys: dict[str, str],
        secret: str,
        link: Rate | None = None,
    ) -> None:
        """`link`: how fast each node's own link is; None: all share this machine's loopback.

        Raises:
            OSError: the kernel lacks what such links are made of.
        """
        self.name = name
        self.state = state
        self.seed = seed
        self._keeper = keeper
        self._keys = keys
        self._who = {key: who for who, key in keys.items()}
        self._secret = secret
        self._calls = Calls(state / "logs" / "calls.jsonl")
        record(state, os.getpid(), "server")
        record(state, keeper.pid, "keeper")
        self._server = _bind(port, self)
        port = self._server.server_address[1]
        self.endpoint = f"http://localhost:{port}"
        answer = self._server.process_request
        self.links = None if link is None else Links(state=state, rate=link, port=port, answer=answer)
        # The server's own boto3 calls, and what it starts, reach this account and no other.
        os.environ.update(self._environment("cloudformation"))
        self._load(sshd)

    def _load(self, sshd: str) -> None:
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        account.load_ec2()
        account.prepare(DEFAULT_ACCOUNT_ID, self.seed)
        import moto.ec2.urls
        import moto.fsx.urls
        import moto.scheduler.urls
        import moto.servicequotas.urls
        import moto.ssm.urls

        from rehearsal import cloudformation, ec2, fsx, functions, sessions, ticks
        from rehearsal.holds import Holds
        from rehearsal.imds import Imds
        from rehearsal.injection import Injection
        from rehearsal.machines import Machines
        from rehearsal.market import Market
        from rehearsal.quotas import Quotas, service

        self.faults = Faults()
        self.nodes = Nodes(state=self.state, keeper=self._keeper, sshd=sshd, links=self.links)
        self.machines = Machines(
            nodes=self.nodes, shared=self.state / "shared", endpoint=self.endpoint, access_key=self._keys["node"],
            secret_key=self._secret,
        )  # fmt: skip
        self.imds = Imds(self.machines)
        holds, self.quotas = Holds(self.faults), Quotas(self.faults)
        self.tunnel = ec2.tunnel(self.machines, holds, key=self._keys["operator"], secret=self._secret, region=REGION)
        moto.ec2.urls.url_paths["{0}/"] = ec2.install(
            self.machines, self.faults, holds, self.quotas, Market(self.seed), self.tunnel
        )
        moto.servicequotas.urls.url_paths["{0}/$"] = service(self.quotas)
        moto.fsx.urls.url_paths["{0}/$"] = fsx.service(holds, self.state / "shared")
        moto.ssm.urls.url_paths["{0}/$"] = sessions.service(self.machines, self.endpoint.replace("http", "ws", 1))
        for path in moto.scheduler.urls.url_paths:
            moto.scheduler.urls.url_paths[path] = ticks.Scheduler.dispatch
        self.functions = functions.Functions(state=self.state, environment=self._environment("guard"))
        functions.install(self.functions)
        self.ticks = ticks.Ticks(self.functions, self.faults)
        engine = cloudformation.install(lambda: self.endpoint)
        self.injection = Injection(
            faults=self.faults, machines=self.machines, ticks=self.ticks, imds=self.imds,
            ec2=boto3.client("ec2", REGION, aws_access_key_id=self._keys["aws"], aws_secret_access_key=self._secret),
        )  # fmt: skip
        engine.told = lambda kind, status: self.injection.happen("event", f"{kind}:{status}")
        engine.stays = self.faults.kept
        self.ticks.begun = lambda: self.injection.happen("tick", "")
        self.ticks.settles = (self.machines.settle, engine.settle)
        self._moto = DomainDispatcherApplication(create_backend_app)
        # moto tries the patterns of all services, for every request and under a lock.
        self._moto.get_backend_for_host = cache(self._moto.get_backend_for_host)

    def _environment(self, who: str) -> dict[str, str]:
        """Environment that reaches this rehearsal and nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self._keys[who],
            "AWS_SECRET_ACCESS_KEY": self._secret,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def described(self) -> dict[str, object]:
        """What `server.json` holds."""
        return {
            "name": self.name, "state": str(self.state), "seed": self.seed, "endpoint": self.endpoint,
            "pid": os.getpid(), "started": processes.started(os.getpid()), "environment": self._environment("operator"),
        }  # fmt: skip

    def start(self) -> None:
        """Begin to answer requests."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="http", daemon=True).start()
        self.ticks.start()

    def stop(self) -> None:
        """End all nodes and stop answering."""
        self.ticks.stop()
        self.functions.close()
        self.machines.kill()
        self._server.shutdown()
        self._calls.flush()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""

        def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            # The HTTP server itself writes the Date, from the rehearsal's clock: two of them confuse an SDK.
            return start_response(status, [(name, value) for name, value in headers if name.lower() != "date"], *rest)

        path = environ.get("PATH_INFO", "")
        if path.startswith("/imds/"):
            headers = {
                key.removeprefix("HTTP_").replace("_", "-").lower(): value
                for key, value in environ.items()
                if key.startswith("HTTP_")
            }
            status, text = self.imds.answer(environ["REQUEST_METHOD"], path.removeprefix("/imds/"), headers)
            return _reply(started, status, text.encode(), "text/plain")
        request = requests.read(environ)
        who = self._who.get(request.key)
        if who is None:
            refusal = AwsError("InvalidClientTokenId", "The security token included in the request is invalid.")
            return _refuse(started, environ, 403, refusal)
        if path.startswith("/rehearsal/"):
            return self._control(started, path.removeprefix("/rehearsal/"), environ)
        if who != "aws":
            self._calls.add(request, who)
            self.injection.happen("call", request.name, request, who)
            if met := self.faults.refusal(request, who):
                return _refuse(started, environ, 503 if met.code in _BUSY else 400, met)
        try:
            answer: Iterable[bytes] = self._moto(environ, started)
            return answer
        except Exception as error:  # whatever breaks in moto must reach the SDK as an AWS error: it retries a 500
            traceback.print_exc()
            what = f"{environ['REQUEST_METHOD']} {path} ({type(error).__name__}: {error})"
            return _refuse(started, environ, 400, NotRehearsed(what))

    def _control(self, start: StartResponse, verb: str, environ: Environ) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        given = json.loads(environ["wsgi.input"].read(length) or b"{}")
        try:
            answer = self._do(verb, given)
        except (KeyError, TypeError, ValueError) as error:
            return _reply(start, 400, json.dumps({"error": str(error)}).encode(), "application/json")
        return _reply(start, 200, json.dumps(answer).encode(), "application/json")

    def _do(self, verb: str, given: dict[str, Any]) -> dict[str, Any]:
        if verb == "advance":
            self.ticks.advance(float(given["seconds"]))
        elif verb == "fault" and given.get("clear"):
            self.injection.clear()
        elif verb == "fault":
            self.injection.order(drills.ordered(given["fault"], given["at"], int(given["seed"]), given["options"]))
        elif verb == "link":
            self.nodes.limit(rate(given["rate"]))
        elif verb != "status":
            raise ValueError(f"unknown control route {verb!r}")
        self._calls.flush()
        nodes = [
            {"instance": node.instance, "address": node.address, "port": node.port, "open": node.admitted}
            for node in self.nodes.all()
        ]
        return {
            "now": clock.now().isoformat(), "nodes": nodes, "ticks": self.ticks.runs,
            "link": self.links.rate.text if self.links else None,
            "faults": self.injection.described(),
        }  # fmt: skip


def _reply(start: StartResponse, status: int, body: bytes, kind: str) -> list[bytes]:
    start(f"{status} ", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def _refuse(start: StartResponse, environ: Environ, status: int, error: AwsError) -> list[bytes]:
    """An AWS error in the protocol that the request speaks."""
    kind = environ.get("CONTENT_TYPE", "")
    if "json" in kind or "HTTP_X_AMZ_TARGET" in environ:
        body = json.dumps({"__type": error.code, "message": error.message}).encode()
        start(f"{status} ", [("Content-Type", kind or "application/json"), ("x-amzn-ErrorType", error.code),
                             ("Content-Length", str(len(body)))])  # fmt: skip
        return [body]
    from xml.sax.saxutils import escape

    inner = f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
    if "urlencoded" in kind:
        # The query protocols and EC2's look for different wrappings; a parser finds its own.
        if "/ec2/" in environ.get("HTTP_AUTHORIZATION", ""):
            text = f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>0</RequestID></Response>"
        else:
            text = f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error><RequestId>0</RequestId></ErrorResponse>"
    else:
        text = f"<Error>{inner}</Error>"
    return _reply(start, status, text.encode(), "text/xml")


def _bind(port: int, app: Any) -> Any:
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import ThreadedWSGIServer

    class Handler(MotoRequestHandler):  # type: ignore[misc]
        """Answers without a line of log for each request."""

        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            return

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(clock.now(), usegmt=True)

    class Server(ThreadedWSGIServer):  # type: ignore[misc]
        """HTTPServer asks the resolver for its own name, five seconds where no resolver answers."""

        def server_bind(self) -> None:
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = "localhost", self.server_address[1]

    return Server("127.0.0.1", port, app, handler=Handler)
