"""Rows that are measured lie on the disk before the next, where a folder for them is named, and nowhere else."""

from pathlib import Path

import pytest

from labs.results import Measurement, read
from workloads.device import Device
from workloads.draft import Draft
from workloads.gemm import Config
from workloads.record import surroundings

CONFIG = Config(
    shapes=((1, 2, 3),), dtypes=("fp32",), iterations=1, warmup=1, search_s=0, sustain_s=0, seed=0, threads=1
)
ROWS = tuple(Measurement(name=name, value=1.0, unit="s", estimator="once", no_roof_because="made up") for name in "abc")


def test_every_row_is_kept_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: Device) -> None:
    monkeypatch.setenv("ROOFLAB_DRAFTS", str(tmp_path / "drafts"))
    rows = Draft("gemm", CONFIG, cpu, surroundings({}))
    assert not (tmp_path / "drafts").exists(), "a record without rows is none"
    rows.append(ROWS[0])
    kept = read(tmp_path / "drafts" / "gemm.node0.json")
    assert kept.measurements == ROWS[:1]
    assert kept.notes == ("unfinished: ended after 1 row, before its checks of the whole and its notes",)
    rows += ROWS[1:]
    assert isinstance(rows, Draft)
    kept = read(tmp_path / "drafts" / "gemm.node0.json")
    assert (kept.measurements, tuple(rows)) == (ROWS, ROWS)
    assert (kept.workload, kept.machine.device, kept.config["iterations"]) == ("gemm", cpu.name, 1)
    assert kept.notes[0].startswith("unfinished: ended after 3 rows")


def test_a_run_that_names_no_folder_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: Device) -> None:
    monkeypatch.chdir(tmp_path)
    rows = Draft("gemm", CONFIG, cpu, surroundings({}))
    rows.append(ROWS[0])
    assert list(rows) == [ROWS[0]]
    assert list(tmp_path.iterdir()) == []
