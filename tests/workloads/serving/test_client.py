"""The client against servers that answer well, oddly, badly or not at all; and the stub it is proven with."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.workloads.launching import ENVIRONMENT, ROOT
from workloads.serving import driving, proof, stub
from workloads.serving.client import Target, ask
from workloads.serving.driving import Demand, Level
from workloads.serving.timeline import Timeline

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3}}\n\n'
TEXT = b'data: {"choices":[{"text":" ab"}]}\n\n'
EMPTY = b'data: {"choices":[{"text":""}]}\n\n'


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """The URL of a server that ends when all its answers have."""
    answers: set[asyncio.Task[None]] = set()

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        answers.add(task)
        await answer(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(whole, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await asyncio.gather(*answers)


def replies(*pieces: bytes, chunked: bool = True) -> Answer:
    """A server that sends these pieces, whatever it is asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if chunked:
            writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            for piece in pieces:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(b"".join(pieces))
        await writer.drain()

    return answer


def answered(answer: Answer, patience_s: float = 30.0) -> Timeline:
    async def once() -> Timeline:
        async with serving(answer) as url:
            return await ask(Target(url=url, model="m", patience_s=patience_s), " ab cd", 3, time.perf_counter())

    return asyncio.run(once())


def test_an_answer_is_timed_by_its_texts_and_counted_by_its_usage() -> None:
    line = answered(replies(EMPTY, TEXT, TEXT + TEXT, EMPTY, USAGE + b"data: [DONE]\n\n"))
    assert line.error == ""
    assert (line.tokens, line.prompt_tokens) == (3, 2)
    assert len(line.texts_s) == 3, "the empty first piece is dropped"
    assert line.due_s <= line.sent_s <= line.texts_s[0] <= line.texts_s[-1]


def test_a_stream_without_chunked_coding_is_read_to_its_end() -> None:
    line = answered(replies(HEAD + b"\r\n", TEXT, USAGE, chunked=False))
    assert (line.error, line.tokens, len(line.texts_s)) == ("", 3, 1)


def test_what_is_asked_is_a_stream_with_usage() -> None:
    seen = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        seen.append(await reader.read(1 << 16))

    answered(answer)
    assert seen[0].startswith(b"POST /v1/completions HTTP/1.1\r\n")
    assert b'"stream": true' in seen[1]
    assert b'"include_usage": true' in seen[1]
    assert b'"max_tokens": 3' in seen[1]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (replies(TEXT), "no usage in the stream: nothing says how many tokens it was"),
        (replies(EMPTY, USAGE), "no text in the stream"),
        (replies(TEXT, b'data: {"error": "worker died"}\n\n'), "the server reports worker died"),
        (replies(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull", chunked=False), "HTTP 503: full"),
        (replies(b"SSH-2.0-OpenSSH\r\n\r\n", chunked=False), "an answer that is not HTTP"),
        (replies(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nda", chunked=False), "the connection broke off"),
        (replies(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", chunked=False), "a chunk that is not HTTP's"),
        (replies(HEAD + b"Content-Length: 500\r\n\r\n", TEXT, chunked=False), "the connection broke off"),
    ],
)
def test_what_goes_wrong_is_said_and_does_not_raise(answer: Answer, error: str) -> None:
    assert answered(answer).error == error


def test_a_server_that_never_answers_is_given_up() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client hangs up

    assert answered(answer, patience_s=0.05).error == "no whole answer within 0.05 s"


def test_nobody_there_is_an_error_of_its_own() -> None:
    line = asyncio.run(ask(Target(url="http://127.0.0.1:1", model="m", patience_s=5), " ab", 2, 0.0))
    assert line.error.startswith("no connection: ")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", ""])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"is not an endpoint: write for example http://127\.0\.0\.1:8000"):
        Target(url=url, model="m", patience_s=1)


@pytest.mark.parametrize("url", ["http://h:81", "http://h:81/", "http://h:81/v1", "http://h:81/v1/"])
def test_a_url_may_end_before_or_after_v1(url: str) -> None:
    target = Target(url=url, model="m", patience_s=1)
    assert target.address == ("h", 81)
    assert target.request("/v1/models").startswith(b"GET /v1/models HTTP/1.1\r\nHost: h:81\r\n")


def test_the_closed_loop_asks_again_and_the_open_one_keeps_its_times() -> None:
    demand, due_s = Demand(prompt=4, new_tokens=6, seed=0), (0.0, 0.02, 0.04, 0.06)

    def both(url: str) -> tuple[Level, Level]:
        target = Target(url=url, model="stub", patience_s=30)
        return (driving.closed(target, demand, 2, 0.2), driving.opened(target, demand, 50.0, due_s, 0.1))

    async def drive() -> tuple[Level, Level]:
        async with serving(stub.answer) as url:
            return await asyncio.to_thread(both, url)

    waiting, coming = asyncio.run(drive())
    assert {line.error for line in (*waiting.timelines, *coming.timelines)} == {""}
    assert len(waiting.timelines) >= 2
    assert {line.tokens for line in waiting.timelines} == {6}
    assert waiting.token_rate == pytest.approx(6 * waiting.request_rate)
    begin_s = coming.begin_s
    assert [line.due_s - begin_s for line in coming.timelines] == pytest.approx(due_s, abs=1e-4)
    assert all(line.sent_s >= line.due_s - 1e-3 for line in coming.timelines)
    assert coming.wall_s >= 0.1
    assert (waiting.name, coming.name) == ("2 clients", "50 requests/s")


def test_the_proof_carries_every_token_of_the_stub() -> None:
    level = proof.carried(Demand(prompt=4, new_tokens=6, seed=0), 2)
    assert {line.tokens for line in level.timelines} == {proof.TOKENS}
    assert {len(line.texts_s) for line in level.timelines} == {proof.TOKENS}
    row = proof.row(level)
    assert row.value == level.token_rate > 0
    ample, scant = proof.note(level, level.token_rate / 20), proof.note(level, level.token_rate / 2)
    assert "20.0 × what was measured" in ample
    assert "below" not in ample
    assert "2.0 × what was measured; below 10 ×: the highest throughputs may be the client's" in scant


KEPT = """
import os, sys, time
from pathlib import Path
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(600)
"""
OWNER = """
import sys
from pathlib import Path
from workloads.serving.endpoint import kept
with kept([sys.executable, "-c", sys.argv[1], sys.argv[2]], Path(sys.argv[2] + ".log")):
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_server_ends_with_its_owner_whatever_the_owners_end(end: signal.Signals | None, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, KEPT, str(told)], cwd=ROOT, env=ENVIRONMENT, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert owner.stdin is not None
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    while not (told.exists() and told.read_text()):
        assert owner.poll() is None
    server = int(told.read_text())
    if end is None:
        owner.stdin.close()
        assert owner.wait(60) == 0
    else:
        owner.send_signal(end)
        assert owner.wait(60) == -end
        owner.stdin.close()
    owner.stdout.close()
    until = time.monotonic() + 60
    while _alive(server):
        assert time.monotonic() < until, "the server outlived its owner"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
