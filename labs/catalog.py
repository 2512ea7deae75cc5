"""Labs 0 to 4: the cluster each one needs, the workloads it runs, its time to live.

`LABS[3]` is the lab that `cdk deploy Lab3Stack` and `fab run-lab --lab 3` mean. Every default stands here once;
CDK context and fab flags replace it through `Lab.override`.
"""

import re
from dataclasses import dataclass, fields, replace
from typing import Literal

from labs.instances import InstanceType, instance_type
from labs.interfaces import Interface, layout
from labs.names import stack_name
from labs.storage import SIZES, STORAGE

Way = Literal["address", "elastic", "endpoint", "session"]
"""How a node is reached: by a public address that EC2 assigns, by an Elastic IP on a primary interface of its own,
through an EC2 Instance Connect Endpoint, or through Session Manager. With the last two it has no public IPv4 address,
and reaches the world by IPv6 alone."""
ELASTIC_NODES = 4
"""Most nodes that get an Elastic IP each: an account has five a region unless it asked for more
(https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html)."""
ELASTIC_INTERFACES = 66
"""Most network interfaces that those nodes have together. Each node's stand in a launch template of its own, and beyond
two nodes of 32 EFAs the stack's template would outgrow the 50 KiB that need no bucket."""
_RESERVED = re.compile(r"(reservation|block):cr-[0-9a-f]{1,17}")
_OWNER = re.compile(r"[\w.@+-]{0,64}")
_ZONE = re.compile(r"([a-z]{2}(-[a-z]+)+-\d[a-z])?")
_IMAGE = re.compile(r"(ami-[0-9a-f]{8,17}|baked)?")
_GROUP = re.compile(r"[\w.-]{0,255}")
_DATA = re.compile(r"(results|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w!.*'()/-]*)?)?")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One entry of a lab's list: a module that runs alone as `python -m MODULE` and writes one record."""

    name: str
    module: str
    args: tuple[str, ...] = ()
    scope: Literal["node", "cluster"] = "node"
    """"node": once on every node, each for itself. "cluster": once, over all nodes' ranks, through torchrun."""
    timeout_s: int = 900
    """After this the workload is ended and counts as failed."""
    cpu_ranks: int = 2
    """Ranks of a cluster workload on a node without a GPU; a node with GPUs gets one each."""
    restarts: int = 0
    """How often the launcher starts it again after a rank or a node was lost; it resumes from its own checkpoint. Of
    "cluster" workloads only."""

    def __post_init__(self) -> None:
        """Check what would be ignored otherwise. Raises: ValueError that names field, value and what is allowed."""
        _demand(0 <= self.restarts <= 100, "restarts", self.restarts, "a whole number from 0 to 100")
        _demand(not self.restarts or self.scope == "cluster", "restarts", self.restarts,
                f"0, for {self.name} runs on each node for itself")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One lab, complete: what to deploy and what to run on it."""

    number: int
    title: str
    workloads: tuple[Workload, ...]
    nodes: int = 1
    """Instances, 1 to 64."""
    instance_type: str = "g6.xlarge"
    capacity: str = "on-demand"
    """"on-demand", "spot", "reservation:cr-…" or "block:cr-…"."""
    alternatives: str = ""
    """On spot: further types that will do, joined by "+", as in "g6.12xlarge+g5.12xlarge"; the fleet takes one type."""
    group: str = ""
    """Name of the cluster placement group that a reservation was made in; its instances start only there."""
    storage: str = "none"
    """One of `labs.storage.STORAGE`: FSx for Lustre beside the nodes, or none."""
    storage_gib: int = 0
    """Capacity of the file system; 0 is the smallest that AWS sells."""
    data: str = ""
    """What the file system shows below /fsx/data: "s3://BUCKET/PREFIX", "results" for the results bucket, or ""."""
    ttl_hours: float = 4.0
    """Hours from the stack's creation until the guard ends the lab; 0.1 to 168."""
    efa: Literal["auto", "on", "off"] = "auto"
    """"auto": all that the type has where there are two nodes or more."""
    access: Literal["auto", "public", "eice", "ssm"] = "auto"
    """"auto": a public address where EC2 can give one, else an Instance Connect Endpoint; "eice" and "ssm": no public
    address at all. See `way`."""
    image: str = ""
    """AMI to start from, "ami-…", or "baked" for what `fab bake` made; empty is the newest of AWS's for the type."""
    zone: str = ""
    """Availability zone such as us-east-1d; empty leaves the choice to the region's first."""
    name: str = ""
    """Lets two people hold the same lab in one account: Lab3Stack-NAME."""
    owner: str = ""
    """Who answers for the bill; a tag on everything."""

    def __post_init__(self) -> None:
        """Check every field. Raises: ValueError that names field, value and what is allowed."""
        kind = self.instance  # raises on its own for an unknown type
        stack_name(self.number, self.name)
        _demand(1 <= self.nodes <= 64, "nodes", self.nodes, "a whole number from 1 to 64")
        _demand(0.1 <= self.ttl_hours <= 168, "ttl_hours", self.ttl_hours, "0.1 to 168")
        _demand(self.storage in STORAGE, "storage", self.storage, " | ".join(STORAGE))
        _demand(
            self.capacity in ("on-demand", "spot") or bool(_RESERVED.fullmatch(self.capacity)),
            "capacity", self.capacity, "on-demand | spot | reservation:cr-0123… | block:cr-0123…",
        )  # fmt: skip
        _demand(self.efa in ("auto", "on", "off"), "efa", self.efa, "auto | on | off")
        _demand(self.efa != "on" or kind.efas > 0, "efa", self.efa, f"auto or off, for {kind.name} takes no EFA; "
                "g6.12xlarge, g6e.12xlarge and p5.4xlarge do")  # fmt: skip
        _demand(not self.capacity.startswith("block:") or kind.capacity_block, "capacity", self.capacity,
                f"on-demand, spot or reservation, for {kind.name} is not sold as capacity blocks")  # fmt: skip
        _demand(bool(_ZONE.fullmatch(self.zone)), "zone", self.zone, "an availability zone such as us-east-1d")
        _demand(bool(_IMAGE.fullmatch(self.image)), "image", self.image, "ami-0123456789abcdef0 | baked")
        _demand(self.access in ("auto", "public", "eice", "ssm"), "access", self.access, "auto | public | eice | ssm")
        _demand(self.access != "public" or self.way in ("address", "elastic"), "access", self.access, "auto or eice, "
                f"for {self.nodes} × {kind.name} on {self.capacity} cannot have public addresses (EC2 assigns none "
                f"beside a second interface; Elastic IPs are for {ELASTIC_NODES} nodes and {ELASTIC_INTERFACES} "
                f"interfaces, and for no fleet)")  # fmt: skip
        self._check_storage()
        self._check_alternatives()
        _demand(bool(_GROUP.fullmatch(self.group)), "group", self.group, "a placement group's name")
        _demand(not self.group or self.capacity.startswith("reservation:"), "group", self.group,
                "it with capacity=reservation:cr-… only; other labs make a group of their own")  # fmt: skip
        _demand(bool(_OWNER.fullmatch(self.owner)), "owner", self.owner, "up to 64 letters, digits and . @ + - _")

    def _check_storage(self) -> None:
        _demand(bool(_DATA.fullmatch(self.data)), "data", self.data, "s3://BUCKET/PREFIX | results")
        for field, value in (("data", self.data), ("storage_gib", self.storage_gib)):
            _demand(not value or self.storage != "none", field, value, "it with storage=scratch, for example")
        if self.storage_gib:
            SIZES[self.storage].demand(self.storage_gib)

    def _check_alternatives(self) -> None:
        _demand(not self.alternatives or self.capacity == "spot", "alternatives", self.alternatives,
                "it with capacity=spot")  # fmt: skip
        _demand(len(set(self.types)) == len(self.types), "alternatives", self.alternatives, "each type once")
        first = self.instance
        for kind in map(instance_type, self.types[1:]):
            same = (kind.gpus, kind.nvme_gb > 0, kind.burstable) == (first.gpus, first.nvme_gb > 0, first.burstable)
            same = same and layout(kind, min(self.efas, kind.efas)) == self.interfaces
            _demand(same, "alternatives", kind.name, f"types with the GPUs, NVMe and interfaces of {first.name}")

    @property
    def types(self) -> tuple[str, ...]:
        """Instance types that will do, the wanted one first."""
        return (self.instance_type, *filter(None, self.alternatives.split("+")))

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Network interfaces of each node, the primary one first."""
        return layout(self.instance, self.efas)

    @property
    def way(self) -> Way:
        """How its nodes are reached."""
        if self.access in ("eice", "ssm"):
            return "endpoint" if self.access == "eice" else "session"
        if len(self.interfaces) == 1:
            return "address"
        few = self.nodes <= ELASTIC_NODES and self.nodes * len(self.interfaces) <= ELASTIC_INTERFACES
        return "elastic" if few and self.capacity != "spot" else "endpoint"

    @property
    def capacity_gib(self) -> int:
        """Capacity of the file system; 0 where there is none."""
        return 0 if self.storage == "none" else self.storage_gib or SIZES[self.storage].smallest_gib

    @property
    def stack(self) -> str:
        """Name of the CloudFormation stack."""
        return stack_name(self.number, self.name)

    @property
    def instance(self) -> InstanceType:
        """Facts of `instance_type`."""
        return instance_type(self.instance_type)

    @property
    def efas(self) -> int:
        """EFA interfaces that each node gets."""
        wanted = self.efa == "on" or (self.efa == "auto" and self.nodes > 1)
        return self.instance.efas if wanted else 0

    @property
    def placement_group(self) -> bool:
        """Whether the stack makes its nodes a cluster placement group.

        Burstable types and capacity blocks refuse one, and a reservation's instances lie where it was bought, which a
        group made afterwards cannot be (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/cr-cpg.html, Limitations).
        """
        return self.nodes > 1 and not self.instance.burstable and ":" not in self.capacity

    @property
    def volume_gib(self) -> int:
        """Size of a node's root volume: the GPU image with CUDA needs far more than plain Ubuntu."""
        return 150 if self.instance.gpus else 40

    def override(self, **given: object) -> "Lab":
        """This lab with fields replaced; values may be strings, as CDK context and a command line give them.

        None and fields that are not given keep their default.

        Raises:
            ValueError: unknown field, or a value that is not allowed.
        """
        known = {field.name for field in fields(self)} - {"number", "title", "workloads"}
        values: dict[str, object] = {}
        for field, value in given.items():
            _demand(field in known, "field", field, ", ".join(sorted(known)))
            if value is not None:
                values[field] = _number(field, value) if field in (*_WHOLE, "ttl_hours") else str(value)
        if {"instance_type", "capacity", "nodes", "efa"} & set(values):
            values.setdefault("alternatives", "")  # the default's belong to the default's type
        return replace(self, **values)  # type: ignore[arg-type]  # __post_init__ checks every value


_WHOLE = ("nodes", "storage_gib")


def _number(field: str, value: object) -> int | float:
    try:
        return int(str(value)) if field in _WHOLE else float(str(value))
    except ValueError:
        raise ValueError(f"{field}={value!r} is not a number: write for example {field}=2") from None


def _demand(holds: bool, field: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{field}={value!r} is not allowed: write {allowed}")


_DOCTOR = Workload(name="doctor", module="workloads.doctor")
_FITS = Workload(name="fits", module="workloads.fits")
_BANDWIDTH = Workload(name="bandwidth", module="workloads.bandwidth")
_ROOFLINE = Workload(name="roofline", module="workloads.roofline")
_GEMM = Workload(name="gemm", module="workloads.gemm")
_GENERATE = Workload(name="generate", module="workloads.generate")
_LOAD = Workload(name="load", module="workloads.load", timeout_s=1800)
_DDP = Workload(name="ddp", module="workloads.ddp", scope="cluster")
_SPLIT_GEMM = Workload(name="split-gemm", module="workloads.split_gemm", scope="cluster")
_FSDP = Workload(name="fsdp", module="workloads.fsdp", scope="cluster", timeout_s=1800)
_TENSOR_PARALLEL = Workload(name="tensor-parallel", module="workloads.tensor_parallel", scope="cluster", timeout_s=1800)
_MESH = Workload(name="mesh", module="workloads.mesh", scope="cluster", cpu_ranks=4)
_SCALING = Workload(name="scaling", module="workloads.scaling", scope="cluster", cpu_ranks=4)
_OPTIMISE = Workload(name="optimise", module="workloads.optimise")
_BATCH_SWEEP = Workload(name="batch-sweep", module="workloads.batch_sweep")
_TRAIN_STEP = Workload(name="train-step", module="workloads.train_step")
_STORAGE = Workload(name="storage", module="workloads.storage", timeout_s=1800)
_WEIGHTS = Workload(name="weights", module="workloads.weights", timeout_s=1800)
_DATA_LOADING = Workload(name="data-loading", module="workloads.data_loading")
_CHECKPOINT = Workload(name="checkpoint", module="workloads.checkpoint", timeout_s=1800)
_FP8_TRAINING = Workload(name="fp8-training", module="workloads.fp8_training", timeout_s=1800)
_RECOMPUTE = Workload(name="recompute", module="workloads.recompute", timeout_s=1800)
_BATCHING = Workload(name="batching", module="workloads.batching")
_CONNECTIVITY = Workload(name="connectivity", module="workloads.connectivity", timeout_s=600)
_OVERHEAD = Workload(name="overhead", module="workloads.overhead", scope="cluster")
_COLLECTIVES = Workload(name="collectives", module="workloads.collectives", scope="cluster")
_TRAIN = Workload(name="train", module="workloads.train", scope="cluster", timeout_s=1800, restarts=3)

LABS: dict[int, Lab] = {
    lab.number: lab
    for lab in (
        Lab(number=0, title="First light: one model on one GPU", workloads=(_DOCTOR, _FITS, _GENERATE, _LOAD)),
        Lab(number=1, title="One GPU to its roof",
            workloads=(_BANDWIDTH, _GEMM, _ROOFLINE, _GENERATE, _OPTIMISE, _BATCH_SWEEP, _TRAIN_STEP)),
        Lab(number=2, title="Four GPUs, one node", instance_type="g6.12xlarge",
            workloads=(_FITS, _COLLECTIVES, _SPLIT_GEMM, _DDP, _FSDP, _TENSOR_PARALLEL, _MESH, _SCALING)),
        Lab(number=3, title="Two nodes, one cluster", nodes=2, instance_type="g6.12xlarge", storage="scratch",
            workloads=(_CONNECTIVITY, _COLLECTIVES, _DDP, _FSDP, _OVERHEAD, _TRAIN)),
        Lab(number=4, title="Performance, on spot", instance_type="g6e.12xlarge", capacity="spot",
            alternatives="g6.12xlarge", storage="scratch",
            workloads=(_BANDWIDTH, _GEMM, _STORAGE, _WEIGHTS, _DATA_LOADING, _CHECKPOINT, _FP8_TRAINING, _RECOMPUTE,
                       _BATCHING)),
    )
}  # fmt: skip

EXTRA: tuple[Workload, ...] = (Workload(name="hello", module="workloads.hello", timeout_s=60),)
"""Workloads on no lab's list, which any lab runs where `--only` names them."""


def find_lab(number: object) -> Lab:
    """The lab of that number, given as a number or as text.

    Raises:
        ValueError: there is no such lab; the message lists those there are.
    """
    for lab in LABS.values():
        if str(lab.number) == str(number).strip():
            return lab
    listed = ", ".join(f"{lab.number} ({lab.title})" for lab in LABS.values())
    raise ValueError(f"lab={number!r} does not exist: write one of {listed}")
