"""Shards a decoder over ranks with FSDP2: each layer a unit, tables and last norm together as the root."""

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from workloads.decoder import INITIAL_DEVIATION


def shard(model: nn.Module, mesh: DeviceMesh, dtype: str, *, keep: bool = False, reduce_half: bool = False,
          recompute: bool = False, offload: bool = False) -> nn.Module:  # fmt: skip
    """Shard a decoder in place over a mesh of one dimension; it computes in `dtype`.

    `keep`: layers stay whole after the forward pass. `reduce_half`: gradients travel in bf16, not in fp32.
    `recompute`: of a layer's forward pass only the input is kept. `offload`: shards lie in the host's memory.
    """
    half = torch.bfloat16 if dtype == "bf16" else None
    precision = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=half if reduce_half else torch.float32)
    where = CPUOffloadPolicy() if offload else OffloadPolicy()
    for layer in model.model.layers:
        if recompute:
            _recompute(layer)
        fully_shard(layer, mesh=mesh, mp_policy=precision, reshard_after_forward=not keep, offload_policy=where)
    return fully_shard(model, mesh=mesh, mp_policy=precision, offload_policy=where)


def _recompute(layer: nn.Module) -> None:
    from torch.distributed._composable import checkpoint  # the one form that leaves parameter names as they are

    checkpoint(layer)


def materialise(model: nn.Module, seed: int, rank: int, where: torch.device) -> nn.Module:
    """Give a sharded model without data its memory and random weights, on each rank its own share of them."""
    model.to_empty(device=where)
    generator = torch.Generator(where).manual_seed(seed * 1_000_003 + rank)
    with torch.no_grad():
        for weights in model.parameters():
            local = weights.to_local()
            if weights.dim() > 1:
                local.normal_(std=INITIAL_DEVIATION, generator=generator)
            else:
                local.fill_(1.0)
    return model
