"""A machine that others use too is told from one that is ours, by what the scheduler counted."""

import os
from pathlib import Path

import pytest

from labs.results import BUSY, Machine, read
from workloads import contention, record
from workloads.contention import Contention, Turn, turns
from workloads.gemm import Config

SECOND = 10**9
SINCE = Contention.__dict__["since"]  # before conftest makes every machine quiet
MACHINE = Machine(hostname="host", device="CPU", devices=1)
CONFIG = Config(
    shapes=((1, 2, 3),), dtypes=("fp32",), iterations=1, warmup=1, search_s=0, sustain_s=0, seed=0, threads=1
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contention, "since", SINCE)
    monkeypatch.setattr(contention, "cores", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (7.04, 0.0, 0.0))


def ended(monkeypatch: pytest.MonkeyPatch, ran_s: float, waited_s: float) -> None:
    """Thread 7 has had so much more since the measurement began, thread 8 is new, thread 9 was there and is gone."""
    now = {"7": Turn(int((5 + ran_s) * SECOND), int((4 + waited_s) * SECOND)), "8": Turn(0, 0)}
    monkeypatch.setattr(contention, "turns", lambda: now)


BEFORE = {"7": Turn(5 * SECOND, 4 * SECOND), "9": Turn(SECOND, SECOND)}


@pytest.mark.usefixtures("told")
def test_a_process_that_waited_for_cores_says_for_how_much_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ended(monkeypatch, 6.2, 3.8)
    assert Contention.since(BEFORE).notes == (
        "this machine is busy: load 7.0 on 2 cores, and for 38% of its time this process waited for one: times are "
        "too long, shares mean little",
    )


@pytest.mark.usefixtures("told")
def test_what_was_waited_for_before_does_not_count_and_little_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ended(monkeypatch, 9.5, 0.5)
    assert Contention.since(BEFORE).notes == (), "a load of seven may be our own threads, or over a minute ago"


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(("load", "busy"), [(2.9, False), (3.1, True)])
def test_where_nothing_is_counted_the_load_average_decides(
    load: float, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(contention, "turns", dict)
    found = Contention.since({})
    assert (found.waited, found.busy) == (None, busy)
    assert not busy or found.notes == ("this machine is busy: load 3.1 on 2 cores: times are too long, shares mean "
                                       "little",)  # fmt: skip
    ended(monkeypatch, 0.05, 0.05)
    assert Contention.since(BEFORE).waited is None, "a tenth of a second is nothing to conclude from"


def test_threads_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    for name, text in (("12", "300 20 9\n"), ("13", "1 2 3\n"), ("14", "none\n")):
        (tmp_path / "task" / name).mkdir(parents=True)
        (tmp_path / "task" / name / "schedstat").write_text(text)
    (tmp_path / "task" / "15").mkdir()
    assert turns(tmp_path) == {"12": Turn(300, 20), "13": Turn(1, 2)}
    assert turns(tmp_path / "nowhere") == {}


@pytest.mark.usefixtures("told")
def test_the_record_and_the_log_say_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    within = record.Surroundings(started=0.0, turns=BEFORE)
    ended(monkeypatch, 1.0, 1.0)
    path = record.write(tmp_path, "gemm", (), within=within, machine=MACHINE, config=CONFIG, notes=("hot",))
    first, last = read(path).notes
    assert (first, last.startswith(f"{BUSY}: load 7.0 on 2 cores")) == ("hot", True)
    assert capsys.readouterr().out == f"{last}\n"
