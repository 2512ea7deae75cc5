"""What a model takes of a device's memory, to serve or to train: part by part, in bytes, by closed form.

Symbols as in `labs.models`; w bytes per element of the arithmetic, n ranks that share what is split. A training state
is what each parameter keeps: weight, gradient and both of AdamW's moments. Activations are what the forward pass
saves for the backward pass. They are counted per token and layer, by how the layer runs:

    eager        w·(6D' + 2Kd + 4F) + 4H + 8     each operation saves its inputs; D' is D or H·d, which are equal here
    eager-cpu    16D + w·(2D + 2Hd + 2Kd + 4F) + 4H + 8   as eager; on a CPU each norm keeps two copies in fp32
    fused        w·(6D' + 2Kd + 3F) + 4H         silu(gate)·up is one operation: 139,392 B in mistral-7b, bf16
    min-cut      w·(4D' + 2Kd + 2F) + 4H         torch.compile: norms and silu(gate)·up are made again: 94,336 B
    recomputed   w·D                             the layer's input; the rest is made again in the backward pass

Where they come from: x and its sum with attention (2D), what both norms hand on (2D), q and attention's result (2Hd),
k and v (2Kd), gate, up, silu(gate) and their product (4F), the softmax's log-sum (4H), each norm's scale (8). What
`workloads.decoder` saves was counted tensor by tensor and is equal to `eager-cpu`. Bytes, never GB; 1 GiB is 2**30.
"""

from dataclasses import dataclass
from typing import Literal

from labs.models import Model

Strategy = Literal["one", "ddp", "fsdp", "tensor"]
"""One device; every rank whole (DDP); states sharded (FSDP2), over all ranks or over groups of them; each matrix split
over all ranks (tensor parallel)."""
States = Literal["fp32", "bf16", "8-bit", "offload"]
"""AdamW with everything in fp32; all in bf16, rounded stochastically; bf16 with moments of one byte; all in fp32 in
the host's memory."""
Saving = Literal["eager", "eager-cpu", "fused", "min-cut", "recomputed"]

STATE_BYTES: dict[States, tuple[int, int, int]] = {
    "fp32": (4, 4, 8), "bf16": (2, 2, 4), "8-bit": (2, 2, 2), "offload": (4, 4, 8),
}  # fmt: skip
"""Bytes per parameter of weight, gradient and both moments. The scales of 8-bit moments, 8 bytes for 256, are left
out."""
PREFETCHED = 2
"""Layers that FSDP2 holds whole at once: the one that runs and the one that is fetched meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of bytes on a device."""

    name: str
    bytes: int
    how: str
    """The arithmetic, for a reader."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """All that one device holds at the fullest moment."""

    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        """The sum of the parts."""
        return sum(part.bytes for part in self.parts)

    def of(self, *names: str) -> int:
        """Bytes of the parts of those names."""
        return sum(part.bytes for part in self.parts if part.name in names)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained, as far as memory is concerned."""

    strategy: Strategy = "one"
    ranks: int = 1
    """Devices in all."""
    shards: int = 0
    """With fsdp, over how many ranks the states are spread (HSDP: those of a node); 0: over all."""
    states: States = "fp32"
    saving: Saving = "min-cut"
    compute_size: Literal[2, 4] = 2
    """Bytes per element of the arithmetic: 2 for bf16, 4 for fp32."""

    def __post_init__(self) -> None:
        """Check it. Raises: ValueError that names field, value and what is allowed."""
        alone = self.strategy == "one"
        if alone != (self.ranks == 1):
            allowed = "1" if alone else "2 or more"
            raise ValueError(f"ranks={self.ranks} is not allowed with strategy={self.strategy!r}: write {allowed}")
        if self.shards and (self.strategy != "fsdp" or self.ranks % self.shards):
            raise ValueError(f"shards={self.shards} is not allowed with {self.strategy} over {self.ranks} ranks: write "
                             "a divisor of the ranks, with strategy=fsdp")  # fmt: skip

    @property
    def spread(self) -> int:
        """Ranks that hold one copy of the states between them."""
        return (self.shards or self.ranks) if self.strategy in ("fsdp", "tensor") else 1


def layer_saved_bytes(model: Model, saving: Saving, size: int, ranks: int = 1) -> int:
    """Saved by one layer for one token, per rank of `ranks` that split its heads and its feed-forward."""
    if saving == "recomputed":
        return size * model.hidden
    queries = _split(model.heads * model.head_size, ranks)
    cached = _split(model.kv_heads * model.head_size, ranks)
    wide = _split(model.feed_forward, ranks)
    sums = 4 * _split(model.heads, ranks)
    shared = {"eager": (4, 4, 8), "eager-cpu": (2, 4, 8), "fused": (4, 3, 0), "min-cut": (2, 2, 0)}
    hidden, feeds, scales = shared[saving]
    copies = 16 * model.hidden if saving == "eager-cpu" else 0
    return copies + size * (hidden * model.hidden + 2 * queries + 2 * cached + feeds * wide) + sums + scales


def activation_parts(model: Model, saving: Saving, size: int, tokens: int, ranks: int = 1) -> tuple[Part, ...]:
    """What `tokens` tokens of a device leave for the backward pass."""
    each = layer_saved_bytes(model, saving, size, ranks)
    kept = Part(name="activations", bytes=tokens * model.layers * each,
                how=f"{tokens:,} tokens × {model.layers} layers × {each:,} B, {saving}")  # fmt: skip
    if saving != "recomputed":
        return (kept,)
    again = layer_saved_bytes(model, "min-cut", size, ranks)
    return (kept, Part(name="one layer made again", bytes=tokens * again, how=f"{tokens:,} tokens × {again:,} B"))


def head_parts(model: Model, saving: Saving, size: int, tokens: int, ranks: int = 1) -> tuple[Part, ...]:
    """The last norm, and the logits of `tokens` tokens at once: as they are, in fp32 and their gradient. Operation by
    operation the loss holds three in fp32 instead. A loss over chunks of the tokens holds fewer."""
    each = (4, 4, 4) if saving.startswith("eager") else (4, 4) if size == 4 else (size, 4, 4)
    norm = {"eager": 2 * size * model.hidden + 4, "eager-cpu": (8 + size) * model.hidden + 4}
    kept, columns = norm.get(saving, size * model.hidden), _split(model.vocabulary, ranks)
    return (
        Part(name="last norm", bytes=tokens * kept, how=f"{tokens:,} tokens × {kept:,} B"),
        Part(name="logits", bytes=tokens * columns * sum(each),
             how=f"{tokens:,} tokens × {columns:,} × ({' + '.join(map(str, each))}) B"),
    )  # fmt: skip


def held(model: Model, recipe: Recipe) -> int:
    """Parameters of which one device keeps the states."""
    if recipe.strategy == "tensor":  # norms are whole on every rank
        return _split(model.parameters - model.norm_weights, recipe.ranks) + model.norm_weights
    return _split(model.parameters, recipe.spread)


def state_parts(model: Model, recipe: Recipe) -> tuple[Part, ...]:
    """Weights, gradients and moments on the device; none where they lie on the host."""
    if recipe.states == "offload":
        return ()
    count = held(model, recipe)
    names = ("weights", "gradients", "optimiser")
    return tuple(
        Part(name=name, bytes=count * size, how=f"{count:,} parameters × {size} B")
        for name, size in zip(names, STATE_BYTES[recipe.states], strict=True)
    )


def host_bytes(model: Model, recipe: Recipe) -> int:
    """Of one rank's states that lie in the host's memory."""
    return sum(STATE_BYTES["offload"]) * held(model, recipe) if recipe.states == "offload" else 0


def flight_part(model: Model, recipe: Recipe) -> Part:
    """Copies of weights and gradients that come and go: fetched shards, and casts to the arithmetic's type."""
    size, kept = recipe.compute_size, STATE_BYTES[recipe.states][0]
    if recipe.strategy in ("ddp", "tensor"):  # autocast keeps its copies to the end of the step
        count = _split(model.multiplying_weights, recipe.spread) if kept != size else 0
        return Part(name="in flight", bytes=size * count, how=f"autocast's copies of {count:,} weights × {size} B")
    if recipe.spread == 1 and kept == size and recipe.states != "offload":
        return Part(name="in flight", bytes=0, how="nothing is fetched or cast")
    layers = min(PREFETCHED, model.layers)
    whole = layers * model.layer_weights + 2 * model.table_weights + model.hidden
    reduced = max(size, kept)
    gradients = model.layer_weights * (size + reduced) + model.table_weights * size
    return Part(
        name="in flight", bytes=size * whole + gradients,
        how=f"{layers} layers and both tables whole × {size} B, one layer's gradient × ({size} + {reduced}) B, "
            f"the output table's × {size} B",
    )  # fmt: skip


def train(model: Model, recipe: Recipe, *, batch: int, context: int) -> Footprint:
    """One device that trains on `batch` sequences of `context` tokens at once, gradients held (as accumulating
    does).

    Raises:
        ValueError: the ranks cannot split the model's heads.
    """
    split = recipe.ranks if recipe.strategy == "tensor" else 1
    refuse_uneven(model, split)
    size, tokens = recipe.compute_size, batch * context
    return Footprint(parts=(
        *state_parts(model, recipe), flight_part(model, recipe),
        *activation_parts(model, recipe.saving, size, tokens, split),
        *head_parts(model, recipe.saving, size, tokens, split),
    ))  # fmt: skip


def serve(model: Model, *, batch: int, context: int, weight_size: int = 2, kv_size: int = 2, ranks: int = 1
          ) -> Footprint:  # fmt: skip
    """One device of `ranks` that split the model, serving `batch` sequences of `context` tokens with their answer.

    Raises:
        ValueError: the ranks cannot split the model's heads.
    """
    refuse_uneven(model, ranks)
    count = _split(model.parameters - model.norm_weights, ranks) + model.norm_weights
    tokens, each = batch * context, _split(model.kv_bytes(kv_size), ranks)
    widest = kv_size * (4 * model.hidden + 3 * _split(model.feed_forward, ranks))
    row = _split(model.vocabulary, ranks) * kv_size
    return Footprint(parts=(
        Part(name="weights", bytes=count * weight_size, how=f"{count:,} parameters × {weight_size} B"),
        Part(name="KV cache", bytes=tokens * each, how=f"{batch} × {context:,} tokens × {each:,} B"),
        Part(name="one layer of the prompt", bytes=tokens * widest,
             how=f"{tokens:,} tokens × {widest:,} B: rows of the table, the layer's input, its sum with attention and "
                 "that one's norm, three of the feed-forward's width"),
        Part(name="logits", bytes=batch * row, how=f"{batch} × {row:,} B, of the last token alone"),
    ))  # fmt: skip


def refuse_uneven(model: Model, ranks: int) -> None:
    """Check that `ranks` can split the model's heads between them.

    Raises:
        ValueError: they cannot.
    """
    if model.kv_heads % ranks:
        allowed = [str(count) for count in range(1, model.kv_heads + 1) if model.kv_heads % count == 0]
        raise ValueError(f"ranks={ranks} cannot split the {model.kv_heads} KV heads of {model.name}: write "
                         f"{', '.join(allowed)}")  # fmt: skip


def _split(count: int, ranks: int) -> int:
    """The largest share of `count` things over `ranks`."""
    return -(-count // ranks)
