"""What the backward pass finds in memory: the bytes that the forward pass kept for it, counted as they are kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from workloads.training.trainee import whole


class Kept:
    """Counts each piece of memory once, however many operations keep it, and no parameter."""

    def __init__(self, model: nn.Module) -> None:
        """`model`'s own weights are not counted: they are there anyway."""
        self._owned = {_storage(whole(weights)) for weights in model.parameters()}
        self._pieces: dict[int, tuple[int, Tensor]] = {}

    @property
    def bytes(self) -> int:
        """Kept so far."""
        return sum(size for size, _ in self._pieces.values())

    def note(self, tensor: Tensor) -> Tensor:
        """Count a tensor that is being kept; it is held here too, so that its memory cannot be another's meanwhile."""
        where = _storage(tensor)
        if where not in self._owned and not isinstance(tensor, nn.Parameter):  # FSDP2's gathered weights are new ones
            self._pieces[where] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor


@contextmanager
def kept(model: nn.Module) -> Iterator[Kept]:
    """Count what is kept by every forward pass inside."""
    count = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(count.note, lambda tensor: tensor):
        yield count


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())
