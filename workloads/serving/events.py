"""Server-sent events as OpenAI's API streams them: bytes in, what they say out.

The format is the WHATWG's (https://html.spec.whatwg.org/multipage/server-sent-events.html): lines, an empty one ends an
event, "data:" lines carry it, a line that begins with a colon says nothing. The payload is JSON, or [DONE].
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

DONE = b"[DONE]"


@dataclass(frozen=True, kw_only=True)
class Event:
    """What one event says."""

    text: bool = False
    """Whether it brings text that is not empty."""
    prompt_tokens: int | None = None
    """From `usage`, where it has one."""
    tokens: int | None = None
    """Completion tokens, from `usage`."""
    error: str = ""


TEXT = Event(text=True)
NOTHING = Event()


class Events:
    """Takes a stream apart, whatever pieces it comes in."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that this piece completes."""
        whole = (self._rest + piece).replace(b"\r\n", b"\n")
        *blocks, self._rest = whole.split(b"\n\n")
        for block in blocks:
            lines = [line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")]
            data = b"\n".join(lines)
            if data and data != DONE:
                yield said(data)


def said(data: bytes) -> Event:
    """What a payload says; anything that is not what OpenAI's API would send is an error."""
    try:
        document = json.loads(data)
        if "error" in document:
            return Event(error=f"the server reports {_words(document['error'])}")
        usage, choices = document.get("usage"), document.get("choices")
        text = any(_text(choice) for choice in choices or ())
        if not usage:
            return TEXT if text else NOTHING
        return Event(text=text, prompt_tokens=int(usage["prompt_tokens"]), tokens=int(usage["completion_tokens"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return Event(error="an event that is not OpenAI's")


def _text(choice: dict) -> str:
    return choice.get("text") or (choice.get("delta") or {}).get("content") or ""


def _words(error: object) -> str:
    found = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(found).split())[:120]
