"""Grouped-query attention over a KV cache, as one layer of a decoder runs it: timed from memory, checked in float64."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from labs.models import Model
from workloads.command import CheckFailed
from workloads.device import TORCH_DTYPES, Device, cache_bytes
from workloads.product import POOL_LIMIT_BYTES, ROUNDING

# Shape suffixes: B sequences, H heads, K KV heads, Q query positions, S tokens, d head size.


class Attention:
    """Queries against keys and values; the next cache each time, past the device's own cache, as layers do."""

    def __init__(self, shape: Model, dtype: str, device: Device, seed: int, *, queries: int, tokens: int,
                 batch: int = 1) -> None:  # fmt: skip
        """`queries` is 1 for a decode step, or `tokens` for a causal prefill."""
        assert queries in (1, tokens)
        generator = torch.Generator(device.torch).manual_seed(seed)
        self._causal, self._dtype, self._next = queries > 1, dtype, 0
        cached = (batch, shape.kv_heads, tokens, shape.head_size)
        size = 2 * math.prod(cached) * TORCH_DTYPES[dtype].itemsize
        copies = max(2, -(-min(2 * cache_bytes(device), POOL_LIMIT_BYTES) // size))

        def draw(*size: int) -> Tensor:
            drawn: Tensor = torch.randn(size, generator=generator, device=device.torch)
            return drawn.to(TORCH_DTYPES[dtype])

        self._query_BHQd = draw(batch, shape.heads, queries, shape.head_size)
        self._caches = [(draw(*cached), draw(*cached)) for _ in range(copies)]
        self._out_BHQd = torch.empty(0)

    def run(self) -> None:
        """Once, over the next cache."""
        self._next = (self._next + 1) % len(self._caches)
        k_BKSd, v_BKSd = self._caches[self._next]
        self._out_BHQd = functional.scaled_dot_product_attention(
            self._query_BHQd, k_BKSd, v_BKSd, is_causal=self._causal, enable_gqa=True
        )

    def check(self) -> str:
        """Compare every entry of the last run with float64, and say how near it is.

        Raises:
            CheckFailed: one is further off than rounding explains, or not a number.
        """
        group = self._query_BHQd.shape[1] // self._caches[0][0].shape[1]
        k_BHSd, v_BHSd = (part.double().repeat_interleave(group, 1) for part in self._caches[self._next])
        scores_BHQS = self._query_BHQd.double() @ k_BHSd.transpose(-1, -2) / math.sqrt(k_BHSd.shape[-1])
        if self._causal:
            scores_BHQS += torch.full_like(scores_BHQS[0, 0], -torch.inf).triu(1)
        expected_BHQd = scores_BHQS.softmax(-1) @ v_BHSd
        error = float((self._out_BHQd.double() - expected_BHQd).abs().max())
        allowed = 4 * ROUNDING[self._dtype] * float(expected_BHQd.abs().max()) + 1e-5
        if not error <= allowed:
            raise CheckFailed(f"attention in {self._dtype}: |error| {error:.2g} against float64, allowed {allowed:.2g}")
        return f"max |error| {error:.1e} against float64, allowed {allowed:.1e}"
