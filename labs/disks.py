"""What AWS says that a place for files gives at most, by kind: the roofs of the storage measurements.

A rate is in B/s, a count of random reads in reads/s. Where nothing is documented, or a machine does not tell what it
stands on, there is no roof, and the reason says so.
"""

from dataclasses import dataclass

from labs.instances import InstanceType
from labs.results import Roof
from labs.roofs import Bound
from labs.storage import SIZES

GP3_BYTES_PER_S = 125 * 2**20
GP3_IOPS = 3000
_GP3 = ("gp3 as Rooflab's template makes it: 125 MiB/s and 3,000 IOPS, "
        "https://docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html")  # fmt: skip
_LUSTRE = "https://docs.aws.amazon.com/fsx/latest/LustreGuide/ssd-storage.html"
_EFS = "https://docs.aws.amazon.com/efs/latest/ug/limits.html"
EFS_BYTES_PER_S = 500 * 2**20
"""Of one client that mounts by plain NFS; amazon-efs-utils 2 reaches three times as much."""
EFS_MOST_BYTES_PER_S = 1500 * 2**20
SCRATCH_MBPS = {"read": 200, "write": 100}
"""MB/s of a TiB of SCRATCH_2."""
BURST_MBPS = {"scratch": 1300, "persistent-125": 1300, "persistent-250": 1300, "persistent-500": 1300,
              "persistent-1000": 2600, "efa": 2600}  # fmt: skip
"""MB/s of a TiB that the file servers' network carries at most, from their memory or on credits."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one place for files gives at most."""

    read: Bound
    write: Bound
    random_reads: Bound
    read_limit: Roof | None = None
    """What a read may reach for a while, above `read`: file servers answer from their memory, credits are spent."""
    write_limit: Roof | None = None


def limits(kind: str, *, instance: InstanceType | None, ours: bool, storage: str = "", storage_gib: int = 0) -> Limits:
    """The limits of a mount.

    `kind`: "ebs", "nvme", "lustre", "efs", "s3", "nfs", "disk" or "memory". `ours`: the machine was made by a lab's
    template. `storage` and `storage_gib`: the lab's file system, as `-c storage=` has it.
    """
    if kind == "ebs":
        return _ebs(ours)
    if kind == "lustre":
        return _lustre(storage, storage_gib, instance)
    if kind == "efs":
        return _efs(instance)
    if kind == "s3":
        return _same(_network(instance), "S3 tells no rate of small requests for one client")
    if kind == "nvme":
        return _none("AWS documents no throughput of an instance's NVMe, and its IOPS in a table that labs/ lacks")
    if kind == "memory":
        return _none("it is memory, not a disk: the memory's rate is Lab 1's")
    if kind == "nfs":
        return _none("what an NFS server gives is not documented for it")
    return _none("nothing tells what this disk can do")


def _ebs(ours: bool) -> Limits:
    if not ours:
        return _none("an EBS volume does not tell its type inside the instance")
    rate = Bound(Roof(value=float(GP3_BYTES_PER_S), source=_GP3))
    return Limits(read=rate, write=rate, random_reads=Bound(Roof(value=float(GP3_IOPS), source=_GP3)))


def _lustre(storage: str, gib: int, instance: InstanceType | None) -> Limits:
    if storage not in SIZES or not gib:
        return _none("a Lustre client does not tell how its file system was bought")
    tib, rate = gib / 1024, SIZES[storage].mbps_per_tib
    read, write = (rate, rate) if rate else (SCRATCH_MBPS["read"], SCRATCH_MBPS["write"])
    network = _network(instance).roof
    most = tib * BURST_MBPS[storage] * 1e6
    least = Roof(value=most, source=f"{BURST_MBPS[storage]} MB/s a TiB of the file servers' network, {_LUSTRE}")
    ceiling = network if network and network.value < most else least

    def baseline(mbps: int, what: str) -> Bound:
        value, source = tib * mbps * 1e6, f"{storage}: {mbps} MB/s a TiB {what}, {gib} GiB, {_LUSTRE}"
        return Bound(network) if network and network.value < value else Bound(Roof(value=value, source=source))

    return Limits(read=baseline(read, "read"), write=baseline(write, "written"), read_limit=ceiling,
                  write_limit=ceiling, random_reads=Bound(None, "AWS tells a Lustre file system's IOPS only as tens of "
                  "thousands a TiB"))  # fmt: skip


def _efs(instance: InstanceType | None) -> Limits:
    network = _network(instance).roof

    def least(value: float, source: str) -> Roof:
        return network if network and network.value < value else Roof(value=value, source=source)

    rate = Bound(least(EFS_BYTES_PER_S, f"500 MiB/s a client, {_EFS}"))
    limit = least(EFS_MOST_BYTES_PER_S, f"1,500 MiB/s a client with amazon-efs-utils 2, {_EFS}")
    return Limits(read=rate, write=rate, read_limit=limit, write_limit=limit,
                  random_reads=Bound(None, "EFS's IOPS depend on a throughput mode that no client sees"))  # fmt: skip


def _network(instance: InstanceType | None) -> Bound:
    """What the instance's own network carries at most."""
    if instance is None:
        return Bound(None, "the network of this machine is not known")
    source = f"{instance.name}: {instance.gbps:g} Gbit/s, as AWS names it"
    return Bound(Roof(value=instance.gbps * 1e9 / 8, source=source))


def _same(rate: Bound, why: str) -> Limits:
    return Limits(read=rate, write=rate, random_reads=Bound(None, why))


def _none(why: str) -> Limits:
    return _same(Bound(None, why), why)
