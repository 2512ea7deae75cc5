"""Counts the collectives that a step really runs, by watching the operators that every library sends them through."""

# mypy follows no imports into torch, so that its modes are Any to it.
# mypy: allow-subclassing-any

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labs.traffic import Call, Traffic, fold

_KINDS = {
    "allreduce_": "all-reduce", "all_reduce": "all-reduce", "all_reduce_": "all-reduce",
    "allreduce_coalesced_": "all-reduce", "all_reduce_coalesced": "all-reduce",
    "_allgather_base_": "all-gather", "allgather_": "all-gather", "all_gather_into_tensor": "all-gather",
    "allgather_into_tensor_coalesced_": "all-gather", "all_gather_into_tensor_coalesced": "all-gather",
    "all_gather_into_tensor_out": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter", "reduce_scatter_": "reduce-scatter",
    "reduce_scatter_tensor": "reduce-scatter", "reduce_scatter_tensor_coalesced": "reduce-scatter",
    "reduce_scatter_tensor_coalesced_": "reduce-scatter",
    "broadcast_": "broadcast", "broadcast": "broadcast", "alltoall_base_": "all-to-all",
    "all_to_all_single": "all-to-all",
}  # fmt: skip
"""Operators of c10d (DistributedDataParallel, FSDP2) and of its functional form (DTensor), by what they do."""
_SILENT = {"barrier", "wait_tensor", "_wrap_tensor_autograd", "monitored_barrier_"}
"""Operators of the same libraries that carry no data."""


class Counter(TorchDispatchMode):
    """Within it, every collective that this rank starts is written down; `traffic` is their sum."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        super().__init__()
        self._calls: list[Call] = []

    @property
    def traffic(self) -> Traffic:
        """What was counted."""
        return fold(self._calls)

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator, and write it down if it is a collective."""
        out = func(*args, **(kwargs or {}))
        if func.namespace in ("c10d", "_c10d_functional", "_c10d_functional_autograd"):
            name = func._schema.name.split("::")[1]
            if name not in _SILENT:
                self._calls.append(_call(_KINDS[name], [*args, *(kwargs or {}).values()], out))
        return out


def _call(kind: str, given: list[Any], out: Any) -> Call:
    """The buffer is the largest tensor that goes in or comes out: what all ranks hold together."""
    size = max(_bytes(given[:1]), _bytes([out]), _bytes(given[1:2]))
    return Call(collective=kind, ranks=_ranks(given), buffer_bytes=size)


def _bytes(values: list[Any]) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _ranks(given: list[Any]) -> int:
    """How many ranks take part: c10d's operators take the group itself, the functional ones its name."""
    for value in given:
        if isinstance(value, torch.ScriptObject):
            try:
                return int(dist.ProcessGroup.unbox(value).size())
            except RuntimeError:
                continue  # a reduction's kind is boxed too
    name = next(value for value in reversed(given) if isinstance(value, str))
    return int(dist.distributed_c10d._resolve_process_group(name).size())


def counted(step: Callable[[], object]) -> Traffic:
    """The collectives that `step` starts on this rank."""
    counter = Counter()
    with counter:
        step()
    return counter.traffic
