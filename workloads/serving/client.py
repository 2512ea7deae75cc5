"""A streaming client of the standard library alone: one request, and when each piece of its answer came.

One process and one event loop carry all requests: what they cost is what `workloads.serving.stub` shows.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from workloads.serving.events import Events
from workloads.serving.timeline import Timeline

_PIECE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Target:
    """An OpenAI-compatible endpoint, and the model asked there."""

    url: str
    """Up to and without /v1."""
    model: str
    patience_s: float
    """A request without its whole answer after so long has failed."""

    def __post_init__(self) -> None:
        """Check the URL. Raises: ValueError that names what is allowed."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url={self.url!r} is not an endpoint: write for example http://127.0.0.1:8000")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)

    def request(self, path: str, body: dict | None = None) -> bytes:
        """A whole HTTP request; a POST where there is a body."""
        parts, data = urlsplit(self.url), b"" if body is None else json.dumps(body).encode()
        head = [
            f"{'GET' if body is None else 'POST'} {parts.path.rstrip('/').removesuffix('/v1')}{path} HTTP/1.1",
            f"Host: {parts.netloc}", "Connection: close", "Accept: text/event-stream",
            "Content-Type: application/json", f"Content-Length: {len(data)}",
        ]  # fmt: skip
        return "\r\n".join([*head, "", ""]).encode() + data


async def ask(target: Target, prompt: str, new_tokens: int, due_s: float) -> Timeline:
    """Send one request and follow its stream; whatever goes wrong is in the result's `error`."""
    body = {
        "model": target.model, "prompt": prompt, "max_tokens": new_tokens, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    sent_s = time.perf_counter()
    texts_s: list[float] = []
    tokens = prompt_tokens = 0
    error = ""
    try:
        async with asyncio.timeout(target.patience_s):
            async for piece in exchange(target, target.request("/v1/completions", body)):
                now_s = time.perf_counter()
                for event in piece:
                    error = error or event.error
                    if event.text:
                        texts_s.append(now_s)
                    if event.tokens is not None:
                        tokens, prompt_tokens = event.tokens, event.prompt_tokens or 0
    except TimeoutError:
        error = f"no whole answer within {target.patience_s:g} s"
    except Refused as refusal:
        error = str(refusal)
    except asyncio.LimitOverrunError:
        error = "an answer that is not HTTP"
    except (OSError, EOFError) as failure:  # EOFError: asyncio.IncompleteReadError among them
        error = "the connection broke off" if isinstance(failure, EOFError) else f"no connection: {_reason(failure)}"
    if not error and not tokens:
        error = "no usage in the stream: nothing says how many tokens it was"
    if not error and not texts_s:
        error = "no text in the stream"
    return Timeline(due_s=due_s, sent_s=sent_s, texts_s=tuple(texts_s), tokens=tokens, prompt_tokens=prompt_tokens,
                    error=error)  # fmt: skip


class Refused(Exception):
    """The server answered, and not with 200; the text says what with."""


async def exchange(target: Target, request: bytes) -> AsyncIterator[list]:
    """Send a request and yield the events of its answer as they come, all those of one piece together.

    Raises:
        Refused: the status is not 200.
        OSError: no connection, or it broke.
        EOFError: the answer ended before its end.
    """
    host, port = target.address
    secure = ssl.create_default_context() if urlsplit(target.url).scheme == "https" else None
    reader, writer = await asyncio.open_connection(host, port, ssl=secure, limit=_PIECE)
    try:
        writer.write(request)
        status, headers = await _head(reader)
        pieces = _chunks(reader) if headers.get("transfer-encoding") == "chunked" else _plain(reader, headers)
        if status != 200:
            whole = b"".join([piece async for piece in pieces])
            raise Refused(f"HTTP {status}: {' '.join(whole.decode(errors='replace').split())[:120]}")
        events = Events()
        async for piece in pieces:
            yield list(events.feed(piece))
    finally:
        writer.close()
        with suppress(OSError):  # how a connection ends no longer matters
            await writer.wait_closed()


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")
    words = first.split()
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise Refused("an answer that is not HTTP")
    pairs = (line.partition(":") for line in lines if line)
    return int(words[1]), {name.strip().lower(): value.strip().lower() for name, _, value in pairs}


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body in chunked coding; pieces are the server's own (RFC 9112, 7.1)."""
    while size := _size(await reader.readuntil(b"\r\n")):
        yield (await reader.readexactly(size + 2))[:-2]


def _size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError:
        raise Refused("a chunk that is not HTTP's") from None


async def _plain(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    told = headers.get("content-length", "")
    left = int(told) if told.isdecimal() else None
    while left is None or left > 0:
        piece = await reader.read(_PIECE)
        if not piece:
            if left:
                raise EOFError
            return
        left = None if left is None else left - len(piece)
        yield piece


def _reason(failure: OSError) -> str:
    return failure.strerror or type(failure).__name__
