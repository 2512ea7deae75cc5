"""Records survive the way to disk and back, and never flatter."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs.results import SCHEMA, Machine, Measurement, Record, Roof, Span, percentile, percentiles, read

MACHINE = Machine(hostname="node0", device="NVIDIA L4", devices=1, versions={"torch": "2.13.0"})
RATE = Measurement(
    name="bf16 4x4x4", value=60e12, unit="FLOP/s", estimator="from the median of 2", config={"m": 4, "dtype": "bf16"},
    samples_s=(0.5, 0.25), roof=Roof(value=121e12, source="datasheet"), usd_per_unit=1.5, work_unit="PFLOP",
    checked="max |error| 0", expected=Roof(value=70e12, source="the wave model"),
    spans=(Span(name="product", seconds=0.3, how="measured"), Span(name="launch", seconds=0.075, how="predicted")),
)  # fmt: skip
BARE = Measurement(name="latency", value=2.0, unit="s", estimator="median of 1", no_roof_because="unknown device")
RECORD = Record(workload="gemm", machine=MACHINE, measurements=(RATE, BARE), lab=3, node="node1", notes=("hot",))


def test_a_record_survives_writing_and_reading(tmp_path: Path) -> None:
    path = RECORD.write(tmp_path / "deep" / "records")
    assert path.name == "gemm.node1.json"
    assert read(path) == RECORD
    assert [file.name for file in path.parent.iterdir()] == ["gemm.node1.json"]


def test_a_clusters_record_bears_no_node() -> None:
    assert replace(RECORD, node="").filename == "gemm.json"


def test_the_file_tells_fraction_and_estimators_to_readers_without_this_module(tmp_path: Path) -> None:
    rate, bare = json.loads(RECORD.write(tmp_path).read_text())["measurements"]
    assert rate["fraction"] == pytest.approx(60 / 121)
    assert (rate["suspect"], rate["median_s"], rate["mean_s"], rate["min_s"]) == (False, 0.375, 0.375, 0.25)
    assert rate["p99_s"] is None
    assert (bare["roof"], bare["fraction"], bare["no_roof_because"]) == (None, None, "unknown device")


def test_a_time_is_judged_the_other_way_round_than_a_rate() -> None:
    slow = replace(RATE, unit="s", value=0.4, roof=Roof(value=0.1, source=""))
    assert slow.fraction == pytest.approx(0.25)
    assert not slow.suspect
    assert replace(slow, value=0.09).suspect


def test_beyond_its_roof_a_measurement_is_suspect() -> None:
    assert replace(RATE, value=121.1e12).suspect
    assert not RATE.suspect
    assert not BARE.suspect


def test_between_datasheet_and_top_clock_a_measurement_is_fast_and_beyond_it_an_error() -> None:
    top = Roof(value=130e12, source="bf16 at the top clock")
    burst = replace(RATE, value=125e12, limit=top)
    assert burst.fraction == pytest.approx(125 / 121)
    assert not burst.suspect
    assert replace(burst, value=131e12).suspect
    assert replace(BARE, value=1.0, limit=Roof(value=1.5, source="")).suspect


def test_other_limits_come_back_from_disk_and_old_records_have_none(tmp_path: Path) -> None:
    clock = Roof(value=110e12, source="bf16 at the measured clock of 1850 MHz")
    row = replace(RATE, others=(clock,), limit=Roof(value=130e12, source="top"))
    assert row.share_of(clock) == pytest.approx(60 / 110)
    path = replace(RECORD, measurements=(row,)).write(tmp_path)
    assert read(path).measurements == (row,)
    document = json.loads(path.read_text())
    del document["measurements"][0]["others"], document["measurements"][0]["limit"]
    path.write_text(json.dumps(document))
    assert read(path).measurements == (replace(row, others=(), limit=None),)


@pytest.mark.parametrize("fields", [{"roof": None}, {"no_roof_because": "why"}])
def test_a_row_has_a_roof_or_the_reason_for_none_and_never_both(fields: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="a roof, or the reason for none"):
        replace(RATE, **fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a result record"),
        ("[]", f"schema None, this version reads {SCHEMA}"),
        ('{"schema": 99}', f"schema 99, this version reads {SCHEMA}"),
    ],
)
def test_what_is_no_record_is_refused_with_its_path(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        read(path)
    assert str(path) in str(refusal.value)


def test_a_missing_file_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a result record"):
        read(tmp_path / "none.json")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0, 1))
def test_percentiles_are_numpys(samples: list[float], share: float) -> None:
    assert percentile(samples, share) == pytest.approx(float(numpy.quantile(samples, share)), rel=1e-9, abs=1e-9)


def test_p99_needs_a_hundred_samples() -> None:
    assert percentiles([1.0] * 99)["p99_s"] is None
    assert percentiles([float(second) for second in range(101)])["p99_s"] == pytest.approx(99)
    assert percentiles([]) == {"median_s": None, "mean_s": None, "min_s": None, "p99_s": None}
