"""batching: padding counted by hand, the same tokens by every way, tokens counted once, what cannot be said."""

from pathlib import Path

import pytest

from labs.models import find_model
from labs.results import Record, Roof, read
from workloads import batching
from workloads.batches import continuous
from workloads.batches.requests import Lengths, Request, draw, groups, wasted
from workloads.batches.static import Served, serve
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.mistral import build

LENGTHS = Lengths(prompt=(2, 6), answer=(1, 5))


def request(prompt: int, answer: int) -> Request:
    return Request(prompt=tuple(range(1, prompt + 1)), answer=answer)


def test_padding_is_counted_by_hand() -> None:
    """Two batches of two: answers 1 and 5, then 3 and 3: 4 of 16 places idle; prompts 2 and 4, then 3 alone twice."""
    requests = [request(2, 1), request(4, 5), request(3, 3), request(3, 3)]
    prompt, answer = wasted(requests, 2)
    assert prompt == pytest.approx(1 - 12 / 14)
    assert answer == pytest.approx(1 - 12 / 16)
    assert wasted(requests, 1) == (0.0, 0.0)
    assert [len(batch) for batch in groups(requests, 3)] == [3, 1]


def test_requests_are_seeded_and_within_their_lengths() -> None:
    made = draw(200, LENGTHS, 50, 4)
    assert made == draw(200, LENGTHS, 50, 4) != draw(200, LENGTHS, 50, 5)
    assert {len(one.prompt) for one in made} == {2, 3, 4, 5, 6}
    answers = [one.answer for one in made]
    assert (min(answers), max(answers)) == (1, 5)
    assert sorted(answers)[100] == 2  # a quarter of the range
    assert all(0 <= token < 50 for one in made for token in one.prompt)


def test_a_filled_batch_makes_the_tokens_of_each_alone(cpu: Device) -> None:
    model = build(find_model("mistral-nano"), "fp32", cpu, 0)
    requests = draw(5, LENGTHS, 1024, 1)
    together, alone = serve(model, requests, 3), serve(model, requests, 1)
    assert together.answers == alone.answers
    assert [len(answer) for answer in together.answers] == [one.answer for one in requests]
    assert len(together.gaps_s) == sum(one.answer - 1 for one in requests)
    assert 0 < together.prefill_s < together.seconds


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A run of the smallest model, transformers' continuous batching included."""
    out = tmp_path_factory.mktemp("out")
    batching.main(["--device", "cpu", "--requests", "4", "--sizes", "1,2", "--repeats", "1", "--out", str(out)])
    return read(out / "batching.node0.json")


def test_every_way_is_measured_and_makes_the_same_tokens(record: Record) -> None:
    names = [row.name for row in record.measurements]
    assert names == ["fixed batches of 1", "fixed batches of 2", "continuous, 2 places, transformers",
                     "continuous over fixed batches of 2"]  # fmt: skip
    assert record.notes == ()
    one, two, flowing, gain = record.measurements
    assert {row.config["tokens"] for row in (one, two, flowing)} == {one.config["tokens"]}
    assert all(row.checked.startswith("tokens of 1") for row in (one, two, flowing))
    assert two.config["answer_waste"] > 0 == one.config["answer_waste"] == flowing.config["answer_waste"]
    assert gain.value == pytest.approx(flowing.value / two.value)
    assert one.value == pytest.approx(one.config["tokens"] / one.samples_s[0])


def test_a_fixed_batchs_time_is_asked_for_idle_and_prompts(record: Record) -> None:
    for row in record.measurements[:2]:
        assert sum(span.seconds for span in row.spans) == pytest.approx(row.samples_s[0])
    idle = record.measurements[1].spans[1]
    assert idle.name == "places whose answer has ended"
    assert idle.seconds > 0


def test_an_expectation_is_the_roof_less_the_padding(l4: Device) -> None:
    config = batching.Config(model="mistral-tiny", dtype="bf16", requests=4, lengths=batching.LENGTHS[True],
                             sizes=(8,), repeats=1, engine="transformers", seed=0, threads=1)  # fmt: skip
    way = batching.Way(name="x", places=8, prompt_waste=0.2, answer_waste=0.5, kind="static")
    bound, others = batching.bound_of(config, l4, way, Roof(value=200e9, source="measured"))
    moved = find_model("mistral-tiny").decode_bytes((544 + 132) // 2, batch=8)
    assert bound.roof is not None
    assert bound.roof.value == pytest.approx(8 * 300e9 / moved)
    assert others[0].value == pytest.approx(8 * 200e9 / moved)
    most = batching.expected(way, bound, others)
    assert most is not None
    assert most.value == pytest.approx(bound.roof.value / 2)


def served(*answers: tuple[int, ...]) -> Served:
    return Served(answers=answers, seconds=1.0, prefill_s=0.0, gaps_s=())


def test_other_tokens_and_other_lengths_are_found() -> None:
    requests, right = [request(2, 2), request(2, 2)], served((1, 2), (3, 4))
    assert "of 100%" in batching.check("x", right, right, requests, "fp32")
    with pytest.raises(CheckFailed, match="x: request 1 got 1 tokens, and asked for 2"):
        batching.check("x", served((1, 2), (3,)), right, requests, "fp32")
    with pytest.raises(CheckFailed, match="x: the tokens of 50% of the requests are those of one at a time"):
        batching.check("x", served((1, 2), (3, 5)), right, requests, "fp32")
    assert "first token of 100%" in batching.check("x", served((1, 9), (3, 9)), right, requests, "bf16")
    with pytest.raises(CheckFailed, match="the first token of 50%"):
        batching.check("x", served((9, 2), (3, 4)), right, requests, "bf16")


def test_an_engine_that_does_not_start_is_not_applicable_and_no_gain(
    cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        """A model whose continuous batching cannot be had."""

        def continuous_batching_context_manager(self, **_given: object) -> None:
            raise MemoryError("no memory was found\nmore of it")

    step = continuous.by_transformers(Broken(), [request(2, 2)], 2, cpu)
    with pytest.raises(continuous.NotApplicable, match=r"does not run here: MemoryError: no memory was found$"):
        step([request(2, 2)])
    monkeypatch.setattr(batching, "by_transformers", lambda *_given: step)
    batching.main(["--device", "cpu", "--requests", "2", "--sizes", "1", "--repeats", "1", "--out", str(tmp_path)])
    written = read(tmp_path / "batching.node0.json")
    assert [row.name for row in written.measurements] == ["fixed batches of 1"]
    assert written.notes[0].startswith("continuous, 1 places, transformers: not applicable: transformers' continuous")
    assert "not applicable" in capsys.readouterr().out


def test_vllm_is_taken_where_it_is_and_there_is_a_gpu(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "find_spec", lambda _name: object())
    assert continuous.engine(cpu) == "transformers"
    monkeypatch.setattr(Device, "cuda", True)
    assert continuous.engine(cpu) == "vLLM"
    monkeypatch.setattr(continuous, "find_spec", lambda _name: None)
    assert continuous.engine(cpu) == "transformers"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sizes", "1,64"], "sizes=64 is more than 12 requests: write smaller sizes or more --requests"),
        (["--sizes", "0"], "argument --sizes: '0' is not a whole number of at least 1"),
        (["--model", "gpt-2"], "model='gpt-2' does not exist: write one of mistral-7b,"),
    ],
)
def test_what_cannot_be_is_one_line(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        batching.main(["--device", "cpu", *flags])
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
