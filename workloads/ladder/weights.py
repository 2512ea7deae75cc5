"""The weights that all rungs share: brought up the ladder in place, so that a device holds one copy.

fp32 become bf16, projections become views of one fused weight, weights become packed; what a rung needs that has been
overwritten is made again from where it came.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import MistralForCausalLM

from workloads.device import TORCH_DTYPES

GROUP = 128
"""Weights of a row that share an int4 scale."""


class Weights:
    """One model, in the state that the current rung needs."""

    def __init__(self, make: Callable[[str], MistralForCausalLM], widest: str) -> None:
        """`make` builds the model in a data type, the same weights each time; `widest` is what they come in."""
        self._make, self._widest = make, widest
        self._model: MistralForCausalLM | None = None
        self._packed, self._dtype = "", ""
        self.fused: list[tuple[nn.Linear, nn.Linear]] = []
        """Of each layer q, k and v in one and gate and up in one, once `fuse` was called."""

    def at(self, dtype: str, packed: str = "") -> MistralForCausalLM:
        """The model with weights in `dtype`, or packed as `packed`."""
        wider = TORCH_DTYPES[dtype].itemsize > TORCH_DTYPES[self._dtype or dtype].itemsize
        if self._model is None or wider or self._packed not in ("", packed):
            self._model, self.fused, self._packed = None, [], ""  # freed before the next is made
            self._model, self._dtype = self._make(self._widest).requires_grad_(False), self._widest
        if self._dtype != dtype:
            self.fused = []
            for weight in self._model.parameters():  # not the rotary frequencies, which stay fp32
                weight.data = weight.data.to(TORCH_DTYPES[dtype])
            self._dtype = dtype
        if packed and not self._packed:
            self.fuse()
            self._packed = packed  # first: what fails halfway is no longer unpacked
            for linear in self.products():
                pack(linear, packed)
            for layer in self._model.model.layers:
                for part in (*parts_of(layer)[0], *parts_of(layer)[1]):
                    part.weight = nn.Parameter(torch.empty(0), requires_grad=False)  # else the unpacked would stay
        return self._model

    def fuse(self) -> None:
        """Give every layer its two fused weights; the projections become views of them."""
        assert self._model is not None
        if not self.fused:
            pairs = [parts_of(layer) for layer in self._model.model.layers]
            self.fused = [(fuse(projections), fuse(gate_up)) for projections, gate_up in pairs]

    def products(self) -> tuple[nn.Linear, ...]:
        """Every weight that a token is multiplied with, as the fused rungs have them."""
        assert self._model is not None
        layers = zip(self.fused, self._model.model.layers, strict=True)
        return (*(linear for (qkv, gate_up), layer in layers
                  for linear in (qkv, layer.self_attn.o_proj, gate_up, layer.mlp.down_proj)),
                self._model.lm_head)  # fmt: skip

    def read_bytes(self) -> int:
        """What one token reads: every product's weight with its scales, the norms, one row of the input table."""
        assert self._model is not None
        inner = self._model.model
        norms = [inner.norm, *(norm for layer in inner.layers
                               for norm in (layer.input_layernorm, layer.post_attention_layernorm))]  # fmt: skip
        if self._packed:
            weights = [linear.weight for linear in self.products()]
        else:
            weights = [linear.weight for linear in self._model.modules() if isinstance(linear, nn.Linear)]
        row = inner.embed_tokens.weight[0]
        return sum(held_bytes(tensor) for tensor in (*weights, *(norm.weight for norm in norms), row))


def parts_of(layer: nn.Module) -> tuple[tuple[nn.Linear, ...], tuple[nn.Linear, ...]]:
    """The products of a layer that read the same input: query, key and value; gate and up."""
    attention, mlp = layer.self_attn, layer.mlp
    return (attention.q_proj, attention.k_proj, attention.v_proj), (mlp.gate_proj, mlp.up_proj)


def fuse(parts: Sequence[nn.Linear]) -> nn.Linear:
    """One product in place of several of the same input; theirs become views of its weight."""
    weight = torch.cat([part.weight for part in parts])
    whole = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    whole.weight = nn.Parameter(weight, requires_grad=False)
    begin = 0
    for part in parts:
        part.weight = nn.Parameter(weight[begin : begin + part.out_features], requires_grad=False)
        begin += part.out_features
    return whole


def pack(linear: nn.Linear, packed: str) -> None:
    """Replace a weight by its int8, int4 or fp8 form with scales, by torchao."""
    from torchao.quantization import Float8WeightOnlyConfig, Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    # torchao would set Inductor's configuration for its own taste; ladder/compiler.py does.
    how = {
        "int8": lambda: Int8WeightOnlyConfig(set_inductor_config=False),
        "fp8": lambda: Float8WeightOnlyConfig(set_inductor_config=False),
        # The default packing needs a package that is not published for every torch; this one's kernel is torch's own.
        "int4": lambda: Int4WeightOnlyConfig(
            group_size=GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        ),
    }
    quantize_(linear, how[packed]())


def held_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements, of a packed one's with its scales and zeros."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return int(tensor.numel() * tensor.element_size())
    names, _ = tensor.__tensor_flatten__()
    # torchao keeps the zeros of a symmetric int8 as well; no kernel reads them.
    return sum(held_bytes(getattr(tensor, name)) for name in names if name != "zero_point")
