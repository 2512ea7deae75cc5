"""What a model really takes of a device's memory: every tensor of a training step or a prefill, counted.

On a GPU the allocator counts. On a CPU nothing does, so here every operation's results are counted when they are made
and when they are let go; what a kernel needs for itself meanwhile is seen by neither.
"""

# mypy follows no imports into torch, so that TorchDispatchMode is Any to it.
# mypy: allow-subclassing-any

import os
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labs.memory import Recipe, Saving, States
from labs.models import Model
from labs.placement import Place, Verdict, judge
from workloads.decoder import Decoder, loss_of
from workloads.device import TORCH_DTYPES, Device
from workloads.mistral import build


class Tally(TorchDispatchMode):
    """Bytes of all storages that operations made since it was entered, as far as they still live; and the most."""

    def __init__(self, standing: Iterable[Tensor] = ()) -> None:
        """`standing`: tensors that are there already, and count."""
        super().__init__()
        self.live = self.most = 0
        self._known: set[int] = set()
        for tensor in standing:
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.most = max(self.most, self.live)
        weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@dataclass(kw_only=True)
class Peak:
    """The most bytes that were held at once; filled when `watch` ends."""

    bytes: int = 0
    how: str = ""


@contextmanager
def watch(device: Device, standing: Iterable[Tensor]) -> Iterator[Peak]:
    """Find the most that is held while the block runs, with what is `standing` before."""
    peak = Peak()
    if device.cuda:
        torch.cuda.reset_peak_memory_stats(device.torch)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device.torch)
        peak.how = "torch.cuda.max_memory_allocated"
        return
    with Tally(standing) as tally:
        yield peak
    peak.bytes, peak.how = tally.most, "results of all operations, counted"


class Saved:
    """What each part of a model saves for its backward pass: bytes of storages, each counted where it comes first."""

    def __init__(self, model: nn.Module, layers: Iterable[nn.Module], head: nn.Module) -> None:
        """Count in `layers`, by their number, and from `head` on under "head"; weights do not count."""
        self.bytes: dict[str, int] = {}
        self._place = "before"
        self._known = {weights.untyped_storage()._cdata for weights in model.parameters()}
        places = [(f"layer {number}", layer) for number, layer in enumerate(layers)]
        self._handles = [
            module.register_forward_pre_hook(lambda *_ignored, name=name: self._enter(name))
            for name, module in (*places, ("head", head))
        ]

    def __enter__(self) -> "Saved":
        """Begin to count."""
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *_raised: object) -> None:
        """Stop counting."""
        self._hooks.__exit__()
        for handle in self._handles:
            handle.remove()

    @property
    def layers(self) -> int:
        """Bytes of all layers."""
        return sum(count for name, count in self.bytes.items() if name.startswith("layer"))

    def _enter(self, name: str) -> None:
        self._place = name

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:  # the graph holds it, so that no other takes its place meanwhile
            self._known.add(storage._cdata)
            self.bytes[self._place] = self.bytes.get(self._place, 0) + storage.nbytes()
        return tensor


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Bytes by the names of `labs.memory`'s parts, and the most at once."""

    parts: dict[str, int]
    peak: int
    how: str
    """Where the peak comes from."""
    saved: dict[str, int] = field(default_factory=dict)
    """Of training: bytes that each layer and the head saved."""


def count_training(shape: Model, dtype: str, device: Device, *, batch: int, context: int, seed: int) -> Counted:
    """A training step with gradients held, the second one: AdamW makes its moments in the first. All in `dtype`."""
    torch.manual_seed(seed)
    with device.torch:
        model = Decoder(shape).to(TORCH_DTYPES[dtype])
        tokens_BT = torch.randint(shape.vocabulary, (batch, context + 1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False)
    loss_of(model, tokens_BT).backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=False)
    weights = list(model.parameters())
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    moments = [state[name] for state in optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")]
    saved = Saved(model, model.model.layers, model.model.norm)
    with watch(device, (*weights, *gradients, *moments)) as peak:
        with saved:
            loss = loss_of(model, tokens_BT)
        loss.backward()
    return Counted(
        parts={"weights": _bytes(weights), "gradients": _bytes(gradients), "optimiser": _bytes(moments),
               "activations": saved.layers},
        peak=peak.bytes, how=peak.how, saved=saved.bytes,
    )  # fmt: skip


def count_serving(shape: Model, dtype: str, device: Device, *, batch: int, context: int, seed: int) -> Counted:
    """The prefill of `batch` prompts of `context` tokens, and the cache it leaves."""
    model = build(shape, dtype, device, seed)
    weights = list(model.parameters())
    tokens_BS = torch.randint(shape.vocabulary, (batch, context), device=device.torch)
    with watch(device, weights) as peak, torch.inference_mode():
        cache = model(tokens_BS, use_cache=True, logits_to_keep=1).past_key_values
    kept = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return Counted(parts={"weights": _bytes(weights), "KV cache": _bytes(kept)}, peak=peak.bytes, how=peak.how)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of the storages behind them, each once."""
    return sum({part.untyped_storage()._cdata: part.untyped_storage().nbytes() for part in tensors}.values())


def this_machine(device: Device) -> Place:
    """The devices of this machine."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not device.cuda:
        return Place(name="this machine's memory", devices=1, device_bytes=host, host_bytes=0, source="the system")
    count = torch.cuda.device_count()
    return Place(
        name=f"{count} × {device.name} of this machine", devices=count, host_bytes=host, bf16="bf16" in device.dtypes,
        device_bytes=int(torch.cuda.mem_get_info(device.torch)[1]), source="the driver",
    )  # fmt: skip


def recipe_here(device: Device) -> Recipe:
    """What `count_training` trains: one device, everything in the type that it computes in, nothing compiled."""
    states: States = "fp32" if device.half == "fp32" else "bf16"
    saving: Saving = "eager" if device.cuda else "eager-cpu"
    return Recipe(states=states, saving=saving, compute_size=4 if states == "fp32" else 2)


def verdict_here(model: Model, device: Device, context: int) -> Verdict:
    """Training `model` as `count_training` does, on one device of this machine with the memory that is free."""
    here = replace(this_machine(device), devices=1)
    free = replace(here, device_bytes=min(here.device_bytes, device.memory_bytes or here.device_bytes))
    return judge(model, free, recipe_here(device), batch=1, context=context)
