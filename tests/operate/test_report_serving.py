"""The figures of Lab 0's load and generate: what they say, and that they draw what the record holds."""

import re
from typing import Any

from labs.results import Measurement, Record, Roof
from operate.report.element import document, el
from operate.report.figures import figures
from operate.report.folder import Part
from operate.report.generation import generation
from operate.report.serving import serving
from tests.operate.made_run import NO_ROOF, record


def level(name: str, kind: str, load: float, rate: float, first_s: float, kept: int, of: int) -> list[Measurement]:
    config: dict[str, Any] = {"kind": kind, "load": load, "level": name, "requests": of, "answered": of, "kept": kept,
                              "ttft_bound_s": 0.5, "tpot_bound_s": 0.05, "request_rate": rate / 10,
                              "offered": load if kind == "open" else of / 2}  # fmt: skip
    times = {"first": (first_s, first_s * 1.5, first_s * 2), "token": (0.01, 0.012, 0.011),
             "gap": tuple(0.01 + 0.0001 * step for step in range(121)), "whole": (0.2, 0.3, 0.4)}  # fmt: skip
    rows = [
        Measurement(name=f"{name}: throughput", value=rate, unit="token/s", estimator="", no_roof_because=NO_ROOF,
                    config={**config, "what": "throughput"}),
        Measurement(name=f"{name}: goodput", value=kept / 2, unit="request/s", estimator="", no_roof_because=NO_ROOF,
                    config={**config, "what": "goodput"}),
    ]  # fmt: skip
    rows += [
        Measurement(name=f"{name}: {what}", value=sorted(samples)[len(samples) // 2], unit="s", estimator="median",
                    samples_s=samples, no_roof_because=NO_ROOF, config={**config, "what": what})
        for what, samples in times.items()
    ]  # fmt: skip
    return rows


def loaded() -> Record:
    proof = Measurement(name="client against the stub", value=9e4, unit="token/s", estimator="", no_roof_because="none",
                        config={"kind": "proof", "what": "proof", "level": "4 clients"})  # fmt: skip
    failed = [row for row in level("9 requests/s", "open", 9.0, 0.0, 1.0, 0, 18) if not row.samples_s]
    return record("load", [
        proof,
        *level("1 client", "closed", 1, 100.0, 0.02, 20, 20), *level("4 clients", "closed", 4, 260.0, 0.6, 9, 50),
        *level("3 requests/s", "open", 3.0, 30.0, 0.03, 6, 6), *level("6 requests/s", "open", 6.0, 55.0, 0.8, 2, 12),
        *failed,
    ], node="node0")  # fmt: skip


def words(elements: list[Any]) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", document(el("div", *elements))))


def test_the_curve_tells_the_most_tokens_the_most_good_requests_and_the_promise() -> None:
    curve, gaps = serving([loaded()])
    text = words([curve])
    assert "The box is the promise: the first token within 500 ms and 50.0 ms per further one." in text
    assert "Most tokens: 260 token/s at 4 clients." in text
    assert "Most good requests: 10.0 a second at 1 client." in text
    assert "4 clients: 260 token/s, first token after 900 ms, 4.50 good requests per second" in text
    assert "9 requests/s" not in text, "a load that nobody was answered at has no place on the curve"
    assert all(label in text for label in ("promised", "clients that wait", "users who come", "all that came", "6/s"))
    assert "1 client: median 16.0 ms, p99 21.9 ms; 4 clients: median 16.0 ms, p99 21.9 ms" in words([gaps])


def test_without_an_open_loop_or_an_answer_there_is_less_to_draw() -> None:
    closed = record("load", level("1 client", "closed", 1, 100.0, 0.02, 20, 20), node="node0")
    assert "no open loop" in words(serving([closed]))
    nothing = [row for row in level("1 client", "closed", 1, 0.0, 0.02, 0, 20) if not row.samples_s]
    assert serving([record("load", nothing, node="node0")]) == []


def test_the_report_draws_a_load(tmp_path: Any) -> None:
    part = Part(name="load", scope="node", exits={"node0": 0}, seconds=1.0, records=(loaded(),), missing=(),
                unreadable=(), log_ends={})  # fmt: skip
    assert len(figures(part, tmp_path)) == 2


def swept(prompt: int, taken_s: float, known: bool) -> Measurement:
    return Measurement(
        name=f"time to first token, prompt of {prompt}", value=taken_s, unit="s", estimator="median of 3",
        samples_s=(taken_s,) * 3,
        config={"kind": "sweep", "prompt": prompt, "attention_share": prompt / (prompt + 53248)},
        roof=Roof(value=taken_s / 2, source="NVIDIA L4 datasheet") if known else None,
        no_roof_because="" if known else NO_ROOF, expected=Roof(value=taken_s * 0.9, source="with overhead"),
        others=(Roof(value=taken_s * 0.7, source="measured here"),),
    )  # fmt: skip


def test_the_first_token_is_drawn_over_the_prompt_with_what_was_expected() -> None:
    first = Measurement(name="time to first token", value=0.2, unit="s", estimator="", samples_s=(0.2,) * 3,
                        no_roof_because=NO_ROOF)  # fmt: skip
    token = Measurement(name="time per output token", value=0.02, unit="s", estimator="", samples_s=(0.02,) * 3,
                        no_roof_because=NO_ROOF)  # fmt: skip
    for known in (True, False):
        sweep = [swept(512, 0.2, known), swept(8192, 4.0, known)]
        drawn = generation([record("generate", [first, token, *sweep], node="node0")])
        text = words(drawn[1:])
        assert "The first token after 200 ms for 512 tokens, 4.00 s for 8,192 tokens." in text
        assert "Attention takes 13 % of the FLOPs of the longest prompt." in text
        assert all(label in text for label in ("expected", "least, as measured", "measured"))
        assert (" roof " in text) is known
    assert len(generation([record("generate", [first, token], node="node0")])) == 1
