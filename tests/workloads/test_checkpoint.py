"""checkpoint: what is read back is what was saved, and blocked time is counted against steps alone."""

import os
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from labs.models import find_model
from labs.results import read
from workloads import checkpoint
from workloads.chain import draw
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.disk.mounts import Mount
from workloads.record import Surroundings
from workloads.storage import limits_of
from workloads.training.cost import Taken, blocked, gains, interval, notices
from workloads.training.interruption import Bench, Cost, Saves, Stretch, save_several
from workloads.training.savers import (
    ASIDE,
    ASYNCHRONOUS,
    PLAIN,
    SYNCHRONOUS,
    Saver,
    Saving,
    fingerprint,
    savers,
    state_of,
)
from workloads.training.trainee import Trainee, optimiser_of

WAYS = (PLAIN, ASIDE, ASYNCHRONOUS, SYNCHRONOUS)
MEMORY = Mount(point=Path("/"), source="tmpfs", type="tmpfs", kind="memory")


def alone(step_s: float, steps: int = 4) -> Stretch:
    ends = tuple(step_s * (index + 1) for index in range(steps))
    return Stretch(called_s=0.0, waited_s=0.0, wall_s=ends[-1], ends_s=ends, written_s=0.0)


def cost(blocked_s: float, *, called_s: float = 0.1, written_s: float = 1.0, drift_s: float = 0.0) -> Cost:
    """Ten steps of a second each, of which the save cost so much."""
    saving = Stretch(called_s=called_s, waited_s=0.05, wall_s=10 + blocked_s, ends_s=tuple(map(float, range(1, 11))),
                     written_s=written_s)  # fmt: skip
    return Cost(before=alone(1.0 - drift_s), saving=saving, after=alone(1.0 + drift_s))


def taken(plain: float, aside: float, drift_s: float = 0.0) -> Taken:
    named = {PLAIN: plain, ASIDE: aside, ASYNCHRONOUS: 2 * aside, SYNCHRONOUS: 2 * plain}
    return Taken(bytes=1000, saves=tuple(
        Saves(name=name, costs=(cost(9.0, drift_s=drift_s), cost(lost, drift_s=drift_s)), checked="")
        for name, lost in named.items()
    ))  # fmt: skip


@pytest.fixture
def bench(cpu: Device) -> Bench:
    torch.manual_seed(0)
    model = Trainee(replace(find_model("mistral-nano"), layers=1, vocabulary=64), chunk=64)
    found = Bench(model=model, optimiser=optimiser_of(model, 1e-2), batches=[draw(0, 0, 1, 5)], device=cpu, steps=2)
    found.stretch()
    return found


@pytest.mark.parametrize("way", WAYS)
def test_every_way_keeps_the_state_as_it_was_while_the_training_goes_on(
    way: str, bench: Bench, cpu: Device, tmp_path: Path
) -> None:
    state = state_of(bench.model, bench.optimiser)
    assert len(state) == 3 * len(list(bench.model.parameters()))
    with savers(cpu) as every:
        saver = next(saver for saver in every if saver.name == way)
        before = fingerprint(state)
        saves = save_several(bench, saver, state, tmp_path, 2, float("inf"))
    assert fingerprint(state) != before, "the training stood still, so that nothing was shown"
    assert len(saves.costs) == 2
    assert saves.checked == f"all {len(state)} tensors read back as they were when they were saved"
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_is_torn_ends_the_run(bench: Bench, tmp_path: Path) -> None:
    state = state_of(bench.model, bench.optimiser)

    def late(folder: Path, into: dict[str, torch.Tensor]) -> None:
        for name, tensor in into.items():
            tensor.copy_(state[name])  # as it is now, after the steps

    torn = Saver(name="torn", save=lambda state, folder: Saving(), load=late)
    with pytest.raises(CheckFailed, match=r"^torn: weights\.\S+ and \d+ more of \d+ tensors are not what they were"):
        save_several(bench, torn, state, tmp_path, 1, float("inf"))


def test_weights_change_only_when_the_copy_is_whole(bench: Bench, tmp_path: Path) -> None:
    order = []
    update = bench.optimiser.step

    class Copy(Future):
        def result(self, timeout: float | None = None) -> None:
            order.append("copy")

    def noted() -> None:
        order.append("update")
        update()

    bench.optimiser.step = noted
    slow = Saver(name="slow", save=lambda state, folder: Saving(staged=Copy()), load=lambda folder, into: None)
    stretch = bench.stretch(slow, {}, tmp_path)
    assert order == ["copy", "update", "update"]
    assert len(stretch.ends_s) == 2


def test_steps_go_on_until_the_files_are_on_the_disk(bench: Bench, tmp_path: Path) -> None:
    written: Future = Future()
    update, count = bench.optimiser.step, []

    def counted() -> None:
        update()
        count.append(1)
        if len(count) == 5:
            written.set_result(None)

    bench.optimiser.step = counted
    saver = Saver(name="", save=lambda state, folder: Saving(written=written), load=lambda folder, into: None)
    stretch = bench.stretch(saver, {}, tmp_path)
    assert len(stretch.ends_s) == 5
    assert stretch.ends_s[3] <= stretch.written_s <= stretch.ends_s[4]


def test_what_the_writer_raises_is_not_swallowed(bench: Bench, tmp_path: Path) -> None:
    failed: Future = Future()
    failed.set_exception(OSError("disk full"))
    saver = Saver(name="", save=lambda state, folder: Saving(written=failed), load=lambda folder, into: None)
    with pytest.raises(OSError, match="disk full"):
        bench.stretch(saver, {}, tmp_path)


def test_a_changed_or_moved_value_changes_the_fingerprint() -> None:
    state = {"a": torch.tensor([1.0, 2.0, 3.0])}
    assert fingerprint(state) == fingerprint({"a": torch.tensor([1.0, 2.0, 3.0])})
    for other in ([1.0, 3.0, 2.0], [1.0, 2.0, 3.0000002], [-1.0, 2.0, 3.0]):
        assert fingerprint({"a": torch.tensor(other)}) != fingerprint(state)


def test_blocked_time_is_wall_time_beyond_the_steps_beside_it() -> None:
    one = cost(0.7, drift_s=0.2)
    assert one.blocked_s == pytest.approx(0.7)
    assert one.noise_s == pytest.approx(10 * 0.2)
    found = taken(4.0, 0.5)
    row = blocked(f"blocked, {PLAIN}", found.saves[0], (cost(4.0), cost(5.0)), found, {},
                  limits_of(MEMORY, Surroundings(started=0.0)).write, None)  # fmt: skip
    assert row.value == pytest.approx(4.5)
    assert sum(span.seconds for span in row.spans) == pytest.approx(row.value)
    assert [span.name for span in row.spans] == ["the call", "waiting for the copy", "slower steps while it is written"]


def test_the_gain_leaves_the_first_save_out_and_claims_nothing_below_the_noise() -> None:
    rows = {row.config["way"]: row for row in gains(taken(4.0, 0.1), {})}
    assert rows[ASIDE].value == pytest.approx(40)
    assert rows[ASYNCHRONOUS].value == pytest.approx(20)
    least = {row.config["way"]: row for row in gains(taken(4.0, 0.1, drift_s=0.04), {})}[ASIDE]
    assert least.value == pytest.approx(10)  # 4 s over the noise of 0.4 s
    assert least.estimator.startswith("at least: ")
    assert list(gains(taken(4.0, 0.1, drift_s=0.5), {})) == []


@pytest.mark.parametrize(("rate", "seconds", "fits"), [(240e6, 362.4, False), (1.2e9, 72.5, True)])
def test_the_7b_models_state_against_the_spot_notice(rate: float, seconds: float, fits: bool) -> None:
    written_s = 1000 / rate
    saves = Saves(name=PLAIN, costs=(cost(1.0, written_s=written_s),), checked="")
    (row,) = notices(Taken(bytes=1000, saves=(saves,)), ["mistral-7b"])
    assert row.config["bytes"] == 86_976_282_624
    assert row.value == pytest.approx(seconds, rel=1e-3)
    assert row.config["fits"] is fits
    assert ("does NOT fit" in checkpoint.verdict_line(row)) is not fits


def test_how_often_to_save_by_young_and_daly() -> None:
    row = interval(taken(4.0, 0.5), {}, 24.0)
    assert row.value == pytest.approx((2 * 0.5 * 86400) ** 0.5)
    assert row.config["lost_share"] == pytest.approx(2 * 0.5 / row.value)


def test_a_run_writes_every_way_and_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk"
    checkpoint.main(["--device", "cpu", "--steps", "1", "--saves", "2", "--path", str(disk), "--out", str(tmp_path),
                     "--budget-s", "600"])  # fmt: skip
    record = read(tmp_path / "checkpoint.node0.json")
    assert list(disk.iterdir()) == []
    kinds = [row.config["kind"] for row in record.measurements]
    assert kinds.count("rate") == 4
    assert kinds.count("blocked") == 8
    assert kinds.count("notice") == 4
    assert kinds[-1] == "interval"
    assert all(row.config["bytes"] == 12 * 3_934_464 for row in record.measurements if row.config["kind"] == "rate")
    assert record.notes[0].startswith(f"written to {disk}: ")
    assert "all 117 tensors read back as they were" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--saves", "1"], "saves=1 leaves none after the first: write at least 2"),
        (["--mtbf-hours", "0"], "mtbf_hours=0 is no time between failures: write for example 24"),
        (["--path", "/dev/null/x"], "path='/dev/null/x' cannot be written"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        checkpoint.main(["--device", "cpu", *flags])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_bavail=1, f_frsize=1, f_blocks=1))
    with pytest.raises(SystemExit):
        checkpoint.main(["--device", "cpu", "--path", str(tmp_path / "disk"), "--out", str(tmp_path)])
    assert "would leave less than a tenth: choose a smaller --model, or another --path" in capsys.readouterr().err
    assert list((tmp_path / "disk").iterdir()) == []
