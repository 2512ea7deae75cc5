"""What `fab compare` says of two sides of runs, and what it refuses to say."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from labs.results import Machine, Measurement, Record, Roof
from operate import laptop
from operate.compare import compare_rows, show_comparison
from operate.problem import Problem
from operate.screen import Screen
from operate.sides import choose_side, differences, taken_in_turn

COMMITS = {"A": "4fb9ec3a0b", "B": "3a7151c9ff"}
UNKNOWN = "AMD EPYC 9R45 is not in labs/accelerators.py"


def decode(pace_s: float, seed: int = 0) -> tuple[Measurement, ...]:
    source = random.Random(seed)
    taken = tuple(pace_s * (1 + source.gauss(0, 0.02)) for _ in range(20))
    each_s = median(taken)
    config = {"model": "mistral-mini", "batch": 1, "clock_mhz": 1980.0 + seed}
    return (
        Measurement(name="time per output token", value=each_s, unit="s", estimator="median of 20", samples_s=taken,
                    config=config, no_roof_because=UNKNOWN),
        Measurement(name="decode", value=1 / each_s, unit="token/s", estimator="from the median of 20", config=config,
                    samples_s=taken, no_roof_because=UNKNOWN),
        Measurement(name="peak memory", value=352e6, unit="B", estimator="as counted", no_roof_because="a size"),
    )  # fmt: skip


def leave(results: Path, order: str, rows: dict[str, Any], **machine: Any) -> dict[str, list[str]]:
    """A run for each letter of `order`, a minute apart; `rows[letter]` makes its rows from the run's number."""
    names: dict[str, list[str]] = {"A": [], "B": []}
    for number, letter in enumerate(order):
        name = f"20261121-08{number:02}00-lab0"
        names[letter].append(name)
        made = Record(
            workload="generate", measurements=rows[letter](number), run=name, lab=0, node="node0",
            git_commit=COMMITS[letter], config={"prompt": 64},
            machine=Machine(**{"hostname": "one", "device": "EPYC", "devices": 1, "versions": {"torch": "2.13.0"}}
                            | machine.get(letter, {})),
        )  # fmt: skip
        folder = results / name
        made.write(folder / "records")
        document = {"run": name, "lab": 0, "ok": True, "ended": "2026-11-21T09:00:00Z", "stack": "Lab0Stack",
                    "commit": COMMITS[letter], "workloads": [{"name": "generate", "exit": {"node0": 0}}]}  # fmt: skip
        (folder / "run.json").write_text(json.dumps(document))
    return names


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(laptop, "ROOT", tmp_path)
    return tmp_path / "results"


def told(capsys: pytest.CaptureFixture[str], base: str, other: str, lab: str = "", floor: str = "") -> str:
    show_comparison(base, other, Screen(), lab=lab, floor=floor, json=False)
    return " ".join(capsys.readouterr().out.split())


def answer(capsys: pytest.CaptureFixture[str], base: str, other: str, floor: str = "") -> dict[str, Any]:
    show_comparison(base, other, Screen(json=True), lab="", floor=floor, json=True)
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["verdict"] for row in found["rows"]}


PACES = {"A": lambda number: decode(0.0100, number), "B": lambda number: decode(0.0080, number)}


def test_five_runs_a_side_in_turn_say_which_is_faster(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = leave(results, "ABABABABAB", PACES)
    found = answer(capsys, ",".join(names["A"]), ",".join(names["B"]))
    assert found["in_turn"] is True
    assert found["more_runs_needed"] == [0, 0]
    assert verdicts(found) == {"time per output token": "faster", "decode": "faster", "peak memory": "same"}
    for row in found["rows"][:2]:
        assert row["found"]["low"] > 1.2, "a shorter time counts as the higher speed"
        assert row["found"]["ratio"] == pytest.approx(1.25, rel=0.02)
    turned = answer(capsys, ",".join(names["B"]), ",".join(names["A"]))
    assert verdicts(turned)["time per output token"] == "slower"


def test_the_terminal_says_the_size_and_counts_the_verdicts(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(results, "ABABABABAB", PACES)
    text = told(capsys, "4fb9ec3", "3a7151c", lab="0")
    assert "A: 5 runs, 20261121-080000-lab0 to 20261121-080800-lab0" in text
    assert "differs: commit: 4fb9ec3a0b → 3a7151c9ff" in text
    assert "% faster" in text
    assert "3 rows: 2 faster, 1 same" in text
    assert text.index("differs:") < text.index("time per output token"), "what differs is said first"


def test_runs_of_one_thing_are_the_same(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = leave(results, "ABABABABAB", {"A": PACES["A"], "B": PACES["A"]})
    assert set(verdicts(answer(capsys, ",".join(names["A"]), ",".join(names["B"]))).values()) == {"same"}


@pytest.mark.parametrize(
    ("order", "wanted"), [("AB", "4 more of A and 4 more of B"), ("ABABABABA", "so 1 more of B"), ("ABAB", "3 more")]
)
def test_fewer_runs_get_ratios_and_how_many_more_there_must_be(
    results: Path, capsys: pytest.CaptureFixture[str], order: str, wanted: str
) -> None:
    names = leave(results, order, PACES)
    text = told(capsys, ",".join(names["A"]), ",".join(names["B"]))
    assert "not enough runs to tell: 5 a side" in text
    assert wanted in text
    assert "3 rows: 3 not enough runs" in text
    assert re.search(r"ms 1\.2[2-8]\d – –", text), "the ratio is told all the same"
    assert "faster" not in text.replace("the faster one", "")


def test_a_run_that_lacks_a_row_does_not_count_for_it(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = leave(results, "ABABABABAB", PACES)
    path = results / names["A"][2] / "records" / "generate.node0.json"
    document = json.loads(path.read_text())
    document["measurements"] = document["measurements"][1:]
    path.write_text(json.dumps(document))
    found = answer(capsys, ",".join(names["A"]), ",".join(names["B"]))
    assert verdicts(found)["time per output token"] == "not enough runs"
    assert verdicts(found)["decode"] == "faster"
    assert found["more_runs_needed"] == [1, 0]


def test_runs_that_were_not_taken_in_turn_tell_nothing(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = leave(results, "AAAAABBBBB", PACES)
    text = told(capsys, ",".join(names["A"]), ",".join(names["B"]))
    assert "a machine that drifts looks like a difference; run A B A B …" in text
    assert "3 rows: 3 not taken in turn" in text


def test_further_runs_of_the_first_side_raise_the_noise_floor(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def restless(number: int) -> Sequence[Measurement]:
        return decode(0.010 * (1.3 if number % 2 else 0.75), number)

    leave(results, "ABABABABAB", PACES)
    for number in range(6):
        leave_one(results, f"20261121-10{number:02}00-lab0", tuple(restless(number)))
    more = ",".join(f"20261121-10{number:02}00-lab0" for number in range(6))
    sides = ("4fb9ec3", "3a7151c")
    assert verdicts(answer(capsys, *sides))["decode"] == "faster"
    noisy = answer(capsys, *sides, floor=more)
    assert noisy["rows"][1]["found"]["floor"] > 0.25
    assert verdicts(noisy)["decode"] == "same"


def leave_one(results: Path, name: str, rows: tuple[Measurement, ...]) -> None:
    machine = Machine(hostname="one", device="EPYC", devices=1)
    Record(workload="generate", measurements=rows, run=name, node="node0", machine=machine).write(
        results / name / "records"
    )
    document = {"run": name, "lab": 0, "ok": True, "ended": "2026-11-21T09:00:00Z", "workloads": []}
    (results / name / "run.json").write_text(json.dumps(document))


def test_another_machine_version_and_type_are_said(results: Path) -> None:
    leave(results, "AB", PACES, B={"versions": {"torch": "2.11.0"}, "instance_type": "g6.xlarge", "hostname": "two"})
    found = differences(choose_side("4fb9ec3"), choose_side("3a7151c"))
    assert found == {
        "commit": ("4fb9ec3a0b", "3a7151c9ff"),
        "instance type": ("none", "g6.xlarge"),
        "machine": ("one", "two"),
        "torch": ("2.13.0", "2.11.0"),
    }


def test_a_row_of_another_configuration_is_not_compared(results: Path) -> None:
    def batched(number: int) -> tuple[Measurement, ...]:
        first, *_ = decode(0.008, number)
        return (replace(first, config={**first.config, "batch": 16}),)

    leave(results, "AB", {"A": PACES["A"], "B": batched})
    lines = list(compare_rows(choose_side("4fb9ec3"), choose_side("3a7151c"), None, turns=True))
    assert lines[0].verdict == "other configuration: batch 1 → 16"
    assert lines[0].found is None
    assert [line.verdict for line in lines[1:]] == ["only in A", "only in A"]


def test_a_measuring_error_and_a_value_of_zero_have_no_ratio(results: Path) -> None:
    def wrong(number: int) -> tuple[Measurement, ...]:
        first, second, third = decode(0.01, number)
        roof = Roof(value=10.0, source="datasheet")
        return first, replace(second, roof=roof, no_roof_because=""), replace(third, value=0.0)

    leave(results, "AB", {"A": PACES["A"], "B": wrong})
    lines = list(compare_rows(choose_side("4fb9ec3"), choose_side("3a7151c"), None, turns=True))
    assert [line.verdict for line in lines] == ["not enough runs", "measuring error", "no ratio"]


def test_what_is_no_speed_is_more_or_less(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def larger(number: int) -> tuple[Measurement, ...]:
        return tuple(replace(row, value=2 * row.value) if row.unit == "B" else row for row in decode(0.01, number))

    names = leave(results, "ABABABABAB", {"A": PACES["A"], "B": larger})
    found = answer(capsys, ",".join(names["A"]), ",".join(names["B"]))
    (row,) = [row for row in found["rows"] if row["name"] == "peak memory"]
    assert (row["verdict"], row["said"], row["speed"]) == ("more", "100 % more", False)


def test_sides_are_named_by_runs_commits_and_stacks(results: Path) -> None:
    names = leave(results, "ABAB", PACES)
    assert [run.name for run in choose_side(",".join(reversed(names["A"]))).runs] == names["A"], "oldest first"
    assert len(choose_side("Lab0Stack").runs) == 4
    assert [run.name for run in choose_side(f"4fb9ec3,{names['B'][0]}").runs] == sorted([*names["A"], names["B"][0]])
    assert taken_in_turn(choose_side("4fb9ec3"), choose_side("3a7151c"))


@pytest.mark.parametrize(
    ("side", "error", "said"),
    [
        ("", ValueError, "side='' names no run: write runs of one thing with commas between them"),
        ("the last one", ValueError, "side='the last one' is neither a run, a commit nor a stack: write 2026"),
        ("20991231-000000-lab3", Problem, "there is no run 20991231-000000-lab3"),
        ("deadbeef", Problem, "no run here of Lab 3 is of commit deadbeef"),
        ("4fb9ec3-dirty", Problem, "no run here of Lab 3 is of commit 4fb9ec3-dirty"),
        ("Lab1Stack-bob", Problem, "no run here of Lab 3 is of stack Lab1Stack-bob"),
    ],
)
def test_a_side_that_names_nothing_gets_one_line(results: Path, side: str, error: type[Exception], said: str) -> None:
    leave(results, "AB", PACES)
    with pytest.raises(error) as raised:
        choose_side(side, "3")
    assert str(raised.value).startswith(said)


def test_a_run_cannot_stand_on_both_sides(results: Path) -> None:
    names = leave(results, "AB", PACES)
    with pytest.raises(Problem, match="stands on both sides: name each run once"):
        show_comparison(names["A"][0], "4fb9ec3", Screen(), lab="", floor="", json=False)
