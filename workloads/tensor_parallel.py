"""tensor-parallel: every matrix of a layer split over the ranks, which work on the same tokens together.

Query, key, value, gate and up are split by columns, so that each rank has its own heads and its own part of the
feed-forward; output and down by rows, so that each rank has a summand of the result. A layer costs four all-reduces
of all its tokens' hidden states in training, two of them in the backward pass: 4·L · 2(n−1)/n · w·T·D bytes a rank.
None of it can hide behind anything: the next product waits for the sum. That is why this needs fast links, and why it
is for latency: a decode step reads 1/n of the weights on each rank and sends only a few kilobytes, 2·L times.

With sequence parallelism an all-reduce is taken apart into its two halves, and between them each rank holds its share
of the positions: the same bytes, 1/n of the memory between the blocks. Tables stay whole on every rank in training.

Method: ddp's timing and checks, all ranks on all tokens: torch.distributed.tensor's column- and row-wise styles.
The decode makes one process's tokens, checked on the smallest model.

Output: seconds per step and per token taken apart, tokens/s, bytes counted and predicted; one record.

    python -m workloads.tensor_parallel
    torchrun --standalone --nproc-per-node 4 -m workloads.tensor_parallel --sequence 64
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from torch.distributed.device_mesh import DeviceMesh

from labs.memory import refuse_uneven
from labs.models import find_model
from labs.results import Measurement
from workloads.command import positive, start
from workloads.device import TORCH_DTYPES, Device
from workloads.group import Group, Place
from workloads.parallel.bench import Outcome
from workloads.parallel.decoding import Request, alone, check_tokens, decode_lines, decode_rows, together, traffic_of
from workloads.parallel.grid import grid_of, grid_strategy
from workloads.parallel.links import Link, link_of
from workloads.parallel.settings import ROOM, Settings, chosen, parser_of
from workloads.parallel.strategy import Steps, Strategy
from workloads.parallel.workload import Comparison, enter
from workloads.record import Surroundings


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """What is trained, and what is asked of a split model."""

    answering: str
    """The model that answers, a name in labs/models.py."""
    prompt: int
    """Tokens of its prompt."""
    new_tokens: int
    """That it makes."""


def configure(flags: argparse.Namespace, device: Device, here: Place) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    told = chosen(flags, device)
    answering = flags.answering or answering_model(device)
    for name in (told["model"], answering):
        refuse_uneven(find_model(name), here.size)
    if told["sequence"] % here.size:
        raise ValueError(f"sequence={told['sequence']} does not split over {here.size} ranks: write a multiple of it")
    return Config(**told, answering=answering, prompt=flags.prompt or (512 if device.cuda else 32),
                  new_tokens=flags.new_tokens or (128 if device.cuda else 16))  # fmt: skip


def answering_model(device: Device) -> str:
    """mistral-7b where one GPU holds its weights, from which every rank takes its part; on a CPU the smallest."""
    if not device.cuda:
        return "mistral-nano"
    fits = find_model("mistral-7b").weight_bytes(2) < ROOM * device.memory_bytes
    return "mistral-7b" if fits else "mistral-tiny"


def strategy(mesh: DeviceMesh, dtype: str, *, sequence: bool) -> Strategy:
    """All ranks on the same tokens, each with its part of every layer's matrices."""
    name = "positions split between the blocks" if sequence else "matrices split"
    return grid_strategy(mesh, dtype, sequence=sequence, name=name)


def run(config: Config, group: Group, flags: argparse.Namespace, within: Surroundings) -> None:
    """Predict, train both ways, answer, print and write what came out."""
    mesh = grid_of(group, group.size)
    link = link_of(flags.out, group.size, group.device)

    def more(_alone: Steps | None, _every: Sequence[Outcome]) -> list[Measurement]:
        return answer(config, group, mesh["tensor"], link, within.price)

    Comparison(
        name="tensor-parallel", config=config, group=group,
        strategies=[strategy(mesh, config.dtype, sequence=sequence) for sequence in (False, True)],
        like_fp32=[strategy(mesh, "fp32", sequence=sequence) for sequence in (False, True)],
    ).run(flags, within, more)  # fmt: skip


def answer(config: Config, group: Group, mesh: DeviceMesh, link: Link | None, price: float | None
           ) -> list[Measurement]:  # fmt: skip
    """Inference on the split model: predicted, checked, measured and said."""
    dtype = group.device.half
    request = Request(model=config.answering, dtype=dtype, batch=1, prompt=config.prompt, new_tokens=config.new_tokens)
    shape = find_model(request.model)
    sent = traffic_of(request, shape, group.size).sent_bytes
    group.say(f"predicted: decode of {request.model}: each of {group.size} ranks reads 1/{group.size} of "
              f"{shape.decode_bytes(request.prompt, weight_size=TORCH_DTYPES[dtype].itemsize) / 1e6:.1f} MB and sends "
              f"{sent / 1e3:.1f} kB a token")  # fmt: skip
    checked = check_tokens(group, mesh, config.seed)
    one = alone(request, group, config.seed)
    if one is not None:
        group.say(f"one rank alone: {statistics.median(one.gaps_s) * 1e3:.2f} ms a token")
    every = together(request, group, mesh, config.seed)
    rows = list(decode_rows(request, group, every, one, checked, link, price))
    for line in decode_lines(rows):
        group.say(line)
    return rows


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: what was computed is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = parser_of("tensor-parallel", __doc__)
    parser.add_argument("--answering", help="the shape that answers; default: mistral-7b where one GPU holds it")
    parser.add_argument("--prompt", type=positive, help="tokens of its prompt")
    parser.add_argument("--new-tokens", type=positive, help="tokens that it makes")
    enter(parser, arguments, configure, run)


if __name__ == "__main__":
    start("tensor-parallel", main)
