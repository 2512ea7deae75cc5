"""The bars of a step by link: this run's, and those of other runs that can stand beside it."""

from dataclasses import replace
from pathlib import Path

import pytest

from labs.results import Measurement, Record, Roof
from operate.report.figures import figures
from operate.report.folder import Part
from operate.report.overhead import overhead
from tests.operate.made_run import NO_ROOF, record
from tests.operate.test_report_sharing import row, text_of

SETTINGS = {"model": "mistral-nano", "batch": 2, "sequence": 32, "bucket_mb": 4}


def made(link: str, rate: float | None, exposed_s: float, started: str = "2026-11-21T10:00:00+00:00") -> Record:
    config = {"link": link, "link_bytes_per_s": rate}
    expected = Roof(value=0.2 + exposed_s, source="nothing hidden")
    rows = (
        row("step: all ranks", (0.2, exposed_s, 0.0), config={**config, "strategy": "all ranks"}, expected=expected),
        row("step: nothing sent", (0.2, 0.0, 0.0), config={**config, "strategy": "nothing sent"}),
        Measurement(name="sent: all ranks", value=3.0, unit="B", estimator="counted", no_roof_because=NO_ROOF,
                    config=config),
    )  # fmt: skip
    return replace(record("overhead", rows, ranks=4), config=SETTINGS, started=started)


def test_links_stand_one_below_the_other_fastest_first() -> None:
    words = text_of(overhead([made("link of 100 Mbit/s", 12.5e6, 1.9), made("link of 1 Gbit/s", 125e6, 0.2),
                              made("loopback", None, 0.05)]))  # fmt: skip
    told = ["loopback: all ranks: 250 ms", "1 Gbit/s: all ranks: 400 ms", "100 Mbit/s: all ranks: 2.10 s"]
    assert [line for line in told if line in words] == told, words
    assert sorted(told, key=words.index) == told
    assert "expected, nothing hidden" in words


@pytest.mark.parametrize("link", ["link of 100 Mbit/s", "link without a limit", "loopback", "EFA"])
def test_every_link_and_path_has_room_for_its_name(link: str) -> None:
    paths = ("all ranks", "all ranks, in bf16", "node by node", "within the node", "nothing sent")
    rows = tuple(row(f"step: {path}", (0.2, 0.1, 0.0), config={"link": link, "strategy": path}) for path in paths)
    words = text_of(overhead([replace(record("overhead", rows, ranks=4), config=SETTINGS)]))
    assert "…" not in words


def test_of_a_link_that_several_runs_measured_this_run_counts_and_else_the_newest() -> None:
    own, old = made("loopback", None, 0.05), made("link of 1 Gbit/s", 125e6, 0.2)
    new = made("link of 1 Gbit/s", 125e6, 0.3, started="2026-11-21T11:00:00+00:00")
    again = made("loopback", None, 0.5, started="2026-11-21T12:00:00+00:00")
    words = text_of(overhead([own, old, new, again]))
    assert "loopback: all ranks: 250 ms" in words
    assert "1 Gbit/s: all ranks: 500 ms" in words
    assert "1 Gbit/s: all ranks: 400 ms" not in words


@pytest.mark.parametrize("other", [{"ranks": 8}, {"nodes": 3}, {"config": {**SETTINGS, "batch": 8}}])
def test_a_run_of_another_step_stands_apart(other: dict[str, object]) -> None:
    stranger = replace(made("link of 1 Gbit/s", 125e6, 0.2), **other)  # type: ignore[arg-type]
    assert "1 Gbit/s" not in text_of(overhead([made("loopback", None, 0.05), stranger]))


def test_a_record_without_times_has_no_figure() -> None:
    assert overhead([record("overhead", ())]) == []


def test_the_report_looks_into_the_runs_beside_its_own(tmp_path: Path) -> None:
    own, other = tmp_path / "20261121-100000-lab3", tmp_path / "20261121-090000-lab3"
    made("link of 1 Gbit/s", 125e6, 0.2).write(other / "records")
    (tmp_path / "20261121-080000-lab3" / "records").mkdir(parents=True)
    (tmp_path / "20261121-080000-lab3" / "records" / "overhead.json").write_text("{}")
    kept = made("loopback", None, 0.05)
    kept.write(own / "records")
    part = Part(name="overhead", scope="cluster", exits={}, seconds=1.0, records=(kept,), missing=(), unreadable=(),
                log_ends={})  # fmt: skip
    words = text_of(list(figures(part, own / "figures")))
    assert "1 Gbit/s: all ranks: 400 ms" in words
    assert words.count("loopback: all ranks: 250 ms") == words.count("1 Gbit/s: all ranks: 400 ms")
