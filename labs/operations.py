"""The products that a model is made of, one by one: how often each runs in a step, its FLOPs, its bytes.

Over all of them the FLOPs are exactly those of `labs.models`: no part of a step is left out, none counted twice.
Query, key and value share one product, and so do gate and up, as an optimised decoder has them; that changes neither
FLOPs nor weights. Symbols as in `labs.models`; norms, softmax, activations and rotary embedding are not counted.
"""

from dataclasses import dataclass

from labs.models import Model


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One product of a step of decode or prefill."""

    name: str
    """"qkv", "attention", "o", "gate-up", "down" or "lm head"."""
    times: int
    """How often a step runs it: once a layer, or once."""
    flops: int
    """Of one run."""
    rows: int
    """M: rows that the weight is multiplied with. For attention the query positions of all sequences."""
    columns: int
    """N: rows of the weight [N, K]; 0 for attention, which has none."""
    inner: int
    """K; 0 for attention."""
    cached: int
    """Elements of keys and values that attention reads in one run; 0 for a product with weights."""
    passed: int
    """Elements that enter and leave one run beside weights and cache."""

    @property
    def attention(self) -> bool:
        """Whether this multiplies with the KV cache rather than with weights."""
        return self.columns == 0

    def moved_bytes(self, size: int) -> int:
        """Bytes that one run must move when every element takes `size` bytes and moves once."""
        return size * (self.columns * self.inner + self.cached + self.passed)


def decode_operations(model: Model, context: int, batch: int = 1) -> tuple[Operation, ...]:
    """One decode step of `batch` sequences, each attending to `context` tokens with its own, in running order."""
    width = model.heads * model.head_size
    attention = Operation(
        name="attention", times=model.layers, flops=batch * 4 * width * context, rows=batch, columns=0, inner=0,
        cached=batch * context * 2 * model.kv_heads * model.head_size, passed=2 * batch * width,
    )  # fmt: skip
    return _step(model, attention, batch, batch)


def prefill_operations(model: Model, prompt: int, batch: int = 1) -> tuple[Operation, ...]:
    """One causal prefill of `batch` prompts, logits of each one's last token only, in running order."""
    width = model.heads * model.head_size
    attention = Operation(
        name="attention", times=model.layers, flops=batch * 2 * width * prompt * (prompt + 1), rows=batch * prompt,
        columns=0, inner=0, cached=batch * prompt * 2 * model.kv_heads * model.head_size,
        passed=2 * batch * prompt * width,
    )  # fmt: skip
    return _step(model, attention, batch * prompt, batch)


def _step(model: Model, attention: Operation, rows: int, last: int) -> tuple[Operation, ...]:
    """All products of a step of `rows` tokens, of which `last` need logits."""
    hidden, width = model.hidden, model.heads * model.head_size
    return (
        _product("qkv", model.layers, rows, width + 2 * model.kv_heads * model.head_size, hidden),
        attention,
        _product("o", model.layers, rows, hidden, width),
        _product("gate-up", model.layers, rows, 2 * model.feed_forward, hidden),
        _product("down", model.layers, rows, hidden, model.feed_forward),
        _product("lm head", 1, last, model.vocabulary, hidden),
    )


def _product(name: str, times: int, rows: int, columns: int, inner: int) -> Operation:
    return Operation(name=name, times=times, flops=2 * rows * columns * inner, rows=rows, columns=columns, inner=inner,
                     cached=0, passed=rows * (columns + inner))  # fmt: skip
