"""Ranks as a grid: those of a row split each layer's matrices, those of a column share the batch, and the states too
or each with a copy of them."""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from labs.models import Model
from labs.traffic import Traffic, fully_sharded, hybrid_sharded, sequence_parallel, tensor_parallel
from workloads.device import TORCH_DTYPES
from workloads.group import Group
from workloads.parallel.plan import split
from workloads.parallel.sharding import shard
from workloads.parallel.strategy import Strategy


def grid_of(group: Group, tensor: int) -> DeviceMesh:
    """All ranks as data × tensor; neighbours, who have the fastest links, split matrices.

    "whole" is one rank wide: over "data" and it, FSDP2 keeps a copy of the states on every rank of a column.
    """
    assert group.size % tensor == 0
    sides = (group.size // tensor, 1, tensor)
    return init_device_mesh(group.device.torch.type, sides, mesh_dim_names=("data", "whole", "tensor"))


def grid_strategy(mesh: DeviceMesh, dtype: str, *, sequence: bool = False, copies: bool = False, name: str = ""
                  ) -> Strategy:  # fmt: skip
    """Matrices split along "tensor", the batch along "data", and the states there too, unless each rank keeps `copies`
    and averages gradients; either side may be one rank wide.

    In fp32 with one rank along "data" nothing is sharded. In bf16 the sharding is also what keeps fp32 states beside
    bf16 arithmetic, so that it is there even over one rank, where it sends nothing.
    """
    data, tensor = mesh["data"], mesh["tensor"]
    size, sharded = TORCH_DTYPES[dtype].itemsize, data.size() > 1 or dtype == "bf16"

    def wrap(model: nn.Module) -> nn.Module:
        if tensor.size() > 1:
            split(model, tensor, sequence=sequence)
        return shard(model, mesh["data", "whole"] if copies else data, dtype) if sharded else model

    def traffic(shape: Model, tokens: int) -> Traffic:
        return grid_traffic(shape, data.size(), tensor.size(), tokens, size=size, sequence=sequence, copies=copies)

    named = name or f"{data.size()} × {tensor.size()}{', copies' if copies else ''}"
    return Strategy(
        name=named, wrap=wrap, traffic=traffic, autocast=False,
        share=(data.get_local_rank(), data.size()),
        config={"data": data.size(), "tensor": tensor.size(), "sequence_parallel": sequence, "copies": copies},
    )  # fmt: skip


def grid_traffic(shape: Model, data: int, tensor: int, tokens: int, *, size: int, sequence: bool = False,
                 copies: bool = False) -> Traffic:  # fmt: skip
    """Of `tokens` of all ranks together. A rank works on those of its row, and gathers its part of the layers."""
    along = (hybrid_sharded(shape, 1, data, size=size, tensor=tensor) if copies
             else fully_sharded(shape, data, size=size, tensor=tensor))  # fmt: skip
    if tensor == 1:
        return along
    each = tokens // data
    split_by = (sequence_parallel(shape, tensor, each, size=size, norm_size=size) if sequence
                else tensor_parallel(shape, tensor, each, size=size))  # fmt: skip
    return Traffic(calls=(*along.calls, *split_by.calls))
