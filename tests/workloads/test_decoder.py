"""The plain torch decoder against transformers' Mistral, and both against the arithmetic of labs/models.py."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labs.models import MODELS, find_model
from workloads.decoder import Decoder, loss_of
from workloads.device import Device
from workloads.generate import build

NANO = find_model("mistral-nano")


def test_it_computes_what_transformers_computes_with_the_same_weights(cpu: Device) -> None:
    theirs = build(NANO, "fp32", cpu, seed=3)
    ours = Decoder(NANO)
    ours.load_state_dict(theirs.state_dict())
    tokens_BS = torch.randint(NANO.vocabulary, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens_BS), theirs(tokens_BS).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_it_has_as_many_parameters_as_the_arithmetic_says(name: str) -> None:
    with torch.device("meta"):
        model = Decoder(MODELS[name])
    assert sum(weights.numel() for weights in model.parameters()) == MODELS[name].parameters


@pytest.mark.parametrize("context", [16, 64])
def test_a_forward_pass_executes_the_flops_that_the_arithmetic_says(cpu: Device, context: int) -> None:
    """Eager attention: torch's counter leaves out the fused one on CPUs."""
    model = build(NANO, "fp32", cpu, seed=0)
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, context, dtype=torch.int64), use_cache=False)
    assert counter.get_total_flops() == NANO.forward_flops(context)


def test_no_token_sees_those_after_it() -> None:
    torch.manual_seed(0)
    model = Decoder(NANO)
    tokens_BS = torch.randint(NANO.vocabulary, (1, 12))
    changed_BS = tokens_BS.clone()
    changed_BS[0, 8] = (changed_BS[0, 8] + 1) % NANO.vocabulary
    with torch.no_grad():
        before_BSV, after_BSV = model(tokens_BS), model(changed_BS)
    torch.testing.assert_close(before_BSV[:, :8], after_BSV[:, :8])
    assert not torch.allclose(before_BSV[:, 8:], after_BSV[:, 8:])


def test_an_untrained_model_guesses_evenly() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        loss = float(loss_of(Decoder(NANO), torch.randint(NANO.vocabulary, (4, 65))))
    assert loss == pytest.approx(math.log(1024), abs=0.15)


def test_the_loss_compares_each_position_with_the_next_token() -> None:
    """A model whose logits copy its input is right exactly where the tokens repeat."""

    class Copy(torch.nn.Module):  # type: ignore[misc]  # mypy follows no imports into torch
        def forward(self, tokens_BS: torch.Tensor) -> torch.Tensor:
            return 100.0 * torch.nn.functional.one_hot(tokens_BS, 8).float()

    assert float(loss_of(Copy(), torch.full((2, 9), 3))) == pytest.approx(0, abs=1e-6)
    assert float(loss_of(Copy(), torch.tensor([[1, 2, 3, 4]]))) == pytest.approx(100, rel=1e-3)
