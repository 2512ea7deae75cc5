"""How much of the forward pass is kept for the backward pass, and how much is made again.

On a GPU the compiler chooses: given a share of the memory that it would keep, it keeps what is dear to make again
(torch._functorch.config.activation_memory_budget). Elsewhere whole layers are chosen: torch.utils.checkpoint keeps a
layer's input and runs the layer again.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from torch._dynamo import reset
from torch._functorch import config as functorch
from torch.utils.checkpoint import checkpoint

from labs.memory import Saving, layer_saved_bytes
from labs.models import Model
from workloads.device import Device
from workloads.training.trainee import Trainee, compile_layers

SHARES = (1.0, 0.5, 0.25, 0.0)
"""Of what the compiler would keep, on a GPU."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One choice between memory and time."""

    name: str
    share: float
    """Of the layers (of the compiler's memory, on a GPU) that is kept."""
    again: int
    """Layers that are run again; 0 where the compiler chooses within each."""


def points(shape: Model, device: Device) -> tuple[Point, ...]:
    """Choices from keeping all to keeping nothing."""
    if device.cuda:
        return tuple(Point(name=f"budget {share:.0%}", share=share, again=0) for share in SHARES)
    counts = sorted({round(shape.layers * part / 4) for part in range(5)})
    return tuple(
        Point(name=f"{count} of {shape.layers} layers again", share=1 - count / shape.layers, again=count)
        for count in counts
    )


@contextmanager
def applied(model: Trainee, point: Point, device: Device) -> Iterator[None]:
    """The model as that choice has it."""
    layers = model.decoder.model.layers
    if device.cuda:
        reset()
        compile_layers(model)
        budget = functorch.patch(activation_memory_budget=point.share)
    else:
        for layer in layers[: point.again]:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        budget = nullcontext()
    try:
        with budget:
            yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def predicted_bytes(shape: Model, point: Point, dtype: str, tokens: int, device: Device) -> int:
    """What all layers keep of so many tokens, by the closed forms of labs/memory.py."""
    size = 4 if dtype == "fp32" else 2
    saving: Saving = "min-cut" if device.cuda else "eager-cpu"
    kept, again = (layer_saved_bytes(shape, kind, size) for kind in (saving, "recomputed"))
    if device.cuda:
        return int(tokens * shape.layers * (again + point.share * (kept - again)))
    return tokens * ((shape.layers - point.again) * kept + point.again * again)


def predicted_slowdown(shape: Model, point: Point, context: int) -> float:
    """Time over that of keeping all, if time goes by FLOPs: the layers' forward pass once more, or a share of it."""
    whole = shape.train_flops_recomputed(context) / shape.train_flops(context)
    return 1 + (1 - point.share) * (whole - 1)
