"""AdamW for a model whose weights are bf16: their fp32 masters lie with the moments, and are what it changes.

A step moves a weight by less than bf16 can tell from it, so that without a master most steps would change nothing.
16 bytes a parameter as with fp32 weights: weight 2, gradient 2, master 4, moments 8. What is saved is the cast of every
weight at every use; what is lost is precision of gradients that are summed over micro-batches.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


class Masters:
    """An optimiser over bf16 weights. Weight by weight: only one gradient at a time is in memory as fp32."""

    def __init__(self, weights: Iterable[Tensor], learning_rate: float) -> None:
        """The masters begin as what the weights are."""
        self._pairs = [(weight, weight.detach().float()) for weight in weights]
        self._steps = [torch.optim.AdamW([master], lr=learning_rate, fused=True) for _, master in self._pairs]

    def step(self) -> None:
        """Change every master by its weight's gradient, and round it into the weight."""
        with torch.no_grad():
            for (weight, master), one in zip(self._pairs, self._steps, strict=True):
                assert weight.grad is not None
                master.grad = weight.grad.float()
                one.step()
                weight.copy_(master)
                master.grad = None

    def zero_grad(self) -> None:
        """Give the gradients' memory back."""
        for weight, _ in self._pairs:
            weight.grad = None
