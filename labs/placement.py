"""Which ways of training or serving a model fit which machines: every way's footprint beside the device's memory.

The ways to train stand in the order of preference: what changes the numbers least first (fp32 states), and of those
what communicates least. The first that fits is the choice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from labs.accelerators import Accelerator, by_instance
from labs.instances import InstanceType, instance_types
from labs.memory import Footprint, Recipe, Saving, Strategy, host_bytes, serve, train
from labs.models import Model
from labs.results import Roof

Answer = Literal["fits", "tight", "no"]
RESERVE_BYTES, RESERVE_SHARE = 2**30, 0.05
"""What a device must spare for what no formula counts: a GiB for CUDA's context, the libraries' workspaces and NCCL's
buffers, and a twentieth for holes in the allocator. An allowance, not a measurement."""
_GRANTED_MIB = {"T4": 15360}
"""Memory of a GPU that nvidia-smi tells, where that is much less than EC2 names: a T4's ECC bits take a sixteenth."""
SAVINGS: tuple[Saving, ...] = ("min-cut", "recomputed")
"""How activations may be kept, the faster way first."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The devices that a model is to live on."""

    name: str
    """For people: "4 × L4 of a g6.12xlarge"."""
    devices: int
    """In all."""
    device_bytes: int
    """Memory of one."""
    host_bytes: int
    """Memory of one node's host; 0 where it is the device's own."""
    nodes: int = 1
    bf16: bool = True
    """Whether the device computes in bf16; a GPU before Ampere has fp16 instead, in which AdamW needs fp32 states."""
    source: str
    """Where the figures come from."""

    @property
    def each_node(self) -> int:
        """Devices of one node."""
        return self.devices // self.nodes

    @property
    def compute_size(self) -> Literal[2, 4]:
        """Bytes per element that models compute in here: bf16 on a GPU, fp32 on a CPU."""
        return 2 if self.host_bytes else 4

    @property
    def roof(self) -> Roof:
        """One device's memory."""
        return Roof(value=self.device_bytes, source=f"memory of one device, {self.source}")


def place_of(kind: InstanceType, nodes: int = 1) -> Place:
    """The GPUs of `nodes` instances of that type, or their memory where it has none."""
    several = f"{nodes} × {kind.name}" if nodes > 1 else f"a {kind.name}"
    source = f"{kind.name} by EC2's DescribeInstanceTypes (labs/instances.json)"
    if not kind.gpus:
        return Place(name=f"the memory of {several}", devices=nodes, device_bytes=kind.memory_mib << 20, host_bytes=0,
                     nodes=nodes, source=source)  # fmt: skip
    granted = min(kind.gpu_memory_mib, _GRANTED_MIB.get(kind.gpu or "", kind.gpu_memory_mib))
    return Place(name=f"{nodes * kind.gpus} × {kind.gpu} of {several}", devices=nodes * kind.gpus,
                 device_bytes=granted << 20, host_bytes=kind.memory_mib << 20, nodes=nodes,
                 bf16=_has_bf16(by_instance(kind)), source=source)  # fmt: skip


def _has_bf16(accelerator: Accelerator | None) -> bool:
    return accelerator is None or "bf16" in accelerator.peak_tflops or "fp16" not in accelerator.peak_tflops


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One way of using a place, what it takes there, and whether that fits."""

    purpose: Literal["train", "serve"]
    way: str
    """For people: "fsdp over 4, bf16 states, recomputed"."""
    footprint: Footprint
    """Of one device."""
    host_bytes: int
    """Of one node's host."""
    place: Place
    recipe: Recipe | None = None
    """Of training."""
    impossible: str = ""
    """Why this way cannot be at all, whatever the memory."""

    @property
    def answer(self) -> Answer:
        """Tight: it fits by the formulas, and what they leave out may not."""
        room = self.place.device_bytes - self.footprint.bytes
        if self.impossible or room < 0 or (self.host_bytes and self.host_bytes > self.place.host_bytes - RESERVE_BYTES):
            return "no"
        return "fits" if room >= RESERVE_BYTES + RESERVE_SHARE * self.place.device_bytes else "tight"

    @property
    def why(self) -> str:
        """The answer's arithmetic in a few words."""
        if self.impossible:
            return self.impossible
        text = f"{gib(self.footprint.bytes)} of {gib(self.place.device_bytes)} a device"
        if self.host_bytes:
            text += f", {gib(self.host_bytes)} of {gib(self.place.host_bytes)} on the host"
        return text


def gib(count: float) -> str:
    """Bytes as GiB with a digit behind the point; as MiB below a tenth of one."""
    return f"{count / 2**30:.1f} GiB" if count >= 0.1 * 2**30 else f"{count / 2**20:.1f} MiB"


def recipes(place: Place) -> Iterator[Recipe]:
    """Every way to train on a place, best first; of each the faster way to keep activations first."""
    one = place.devices == 1
    spread: tuple[Strategy, ...] = ("one",) if one else ("fsdp",)
    whole: tuple[Strategy, ...] = ("one",) if one else ("ddp", "fsdp", "tensor")
    plain = Recipe(strategy=whole[0], ranks=place.devices, compute_size=place.compute_size)
    for strategy in whole:
        made = replace(plain, strategy=strategy)
        if strategy == "fsdp" and place.nodes > 1:  # sharded within a node, whole between nodes
            yield from (replace(made, shards=place.each_node, saving=saving) for saving in SAVINGS)
        yield from (replace(made, saving=saving) for saving in SAVINGS)
    if place.host_bytes:
        for strategy in spread:
            for states in ("bf16", "8-bit", "offload"):
                yield from (replace(plain, strategy=strategy, states=states, saving=saving) for saving in SAVINGS)


def way_of(recipe: Recipe) -> str:
    """A recipe in words."""
    where = {"one": "one device", "ddp": f"ddp over {recipe.ranks}", "fsdp": f"fsdp over {recipe.ranks}",
             "tensor": f"tensor over {recipe.ranks}"}[recipe.strategy]  # fmt: skip
    groups = f" in groups of {recipe.shards}" if recipe.shards else ""
    states = "fp32 states on the host" if recipe.states == "offload" else f"{recipe.states} states"
    return f"{where}{groups}, {states}, {recipe.saving}"


def judge(model: Model, place: Place, recipe: Recipe, *, batch: int, context: int) -> Verdict:
    """Whether one recipe fits a place."""
    way = way_of(recipe)
    try:
        footprint, impossible = train(model, recipe, batch=batch, context=context), ""
    except ValueError as error:
        footprint, impossible = Footprint(parts=()), str(error).partition(": write")[0]
    if recipe.states in ("bf16", "8-bit") and not place.bf16:
        impossible = f"{place.name}: no bf16 there"
    return Verdict(purpose="train", way=way, footprint=footprint, place=place, recipe=recipe, impossible=impossible,
                   host_bytes=host_bytes(model, recipe) * place.each_node)  # fmt: skip


def train_verdicts(model: Model, place: Place, *, batch: int, context: int) -> tuple[Verdict, ...]:
    """One verdict for each way to train, best first: where a way has room only with activations made again, that."""
    found: dict[str, Verdict] = {}
    for recipe in recipes(place):
        name = way_of(replace(recipe, saving=SAVINGS[0]))
        if name not in found or found[name].answer != "fits":
            found[name] = judge(model, place, recipe, batch=batch, context=context)
    return tuple(found.values())


def serve_verdicts(model: Model, place: Place, *, batch: int, context: int) -> tuple[Verdict, ...]:
    """Serving from one device, and from all of a node's that split the model."""
    size, found = place.compute_size, []
    for ranks in dict.fromkeys((1, place.each_node)):
        way = "one device" if ranks == 1 else f"tensor over {ranks}"
        try:
            footprint, impossible = serve(model, batch=batch, context=context, weight_size=size, kv_size=size,
                                          ranks=ranks), ""  # fmt: skip
        except ValueError as error:
            footprint, impossible = Footprint(parts=()), str(error).partition(": write")[0]
        found.append(Verdict(purpose="serve", way=f"{way}, {8 * size} bits a weight", footprint=footprint,
                             host_bytes=0, place=place, impossible=impossible))  # fmt: skip
    return tuple(found)


def choose(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The first that fits; else the first that is tight; None where nothing fits."""
    for answer in ("fits", "tight"):
        for verdict in verdicts:
            if verdict.answer == answer:
                return verdict
    return None


def choose_recipe(model: Model, place: Place, *, batch: int, context: int) -> Recipe:
    """How to train on a place.

    Raises:
        ValueError: no way fits; the message names the least that is missing.
    """
    verdicts = train_verdicts(model, place, batch=batch, context=context)
    chosen = choose(verdicts)
    if chosen is None or chosen.recipe is None:
        nearest = min(verdicts, key=lambda verdict: verdict.footprint.bytes or place.device_bytes * 10**6)
        raise ValueError(
            f"model={model.name!r} does not train on {place.name} with {batch} × {context} tokens a device "
            f"(at best {nearest.way}: {nearest.why}): write a smaller model or fewer tokens"
        )
    return chosen.recipe


def cheapest(model: Model, purpose: Literal["train", "serve"], *, batch: int, context: int) -> InstanceType | None:
    """The GPU type with the lowest list price on which one instance does it; None where no priced type does."""
    judge_all = train_verdicts if purpose == "train" else serve_verdicts
    priced = [kind for kind in instance_types().values() if kind.gpus and kind.usd_per_hour is not None]
    for kind in sorted(priced, key=lambda kind: (kind.usd_per_hour or 0.0, kind.name)):
        chosen = choose(judge_all(model, place_of(kind), batch=batch, context=context))
        if chosen is not None and chosen.answer == "fits":
            return kind
    return None
