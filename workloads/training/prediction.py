"""How long a training step should take, before it is run: its arithmetic, its attention, its small kernels, Adam.

Each part is work ÷ a rate: the rates are what this run has measured of the device before, or a stated share of the
datasheet. It is an expectation, not a limit, and stands beside the roof so that a gap between the two has names.
"""

from dataclasses import dataclass
from pathlib import Path

from labs.models import Model
from labs.results import Roof
from workloads.device import Device
from workloads.earlier import memory_ceiling, product_ceiling

ATTENTION_PACE = 0.6
"""Attention's FLOP/s over a large product's: some 420 of 700 TFLOP/s in flash attention on Hopper."""
PASSES = 4
"""How often each kept activation crosses memory: written, read once, and both again for its gradient."""
LOGIT_PASSES = 6
"""The same for logits, which are fp32 while their loss is taken."""
ADAM_BYTES = 28
"""A parameter: weight, gradient and both moments read, all but the gradient written, 4 bytes each."""
CAST_BYTES = 12
"""A parameter and micro-batch in bf16: fp32 weight read, bf16 written; bf16 gradient read, fp32 written."""
MASTER_BYTES = 8
"""A parameter and step with masters: bf16 gradient read, fp32 written; bf16 weight written."""
SUSTAINED = 0.72
"""Share of the datasheet's peak assumed where no product was measured: what an H200 sustains at its power cap."""
STREAMED = 0.9
"""Share of the datasheet's memory rate assumed where none was measured."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the device does in a second."""

    products: Roof
    """FLOP/s of large products."""
    memory: Roof
    """B/s."""


def rates(folder: Path, node: str, device: Device, dtype: str) -> Rates | None:
    """Measured earlier in this run, else assumed from the datasheet; None where neither tells."""
    products, memory = product_ceiling(folder, node, device, dtype), memory_ceiling(folder, node, device)
    known = device.accelerator
    peak = known.peak_flops(dtype) if known else None
    if products is None and peak:
        products = Roof(value=SUSTAINED * peak, source=f"assumed, {SUSTAINED:.0%} of the datasheet's peak")
    if memory is None and known and known.bytes_per_s:
        memory = Roof(value=STREAMED * known.bytes_per_s, source=f"assumed, {STREAMED:.0%} of the datasheet's rate")
    return Rates(products=products, memory=memory) if products and memory else None


def step_parts(shape: Model, dtype: str, sequence: int, tokens: int, micro_batches: int, at: Rates, *,
               masters: bool = False) -> dict[str, float]:  # fmt: skip
    """Seconds of each cause of one optimiser step over `tokens` tokens."""
    size = 4 if dtype == "fp32" else 2
    products = 6 * shape.multiplying_weights * tokens
    attention = shape.train_flops(sequence) * tokens - products
    kept = 6 * shape.hidden + 2 * shape.kv_heads * shape.head_size + 3 * shape.feed_forward
    small = PASSES * shape.layers * kept * size + LOGIT_PASSES * 4 * shape.vocabulary
    casts = 0 if dtype == "fp32" else MASTER_BYTES if masters else CAST_BYTES * micro_batches
    return {
        "products": products / at.products.value,
        "attention": attention / (ATTENTION_PACE * at.products.value),
        "small kernels": small * tokens / at.memory.value,
        "Adam": ADAM_BYTES * shape.parameters / at.memory.value,
        **({"casts to bf16 and back": casts * shape.parameters / at.memory.value} if casts else {}),
    }
