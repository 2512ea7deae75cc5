"""The tree on the nodes is the tracked tree as it lies here; an unchanged one costs one command."""

import io
import tarfile

import pytest

from operate import laptop
from operate.problem import Problem
from operate.push import push
from operate.tree import read_tree
from tests.operate.conftest import git


def test_the_tree_holds_modifications_and_leaves_out_what_git_does_not_track(clone):
    (clone / "hello.py").write_text("print('changed')\n")
    (clone / "new.py").write_text("")
    (clone / "weights.bin").write_bytes(b"0")
    tree = read_tree(clone)
    assert dict((path, content) for path, _, content in tree.files)["hello.py"] == b"print('changed')\n"
    assert tree.untracked == ("new.py",), "code that stays behind is named; data is not"
    assert tree.commit.endswith("-dirty")


def test_a_file_deleted_here_is_not_in_the_tree(clone):
    (clone / "hello.py").unlink()
    assert "hello.py" not in [path for path, _, _ in read_tree(clone).files]


def test_the_same_content_is_the_same_archive(clone):
    before = read_tree(clone)
    (clone / "hello.py").touch()
    after = read_tree(clone)
    assert (before.digest, before.archive) == (after.digest, after.archive)
    (clone / "hello.py").chmod(0o755)
    assert read_tree(clone).digest != before.digest


def test_links_and_modes_survive_the_archive(clone):
    (clone / "link").symlink_to("hello.py")
    (clone / "hello.py").chmod(0o755)
    git(clone, "add", ".")
    with tarfile.open(fileobj=io.BytesIO(read_tree(clone).archive)) as tar:
        assert tar.getmember("link").linkname == "hello.py"
        assert tar.getmember("hello.py").mode == 0o755


def test_a_folder_that_is_no_clone_is_refused(tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(Problem, match=r"git cannot read .*plain .*work in a clone"):
        read_tree(tmp_path / "plain")


def test_a_tree_full_of_data_is_refused(clone, monkeypatch):
    monkeypatch.setattr("operate.tree._LARGE_BYTES", 100)
    (clone / "data.bin").write_bytes(bytes(1000))
    git(clone, "add", ".")
    with pytest.raises(Problem, match=r"over 0: .*largest: .*fab put"):
        read_tree(clone)


def test_a_push_is_skipped_where_the_tree_is_there(machines, cluster_of):
    both = machines(2)
    cluster = cluster_of(both)
    first = push(cluster.shells, read_tree(laptop.ROOT))
    assert first.sent == ("node0", "node1")
    assert (both[1].home / "rooflab" / "hello.py").read_text() == "print('hello')\n"
    assert push(cluster.shells, read_tree(laptop.ROOT)).sent == ()


def test_a_changed_tree_replaces_the_link_and_a_running_job_keeps_its_own(machines, cluster_of, clone):
    (machine,) = machines(1)
    cluster = cluster_of([machine])
    push(cluster.shells, read_tree(clone))
    before = (machine.home / "rooflab").resolve()
    (clone / "hello.py").write_text("print('changed')\n")
    assert push(cluster.shells, read_tree(clone)).sent == ("node0",)
    assert (machine.home / "rooflab" / "hello.py").read_text() == "print('changed')\n"
    assert (before / "hello.py").read_text() == "print('hello')\n"
    (clone / "hello.py").write_text("print('hello')\n")
    assert push(cluster.shells, read_tree(clone)).sent == (), "an earlier tree is kept and switched back to"
    assert (machine.home / "rooflab").resolve() == before


def test_only_the_newest_trees_are_kept(machines, cluster_of, clone):
    (machine,) = machines(1)
    cluster = cluster_of([machine])
    for turn in range(10):
        (clone / "hello.py").write_text(f"print({turn})\n")
        push(cluster.shells, read_tree(clone))
    assert len(list((machine.home / ".rooflab" / "trees").iterdir())) == 8
    assert (machine.home / "rooflab" / "hello.py").read_text() == "print(9)\n"


def test_a_folder_of_the_users_own_is_not_overwritten(machines, cluster_of, clone):
    (machine,) = machines(1)
    (machine.home / "rooflab").mkdir()
    (machine.home / "rooflab" / "mine").touch()
    with pytest.raises(Problem, match=r"~/rooflab on node0 is a folder of someone else's: move it away"):
        push(cluster_of([machine]).shells, read_tree(clone))
    assert (machine.home / "rooflab" / "mine").exists()
