"""What AWS documents for storage: by kind, by how much was bought, never more than the network; else the reason."""

import pytest

from labs.disks import limits
from labs.instances import instance_type


def test_a_gp3_volume_of_ours_gives_what_its_price_includes() -> None:
    known = limits("ebs", instance=None, ours=True)
    assert known.read.roof is not None
    assert known.read.roof.value == known.write.roof.value == 131_072_000  # type: ignore[union-attr]
    assert known.random_reads.roof is not None
    assert known.random_reads.roof.value == 3000
    assert known.read_limit is None  # nothing above it, not even for a while
    assert limits("ebs", instance=None, ours=False).read.no_roof_because == (
        "an EBS volume does not tell its type inside the instance"
    )


@pytest.mark.parametrize(
    ("storage", "gib", "read", "write", "most"),
    [
        ("scratch", 1200, 234.375e6, 117.1875e6, 1523.4375e6),
        ("scratch", 2400, 468.75e6, 234.375e6, 3046.875e6),
        ("persistent-250", 1200, 292.96875e6, 292.96875e6, 1523.4375e6),
        ("persistent-1000", 1200, 1171.875e6, 1171.875e6, 3046.875e6),
    ],
)
def test_lustre_gives_so_much_a_tib_and_more_from_its_servers_memory(
    storage: str, gib: int, read: float, write: float, most: float
) -> None:
    known = limits("lustre", instance=instance_type("g6e.12xlarge"), ours=True, storage=storage, storage_gib=gib)
    assert known.read.roof is not None
    assert known.write.roof is not None
    assert known.read_limit is not None
    assert (known.read.roof.value, known.write.roof.value, known.read_limit.value) == (read, write, most)
    assert f"{gib} GiB" in known.read.roof.source


def test_no_file_system_is_faster_than_the_nodes_network() -> None:
    small = instance_type("t3.medium")
    known = limits("lustre", instance=small, ours=True, storage="persistent-1000", storage_gib=1200)
    assert known.read.roof is not None
    assert known.read.roof.value == small.gbps * 1e9 / 8 < 1171.875e6
    assert "Gbit/s, as AWS names it" in known.read.roof.source
    bucket = limits("s3", instance=small, ours=False)
    assert bucket.read.roof is not None
    assert bucket.read.roof.value == small.gbps * 1e9 / 8


def test_efs_is_bounded_for_each_client() -> None:
    known = limits("efs", instance=None, ours=False)
    assert known.read.roof is not None
    assert known.read_limit is not None
    assert (known.read.roof.value, known.read_limit.value) == (500 * 2**20, 1500 * 2**20)


@pytest.mark.parametrize("kind", ["nvme", "memory", "nfs", "disk", "lustre", "s3"])
def test_what_is_not_documented_has_a_reason_and_no_default(kind: str) -> None:
    known = limits(kind, instance=None, ours=True)
    for bound in (known.read, known.write, known.random_reads):
        assert bound.roof is None
        assert bound.no_roof_because
