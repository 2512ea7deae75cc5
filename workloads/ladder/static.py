"""Decoding with a cache that has its full length from the start: every step runs the same kernels on the same memory.

That is what torch.compile and a CUDA graph need: shapes that do not change, a position that is a tensor, no answer
that the host waits for. The weights are those of transformers' model; its modules' forward is not used.
"""

# mypy follows no imports into torch, so that nn.Module is Any to it.
# mypy: allow-subclassing-any

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import MistralForCausalLM

from labs.models import Model
from workloads.decoder import rotate
from workloads.ladder.attention import BLOCK, blocks, grouped, skipping
from workloads.ladder.weights import parts_of

# Shape suffixes: B batch, S tokens of a step, C positions of the cache, D hidden, H heads, K KV heads, d head size,
# X a width, V vocabulary.

Product = Callable[[Tensor], tuple[Tensor, ...]]


class Layer(nn.Module):
    """One layer of the model with its own keys and values."""

    def __init__(self, layer: nn.Module, fused: tuple[nn.Linear, nn.Linear] | None, shape: Model, batch: int,
                 length: int) -> None:  # fmt: skip
        """`layer` is transformers'; `fused` replaces its projections by two."""
        super().__init__()
        weight = layer.input_layernorm.weight
        self.sizes = (shape.heads, shape.kv_heads, shape.head_size)
        self.before, self.between = layer.input_layernorm, layer.post_attention_layernorm
        projections, gate_up = parts_of(layer)
        self.qkv = nn.ModuleList(projections) if fused is None else fused[0]
        self.gate_up = nn.ModuleList(gate_up) if fused is None else fused[1]
        self.out, self.down = layer.self_attn.o_proj, layer.mlp.down_proj
        size = (batch, shape.kv_heads, length, shape.head_size)
        self.register_buffer("keys", torch.zeros(size, dtype=weight.dtype, device=weight.device))
        self.register_buffer("values", torch.zeros(size, dtype=weight.dtype, device=weight.device))

    def forward(self, x_BSD: Tensor, cos_Sd: Tensor, sin_Sd: Tensor, position_S: Tensor, mask: Any) -> Tensor:
        """S more tokens at those positions; `mask` is [S, C], or the blocks to read."""
        heads, kv_heads, size = self.sizes
        widths = [heads * size, kv_heads * size, kv_heads * size]
        q, k, v = (
            part.unflatten(2, (-1, size)).transpose(1, 2) for part in _apply(self.qkv, norm(self.before, x_BSD), widths)
        )
        self.keys.index_copy_(2, position_S, rotate(k, cos_Sd, sin_Sd))
        self.values.index_copy_(2, position_S, v)
        attend = grouped if mask is None or isinstance(mask, Tensor) else skipping
        mixed_BHSd = attend(rotate(q, cos_Sd, sin_Sd), self.keys, self.values, mask)
        x_BSD = x_BSD + self.out(mixed_BHSd.transpose(1, 2).flatten(2))
        gate, up = _apply(self.gate_up, norm(self.between, x_BSD), [self.down.in_features] * 2)
        return x_BSD + self.down(functional.silu(gate) * up)


def norm(module: nn.Module, x_BSD: Tensor) -> Tensor:
    """The root mean square norm, in one kernel where there is one."""
    return functional.rms_norm(x_BSD, (x_BSD.shape[-1],), module.weight, module.variance_epsilon)


def _apply(products: nn.Module, x_BSD: Tensor, widths: list[int]) -> tuple[Tensor, ...]:
    """Several products of one input: each by itself, or one that is taken apart."""
    if isinstance(products, nn.ModuleList):
        return tuple(product(x_BSD) for product in products)
    whole: Tensor = products(x_BSD)
    return tuple(whole.split(widths, -1))


class Static:
    """`batch` sequences, each step the same kernels."""

    def __init__(self, model: MistralForCausalLM, fused: list[tuple[nn.Linear, nn.Linear]], shape: Model, *,
                 batch: int, length: int, compile_piece: Callable[[Callable], Callable] | None = None,
                 graph: bool = False) -> None:  # fmt: skip
        """Room for `length` tokens; `fused` is empty where projections stay apart; `compile_piece` compiles a part of
        a step; `graph`: the whole step is one CUDA graph."""
        inner, device = model.model, model.lm_head.weight.device
        length = -(-length // BLOCK) * BLOCK if device.type == "cuda" else length
        pairs: Sequence[tuple[nn.Linear, nn.Linear] | None] = fused if fused else [None] * len(inner.layers)
        self._layers = [Layer(layer, pair, shape, batch, length).eval().requires_grad_(False)
                        for layer, pair in zip(inner.layers, pairs, strict=True)]  # fmt: skip
        self._table, self._norm, self._output = inner.embed_tokens, inner.norm, model.lm_head
        self._frequencies = inner.rotary_emb.inv_freq
        self._places_C = torch.arange(length, device=device)
        self._skip = compile_piece is not None and device.type == "cuda"
        keep = compile_piece or (lambda piece: piece)
        self._layer, self._head = keep(run_layer), keep(choose)
        self.token_B1 = torch.zeros(batch, 1, dtype=torch.long, device=device)
        """What the next step reads."""
        self._position_1 = torch.zeros(1, dtype=torch.long, device=device)
        self._logits_BV = torch.empty(0)
        self._graph = self._capture() if graph else None

    @property
    def cache_bytes(self) -> int:
        """Of the KV cache, whole as it stands."""
        return sum(2 * layer.keys.numel() * layer.keys.element_size() for layer in self._layers)

    def start(self, prompt_BS: Tensor) -> Tensor:
        """Read a prompt, uncompiled; the logits [B, V] of its last position."""
        position_S = self._places_C[: prompt_BS.shape[1]]
        with torch.inference_mode():
            x_BSD, cos_Sd, sin_Sd = self._enter(prompt_BS, position_S)
            seen_SC = self._places_C <= position_S[:, None]
            for layer in self._layers:
                x_BSD = layer(x_BSD, cos_Sd, sin_Sd, position_S, seen_SC)
            logits_BV, token_B1 = choose(self._norm, self._output, x_BSD[:, -1:])
            self.token_B1.copy_(token_B1)
            self._position_1.fill_(prompt_BS.shape[1])
        return logits_BV

    def read(self, token_B1: Tensor) -> None:
        """Let the next step read this token instead of the one that was chosen."""
        self.token_B1.copy_(token_B1)

    def pretend(self, position: int, generator: torch.Generator) -> None:
        """As if a prompt of that many tokens had been read, the same one by all sequences; the cache is random."""
        for layer in self._layers:
            for part in (layer.keys, layer.values):
                part.copy_(torch.randn(part.shape[1:], generator=generator, device=part.device).expand_as(part))
        self._position_1.fill_(position)

    def step(self) -> Tensor:
        """One token; the logits [B, V] that the next one is chosen from, overwritten by the next step of a graph."""
        if self._graph is not None:
            self._graph.replay()
        else:
            with torch.inference_mode():
                self._once()
        return self._logits_BV

    def _once(self) -> None:
        x_BSD, cos_Sd, sin_Sd = self._enter(self.token_B1, self._position_1)
        mask = blocks(self._position_1, len(self._places_C)) if self._skip else (
            self._places_C <= self._position_1[:, None])  # fmt: skip
        for layer in self._layers:
            x_BSD = self._layer(layer, x_BSD, cos_Sd, sin_Sd, self._position_1, mask)
        self._logits_BV, token_B1 = self._head(self._norm, self._output, x_BSD)
        self.token_B1.copy_(token_B1)
        self._position_1.add_(1)

    def _enter(self, tokens_BS: Tensor, position_S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_BSD = self._table(tokens_BS)
        angles_Sd = torch.outer(position_S, self._frequencies).repeat(1, 2)
        return x_BSD, angles_Sd.cos().to(x_BSD.dtype), angles_Sd.sin().to(x_BSD.dtype)

    def _capture(self) -> Any:
        """The step as a graph; it runs on a stream of its own first, so that what is compiled or chosen is."""
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        with torch.inference_mode():
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._once()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                self._once()
        return graph


def run_layer(layer: Layer, x_BSD: Tensor, cos_Sd: Tensor, sin_Sd: Tensor, position_S: Tensor, mask: Any) -> Tensor:
    """One layer; compiled once, it serves all, for they differ in nothing but their tensors."""
    out: Tensor = layer(x_BSD, cos_Sd, sin_Sd, position_S, mask)
    return out


def choose(last: nn.Module, output: nn.Linear, x_B1D: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, V] and the likeliest token [B, 1]."""
    logits_BV: Tensor = output(norm(last, x_B1D))[:, -1]
    return logits_BV, logits_BV.argmax(-1, keepdim=True)
