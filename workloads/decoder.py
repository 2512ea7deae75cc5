"""A small decoder language model in plain torch, of Mistral's architecture: what the training workloads train.

Grouped-query attention with rotary positions, SwiGLU, RMS norms before each block, untied tables. Modules bear the
names of Mistral's checkpoints: weights pass to and from `transformers` by name, and a test proves the two equal.
"""

# mypy follows no imports into torch, so that nn.Module is Any to it.
# mypy: allow-subclassing-any

import torch
from torch import Tensor, nn
from torch.nn import functional

from labs.models import Model

# Shape suffixes: B batch, S tokens, D hidden, H heads, K KV heads, d head size, F feed-forward, V vocabulary.

ROPE_THETA = 1e6
NORM_EPSILON = 1e-6
INITIAL_DEVIATION = 0.02


class Attention(nn.Module):
    """Causal self-attention in which several query heads share a key and value head."""

    def __init__(self, shape: Model) -> None:
        """Four projections without bias."""
        super().__init__()
        self.head_size = shape.head_size
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_size, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_size, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_size, shape.hidden, bias=False)

    def forward(self, x_BSD: Tensor, cos_Sd: Tensor, sin_Sd: Tensor) -> Tensor:
        """Attend from every position to itself and those before it."""
        q_BHSd = rotate(self._heads(self.q_proj(x_BSD)), cos_Sd, sin_Sd)
        k_BKSd = rotate(self._heads(self.k_proj(x_BSD)), cos_Sd, sin_Sd)
        v_BKSd = self._heads(self.v_proj(x_BSD))
        mixed_BHSd = functional.scaled_dot_product_attention(q_BHSd, k_BKSd, v_BKSd, is_causal=True, enable_gqa=True)
        return self.o_proj(mixed_BHSd.transpose(1, 2).flatten(2))

    def _heads(self, x_BSX: Tensor) -> Tensor:
        return x_BSX.unflatten(2, (-1, self.head_size)).transpose(1, 2)


def rotary(length: int, head_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles [S, d], each frequency twice (https://arxiv.org/abs/2104.09864)."""
    exponents = torch.arange(0, head_size, 2, device=device) / head_size
    angles_Sd = torch.outer(torch.arange(length, device=device), ROPE_THETA**-exponents).repeat(1, 2)
    return angles_Sd.cos(), angles_Sd.sin()


def rotate(x_BHSd: Tensor, cos_Sd: Tensor, sin_Sd: Tensor) -> Tensor:
    """Turn each pair (i, i + d/2) of a head by its position's angle."""
    left, right = x_BHSd.chunk(2, -1)
    return (x_BHSd * cos_Sd + torch.cat((-right, left), -1) * sin_Sd).to(x_BHSd.dtype)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, shape: Model) -> None:
        """Three projections without bias."""
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, shape.hidden, bias=False)

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Each position by itself."""
        return self.down_proj(functional.silu(self.gate_proj(x_BSD)) * self.up_proj(x_BSD))


class Layer(nn.Module):
    """Attention, then feed-forward, each added to what it read."""

    def __init__(self, shape: Model) -> None:
        """Two blocks, a norm before each."""
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, NORM_EPSILON)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, NORM_EPSILON)
        self.mlp = FeedForward(shape)

    def forward(self, x_BSD: Tensor, cos_Sd: Tensor, sin_Sd: Tensor) -> Tensor:
        """One layer."""
        x_BSD = x_BSD + self.self_attn(self.input_layernorm(x_BSD), cos_Sd, sin_Sd)
        return x_BSD + self.mlp(self.post_attention_layernorm(x_BSD))


class Stack(nn.Module):
    """Input table, layers, last norm."""

    def __init__(self, shape: Model) -> None:
        """All layers of `shape`."""
        super().__init__()
        self.head_size = shape.head_size
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, NORM_EPSILON)

    def forward(self, tokens_BS: Tensor) -> Tensor:
        """Hidden states [B, S, D]."""
        cos_Sd, sin_Sd = rotary(tokens_BS.shape[1], self.head_size, tokens_BS.device)
        x_BSD = self.embed_tokens(tokens_BS)
        for layer in self.layers:
            x_BSD = layer(x_BSD, cos_Sd, sin_Sd)
        return self.norm(x_BSD)


class Decoder(nn.Module):
    """Tokens in, logits out; weights N(0, 0.02) from torch's global generator."""

    def __init__(self, shape: Model) -> None:
        """A model of that shape, with `shape.parameters` parameters."""
        super().__init__()
        self.model = Stack(shape)
        self.lm_head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        for weights in self.parameters():
            if weights.dim() > 1:
                nn.init.normal_(weights, std=INITIAL_DEVIATION)

    def forward(self, tokens_BS: Tensor) -> Tensor:
        """Logits [B, S, V]."""
        return self.lm_head(self.model(tokens_BS))


def loss_of(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Mean cross-entropy of each token given those before it; T = S + 1, labels are shifted once, here."""
    logits_BSV = model(tokens_BT[:, :-1])
    return functional.cross_entropy(logits_BSV.flatten(0, 1).float(), tokens_BT[:, 1:].flatten())
