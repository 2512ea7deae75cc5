"""Lambda functions run for real: their inline code, in a process of its own that stays warm between events.

IAM is not rehearsed: a function may do more here than its role would allow it on AWS.
"""

import io
import json
import os
import select
import shutil
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

from moto.awslambda.models import LambdaFunction
from moto.logs.models import logs_backends

from rehearsal import clock, processes
from rehearsal.errors import NotRehearsed

_SANDBOX = str(Path(__file__).with_name("sandbox.py"))


class Functions:
    """All functions of the account."""

    def __init__(self, *, state: Path, environment: dict[str, str]) -> None:
        self._state = state
        self._environment = environment
        self._lock = threading.RLock()
        self._sandboxes: dict[str, _Sandbox] = {}

    def invoke(self, function: Any, event: object) -> dict[str, Any]:
        """Run a function on an event. Returns {"value": …} or {"error": {"errorType", "errorMessage"}}."""
        if not str(function.run_time).startswith("python"):
            raise NotRehearsed(f"Lambda runtime {function.run_time}")
        with self._lock:
            known = self._sandboxes.get(function.function_name)
            if known is None or known.identity != _identity(function) or not known.alive:
                if known:
                    known.close()
                known = _Sandbox(function, self._state, self._environment)
                self._sandboxes[function.function_name] = known
            begun = clock.now()
            answer, said = known.run(event)
        _log(function, begun.timestamp(), said)
        return answer

    def close(self) -> None:
        """End every sandbox."""
        with self._lock:
            for sandbox in self._sandboxes.values():
                sandbox.close()
            self._sandboxes.clear()


class _Sandbox:
    """One warm process."""

    def __init__(self, function: Any, state: Path, environment: dict[str, str]) -> None:
        self.identity = _identity(function)
        self._timeout_s = float(function.timeout)
        self._log = state / "logs" / f"{function.function_name}.log"
        folder = state / "functions" / function.function_name
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(io.BytesIO(function.code_bytes)) as code:
            code.extractall(folder)
        their_events, self._events = os.pipe()
        self._answers, their_answers = os.pipe()
        variables = {
            **environment, **function.environment_vars,
            "PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", processes.MARK: str(state),
            "_HANDLER": function.handler, "AWS_LAMBDA_FUNCTION_NAME": function.function_name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
            "AWS_LAMBDA_LOG_GROUP_NAME": function.logs_group_name, "AWS_LAMBDA_LOG_STREAM_NAME": "rehearsal",
            "REHEARSAL_FUNCTION_ARN": function.function_arn,
        }  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                # -P keeps this folder's modules off the function's path.
                [sys.executable, "-P", _SANDBOX, str(their_events), str(their_answers)],
                cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[their_events, their_answers],
            )  # fmt: skip
        os.close(their_events)
        os.close(their_answers)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, event: object) -> tuple[dict[str, Any], str]:
        """The answer, and what was printed meanwhile."""
        before = self._log.stat().st_size
        order = {"event": event, "request": str(uuid.uuid4()), "timeout_s": self._timeout_s}
        os.write(self._events, json.dumps(order).encode() + b"\n")
        answer = self._hear()
        with self._log.open("rb") as log:
            log.seek(before)
            return answer, log.read().decode(errors="replace")

    def _hear(self) -> dict[str, Any]:
        line, deadline = b"", time.monotonic() + self._timeout_s
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._answers, 65536) if ready else b""
            if not chunk:
                said = "exited without an answer" if ready else f"timed out after {self._timeout_s:.2f} seconds"
                self._process.kill()
                self._process.wait()
                return {"error": {"errorType": "Sandbox.Timedout", "errorMessage": f"Task {said}"}}
            line += chunk
        document: dict[str, Any] = json.loads(line)
        return document

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._events)
        os.close(self._answers)


def _identity(function: Any) -> tuple[str, ...]:
    settings = json.dumps([function.environment_vars, function.handler, function.timeout, function.memory_size])
    return function.function_arn, function.code_digest, function.last_modified, settings


def _log(function: Any, moment: float, said: str) -> None:
    backend = logs_backends[function.account_id][function.region]
    if function.logs_group_name not in backend.groups:
        backend.create_log_group(function.logs_group_name, {})  # as Lambda does where the role allows it
    backend.ensure_log_stream(function.logs_group_name, "rehearsal")
    events = [{"timestamp": int(moment * 1000), "message": line} for line in said.splitlines() if line.strip()]
    if events:
        backend.put_log_events(function.logs_group_name, "rehearsal", events)


def install(functions: Functions) -> None:
    """Let Lambda's Invoke run the code, and its log group be the one that was asked for; moto needs docker for one
    and drops the other."""
    create, configuration = LambdaFunction.__init__, LambdaFunction.get_configuration

    def __init__(self: Any, account_id: str, spec: dict[str, Any], *rest: Any, **named: Any) -> None:
        create(self, account_id, spec, *rest, **named)
        self.logging_config = spec.get("LoggingConfig") or {}
        self.logs_group_name = self.logging_config.get("LogGroup") or self.logs_group_name

    def get_configuration(self: Any, *rest: Any, **named: Any) -> dict[str, Any]:
        shown: dict[str, Any] = configuration(self, *rest, **named)
        place = {"LogFormat": "Text", "LogGroup": self.logs_group_name, **self.logging_config}
        shown.get("Configuration", shown)["LoggingConfig"] = place
        return shown

    def invoke(self: Any, body: Any, request_headers: Any, response_headers: Any) -> bytes:
        answer = functions.invoke(self, json.loads(body or "{}"))
        if "error" in answer:
            response_headers["x-amz-function-error"] = "Unhandled"
            return json.dumps(answer["error"]).encode()
        return json.dumps(answer["value"]).encode()

    LambdaFunction.__init__, LambdaFunction.get_configuration = __init__, get_configuration
    LambdaFunction.invoke = invoke
