"""The loss over shares of the logits is the loss over all of them, and so are its gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from workloads.training.loss import chunked_loss

TOKENS, HIDDEN, VOCABULARY = 37, 8, 50


def operands(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden_ND = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight_VD = torch.randn(VOCABULARY, HIDDEN, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden_ND, weight_VD, torch.randint(VOCABULARY, (TOKENS,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 10, 37, 64])
def test_shares_of_any_size_give_the_whole_batchs_loss_and_gradients(chunk: int) -> None:
    hidden_ND, weight_VD, labels_N = operands(torch.float64)
    whole = functional.cross_entropy(functional.linear(hidden_ND, weight_VD), labels_N)
    expected = torch.autograd.grad(3 * whole, (hidden_ND, weight_VD))
    loss = chunked_loss(hidden_ND, weight_VD, labels_N, chunk)
    found = torch.autograd.grad(3 * loss, (hidden_ND, weight_VD))
    torch.testing.assert_close(loss, whole, rtol=1e-12, atol=0)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-13)


def test_in_bf16_the_loss_is_fp32_and_the_gradients_are_near_the_exact_ones() -> None:
    hidden_ND, weight_VD, labels_N = operands(torch.bfloat16)
    loss = chunked_loss(hidden_ND, weight_VD, labels_N, 10)
    loss.backward()
    exact = [part.detach().double().requires_grad_() for part in (hidden_ND, weight_VD)]
    whole = functional.cross_entropy(functional.linear(*exact), labels_N)
    whole.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(whole.detach()), rel=1e-2)
    for rounded, precise in zip((hidden_ND, weight_VD), exact, strict=True):
        assert rounded.grad.dtype == torch.bfloat16
        assert float((rounded.grad - precise.grad).norm() / precise.grad.norm()) < 2e-2
