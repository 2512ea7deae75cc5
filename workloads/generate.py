"""generate: one sequence at a time through a Mistral-architecture model; prefill and decode measured apart.

Prefill runs the prompt through the model at once and is bound by FLOP/s from a few hundred tokens on. Decode makes
one token at a time, and for each the device must read every weight and the KV cache so far:
bytes(S) = w·(weights that multiply) + B·(w·D + S·KV). At batch 1 that is about one FLOP per byte, so
bytes ÷ bandwidth is the floor of the time per token, whatever the arithmetic. This is the eager baseline: what a
model in `transformers` gives before anything is done about it.

Method: weights are random, N(0, 0.02), in the exact shape; speed hardly depends on their values. Time to first
token: from the call to the token on the host. Time per output token: each later token, on the host. Greedy choice.
Check: the logits of the incremental decode equal one forward pass over the whole sequence.

Output: seconds to first token, seconds per output token (every gap is kept), tokens/s, $ per million tokens.

    python -m workloads.generate
    python -m workloads.generate --model mistral-mini --prompt 256 --new-tokens 64
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import MistralForCausalLM

from labs.models import find_model
from labs.results import Measurement
from labs.roofs import Bound, inverse, memory_time_bound, time_bound, usd_per_million
from workloads.command import CheckFailed, Parser, positive, start
from workloads.device import TORCH_DTYPES, Device
from workloads.mistral import build as build  # where others look for it, too
from workloads.record import Surroundings, write
from workloads.sensors import Sensors, describe

# Shape suffixes: B batch, S tokens so far, N new tokens, V vocabulary.

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Largest root mean square difference of one position's logits, in units of their standard deviation. Rounding gave
1e-6 in fp32 and 1e-2 in bf16 (mistral-mini); one wrong token among 80 gives 0.3 to 0.6, a position off by one 0.6
to 0.9."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured."""

    model: str
    """A name in labs/models.py."""
    dtype: str
    """Of weights and KV cache."""
    batch: int
    """Sequences at once."""
    prompt: int
    """Tokens of each prompt."""
    new_tokens: int
    """Tokens made after it, the first included; at least 2."""
    repeats: int
    """Whole generations that are timed; one more warms up."""
    seed: int
    threads: int
    """CPU threads that torch may use."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.dtype not in TOLERANCE:
            raise ValueError(f"dtype={self.dtype!r} is not one that models run in: write {', '.join(TOLERANCE)}")
        if self.new_tokens < 2:
            raise ValueError(f"new_tokens={self.new_tokens} leaves no decode to measure: write at least 2")


def configure(flags: argparse.Namespace, device: Device) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    return Config(
        model=flags.model or default_model(device), dtype=flags.dtype or device.half, batch=flags.batch,
        prompt=flags.prompt or (512 if device.cuda else 64),
        new_tokens=flags.new_tokens or (128 if device.cuda else 16),
        repeats=flags.repeats or (10 if device.cuda else 5), seed=flags.seed, threads=torch.get_num_threads(),
    )  # fmt: skip


def default_model(device: Device) -> str:
    """mistral-7b where its weights and a fifth more fit; else the billion on a GPU, the smallest on a CPU."""
    if not device.cuda:
        return "mistral-nano"
    needed = 1.2 * find_model("mistral-7b").weight_bytes(TORCH_DTYPES[device.half].itemsize)
    return "mistral-7b" if device.memory_bytes > needed else "mistral-tiny"


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One timed generation."""

    first_s: float
    gaps_s: tuple[float, ...]
    """Seconds of each later token."""
    tokens_BS: Tensor
    """Prompt and new tokens."""
    logits_BNV: Tensor
    """What each new token was chosen from."""


def generate(model: MistralForCausalLM, prompt_BS: Tensor, new_tokens: int) -> Generation:
    """Make `new_tokens` greedily and time each of them until it is on the host."""
    times, logits, tokens = [time.perf_counter()], [], [prompt_BS]
    cache = None
    with torch.inference_mode():
        for _ in range(new_tokens):
            output = model(tokens[-1], past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            logits.append(output.logits)
            tokens.append(output.logits[:, -1].argmax(-1, keepdim=True))
            tokens[-1].tolist()  # a token counts when the host has it
            times.append(time.perf_counter())
    first_s, *gaps_s = (after - before for before, after in pairwise(times))
    return Generation(
        first_s=first_s, gaps_s=tuple(gaps_s), tokens_BS=torch.cat(tokens, 1), logits_BNV=torch.cat(logits, 1)
    )


def check(model: MistralForCausalLM, made: Generation, dtype: str) -> str:
    """Compare with one forward pass over all tokens, without a cache, and say how near the logits are.

    Raises:
        CheckFailed: they differ by more than the data type explains.
    """
    new_tokens = made.logits_BNV.shape[1]
    with torch.inference_mode():
        whole_BNV = model(made.tokens_BS[:, :-1], use_cache=False, logits_to_keep=new_tokens).logits.float()
    error_BN = (made.logits_BNV.float() - whole_BNV).square().mean(-1).sqrt() / whole_BNV.std(-1)
    error, allowed = float(error_BN.max()), TOLERANCE[dtype]
    if not error <= allowed:
        raise CheckFailed(f"incremental decode: logits differ from a full forward's by {error:.2g} standard "
                          f"deviations, allowed {allowed:.0e} in {dtype}")  # fmt: skip
    return f"logits within {error:.1e} standard deviations of a full forward's, allowed {allowed:.0e}"


def bounds(config: Config, device: Device) -> tuple[Bound, Bound]:
    """Floors in seconds: of the first token by its roofline, of a later one by bytes at the middle of the decode."""
    shape, size = find_model(config.model), TORCH_DTYPES[config.dtype].itemsize
    flops = config.batch * shape.prefill_flops(config.prompt)
    moved = shape.prefill_bytes(config.prompt, batch=config.batch, weight_size=size, kv_size=size)
    first = time_bound(device.name, device.accelerator, config.dtype, flops, moved)
    step = shape.decode_bytes(middle(config), batch=config.batch, weight_size=size, kv_size=size)
    return first, memory_time_bound(device.name, device.accelerator, step)


def middle(config: Config) -> int:
    """Mean context of the decode steps, in tokens with the current one, rounded down."""
    return config.prompt + config.new_tokens // 2


def summarise(config: Config, device: Device, made: Sequence[Generation], checked: str, price: float | None
              ) -> Iterator[Measurement]:  # fmt: skip
    """The four rows: latency and throughput of prefill and of decode, each beside its roof."""
    first, gap = bounds(config, device)
    first_s = tuple(generation.first_s for generation in made)
    gaps_s = tuple(gap_s for generation in made for gap_s in generation.gaps_s)
    row = {"model": config.model, "dtype": config.dtype, "batch": config.batch}
    prefill, decode = {**row, "prompt": config.prompt}, {**row, "context": middle(config)}
    for latency, throughput, samples_s, bound, tokens, config_of_row in (
        ("time to first token", "prefill", first_s, first, config.batch * config.prompt, prefill),
        ("time per output token", "decode", gaps_s, gap, config.batch, decode),
    ):
        median_s = statistics.median(samples_s)
        rate = inverse(bound, tokens)
        yield Measurement(
            name=latency, value=median_s, unit="s", estimator=f"median of {len(samples_s)}", config=config_of_row,
            samples_s=samples_s, roof=bound.roof, no_roof_because=bound.no_roof_because, checked=checked,
        )  # fmt: skip
        yield Measurement(
            name=throughput, value=tokens / median_s, unit="token/s", estimator=f"from the median of {len(samples_s)}",
            config=config_of_row, samples_s=samples_s, roof=rate.roof, no_roof_because=rate.no_roof_because,
            usd_per_unit=None if price is None else usd_per_million(price, tokens / median_s),
            work_unit="million tokens", checked=checked,
        )  # fmt: skip


def roof_lines(config: Config, device: Device) -> Iterator[str]:
    """The floors, for a reader who has not seen a number yet."""
    for name, bound in zip(("first token", "output token"), bounds(config, device), strict=True):
        if bound.roof is None:
            yield f"roof {name}: none, {bound.no_roof_because}"
        else:
            yield f"roof {name}: at least {bound.roof.value * 1e3:.3f} ms ({bound.roof.source})"


def row_line(row: Measurement) -> str:
    """One row, for the log."""
    value = f"{row.value * 1e3:.2f} ms" if row.unit == "s" else f"{row.value:.1f} {row.unit}"
    share = "" if row.fraction is None else f"  {row.fraction:.1%} of roof"
    price = "" if row.usd_per_unit is None else f"  ${row.usd_per_unit:.4f} per {row.work_unit}"
    return f"{row.name:22} {value:>16}{share}{price}"


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print the roofs, build the model, measure, check, print and write what came out."""
    for line in roof_lines(config, device):
        print(line, flush=True)
    shape = find_model(config.model)
    print(f"building {config.model}: {shape.parameters:,} random parameters, {config.dtype}", flush=True)
    model = build(shape, config.dtype, device, config.seed)
    generator = torch.Generator(device.torch).manual_seed(config.seed)
    size = (config.batch, config.prompt)
    prompt_BS = torch.randint(shape.vocabulary, size, generator=generator, device=device.torch)
    generate(model, prompt_BS, min(4, config.new_tokens))
    with Sensors(device) as sensors:
        made = [generate(model, prompt_BS, config.new_tokens) for _ in range(config.repeats)]
    rows = tuple(summarise(config, device, made, check(model, made[-1], config.dtype), within.node_price))
    for row in rows:
        print(row_line(row), flush=True)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type,
                       libraries=("transformers",))  # fmt: skip
    path = write(flags.out, "generate", rows, within=within, machine=machine, config=config)
    print(f"{rows[0].checked}: {path}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: the decode is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("generate", __doc__)
    parser.add_argument("--model", help="a shape of labs/models.py; default: the largest that suits the device")
    parser.add_argument("--dtype", help="fp32, fp16 or bf16; default: bf16 on a GPU that has it, fp32 on a CPU")
    parser.add_argument("--batch", type=positive, default=1, help="sequences at once")
    parser.add_argument("--prompt", type=positive, help="tokens of the prompt")
    parser.add_argument("--new-tokens", type=positive, help="tokens to make")
    parser.add_argument("--repeats", type=positive, help="generations that are timed")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("generate", main)
