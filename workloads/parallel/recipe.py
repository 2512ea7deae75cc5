"""How a sharded model's states are kept: chosen by memory, and the optimiser that goes with the choice.

From what changes the numbers least to what saves most: everything in fp32; everything in bf16, rounded up or down by
chance so that small updates are not lost; bf16 with moments of one byte; fp32 in the host's memory, which is slow.
The footprint is `labs.memory`'s, the memory the device's own.
"""

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from labs.memory import Recipe, Saving, States
from labs.models import Model, find_model
from labs.placement import Place, Verdict, choose, judge
from workloads.device import Device

STATES: tuple[States, ...] = ("fp32", "bf16", "8-bit", "offload")
_SAVINGS: tuple[Saving, ...] = ("eager", "recomputed")


def place_of(device: Device, ranks: int, nodes: int) -> Place:
    """The devices of this run, with the memory that is free on this rank's."""
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Place(name=f"{ranks} × {device.name}", devices=ranks, device_bytes=device.memory_bytes, host_bytes=host,
                 nodes=nodes, bf16="bf16" in device.dtypes, source="free on this device now")  # fmt: skip


def verdicts(model: Model, place: Place, *, batch: int, sequence: int, states: str = "") -> Iterator[Verdict]:
    """Every way to keep the states and activations of a sharded model there, best first; `states`: only those."""
    plain = Recipe(strategy="fsdp" if place.devices > 1 else "one", ranks=place.devices)
    for kept in STATES:
        for saving in _SAVINGS if states in ("", kept) else ():
            recipe = replace(plain, states=kept, saving=saving)
            yield judge(model, place, recipe, batch=batch, context=sequence)


def choose_states(model: Model, device: Device, *, batch: int, sequence: int, ranks: int, nodes: int,
                  states: str = "") -> Recipe:  # fmt: skip
    """The best recipe that fits; on a CPU, which nobody should fill, fp32.

    Raises:
        ValueError: none fits, or its library is absent.
    """
    if not device.cuda:
        if states not in ("", "fp32"):
            raise ValueError(f"states={states!r} need a GPU: write --states fp32, or leave it out")
        return Recipe(strategy="fsdp" if ranks > 1 else "one", ranks=ranks, saving="eager-cpu", compute_size=4)
    place = place_of(device, ranks, nodes)
    judged = list(verdicts(model, place, batch=batch, sequence=sequence, states=states))
    found = choose(judged)
    if found is None or found.recipe is None:
        least = min(judged, key=lambda verdict: verdict.footprint.bytes)
        raise ValueError(
            f"model={model.name!r} does not fit {place.name} with {batch} × {sequence} tokens a rank "
            f"(at best {least.way}: {least.why}): write a smaller --model, --batch or --sequence"
        )
    demand_library(found.recipe)
    return found.recipe


def demand_library(recipe: Recipe) -> None:
    """Check that what the recipe needs is installed.

    Raises:
        ValueError: it is not.
    """
    if recipe.states in ("bf16", "8-bit") and importlib.util.find_spec("torchao") is None:
        raise ValueError(
            f"states={recipe.states!r} need torchao, which is not installed: pip install torchao, or write "
            "--states offload or a smaller --model"
        )


def optimiser_of(recipe: Recipe, groups: list[dict[str, Any]], rate: float, device: Device) -> torch.optim.Optimizer:
    """AdamW with the recipe's states."""
    if recipe.states in ("fp32", "offload"):
        return torch.optim.AdamW(groups, lr=rate, fused=device.cuda)
    from torchao.optim import AdamW8bit, _AdamW

    kind = _AdamW if recipe.states == "bf16" else AdamW8bit
    made: torch.optim.Optimizer = kind(groups, lr=rate, bf16_stochastic_round=True)
    return made


def largest_sharded(device: Device, *, batch: int, sequence: int, ranks: int, nodes: int) -> str:
    """The largest shape that fits sharded over the ranks; on a CPU the smallest."""
    if not device.cuda:
        return "mistral-nano"
    place = place_of(device, ranks, nodes)
    for name in ("mistral-7b", "mistral-tiny"):
        judged = list(verdicts(find_model(name), place, batch=batch, sequence=sequence))
        if choose(judged) is not None:
            return name
    return "mistral-mini"
