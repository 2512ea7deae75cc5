"""What the nodes of a job say to each other: JSON documents, one a line, over TCP, and the events that come of them."""

import asyncio
import contextlib
import json
from typing import Any

BEAT_S = 1.0
SILENCE_S = 15.0
"""A node that says nothing for so long is lost."""


class Events:
    """What happens, in order: (what, which node, details)."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, str, dict[str, Any]]] = asyncio.Queue()

    def put(self, what: str, node: str = "", details: dict[str, Any] | None = None) -> None:
        """Add one."""
        self._queue.put_nowait((what, node, details or {}))

    async def next(self, within_s: float | None = None) -> tuple[str, str, dict[str, Any]]:
        """The next; after `within_s` ("nothing", "", {})."""
        try:
            return await asyncio.wait_for(self._queue.get(), within_s)
        except TimeoutError:
            return "nothing", "", {}


class Link:
    """A connection with another node; what it says becomes events of its name."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, events: Events) -> None:
        self.name = ""
        self._reader, self._writer, self._events = reader, writer, events
        self.answered = asyncio.Event()
        self.beating = asyncio.create_task(self._beat())

    def say(self, do: str, **more: Any) -> None:
        """Send one document; a connection that is gone is told as an event."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"do": do, **more}).encode() + b"\n")

    async def _beat(self) -> None:
        while not self._writer.is_closing():
            self.say("beat")
            await asyncio.sleep(BEAT_S)

    async def hear(self) -> dict[str, Any] | None:
        """The next document that is no beat; None once the other is gone."""
        while True:
            try:
                line = await asyncio.wait_for(self._reader.readline(), SILENCE_S)
                document = json.loads(line) if line else None
            except (OSError, ValueError, TimeoutError):  # ValueError: no document of ours
                document = None
            if not isinstance(document, dict):
                return None
            match document.get("do"):
                case "beat":
                    continue
                case "ask":
                    self.say("answer")
                case "answer":
                    self.answered.set()
                case _:
                    return document

    async def listen(self) -> None:
        """Make events of all that comes, until it ends."""
        while (document := await self.hear()) is not None:
            self._events.put(str(document["do"]), self.name, document)
        self.close()
        self._events.put("left", self.name, {"link": self})

    def close(self) -> None:
        """Let go of the connection."""
        self.beating.cancel()
        self._writer.close()

    async def drain(self) -> None:
        """Wait until what was said is sent."""
        with contextlib.suppress(OSError):
            await self._writer.drain()
