"""Do several ranks train what one process would? The smallest model in fp32, where both fit, over the same batches.

Losses of every step and all gradients of the first are compared. Parts are summed in another order, so that they are
equal up to fp32's rounding and not bit by bit: measured on mistral-nano, gradients differ by 2e-6 of their norm. How
much may differ, each strategy says: gradients that travel in fewer bits differ by more.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labs.models import find_model
from workloads.chain import draw
from workloads.group import Group
from workloads.parallel.settings import Settings
from workloads.parallel.strategy import Build, Strategy, Trainer, alone, builder, trainer_of
from workloads.parity import gradient_failure

_SIZE = 8
_MODEL, _SEQUENCE, _STEPS = "mistral-nano", 32, 3


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What was compared."""

    losses: tuple[float, ...]
    """Of the ranks together, each step."""
    alone: tuple[float, ...]
    """Of one process."""
    gradients: float
    """Largest relative difference of a parameter's gradient."""
    allowed: float
    """Most that each of them may be."""

    @property
    def losses_differ(self) -> float:
        """Largest relative difference of a loss."""
        return max(abs(one - other) / abs(other) for one, other in zip(self.losses, self.alone, strict=True))

    @property
    def text(self) -> str:
        """For a record's `checked`."""
        return (f"{_MODEL} in fp32 like one process: {len(self.losses)} losses within {self.losses_differ:.0e}, "
                f"gradients within {self.gradients:.0e}, allowed {self.allowed:.0e}")  # fmt: skip

    @property
    def config(self) -> dict[str, object]:
        """For a record's row."""
        return {
            "parity_losses": list(self.losses),
            "parity_alone": list(self.alone),
            "parity_gradients": self.gradients,
        }


def check_parity(strategy: Strategy, settings: Settings, group: Group, build: Build | None = None) -> Parity:
    """Train the smallest model both ways; `build` is how it is made.

    Raises:
        CheckFailed: on every rank, if losses or gradients are not one process's.
    """
    small = Settings(model=_MODEL, dtype="fp32", batch=-(-_SIZE // group.size), sequence=_SEQUENCE, steps=8,
                     learning_rate=settings.learning_rate, seed=settings.seed, threads=settings.threads)  # fmt: skip
    build = build or builder(find_model(_MODEL), small.seed, group.device)
    size = (group.size * small.batch, _SEQUENCE + 1)
    batches = [draw(small.seed, step, *size) for step in range(_STEPS)]
    together = trainer_of(strategy, small, build, group.device)
    mine, gradients = _run(together, batches)
    found = tuple(sum(step) / group.size for step in zip(*group.gather(mine), strict=True))
    if group.first:
        expected, reference = _run(trainer_of(alone(), small, build, group.device), batches)
        difference, failure = gradient_failure(gradients, reference, strategy.allowed)
        parity = Parity(losses=found, alone=expected, gradients=difference, allowed=strategy.allowed)
        if not failure and not parity.losses_differ <= strategy.allowed:
            failure = f"losses {found} are not one process's {expected}, allowed {strategy.allowed:.0e}"
    else:
        parity, failure = Parity(losses=found, alone=found, gradients=0.0, allowed=strategy.allowed), ""
    group.require(f"{strategy.name} like one process", failure)
    return parity


def _run(trainer: Trainer, batches: list[Tensor]) -> tuple[tuple[float, ...], dict[str, Tensor]]:
    """Losses of all steps and gradients of the first, which are computed apart: a step leaves none behind."""
    tokens_BT = trainer.strategy.share_of(batches[0], trainer.device)
    trainer.backward(tokens_BT)
    gradients = whole_gradients(trainer.model)
    return trainer.train(batches).losses, gradients


def whole_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all gradients by the names of the plain model, sharded ones put together; all ranks call it."""
    found = {}
    for name, weights in model.named_parameters():
        if weights.grad is not None:
            gradient = weights.grad.full_tensor() if hasattr(weights.grad, "full_tensor") else weights.grad
            found[name.removeprefix("module.")] = gradient.detach().clone().to(torch.float32)
    return found
