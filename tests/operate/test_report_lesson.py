"""What makes a section a lesson: what was expected, where the time goes, what others reached, guessing first."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from labs.catalog import LABS
from labs.results import Measurement, Record, Span
from operate.ending import show_report
from operate.problem import Problem
from operate.report import ask, summary, write_report
from operate.report.gap import parts
from operate.report.headline import FOLD, headlines
from operate.report.lessons import LESSONS
from operate.report.quiz import choices_of, read_guess
from operate.runs import Run
from operate.screen import Screen
from tests.operate.made_run import NO_ROOF, collectives, gemm, generate, record, write_run


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.partition("</style>")[2]))


def many(node: str, count: int = 22) -> Record:
    rows = [
        Measurement(name=f"fp32 {64 * number}x64x64", value=1e9 * number, unit="FLOP/s", estimator="from the median",
                    samples_s=(1e-3, 1.1e-3), no_roof_because=NO_ROOF)
        for number in range(1, count + 1)
    ]  # fmt: skip
    return record("bandwidth", rows, node=node)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("results"), [generate("node0"), many("node0"), many("node1")])


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return write_report(folder).read_text()


def test_what_a_model_expected_stands_with_the_prediction_and_beside_the_value(html: str) -> None:
    text = words(html)
    source = "bytes at the measured 280 GB/s, and 288 kernels of 4.5 µs"
    assert f"Expected: 52.1 ms (time per output token) {source}" in text
    assert text.index("Expected: 52.1 ms") < text.index("Nearest to its roof")
    assert re.search(r"47\.4 ms \w expected 52\.1 ms", text)


def test_a_samples_time_is_taken_apart_in_named_milliseconds(html: str) -> None:
    text = words(html)
    assert "time per output token node0 : 57.5 ms a sample, of which the roof allows 47.4 ms" in text
    assert "weights and cache 50.8 ms 88 % predicted: bytes ÷ measured read bandwidth" in text
    assert "launches 4.30 ms 7.5 % measured: gaps between kernels" in text
    widths = [float(width) for width in re.findall(r'class="part part\d" style="width: ([\d.]+)%"', html)]
    assert sum(widths) == pytest.approx(100, abs=0.1), "the bar is the sample"


def row_of(seconds: float, **spans: float) -> Measurement:
    made = tuple(Span(name=name, seconds=taken, how="measured") for name, taken in spans.items())
    return Measurement(name="step", value=seconds, unit="s", estimator="median", samples_s=(seconds,), spans=made,
                       no_roof_because=NO_ROOF)  # fmt: skip


def test_what_the_parts_leave_out_is_named_and_overlap_is_said(tmp_path: Path) -> None:
    missing = row_of(1.0, forward=0.3, backward=0.5)
    assert [(part.name, round(part.seconds, 6)) for part in parts(missing)][-1] == ("not told", 0.2)
    assert parts(row_of(1.0, forward=0.4, backward=0.59))[-1].name == "backward", "one per cent is rounding"
    over = write_run(tmp_path, [record("ddp", [row_of(1.0, forward=0.8, backward=0.5)])])
    assert "The parts are 300 ms more than the whole: they overlap." in words(write_report(over).read_text())


def test_the_next_step_and_what_is_left_close_the_section(html: str) -> None:
    text = words(html)
    assert "What the next step gains." in text
    assert re.search(r"At most 1\.2\d × is left for time per output token: its roof ends it\.", text)


def test_published_numbers_of_the_same_device_stand_beside_the_rows(tmp_path: Path) -> None:
    made = gemm()
    rows = tuple(replace(row, config={**row.config, "regime": "burst"}) for row in made.measurements)
    text = words(write_report(write_run(tmp_path, [replace(made, measurements=rows)])).read_text())
    assert "bf16, best shape found, 1024x6016x1792 median of 100 91.4 TFLOP/s" in text
    assert "mag-/gpu_benchmark, README read 2026-11-20" in text
    assert re.search(r"78\.\d TFLOP/s bf16 8192x8192x8192 86 %", text)
    other = replace(made, machine=replace(made.machine, device="NVIDIA L4 Refresh"))
    assert "mag-/gpu_benchmark" not in write_report(write_run(tmp_path / "other", [other])).read_text()


def test_a_long_table_shows_its_headlines_and_folds_the_rest(folder: Path, html: str) -> None:
    section = html.partition('id="bandwidth"')[2].partition("</section>")[0]
    shown, _, rest = section.partition("<details")
    assert "42 more rows" in words(f"</style>{section}")
    assert shown.count("<tbody>") == 1
    assert shown.count('scope="row"') == 2, "one headline, on both nodes"
    assert rest.count('scope="row"') == 42
    console = Console(file=StringIO(), width=140)
    console.print(summary(folder))
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert "… 42 more rows in report.html" in text
    assert text.count("fp32 ") == 2
    assert text.count("time per output token") == 1, "a short table is shown whole"


def test_a_table_that_is_not_long_is_not_folded(tmp_path: Path) -> None:
    html = write_report(write_run(tmp_path, [many("node0", FOLD), many("node1", FOLD)])).read_text()
    assert "more rows" not in html


def test_headlines_are_few_and_never_a_measuring_error() -> None:
    made = collectives()
    rows = [(made, row) for row in made.measurements]
    chosen = [row.name for _, row in headlines(rows)]
    assert chosen == ["all-reduce 1 KiB", "all-reduce 262144 KiB"], "nearest to its roof, and farthest"
    wrong = replace(made.measurements[-1], value=1e12)
    assert wrong.suspect
    assert wrong not in [row for _, row in headlines([*rows, (made, wrong)])]


@pytest.fixture(scope="module")
def quiz(folder: Path) -> str:
    path = write_report(folder, quiz=True)
    assert path.name == "quiz.html"
    return path.read_text()


def test_the_page_asks_between_prediction_and_measurement(quiz: str) -> None:
    section = quiz.partition('id="generate"')[2].partition("</section>")[0]
    order = [section.index(mark) for mark in ('class="prediction"', "<fieldset", 'class="answer"', ">Measurement<")]
    assert order == sorted(order)
    assert 1 <= section.count("<fieldset") <= 3
    assert section.count('type="radio"') == section.count('required="required"') == 6 * section.count("<fieldset")
    assert "time per output token ? It is no less than 47.4 ms." in words(f"</style>{section}")
    assert "<script" not in quiz


def test_the_plain_report_asks_nothing(html: str) -> None:
    body = html.partition("</style>")[2]
    assert "<fieldset" not in body
    assert "asking" not in body


def test_hiding_is_for_screens_that_can_show_again(quiz: str) -> None:
    style = quiz.partition("<style>")[2].partition("</style>")[0]
    hiding = style.index(".answer { display: none; }")
    guarded = style.rindex("@media screen", 0, hiding)
    assert style.rindex("@supports selector(:has(*))", 0, hiding) < guarded
    assert style.count(".answer") == 1, "on paper, and where it could not be shown again, everything shows"


@pytest.mark.parametrize("value", [0.0575, 4.2e-6, 236e9, 8531.0, 0.97e-3])
def test_five_orders_of_magnitude_are_offered_the_right_one_among_them(value: float) -> None:
    row = replace(row_of(1.0), value=value)
    offered = choices_of(row)
    assert len(offered) == 5
    assert offered == sorted(offered)
    assert sum(value / 10**0.5 < choice < value * 10**0.5 for choice in offered) == 1


def test_the_right_answer_is_not_always_at_the_same_place() -> None:
    rows = [replace(row_of(0.0575), name=f"row {number}") for number in range(20)]
    assert len({round(0.06 / choices_of(row)[0]) for row in rows}) > 2


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("4 ms", "s", 0.004),
        ("4ms", "s", 0.004),
        ("0.5us", "s", 5e-7),
        ("300 GB/s", "B/s", 3e11),
        ("1.2k", "token/s", 1200),
        ("50 TFLOP/s", "FLOP/s", 5e13),
        ("1,200 token/s", "token/s", 1200),
        ("2", "s", 2.0),
        ("7.1 × one rank", "× one rank", 7.1),
    ],
)
def test_a_guess_is_read_with_its_unit(text: str, unit: str, value: float) -> None:
    assert read_guess(text, unit) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "fast", "-3 ms", "0", "4 GB/s", "1.2.3", "1e999"])
def test_what_is_no_guess_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 4 ms"):
        read_guess(text, "s")


def typed(*lines: str) -> Callable[[str], str]:
    """Somebody who types these lines and then closes the input."""
    waiting: Iterator[str] = iter(lines)

    def read(prompt: str) -> str:
        assert prompt.endswith("? ")
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    return read


def test_the_terminal_asks_before_it_tells_and_judges(tmp_path: Path) -> None:
    said: list[str] = []
    ask(write_run(tmp_path, [generate()]), typed("nonsense", "50 ms", "", "40"), said.append)
    text = "\n".join(said)
    assert "guess='nonsense' is no number in s: write for example 4 ms" in text
    assert "time per output token: 57.5 ms, 82 % of the roof" in text
    assert text.index(LESSONS["generate"].physics) < text.index("57.5 ms")
    assert re.search(r"2 guesses: \d within a factor of two, [12] within ten", text)


def test_a_closed_input_shows_the_rest_and_ends(tmp_path: Path) -> None:
    said: list[str] = []
    ask(write_run(tmp_path, [generate(), collectives()]), typed(), said.append)
    assert "all-reduce 262144 KiB: 5.34 GB/s, 61 % of the roof" in "\n".join(said)
    assert said[-1].strip() == "no guess was made"


def test_a_quiz_and_json_cannot_share_a_terminal(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, [generate()]), {"ok": True})
    with pytest.raises(Problem, match="--quiz asks on this terminal, and --json leaves it to one document: leave out"):
        show_report(run, Screen(json=True), json=True, quiz=True)


def test_every_workload_of_a_lab_has_a_lesson_that_names_the_next_step() -> None:
    named = {workload.name for lab in LABS.values() for workload in lab.workloads}
    assert named - set(LESSONS) == set()
    assert {name for name in named if not LESSONS[name].next} == set()
