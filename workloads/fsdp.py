"""fsdp: parameters, gradients and optimiser states sharded over all ranks; a layer is whole only while it runs.

Each rank keeps 1/n of everything. Before a layer runs its parameters are gathered, after it they are given up, and in
the backward pass they are gathered once more; its gradients are summed and scattered. A step so sends up to
(n−1)/n · (2·w·P + r·P) bytes a rank, w bytes a gathered element and r a gradient's: in bf16 with gradients in fp32
twice what data parallel sends, for 1/n of its memory. Kept after the forward pass, a layer is gathered once: fewer
bytes, more memory. Over several nodes there is a third way, hybrid: sharded over the ranks of each node, whole on each
node. What is gathered then never leaves it; between nodes travel the gradients alone, 1/m of them a rank, m ranks a
node. It takes as many times the memory as there are nodes.

States: fp32 where they fit. mistral-7b takes 108 GiB so, more than four L4 have; then bf16 with stochastic rounding,
8-bit moments or the host's memory, chosen by labs/memory.py from the memory that is free.

Method: ddp's batches, timing and checks, on shards: torch.distributed.fsdp.fully_shard, a layer a unit.

Output: for each way seconds per step taken apart, tokens/s, bytes counted and predicted, peak memory; one record.

    python -m workloads.fsdp
    torchrun --standalone --nproc-per-node 4 -m workloads.fsdp --model mistral-nano
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from labs.memory import Recipe, States, train
from labs.models import Model, find_model
from labs.traffic import Traffic, fully_sharded, hybrid_sharded
from workloads.command import positive, start
from workloads.decoder import Decoder
from workloads.device import Device
from workloads.group import Group, Place
from workloads.parallel.nodes import Layout, layout, refuse_nodes
from workloads.parallel.recipe import STATES, choose_states, largest_sharded, optimiser_of
from workloads.parallel.settings import BATCH, ROOM, Settings, chosen, parser_of, sequence_of
from workloads.parallel.sharding import materialise, shard
from workloads.parallel.strategy import Build, Strategy
from workloads.parallel.workload import Comparison, enter
from workloads.record import Surroundings, surroundings


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """What is trained, and how its states are kept."""

    states: States
    """"fp32", "bf16", "8-bit" or "offload": `labs.memory`."""
    recompute: bool
    """Whether a layer's activations are made again in the backward pass, for want of memory."""
    predicted_bytes: int
    """Of memory on each rank, by `labs.memory`."""
    nodes: int
    """Over which the ranks are spread."""
    hybrid_bytes: int
    """Of memory on each rank where the states are sharded over those of its node only; 0 for one node."""


def configure(flags: argparse.Namespace, device: Device, here: Place) -> Config:
    """The flags, with what the device and its memory suggest where none is given.

    Raises:
        ValueError: a value is not allowed, or the model does not fit.
    """
    sizes = {"batch": flags.batch or (1 if device.cuda else BATCH), "sequence": sequence_of(flags, device)}
    refuse_nodes(flags.nodes_as, here.size)
    crowd = {**sizes, "ranks": here.size, "nodes": flags.nodes_as or surroundings().nodes}
    model = flags.model or largest_sharded(device, **crowd)
    recipe = choose_states(find_model(model), device, states=flags.states or "", **crowd)
    told = {**chosen(flags, device, model), **sizes}
    needed, hybrid = (
        train(find_model(model), one, batch=sizes["batch"], context=sizes["sequence"]).bytes if one else 0
        for one in (recipe, hybrid_recipe(recipe, crowd["nodes"]))
    )
    return Config(**told, states=recipe.states, recompute=recipe.saving == "recomputed", predicted_bytes=needed,
                  nodes=crowd["nodes"], hybrid_bytes=hybrid)  # fmt: skip


def hybrid_recipe(recipe: Recipe, nodes: int) -> Recipe | None:
    """The same with states sharded over the ranks of a node; None where that is no third way."""
    within = recipe.ranks // nodes
    return replace(recipe, shards=within) if nodes > 1 and within > 1 and recipe.ranks % nodes == 0 else None


def strategy(config: Config, group: Group, mesh: DeviceMesh, *, large: bool, keep: bool = False,
             reduce_half: bool = False) -> Strategy:  # fmt: skip
    """States sharded over all ranks, or, over a mesh of nodes and their ranks, over those of a node.

    `large`: no rank could hold the whole model, so that none ever does.
    """
    shards = mesh["shard"]
    nodes = group.size // shards.size()
    gathered, half = (2 if config.dtype == "bf16" else 4), reduce_half and config.dtype == "bf16"
    kept = torch.bfloat16 if config.states in ("bf16", "8-bit") else torch.float32

    def wrap(model: nn.Module) -> nn.Module:
        offload = config.states == "offload"
        sharded = shard(model.to(kept), mesh, config.dtype, keep=keep, reduce_half=reduce_half,
                        recompute=config.recompute, offload=offload)  # fmt: skip
        if not large:
            return sharded
        where = torch.device("cpu") if offload else group.device.torch
        return materialise(sharded, config.seed, shards.get_local_rank(), where)

    def build() -> nn.Module:
        with torch.device("meta"):
            return Decoder(find_model(config.model))

    def traffic(shape: Model, _tokens: int) -> Traffic:
        sizes = {"size": gathered, "reduced": 2 if half else 4, "gathers": 1 if keep else 2}
        return (
            hybrid_sharded(shape, shards.size(), nodes, **sizes)
            if nodes > 1
            else fully_sharded(shape, group.size, **sizes)
        )

    def optimiser(groups: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
        return optimiser_of(Recipe(states=config.states), groups, rate, group.device)

    layers = "layers kept after the forward pass" if keep else "layers gathered twice"
    if nodes > 1:
        layers = f"hybrid over {nodes} nodes"
    made: Build | None = build if large else None
    return Strategy(
        name=f"{layers}, gradients in bf16" if half else layers, wrap=wrap, traffic=traffic, optimiser=optimiser,
        share=(group.rank, group.size), autocast=False, build=made,
        config={"states": config.states, "recompute": config.recompute, "keep": keep, "reduced": 2 if half else 4,
                "shards": shards.size()},
    )  # fmt: skip


def without_hybrid(config: Config, device: Device, places: Layout) -> str:
    """Why the states are not sharded over the ranks of a node as well, or nothing ("") where they are."""
    if places.within < 2 or places.nodes != config.nodes:
        each = ", ".join(str(len(ranks)) for ranks in places.ranks)
        return f"nodes have {each} ranks: it takes 2 or more, as many each"
    if device.cuda and config.hybrid_bytes > device.memory_bytes:
        return (f"{config.model} would take {config.hybrid_bytes / 2**30:.1f} GiB a rank, "
                f"{config.nodes} times the states of full sharding")  # fmt: skip
    return ""


def ways(config: Config, large: bool) -> tuple[list[dict[str, bool]], list[str]]:
    """What is compared, and what is not applicable and why."""
    found, notes = [{}, {"keep": True}], []
    if config.dtype == "bf16":
        found.append({"reduce_half": True})
    if large:
        found.remove({"keep": True})
        notes.append(f"layers kept after the forward pass: not applicable, all of {config.model} gathered on every "
                     "rank would not leave room")  # fmt: skip
    return found, notes


def run(config: Config, group: Group, flags: argparse.Namespace, within: Surroundings) -> None:
    """Predict, measure each way, print and write what came out."""
    device, shape = group.device, find_model(config.model)
    mesh = init_device_mesh(device.torch.type, (group.size,), mesh_dim_names=("shard",))
    large = device.cuda and (config.states != "fp32" or shape.adam_bytes() > ROOM * device.memory_bytes)
    found, notes = ways(config, large)
    plain = replace(config, model="mistral-nano", dtype="fp32", states="fp32", recompute=False)
    group.say(f"states of {config.model}: {config.states}, {config.predicted_bytes / 2**30:.2f} GiB a rank predicted"
              f"{', activations made again' if config.recompute else ''}")  # fmt: skip
    places = layout(group, flags.nodes_as)
    meshes = [(mesh, way) for way in found]
    why = without_hybrid(config, device, places)
    if places.nodes > 1 and why:
        notes.append(f"hybrid: not applicable, {why}")
    elif places.nodes > 1:
        grid = init_device_mesh(device.torch.type, (places.nodes, places.within), mesh_dim_names=("replicate", "shard"))
        meshes.append((grid, {}))
        group.say(f"hybrid: 1/{places.within} of the states on each rank instead of 1/{group.size}, "
                  f"{config.hybrid_bytes / 2**30:.2f} GiB predicted")  # fmt: skip
    for note in notes:
        group.say(note)
    Comparison(
        name="fsdp", config=config, group=group, fits_alone=not large, notes=tuple(notes),
        strategies=[strategy(config, group, over, large=large, **way) for over, way in meshes],
        like_fp32=[strategy(plain, group, over, large=False, **way) for over, way in meshes],
    ).run(flags, within)  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: what was trained is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = parser_of("fsdp", __doc__)
    parser.add_argument("--states", choices=STATES, help="how states are kept; default: the first that fits")
    parser.add_argument("--nodes-as", type=positive, help="take the ranks as spread over that many nodes")
    enter(parser, arguments, configure, run)


if __name__ == "__main__":
    start("fsdp", main)
