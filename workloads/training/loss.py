"""Cross-entropy of a language model without its logits ever being whole in memory.

Logits take S·V numbers, at a vocabulary of 32,768 more than a layer's activations: 1.25 GiB for 4,096 tokens with their
fp32 copy and gradient. The loss is a mean over tokens, so it is taken for a few thousand at a time, and each share's
gradients are taken at once: the arithmetic stays 6·D·V a token, as with whole logits. torch 2.13 has the same as
functional.linear_cross_entropy; this one also runs on earlier ones and sums the weight's gradient in fp32.
"""

# mypy follows no imports into torch, so that autograd.Function is Any to it.
# mypy: allow-subclassing-any

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Shape suffixes: N tokens of all sequences, C tokens of one share, D hidden, V vocabulary.


def chunked_loss(hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, chunk: int) -> Tensor:
    """Mean cross-entropy of `labels_N`, the logits `chunk` tokens at a time; in fp32 at least."""
    loss: Tensor = _ChunkedLoss.apply(hidden_ND, weight_VD, labels_N, chunk)
    return loss


class _ChunkedLoss(torch.autograd.Function):
    """Takes the gradients in the forward pass; the backward pass scales them by what reaches the loss."""

    @staticmethod
    def forward(context: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, chunk: int) -> Tensor:
        count = len(labels_N)
        exact = torch.promote_types(hidden_ND.dtype, torch.float32)
        total = torch.zeros((), dtype=exact, device=hidden_ND.device)
        to_hidden_ND = torch.empty_like(hidden_ND)
        to_weight_VD = torch.zeros_like(weight_VD, dtype=exact)
        for begin in range(0, count, chunk):
            part = slice(begin, begin + chunk)
            slope_CV = functional.linear(hidden_ND[part], weight_VD).to(exact)
            labels_C = labels_N[part, None]
            log_sum_C = slope_CV.logsumexp(-1, keepdim=True)
            total += (log_sum_C - slope_CV.gather(1, labels_C)).sum()
            slope_CV.sub_(log_sum_C).exp_().scatter_add_(1, labels_C, -torch.ones_like(log_sum_C)).div_(count)
            rounded_CV = slope_CV.to(weight_VD.dtype)
            to_hidden_ND[part] = rounded_CV @ weight_VD
            to_weight_VD += rounded_CV.T @ hidden_ND[part]
        context.save_for_backward(to_hidden_ND, to_weight_VD.to(weight_VD.dtype))
        return total / count

    @staticmethod
    def backward(context: Any, to_loss: Tensor) -> Any:
        to_hidden_ND, to_weight_VD = context.saved_tensors
        return to_hidden_ND * to_loss.to(to_hidden_ND.dtype), to_weight_VD * to_loss.to(to_weight_VD.dtype), None, None
