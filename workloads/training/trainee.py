"""A model ready to be trained on one device: fp32 weights, gradients and Adam's moments, arithmetic in fp32 or bf16.

In bf16 it is FSDP2 on a mesh of one rank: each layer's weights are cast to bf16 before the layer runs and dropped
after it, gradients come back in fp32. 16 bytes a parameter stay (weight 4, gradient 4, moments 8), two more for the
layer at work. Or the weights themselves are bf16, and the optimiser keeps fp32 masters of them: the same 16 bytes. On
a GPU every layer is compiled; they are alike, so that one compilation serves all.
"""

# mypy follows no imports into torch, so that nn.Module is Any to it.
# mypy: allow-subclassing-any

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from labs.models import Model
from workloads.decoder import Decoder
from workloads.device import Device
from workloads.group import joined
from workloads.group import place as place_of
from workloads.training.laps import Laps
from workloads.training.loss import chunked_loss
from workloads.training.masters import Masters

# Shape suffixes: B sequences, T = S + 1 tokens (inputs and labels overlap).

BYTES_PER_PARAMETER = 16
"""That stay between steps and through them: fp32 weight 4, gradient 4, both moments of Adam 8."""
DTYPES = ("fp32", "bf16")
_ATTENTION = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""In the order they are tried on a GPU."""


class Trainee(nn.Module):
    """Tokens in, loss out."""

    def __init__(self, shape: Model, chunk: int) -> None:
        """Random weights; logits are taken `chunk` tokens at a time."""
        super().__init__()
        self.decoder = Decoder(shape)
        self._chunk = chunk

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Mean cross-entropy of each token given those before it; labels are shifted once, here."""
        hidden_BSD = self.decoder.model(tokens_BT[:, :-1])
        return chunked_loss(hidden_BSD.flatten(0, 1), self.decoder.lm_head.weight, tokens_BT[:, 1:].flatten(),
                            self._chunk)  # fmt: skip


@contextmanager
def trainable(shape: Model, dtype: str, device: Device, *, chunk: int, compiled: bool, seed: int, masters: bool = False,
              convert: Callable[[nn.Module], object] = lambda decoder: None) -> Iterator[Trainee]:  # fmt: skip
    """The model on its device, with the process group that bf16 needs; `convert` may change layers before that.

    `masters`: the weights are bf16, for an optimiser that keeps fp32 ones. Buffers stay as they are.
    """
    torch.manual_seed(seed)
    with device.torch:
        model = Trainee(shape, chunk)
    convert(model.decoder)
    if masters:
        for weights in model.parameters():
            weights.data = weights.data.to(torch.bfloat16)
    if compiled:
        compile_layers(model)
    with sdpa_kernel(_ATTENTION, set_priority=True):
        if dtype == "fp32" or masters:
            yield model
            return
        with joined(place_of({}), device):
            _shard(model, device)
            yield model


def compile_layers(model: Trainee) -> None:
    """Compile what each layer computes; not the call of the layer, around which FSDP2 gathers and frees its weights."""
    for layer in model.decoder.model.layers:
        layer.forward = torch.compile(layer.forward, fullgraph=True)


def _shard(model: Trainee, device: Device) -> None:
    """Master weights in fp32, arithmetic in bf16. Inputs are not cast: cosines and sines stay exact."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.torch.type, (1,))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in model.decoder.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def whole(weights: Tensor) -> Tensor:
    """A parameter or gradient as a plain tensor, whether FSDP2 holds it or not."""
    local: Tensor = weights.to_local() if hasattr(weights, "to_local") else weights
    return local


def optimiser_of(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW in one kernel over all parameters."""
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)


def _nothing() -> None:
    return None


def step(model: nn.Module, optimiser: torch.optim.Optimizer | Masters, micro_batches: Sequence[Tensor], device: Device,
         before_update: Callable[[], object] = _nothing) -> tuple[dict[str, float], float]:  # fmt: skip
    """One optimiser step on the mean loss of all micro-batches [B, T]: the seconds of its parts, and that loss.

    `before_update` is called when the gradients are there and the weights are still the old ones.
    """
    losses = []
    device.synchronize()
    laps = Laps(device)
    for tokens_BT in micro_batches:
        loss = model(tokens_BT) / len(micro_batches)
        laps.mark("forward")
        loss.backward()
        laps.mark("backward")
        losses.append(loss.detach())
    before_update()
    optimiser.step()
    optimiser.zero_grad()
    laps.mark("optimiser")
    return laps.seconds(), float(torch.stack(losses).sum())
