"""Training in fp8: the layers' products take operands of 8 bits, scaled so that each tensor's largest value fits.

torchao swaps the linear layers; weights, gradients, norms, attention and the output table stay as they were. Where
the device has no fp8 products the same rounding is emulated: the loss then tells of fp8, the time does not.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from torch import nn

from labs.models import Model
from labs.results import Roof
from labs.roofs import Bound, compute_bound
from workloads.device import Device

RECIPES = ("tensorwise", "rowwise")
"""One scale for a whole tensor, or one for each of its rows: the former is faster, the latter nearer."""


def demand_torchao() -> None:
    """Check that the library is here.

    Raises:
        ValueError: it is not; the message says how to get it.
    """
    if find_spec("torchao") is None:
        raise ValueError("torchao is not installed here, and it is what trains in fp8: run pip install torchao==0.18.0")


def to_float8(decoder: nn.Module, recipe: str, device: Device) -> None:
    """Swap the linear layers of all layers, in place; the output table is no part of them."""
    with quiet():
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    given = Float8LinearConfig.from_recipe_name(recipe)
    if emulated(device):
        given = Float8LinearConfig(
            cast_config_input=given.cast_config_input, cast_config_weight=given.cast_config_weight,
            cast_config_grad_output=given.cast_config_grad_output, emulate=True,
        )  # fmt: skip
    convert_to_float8_training(decoder.model.layers, config=given)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torchao says while it is imported: which of its GPUs' libraries this machine cannot load."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def emulated(device: Device) -> bool:
    """Whether the device's products cannot take fp8 themselves."""
    return "fp8" not in device.dtypes


def fp8_bound(device: Device, shape: Model, sequence: int) -> Bound:
    """Most tokens/s: the layers' products at the peak of fp8, the output table and attention at that of bf16."""
    eight, sixteen = (compute_bound(device.name, device.accelerator, dtype) for dtype in ("fp8", "bf16"))
    if eight.roof is None or sixteen.roof is None:
        return sixteen if eight.roof else eight
    layers = layer_flops(shape)
    token_s = layers / eight.roof.value + (shape.train_flops(sequence) - layers) / sixteen.roof.value
    return Bound(Roof(value=1 / token_s, source=f"the layers' products at {eight.roof.source}, the rest at bf16's"))


def layer_flops(shape: Model) -> int:
    """FLOPs of a trained token that run in fp8."""
    return 6 * (shape.multiplying_weights - shape.table_weights)
