"""Runs one Lambda function's code, event after event, as a warm sandbox does: started by rehearsal.functions.

Standard library only, and by path: the function must find nothing of Rooflab on its module path, as on AWS.
Its two arguments are descriptors: events come as lines of JSON on the first, answers go as lines of JSON to the second.
"""

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any


class Context:
    """What a handler is given beside its event: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html"""

    def __init__(self, request: str, timeout_s: float) -> None:
        self.aws_request_id = request
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = "$LATEST"
        self.invoked_function_arn = os.environ["REHEARSAL_FUNCTION_ARN"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._ends = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function is killed."""
        return max(0, int((self._ends - time.monotonic()) * 1000))


def _answer(handler: str, order: dict[str, Any]) -> dict[str, Any]:
    try:
        module, _, name = handler.rpartition(".")
        function = getattr(importlib.import_module(module), name)
        value = function(order["event"], Context(order["request"], order["timeout_s"]))
        return {"value": json.loads(json.dumps(value))}
    except Exception as error:  # whatever the function raises is its answer
        traceback.print_exc()
        return {"error": {"errorType": type(error).__name__, "errorMessage": str(error)}}


def main() -> None:
    """Answer events until there are no more."""
    sys.path.insert(0, str(Path.cwd()))
    with os.fdopen(int(sys.argv[1])) as events, os.fdopen(int(sys.argv[2]), "w") as answers:
        for line in events:
            answer = _answer(os.environ["_HANDLER"], json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
