"""train: interrupted anywhere it goes on as if nothing had been. One rank here; more in tests/benchmarks."""

import errno
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from labs.models import MODELS
from labs.results import Record, read
from labs.survival import INTERRUPTED, PEER_LOST
from tests.workloads.parallel.small import SMALL
from workloads import train
from workloads.chain import draw
from workloads.command import CheckFailed, Ended
from workloads.group import Place
from workloads.survival import trainee
from workloads.survival.history import SAME
from workloads.survival.loop import Interval, peers
from workloads.survival.notice import Notice, reason
from workloads.survival.saver import cause
from workloads.survival.store import Store
from workloads.survival.trainee import Data, demand_share, share

FLAGS = ["--device", "cpu", "--sequence", "16", "--batch", "4", "--steps", "12", "--every", "4"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """mistral-nano is a smaller model, and this is a run: one that has ended is not begun anew."""
    monkeypatch.setitem(MODELS, "mistral-nano", SMALL)
    monkeypatch.setenv("ROOFLAB_RUN", "20261121-120000-lab3")
    monkeypatch.setenv("ROOFLAB_COMMIT", "-")


def run(out: Path, *more: str) -> Record:
    train.main([*FLAGS, "--out", str(out), *more])
    return read(out / "train.json")


def losses(record: Record) -> list[float]:
    return list(next(row for row in record.measurements if row.name == "step").config["losses"])


def at_step(number: int, act: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `act` happen as step `number` begins, once."""
    true = trainee.Trainee.forward

    def forward(self: trainee.Trainee, step: int) -> tuple[torch.Tensor, float]:
        if step == number - 1:
            monkeypatch.setattr(trainee.Trainee, "forward", true)
            assert callable(act)
            act()
        return true(self, step)

    monkeypatch.setattr(trainee.Trainee, "forward", forward)


def die() -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterable[list[float]]:
    """Losses of a training that nothing befell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "mistral-nano", SMALL)
        yield losses(run(tmp_path_factory.mktemp("whole")))


def test_told_to_end_it_saves_at_the_next_step_and_goes_on_from_there(
    whole: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROOFLAB_RUN_DIR", str(tmp_path / "run"))
    at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Ended) as ended:
        run(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    assert ended.value.code == INTERRUPTED
    saved = Store(folder=tmp_path / "run" / "checkpoints").steps()[0]
    assert saved in (7, 8), "the signal's thread may hear it a step later"
    assert str(ended.value) == f"told to end (SIGTERM): step {saved} of 12 is saved; started again it resumes"
    record = read(tmp_path / "train.json")
    assert f"interrupted at step {saved} of 12, saved: started again it resumes" in record.notes
    assert losses(record) == whole[:saved]
    notice = next(row for row in record.measurements if row.config.get("kind") == "notice")
    assert notice.config["fits"]
    capsys.readouterr()
    record = run(tmp_path)
    assert losses(record) == whole, "bit by bit"
    assert f"resumed at step {saved} of 12 from " in capsys.readouterr().out
    resume = next(row for row in record.measurements if row.config.get("kind") == "resume")
    assert (resume.config["step"], resume.config["lost"], resume.config["told"]) == (saved, 0, True)
    again = run(tmp_path)
    assert losses(again) == whole, "what has ended is only told again"


@pytest.mark.parametrize("strategy", ["fsdp", "ddp"])
def test_killed_it_loses_an_interval_at_most(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = losses(run(tmp_path / "whole", "--strategy", strategy))
    monkeypatch.setattr(Store, "commit", _held(Store.commit, 6))
    at_step(7, die, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--strategy", strategy)
    torch.distributed.destroy_process_group()
    monkeypatch.undo()
    monkeypatch.setitem(MODELS, "mistral-nano", SMALL)
    monkeypatch.setenv("ROOFLAB_RUN", "again")
    record = run(tmp_path, "--strategy", strategy)
    assert losses(record) == expected
    lost = next(row for row in record.measurements if row.name == "steps lost")
    assert lost.value == 2, "step 6 was not whole yet, 4 was"
    assert lost.others[0].value == 4
    assert "2 steps done twice had the same loss bit by bit" in lost.checked or record.measurements[0].checked
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if "partial" in path.name]
    assert "lost 2 steps; the life before" in capsys.readouterr().out


def _held(true: object, step: int) -> object:
    """A commit that never gets to the checkpoint of that step."""

    def commit(self: Store, partial: Path, number: int, *rest: object, **named: object) -> None:
        assert callable(true)
        if number != step:
            true(self, partial, number, *rest, **named)

    return commit


def test_a_broken_checkpoint_is_never_loaded(
    whole: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(10, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    with pytest.raises(Ended):
        run(tmp_path)
    newest, older = Store(folder=tmp_path / "checkpoints").steps()
    file = tmp_path / "checkpoints" / f"step-{newest:08}" / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    record = run(tmp_path)
    told = capsys.readouterr().out
    assert (f"warning: the checkpoint of step {newest} is not whole (__0_0.distcp: its SHA-256 differs): it is not "
            "loaded, an older one is\n") in told  # fmt: skip
    assert f"resumed at step {older} of 12" in told
    assert losses(record) == whole
    assert f"life 1: step {newest}: __0_0.distcp: its SHA-256 differs" in record.notes


def test_a_full_disk_is_one_line_and_the_training_goes_on(
    whole: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    true = Store.seal

    def seal(self: Store, partial: Path, rank: int, names: Iterable[str]) -> None:
        if "step-00000006" in partial.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        true(self, partial, rank, names)

    monkeypatch.setattr(Store, "seal", seal)
    record = run(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: the checkpoint of step 6 could not be written on rank 0: the disk is full (")
    assert lines[0].endswith(
        f"MB free in {tmp_path}/checkpoints without it): make room there; the newest whole one is of step 4"
    )
    assert losses(record) == whole
    assert any("the disk is full" in note for note in record.notes)


def test_the_disks_own_word_is_found_behind_what_came_of_it() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")
    except RuntimeError as error:
        found = cause(error)
    assert isinstance(found, OSError)
    other = RuntimeError("something else")
    assert cause(other) is other


def test_a_part_of_the_cluster_that_was_given_up_completes_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "3").touch()
    monkeypatch.setenv("ROOFLAB_FENCE", str(tmp_path / "claims"))
    monkeypatch.setenv("ROOFLAB_GENERATION", "2")
    with pytest.raises(Ended, match="generation 3 of this job has begun elsewhere") as ended:
        run(tmp_path)
    assert ended.value.code == 1
    assert Store(folder=tmp_path / "checkpoints").steps() == []


def test_another_trainings_checkpoints_are_refused(tmp_path: Path) -> None:
    run(tmp_path, "--steps", "8")
    words = r"^seed=1, and \S+step-00000008 was made with seed=0: write the same, or another --checkpoints for a new"
    with pytest.raises(Ended, match=words) as ended:
        run(tmp_path, "--seed", "1")
    assert ended.value.code == 2


def test_alone_a_training_that_has_ended_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ROOFLAB_RUN")
    run(tmp_path, "--steps", "8")
    capsys.readouterr()
    run(tmp_path, "--steps", "8", "--seed", "1")
    assert "had ended: its checkpoints go, a new one begins" in capsys.readouterr().out


def test_a_resume_that_finds_another_loss_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "commit", _held(Store.commit, 6))
    at_step(7, die, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    torch.distributed.destroy_process_group()
    monkeypatch.setattr("workloads.survival.trainee.draw", lambda seed, step, *size: draw(seed + 1, step, *size))
    with pytest.raises(
        CheckFailed, match=r"^losses: rank 0: step 5 had loss \d\.\d+, and \d\.\d+ in life 1: must be the"
    ):
        run(tmp_path)


def test_where_the_node_already_ends_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notice").write_text("EC2 takes this instance back\n")
    monkeypatch.setenv("ROOFLAB_RUN_DIR", str(tmp_path))
    with pytest.raises(Ended, match=r"^not begun, this node ends: EC2 takes this instance back$") as ended:
        run(tmp_path)
    assert ended.value.code == INTERRUPTED
    assert reason({}) == ""


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
def test_ranks_share_each_batch_whole_and_almost_evenly(ranks: int) -> None:
    data = Data(seed=3, batch=8, sequence=4)
    parts = [data.share(7, rank, ranks) for rank in range(ranks)]
    assert torch.equal(torch.cat(parts), data.whole(7))
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert share(8, ranks - 1, ranks)[1] == 8


def test_a_batch_follows_its_step_alone() -> None:
    data = Data(seed=3, batch=2, sequence=8)
    assert torch.equal(data.whole(5), Data(seed=3, batch=2, sequence=8).whole(5))
    assert not torch.equal(data.whole(5), data.whole(6))


def test_more_ranks_than_sequences_are_told_how_many_may_be() -> None:
    with pytest.raises(
        ValueError, match="any number of ranks from 1 to 4 can share them; start so many, or write --batch 6"
    ):
        demand_share(4, 6)


def test_an_interval_in_seconds_counts_seconds() -> None:
    interval = Interval(steps=10, seconds=30.0)
    assert not interval.due(5, 14.9)
    assert interval.due(1, 15.0)
    assert not interval.full(99, 0, 29.0)
    assert interval.full(1, 0, 30.0)
    by_steps = Interval(steps=10)
    assert [step for step in range(1, 21) if by_steps.due(step, 0.0)] == [5, 10, 15, 20]
    assert not by_steps.full(14, 5, 1e9)
    assert by_steps.full(15, 5, 0.0)


@pytest.mark.parametrize("said", [
    "[/x/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4281. This is typically caused by a remote worker.",
    "NCCL error: remote process exited",
])  # fmt: skip
def test_a_rank_left_alone_says_so_in_one_line(said: str) -> None:
    words = r"^rank 1 of 4: another rank is gone \((Connection|NCCL)[^()]*\): started"
    with pytest.raises(Ended, match=words) as ended, peers(Place(rank=1, size=4)):
        raise RuntimeError(said)
    assert ended.value.code == PEER_LOST
    assert "typically" not in str(ended.value)


def test_another_error_is_not_taken_for_a_lost_rank() -> None:
    with pytest.raises(RuntimeError, match="shapes"), peers(Place(rank=1, size=4)):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


class Exited(Exception):
    """os._exit was called."""


@pytest.mark.parametrize(("stepping", "code", "words"), [
    (False, INTERRUPTED, "train: told to end before the first step of this life: started again it resumes\n"),
    (True, PEER_LOST, "train: told to end, and no step came within 0.1 s: started again, all resume from the newest"),
])  # fmt: skip
def test_who_waits_for_ever_ends_all_the_same(
    stepping: bool, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    notice = Notice("train", patience_s=0.1)

    def exited(code: int) -> None:
        codes.append(code)
        notice._over.set()

    monkeypatch.setattr(os, "_exit", exited)
    with notice:
        if stepping:
            notice.beat()
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice._over.wait(30)
    assert codes[:1] == [code]
    assert capfd.readouterr().err.startswith(words)


def test_the_flags_say_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, words in (
        (["--steps", "2"], "steps=2 cannot show a falling loss: write at least 8"),
        (["--every", "0"], "'0' is not a whole number of at least 1"),
        (["--every-s", "0"], "every_s=0 leaves no time for a step"),
        (["--model", "gpt"], "gpt"),
    ):
        with pytest.raises(SystemExit) as ended:
            train.main([*FLAGS, *more, "--out", str(tmp_path)])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_checkpoints_lie_beside_the_nodes_where_they_share_a_place() -> None:
    shared = {"ROOFLAB_SHARED": "/fsx", "ROOFLAB_RUN": "r", "ROOFLAB_RUN_DIR": "/home/r"}
    assert str(train.folder_of(Path("out"), shared)) == "/fsx/checkpoints/r/train"
    assert str(train.folder_of(Path("out"), {"ROOFLAB_RUN_DIR": "/home/r"})) == "/home/r/checkpoints"
    assert str(train.folder_of(Path("out"), {})) == "out/checkpoints"


def test_parity_that_does_not_hold_ends_the_run() -> None:
    from tests.workloads.survival.test_history import start, step, story
    from workloads.survival.history import Story

    lives = story((start(), [step(1, loss=5.0), step(2, loss=4.0), step(3, loss=3.0), step(4, loss=2.0)])).lives
    assert train._fault(Story(lives=lives, alone=(5.0, 4.0)), False) == ""
    found = train._fault(Story(lives=lives, alone=(5.0, 4.001)), False)
    assert found == f"the first 2 are not one process's: they differ by 2.5e-04, allowed {SAME:.0e}"
