"""mesh: the ranks as a grid, data × tensor, and every shape of it that they can take, over the same batch.

Ranks of a row split each layer's matrices and work on the same tokens; ranks of a column share the batch and shard
the states. At one end is fully sharded data parallelism (n × 1): its bytes follow the parameters, whatever the
tokens. At the other tensor parallelism (1 × n): its bytes follow the tokens, whatever the parameters, and none of
them hides. In between a rank sends (d−1)/d · (2·w + r)·P/t of parameters (its tables undivided) and
4·L · 2(t−1)/t · w·T/d·D of hidden states, d ranks along data and t along tensor. Which end wins is a matter of tokens
per step and of the links: guess, from the bytes that are printed first.

Where memory allows, each rank of a column keeps a copy of its part of the states instead, and only averages gradients:
data parallel × tensor parallel, 2(d−1)/d · r·P/t of bytes, of which most can hide under the backward pass.

Method: ddp's batches, timing and checks; states sharded along data, matrices split along tensor; a grid with both sides
above 1 runs with copies too. Where the ranks are too few for one, that is said to be not applicable.

Output: for each grid seconds per step taken apart, tokens/s, bytes counted and predicted; one record.

    python -m workloads.mesh
    torchrun --standalone --nproc-per-node 4 -m workloads.mesh
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from torch.distributed.device_mesh import DeviceMesh

from labs.memory import refuse_uneven
from labs.models import find_model
from workloads.command import counts, start
from workloads.device import Device
from workloads.group import Group, Place
from workloads.parallel.grid import grid_of, grid_strategy
from workloads.parallel.settings import Settings, chosen, parser_of
from workloads.parallel.strategy import Strategy
from workloads.parallel.workload import Comparison, enter
from workloads.record import Surroundings


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """What is trained, on which grids."""

    tensors: tuple[int, ...]
    """Ranks along tensor, one grid each; the first is the headline."""


def configure(flags: argparse.Namespace, device: Device, here: Place) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    told = chosen(flags, device)
    shape = find_model(told["model"])
    able = [ranks for ranks in range(1, here.size + 1) if here.size % ranks == 0 and shape.kv_heads % ranks == 0]
    for ranks in flags.tensor or ():
        if here.size % ranks:
            raise ValueError(f"tensor={ranks} does not divide {here.size} ranks: write some of "
                             f"{','.join(map(str, able))}")  # fmt: skip
        refuse_uneven(shape, ranks)
    return Config(
        **told, tensors=flags.tensor or tuple(sorted(able, key=lambda ranks: (ranks in (1, here.size), ranks)))
    )


def impossible(config: Config, ranks: int) -> str:
    """Why the grid has no middle, or nothing ("") where it has one."""
    if any(1 < tensor < ranks for tensor in config.tensors):
        return ""
    return f"a grid with both sides above 1: not applicable to {ranks} rank{'s' * (ranks > 1)}, it takes at least 4"


def ways(grid: DeviceMesh) -> tuple[bool, ...]:
    """With states sharded, and on a grid with both sides above 1 with copies of them too: one side alone is ddp."""
    return (False, True) if grid["data"].size() > 1 and grid["tensor"].size() > 1 else (False,)


def run(config: Config, group: Group, flags: argparse.Namespace, within: Surroundings) -> None:
    """Predict, measure every grid, print and write what came out."""
    grids = [grid_of(group, tensor) for tensor in config.tensors]
    why = impossible(config, group.size)
    if why:
        group.say(why)

    def strategies(dtype: str) -> list[Strategy]:
        return [grid_strategy(grid, dtype, copies=copies) for grid in grids for copies in ways(grid)]

    Comparison(name="mesh", config=config, group=group, strategies=strategies(config.dtype),
               like_fp32=strategies("fp32"), notes=(why,) if why else ()).run(flags, within)  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: what was trained is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = parser_of("mesh", __doc__)
    parser.add_argument("--tensor", type=counts, help="ranks along tensor, one grid each, for example 1,2,4")
    enter(parser, arguments, configure, run)


if __name__ == "__main__":
    start("mesh", main)
