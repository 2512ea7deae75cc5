"""Of two parts of a cluster that both went on, the checkpoints of one count."""

from pathlib import Path

from labs import fence


def test_generations_are_claimed_once_each_and_upwards(tmp_path: Path) -> None:
    claims = fence.folder(str(tmp_path), "20261120-093000-lab3", "train")
    assert claims == tmp_path / "checkpoints" / "20261120-093000-lab3" / "train.generations"
    assert [fence.claim(claims, node, least) for node, least in (("node0", 0), ("node1", 1), ("node2", 1))] == [0, 1, 2]
    assert fence.claim(claims, "node3", 7) == 7
    assert (fence.newest(claims), (claims / "1").read_text()) == (7, "node1\n")


def test_who_was_left_behind_writes_no_more(tmp_path: Path) -> None:
    fence.claim(tmp_path, "node0", 0)
    first = {fence.GENERATION: "0", fence.FENCE: str(tmp_path)}
    assert fence.superseded(first) == ""
    fence.claim(tmp_path, "node1", 1)
    assert fence.superseded({**first, fence.GENERATION: "1"}) == ""
    assert fence.superseded(first) == (
        "generation 1 of this job has begun elsewhere, and this is generation 0: its checkpoints count"
    )


def test_where_nothing_is_shared_nothing_is_fenced() -> None:
    assert fence.superseded({}) == ""
