"""A server that only talks: it streams made-up tokens as fast as a client takes them, in OpenAI's format.

`load` holds its own client against it before it measures: a client that carries only little more than the server sends
would measure itself. It runs in a process of its own, so that it does not share the client's core.

    python -m workloads.serving.stub
"""

import asyncio
import json
import sys

_TOKEN = json.dumps({"id": "stub-0", "object": "text_completion", "created": 0, "model": "stub",
                     "choices": [{"index": 0, "text": " ab", "finish_reason": None}]})  # fmt: skip
_EVENT = f"data: {_TOKEN}\n\n".encode()
_CHUNK = b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT)
_MODELS = json.dumps({"object": "list", "data": [{"id": "stub", "object": "model"}]}).encode()
_PIECE_TOKENS = 8
"""Events that are handed to the kernel at a time, each in a chunk of its own, as a busy server's are."""


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request: as many tokens as it asks for, then how many they were."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_MODELS), _MODELS)
            )
            await writer.drain()
            return
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        asked = json.loads(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        count = int(asked["max_tokens"])
        for first in range(0, count, _PIECE_TOKENS):
            writer.write(_CHUNK * min(_PIECE_TOKENS, count - first))
            await writer.drain()
        usage = {"prompt_tokens": len(asked["prompt"].split()), "completion_tokens": count}
        last = f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode()
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last))
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client has gone
    finally:
        writer.close()


async def serve(port: int = 0) -> None:
    """Answer on a port of loopback. On a free one, said on stdout, until stdin ends; on a named one for ever."""
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    if port:
        await server.serve_forever()
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
