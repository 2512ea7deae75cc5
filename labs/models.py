"""Model shapes and what they cost: parameters, FLOPs, bytes, KV cache. Exact integers, by closed form.

`mistral-7b` is the v0.3 shape. The smaller ones keep its proportions (4 query heads to a KV head, F = 3.5 D):
-tiny halves every dimension except head size and vocabulary, -mini halves again, -nano is for tests. Their names
mean these shapes, not products of Mistral AI.

Symbols: L layers, D hidden, H heads, K KV heads, d head size, F feed-forward, V vocabulary, S context in tokens
including the current one, B batch, w bytes per weight, c bytes per KV element. A multiply-add is two FLOPs; norms,
softmax, activations and rotary embedding are not counted.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Model:
    """A decoder of Mistral's architecture, with untied input and output tables."""

    name: str
    hidden: int
    """D."""
    layers: int
    """L."""
    heads: int
    """H."""
    kv_heads: int
    """K."""
    head_size: int
    """d."""
    feed_forward: int
    """F."""
    vocabulary: int
    """V."""

    @property
    def attention_weights(self) -> int:
        """Weights of one layer's four attention projections: 2·D·H·d + 2·D·K·d."""
        return 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)

    @property
    def mlp_weights(self) -> int:
        """Weights of one layer's gate, up and down projections: 3·D·F."""
        return 3 * self.hidden * self.feed_forward

    @property
    def layer_weights(self) -> int:
        """One layer's weights with its two norms."""
        return self.attention_weights + self.mlp_weights + 2 * self.hidden

    @property
    def table_weights(self) -> int:
        """The input embedding, and as much again the output projection: D·V."""
        return self.hidden * self.vocabulary

    @property
    def multiplying_weights(self) -> int:
        """N_mm: weights that every token multiplies; the output projection is one, the input table is not."""
        return self.layers * (self.attention_weights + self.mlp_weights) + self.table_weights

    @property
    def norm_weights(self) -> int:
        """N_norm: two norms a layer and the last one."""
        return (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """P: everything that is stored."""
        return self.multiplying_weights + self.norm_weights + self.table_weights

    def weight_bytes(self, weight_size: int) -> int:
        """All weights at `weight_size` bytes each."""
        return weight_size * self.parameters

    def adam_bytes(self) -> int:
        """Weights, gradients and both moments in fp32: 16 bytes a parameter, before activations."""
        return 16 * self.parameters

    def kv_bytes(self, kv_size: int) -> int:
        """KV cache of one token of one sequence at `kv_size` bytes an element."""
        return 2 * self.layers * self.kv_heads * self.head_size * kv_size

    def decode_flops(self, context: int) -> int:
        """One new token for one sequence, attending to `context` tokens with itself."""
        return 2 * self.multiplying_weights + 4 * self._attention_width * context

    def prefill_flops(self, prompt: int) -> int:
        """A causal prompt of one sequence, logits for its last token only."""
        body = 2 * (self.multiplying_weights - self.table_weights) * prompt
        return body + 2 * self.table_weights + 2 * self._attention_width * prompt * (prompt + 1)

    def forward_flops(self, context: int) -> int:
        """All logits with full, uncausal attention: what torch's FlopCounterMode counts in eager mode."""
        return 2 * self.multiplying_weights * context + 4 * self._attention_width * context**2

    def train_flops(self, context: int) -> int:
        """One trained token, forward and backward, causal attention counted exactly: the basis of our MFU."""
        return 6 * self.multiplying_weights + 6 * self._attention_width * (context + 1)

    def train_flops_palm(self, context: int) -> int:
        """One trained token by 6P + 12·L·D·S (PaLM, appendix B: https://arxiv.org/abs/2204.02311); for comparison."""
        return 6 * self.parameters + 12 * self._attention_width * context

    def train_flops_torchtitan(self, context: int) -> int:
        """One trained token as torchtitan counts: like PaLM's, input table left out; for comparison."""
        return 6 * (self.parameters - self.table_weights) + 12 * self._attention_width * context

    def train_flops_recomputed(self, context: int) -> int:
        """Executed per trained token when every layer is recomputed in the backward pass."""
        body = 8 * self.multiplying_weights - 2 * self.table_weights
        return body + 8 * self._attention_width * (context + 1)

    def decode_bytes(self, context: int, *, batch: int = 1, weight_size: int = 2, kv_size: int = 2) -> int:
        """Bytes that one decode step must move: every multiplying weight once, and per sequence one row of the
        input table and its KV cache."""
        per_sequence = weight_size * self.hidden + context * self.kv_bytes(kv_size)
        return weight_size * (self.multiplying_weights + self.norm_weights) + batch * per_sequence

    def prefill_bytes(self, prompt: int, *, batch: int = 1, weight_size: int = 2, kv_size: int = 2) -> int:
        """Bytes that a prefill must move: every multiplying weight once, and per token a row and its new KV."""
        per_token = weight_size * self.hidden + self.kv_bytes(kv_size)
        return weight_size * (self.multiplying_weights + self.norm_weights) + batch * prompt * per_token

    @property
    def _attention_width(self) -> int:
        """L·H·d: the width of attention's two products over all layers."""
        return self.layers * self.heads * self.head_size


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(name="mistral-7b", hidden=4096, layers=32, heads=32, kv_heads=8, head_size=128, feed_forward=14336,
              vocabulary=32768),
        Model(name="mistral-tiny", hidden=2048, layers=16, heads=16, kv_heads=4, head_size=128, feed_forward=7168,
              vocabulary=32768),
        Model(name="mistral-mini", hidden=1024, layers=8, heads=8, kv_heads=2, head_size=128, feed_forward=3584,
              vocabulary=32768),
        Model(name="mistral-nano", hidden=256, layers=4, heads=16, kv_heads=4, head_size=16, feed_forward=896,
              vocabulary=1024),
    )
}  # fmt: skip


def find_model(name: str) -> Model:
    """The shape called `name`.

    Raises:
        ValueError: there is no such shape; the message lists those there are.
    """
    if name not in MODELS:
        raise ValueError(f"model={name!r} does not exist: write one of {', '.join(MODELS)}")
    return MODELS[name]
