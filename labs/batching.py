"""What a batch does to a decode step: its intensity, the limit that the context sets, and where the ridge is reached.

A batch reads the weights once for all its sequences, but each sequence's KV cache for that sequence alone: so the
intensity grows with the batch towards a limit that depends on the context only. Where that limit lies under a
device's ridge, no batch makes decoding compute-bound. Symbols as in `labs.models`.
"""

import math

from labs.models import Model


def decode_intensity(model: Model, context: int, batch: int, size: int = 2) -> float:
    """FLOP/B of a decode step of `batch` sequences, weights and cache of `size` bytes an element."""
    moved = model.decode_bytes(context, batch=batch, weight_size=size, kv_size=size)
    return batch * model.decode_flops(context) / moved


def intensity_limit(model: Model, context: int, size: int = 2) -> float:
    """AI∞: what `decode_intensity` tends to as the batch grows, 2·N_mm/(S·KV) + H/K at 2 bytes an element.

    The input table's rows, one a sequence, are left out: less than a thousandth from a context of 100 on.
    """
    return model.decode_flops(context) / (context * model.kv_bytes(size))


def longest_context(model: Model, ridge: float, size: int = 2) -> float:
    """The longest context at which some batch still reaches `ridge`; infinite where every context does."""
    per_token = model.kv_bytes(size)
    attention = (model.decode_flops(2) - model.decode_flops(1)) / per_token
    return math.inf if ridge <= attention else 2 * model.multiplying_weights / (per_token * (ridge - attention))


def batch_at_ridge(model: Model, context: int, ridge: float, size: int = 2) -> float:
    """The batch at which a decode step turns compute-bound; infinite where none does."""
    alone = model.decode_bytes(context, batch=1, weight_size=size, kv_size=size)
    shared = size * (model.multiplying_weights + model.norm_weights)
    gained = model.decode_flops(context) - ridge * (alone - shared)
    return math.inf if gained <= 0 else ridge * shared / gained
