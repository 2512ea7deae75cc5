"""How a decoder's matrices are split over ranks: which by columns, which by rows, and what travels between them.

Query, key, value, gate and up are split by columns: each rank computes its own heads and its own part of the
feed-forward, without a word to the others. The output and down projections are split by rows, so that each rank ends
with a summand of the whole: an all-reduce makes the sum. Backward it is the other way round.

A block's input is prepared once for all projections that read it. Prepared for each, its gradient would be summed
over ranks once a projection: 5 all-reduces a layer instead of 2.
"""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)


def split(model: nn.Module, mesh: DeviceMesh, *, sequence: bool = False) -> nn.Module:
    """Split each layer of a decoder in place. Tables and norms stay whole on every rank.

    `sequence`: between the blocks each rank holds its share of the positions instead of all of them.
    """
    for layer in model.model.layers:
        parallelize_module(layer, mesh, layer_plan(sequence))
    if sequence:
        ends: dict[str, ParallelStyle] = {
            "model.embed_tokens": PrepareModuleOutput(output_layouts=Replicate(), desired_output_layouts=Shard(1)),
            "model.norm": PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Replicate(),
                                             use_local_output=True),
        }  # fmt: skip
        parallelize_module(model, mesh, ends)
    return model


def layer_plan(sequence: bool) -> dict[str, ParallelStyle]:
    """For the modules of one layer, by their names."""
    outside = Shard(1) if sequence else Replicate()
    plan: dict[str, ParallelStyle] = {
        "self_attn": PrepareModuleInput(input_layouts=(outside, None, None),
                                        desired_input_layouts=(Replicate(), None, None)),
        "mlp": PrepareModuleInput(input_layouts=outside, desired_input_layouts=Replicate()),
    }  # fmt: skip
    plan |= {f"self_attn.{name}_proj": ColwiseParallel() for name in "qkv"}
    plan |= {f"mlp.{name}_proj": ColwiseParallel() for name in ("gate", "up")}
    plan |= {name: RowwiseParallel(output_layouts=outside) for name in ("self_attn.o_proj", "mlp.down_proj")}
    if sequence:
        plan |= {name: SequenceParallel() for name in ("input_layernorm", "post_attention_layernorm")}
    return plan


def split_inference(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Split a transformers decoder in place, its output table by columns too: logits are gathered, a row a token."""
    for layer in model.model.layers:
        parallelize_module(layer, mesh, {
            **{f"self_attn.{name}_proj": ColwiseParallel() for name in "qkv"},
            **{f"mlp.{name}_proj": ColwiseParallel() for name in ("gate", "up")},
            "self_attn.o_proj": RowwiseParallel(), "mlp.down_proj": RowwiseParallel(),
        })  # fmt: skip
    return parallelize_module(model, mesh, {"lm_head": ColwiseParallel(output_layouts=Replicate())})
