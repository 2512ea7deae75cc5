"""Attention over a KV cache, each key and value read once for all query heads that share it.

Fused attention by `scaled_dot_product_attention` with the query heads of a group folded into rows: there is nothing
to repeat. On a GPU, compiled, by `flex_attention`, which splits the cache over the SMs and skips what lies past the
position. Both are registered with, or stand in for, what transformers would do.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

# Shape suffixes: B batch, H heads, K KV heads, G heads to a KV head, S query positions, C positions of the cache,
# d head size.

GROUPED = "grouped"
"""The name under which transformers knows it."""
BLOCK = 128
"""Positions of the cache that `flex_attention` takes or skips together."""


def grouped(q_BHSd: Tensor, k_BKCd: Tensor, v_BKCd: Tensor, seen_SC: Tensor | None) -> Tensor:
    """Attention of S queries over a cache, [B, H, S, d]; `seen_SC` says which positions each may see, None: all."""
    batch, heads, queries, size = q_BHSd.shape
    kv_heads = k_BKCd.shape[1]
    rows_BKGSd = q_BHSd.reshape(batch, kv_heads, heads // kv_heads * queries, size)
    mask = seen_SC if seen_SC is None or queries == 1 else seen_SC.repeat(heads // kv_heads, 1)
    mixed = functional.scaled_dot_product_attention(rows_BKGSd, k_BKCd, v_BKCd, attn_mask=mask)
    return mixed.reshape(batch, heads, queries, size)


def skipping(q_BH1d: Tensor, k_BKCd: Tensor, v_BKCd: Tensor, mask: BlockMask) -> Tensor:
    """Attention of one query over the blocks of the cache that `mask` names, [B, H, 1, d]."""
    mixed: Tensor = flex_attention(q_BH1d, k_BKCd, v_BKCd, block_mask=mask, enable_gqa=True)
    return mixed


def blocks(position_1: Tensor, length: int) -> BlockMask:
    """The blocks of a cache of that length that hold positions up to `position_1`."""

    def seen(_batch: Tensor, _head: Tensor, _query: Tensor, place: Tensor) -> Tensor:
        return place <= position_1[0]

    count = -(-length // BLOCK)
    held = (position_1 // BLOCK + 1).to(torch.int32).view(1, 1, 1)
    every = torch.arange(count, dtype=torch.int32, device=position_1.device).view(1, 1, 1, count)
    return BlockMask.from_kv_blocks(held, every, BLOCK_SIZE=BLOCK, mask_mod=seen, seq_lengths=(1, length),
                                    compute_q_blocks=False)  # fmt: skip


def register() -> str:
    """Tell transformers of `grouped`, and return the name for `set_attn_implementation`."""
    AttentionInterface.register(GROUPED, _for_transformers)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)
    return GROUPED


def _for_transformers(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                      **_: Any) -> tuple[Tensor, None]:  # fmt: skip
    queries = query.shape[2]
    seen = None if attention_mask is None else attention_mask[0, 0]
    if seen is None and queries > 1:  # transformers leaves a plainly causal mask to the kernel
        seen = torch.ones(queries, key.shape[2], dtype=torch.bool, device=query.device).tril(key.shape[2] - queries)
    return grouped(query, key, value, seen).transpose(1, 2), None
