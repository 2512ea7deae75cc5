"""Server-sent events in whatever pieces they come."""

import json

import pytest

from workloads.serving.events import Event, Events, said

STREAM = (
    b': keep-alive\n\ndata: {"choices":[{"text":""}]}\r\n\r\ndata: {"choices":[{"text":" ab"}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"cd"}}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7}}\n\ndata: [DONE]\n\n'
)
FOUND = [Event(), Event(text=True), Event(text=True), Event(prompt_tokens=3, tokens=7)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_events_do_not_depend_on_how_the_stream_is_cut(size: int) -> None:
    events = Events()
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert [event for piece in pieces for event in events.feed(piece)] == FOUND


def test_an_empty_text_is_no_text() -> None:
    without: list[dict[str, object]] = [
        {"text": ""}, {"text": None}, {"delta": {}}, {"delta": {"role": "assistant", "content": ""}},
    ]  # fmt: skip
    for empty in without:
        assert not said(json.dumps({"choices": [empty]}).encode()).text


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"error": "out of  memory"}', "the server reports out of memory"),
        (b'{"error": {"message": "no such model", "code": 404}}', "the server reports no such model"),
        (b"not json", "an event that is not OpenAI's"),
        (b"[1, 2]", "an event that is not OpenAI's"),
        (b'{"usage": {"completion_tokens": "many"}, "choices": []}', "an event that is not OpenAI's"),
        (b'{"choices": [7]}', "an event that is not OpenAI's"),
    ],
)
def test_what_is_not_an_answer_is_an_error(data: bytes, error: str) -> None:
    assert said(data).error == error
