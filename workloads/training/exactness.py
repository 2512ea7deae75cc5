"""Are the gradients right? A small model through the same code as the large one, against plain float64."""

import torch

from labs.models import Model, find_model
from workloads.chain import draw
from workloads.command import CheckFailed
from workloads.decoder import Decoder, loss_of
from workloads.device import Device
from workloads.parity import TOLERANCE, gradient_failure
from workloads.training.trainee import Trainee, trainable, whole

# Shape suffixes: B sequences, T = S + 1 tokens (inputs and labels overlap).

MODEL, BATCH, SEQUENCE, CHUNK = "mistral-nano", 2, 32, 24
"""Of the small one. 64 labels in shares of 24: the last share is smaller than the others."""


def check_gradients(dtype: str, device: Device, *, compiled: bool, seed: int, masters: bool = False) -> str:
    """Compare every parameter's gradient, and say how near they are.

    Raises:
        CheckFailed: one is further off than rounding explains.
    """
    shape = find_model(MODEL)
    tokens_BT = draw(seed, 0, BATCH, SEQUENCE + 1).to(device.torch)
    with trainable(shape, dtype, device, chunk=CHUNK, compiled=compiled, seed=seed, masters=masters) as model:
        exact = double(model, shape, device)
        model(tokens_BT).backward()
        found = {name: whole(weights.grad).double() for name, weights in model.decoder.named_parameters()}
    loss_of(exact, tokens_BT).backward()
    expected = {name: weights.grad for name, weights in exact.named_parameters()}
    allowed = TOLERANCE[dtype]
    difference, failure = gradient_failure(found, expected, allowed)
    if failure:
        raise CheckFailed(f"gradients of {MODEL}: {failure.replace('one process', 'float64')}")
    return f"gradients of {MODEL} within {difference:.1e} of float64's, allowed {allowed:.0e}"


def double(model: Trainee, shape: Model, device: Device) -> torch.nn.Module:
    """A decoder with the same weights in float64, neither compiled nor sharded."""
    with device.torch:
        decoder = Decoder(shape).double()
    decoder.load_state_dict({name: whole(weights).detach() for name, weights in model.decoder.named_parameters()})
    return decoder
