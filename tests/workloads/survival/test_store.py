"""The store: whatever dies at whatever moment, what looks whole is whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workloads.survival import store as module
from workloads.survival.store import MANIFEST, Store

RANKS = 2


class Died(BaseException):
    """The process is gone at this call."""


def write(store: Store, step: int, life: int = 0, content: bytes = b"weights") -> None:
    """A checkpoint as two ranks write it."""
    partial = store.partial(step, life)
    partial.mkdir()
    for rank in range(RANKS):
        (partial / f"__{rank}_0.distcp").write_bytes(content + bytes([rank, step]))
        store.seal(partial, rank, [f"__{rank}_0.distcp"])
    (partial / ".metadata").write_bytes(b"plan")
    store.commit(partial, step, RANKS, {"model": "nano"}, also=[".metadata"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(folder=tmp_path / "checkpoints")
    found.open()
    return found


def test_a_committed_checkpoint_is_whole_and_says_what_it_is(store: Store) -> None:
    write(store, 20)
    assert store.steps() == [20]
    assert store.fault(20) == ""
    manifest = store.manifest(20)
    assert (manifest["step"], manifest["ranks"], manifest["model"]) == (20, 2, "nano")
    assert sorted(manifest["files"]) == [".metadata", "__0_0.distcp", "__1_0.distcp"]
    assert sorted(path.name for path in store.path(20).iterdir()) == [*sorted(manifest["files"]), MANIFEST]


def test_the_newest_two_are_kept(store: Store) -> None:
    for step in (5, 10, 15, 20):
        write(store, step)
    assert store.steps() == [20, 15]
    assert len(list(store.folder.iterdir())) == 2


def test_one_that_was_skipped_as_broken_goes_when_its_steps_are_done_again(store: Store) -> None:
    for step in (5, 10):
        write(store, step)
    (store.path(10) / "__0_0.distcp").write_bytes(b"rot")
    write(store, 8, life=1)
    assert store.steps() == [8, 5]
    write(store, 10, life=1)
    assert store.steps() == [10, 8]
    assert store.fault(10) == ""


def test_the_same_step_again_takes_the_broken_ones_place(store: Store) -> None:
    write(store, 10)
    (store.path(10) / MANIFEST).unlink()
    write(store, 10, life=1, content=b"other")
    assert store.fault(10) == ""
    assert (store.path(10) / "__0_0.distcp").read_bytes().startswith(b"other")
    assert [path.name for path in store.folder.iterdir()] == ["step-00000010"]


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit has changed": (lambda at: (at / "__1_0.distcp").write_bytes(b"weightt\x01\x0a"), "__1_0.distcp: its SHA"),
    "a file is cut": (lambda at: (at / "__0_0.distcp").write_bytes(b"wei"), "__0_0.distcp: 3 bytes, not 9"),
    "a file is gone": (lambda at: (at / ".metadata").unlink(), ".metadata: No such file"),
    "the manifest is gone": (lambda at: (at / MANIFEST).unlink(), "manifest.json: No such file"),
    "the manifest is torn": (lambda at: (at / MANIFEST).write_text('{"schema": 1'), "manifest.json: torn"),
    "the manifest is no list": (lambda at: (at / MANIFEST).write_text("[]"), "manifest.json: not a list of files"),
    "the manifest is another's": (
        lambda at: (at / MANIFEST).write_text(json.dumps({"schema": 1, "step": 5, "files": {}})), "schema 1 of step 5"),
}  # fmt: skip


@pytest.mark.parametrize("how", SPOILED)
def test_what_is_not_whole_is_told(how: str, store: Store) -> None:
    write(store, 10)
    spoil, words = SPOILED[how]
    spoil(store.path(10))
    assert words in store.fault(10)


def test_ranks_that_share_the_looking_find_it_together(store: Store) -> None:
    write(store, 10)
    (store.path(10) / "__1_0.distcp").write_bytes(b"rot")
    found = [store.fault(10, (rank, 2)) for rank in range(2)]
    assert sorted(map(bool, found)) == [False, True]


def stages() -> list[tuple[str, int]]:
    """Each call of a commit that touches the disk, before it and after it."""
    calls = {"write_synced": 3, "sync": 2, "rename": 2, "unlink": 2, "rmtree": 1}
    return [(name, 2 * call + after) for name, count in calls.items() for call in range(count) for after in (0, 1)]


@pytest.mark.parametrize(("name", "stage"), stages())
def test_death_at_any_stage_leaves_the_newest_whole(
    name: str, stage: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 10):
        write(store, step)
    holder: Any = {"write_synced": module, "sync": module, "rmtree": shutil}.get(name, Path)
    true, seen = getattr(holder, name), [0]

    def dying(*arguments: Any, **named: Any) -> Any:
        mine, seen[0] = seen[0], seen[0] + 1
        if 2 * mine == stage:
            raise Died
        answer = true(*arguments, **named)
        if 2 * mine + 1 == stage:
            raise Died
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, dying)
        with pytest.raises(Died):
            write(store, 15)
    again = Store(folder=store.folder)
    again.sweep()
    assert again.steps()[0] in (10, 15)
    assert [again.fault(step) for step in again.steps()] == [""] * len(again.steps())
    assert len(again.steps()) >= 2, "the one before is still there"
    write(again, 15, life=1)
    assert again.steps() == [15, 10]
    assert sorted(path.name for path in again.folder.iterdir()) == ["step-00000010", "step-00000015"]


def test_a_checkpoint_of_which_a_rank_has_not_sealed_is_not_committed(store: Store) -> None:
    partial = store.partial(10, 0)
    partial.mkdir()
    (partial / "__0_0.distcp").write_bytes(b"weights")
    store.seal(partial, 0, ["__0_0.distcp"])
    with pytest.raises(FileNotFoundError):
        store.commit(partial, 10, RANKS, {})
    assert store.steps() == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^checkpoints='.*file/here' cannot be written \(Not a directory\): name a"):
        Store(folder=tmp_path / "file" / "here").open()


def test_to_keep_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep=0 would keep no checkpoint: write at least 1"):
        Store(folder=tmp_path, keep=0)


def test_at_the_end_the_newest_stays_alone(store: Store) -> None:
    for step in (5, 10):
        write(store, step)
    store.thin()
    assert [path.name for path in store.folder.iterdir()] == ["step-00000010"]


def test_clear_takes_all_checkpoints_and_nothing_else(store: Store) -> None:
    write(store, 5)
    store.partial(10, 3).mkdir()
    (store.folder / "history.jsonl").touch()
    store.clear()
    assert [path.name for path in store.folder.iterdir()] == ["history.jsonl"]
