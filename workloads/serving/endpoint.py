"""An OpenAI-compatible server of our own model: vLLM where it is installed, transformers' own otherwise.

It listens on loopback alone: nothing in it asks who you are. From elsewhere it is reached through SSH, `fab tunnel`.
transformers' own (5.23): /v1/completions and /v1/chat/completions stream `usage` in the last event whether or not
`stream_options` asks, send no [DONE], and refuse fields that OpenAI's API has not. Without continuous batching, one
request is served after another, in order of arrival; with it they share steps, and the first request waits until the
cache is made. A worker of continuous batching outlives the server's own end by seconds, so a keeper ends it.
"""

import http.client
import importlib.util
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from workloads.command import CheckFailed
from workloads.device import Device

KINDS = ("vllm", "transformers")
_NEEDED = {"vllm": ("vllm",), "transformers": ("fastapi", "uvicorn", "pydantic", "openai", "accelerate")}
_TORCH_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_LOG_LINES = 8
_POLL_S = 0.1
_END_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which server, of what, where."""

    kind: str
    """One of `KINDS`."""
    folder: Path
    """Of the model."""
    dtype: str
    device: Device
    port: int
    longest: int
    """Tokens of the longest sequence, prompt included."""
    batching: bool
    """Whether requests share steps; vLLM always does."""
    dummy: bool = False
    """vLLM makes the weights itself, at random."""

    @property
    def url(self) -> str:
        """Up to and without /v1."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def model(self) -> str:
        """The model's name in a request."""
        return str(self.folder)

    @property
    def command(self) -> list[str]:
        """What starts it."""
        place = ["--host", "127.0.0.1", "--port", str(self.port)]
        if self.kind == "vllm":
            dummy = ["--load-format", "dummy"] if self.dummy else []
            return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self.model, *place, *dummy,
                    "--dtype", _TORCH_NAMES[self.dtype], "--max-model-len", str(self.longest)]  # fmt: skip
        batching = ["--continuous-batching"] if self.batching else []
        return [sys.executable, "-m", "transformers.cli.transformers", "serve", self.model, *place, "--device",
                str(self.device.torch), "--log-level", "error", *batching]  # fmt: skip


def choose(wanted: str) -> str:
    """The server to take: `wanted`, or for "auto" the first that is installed.

    Raises:
        ValueError: it is not installed; the message says what to install.
    """
    missing = {kind: [name for name in _NEEDED[kind] if importlib.util.find_spec(name) is None] for kind in KINDS}
    for kind in KINDS if wanted == "auto" else (wanted,):
        if not missing[kind]:
            return kind
    lacking = missing["transformers" if wanted == "auto" else wanted]
    raise ValueError(f"server={wanted!r} lacks {', '.join(lacking)} here: `pip install {' '.join(lacking)}`, or give "
                     "the --url of a server that runs")  # fmt: skip


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def kept(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """A process that ends with this block and with this process, by whatever end that comes to; its output in `log`."""
    with log.open("wb") as out:
        keeper = subprocess.Popen([sys.executable, "-m", "workloads.serving.keeper", *command], stdin=subprocess.PIPE,
                                  stdout=out, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    assert keeper.stdin is not None
    try:
        yield keeper
    finally:
        keeper.stdin.close()
        try:
            keeper.wait(_END_S)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()


@contextmanager
def started(plan: Plan, log: Path, patience_s: float) -> Iterator[subprocess.Popen]:
    """The server, from when it answers until the end of the block.

    Raises:
        CheckFailed: it ended, or did not answer within `patience_s`; the message holds the end of its log.
    """
    with kept(plan.command, log) as server:
        until = time.monotonic() + patience_s
        while not answers(plan.url):
            if server.poll() is not None:
                raise CheckFailed(f"{plan.kind}'s server ended with exit code {server.returncode}: {tail(log)}")
            if time.monotonic() > until:
                raise CheckFailed(f"{plan.kind}'s server did not answer within {patience_s:g} s: {tail(log)}")
            time.sleep(_POLL_S)
        yield server


def answers(url: str) -> bool:
    """Whether a server there says that it is healthy."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def only_model(url: str) -> str:
    """The first model that an endpoint lists.

    Raises:
        ValueError: it does not answer, or lists none.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=10)
    try:
        connection.request("GET", f"{parts.path.rstrip('/').removesuffix('/v1')}/v1/models")
        return str(json.loads(connection.getresponse().read())["data"][0]["id"])
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"url={url!r} does not answer ({error or type(error).__name__}): is the server up?") from None
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"url={url!r} lists no model: name the one to ask with --served-model") from None
    finally:
        connection.close()


def tail(log: Path) -> str:
    """The last lines of a log, as one."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return " | ".join(line.strip() for line in lines[-_LOG_LINES:] if line.strip()) or "its log is empty"
