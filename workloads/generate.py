"""generate: one sequence at a time through a Mistral-architecture model; prefill and decode measured apart.

Prefill runs the prompt through the model at once and is bound by FLOP/s from a few hundred tokens on. Decode makes
one token at a time, and for each the device must read every weight and the KV cache so far:
bytes(S) = w·(weights that multiply) + B·(w·D + S·KV). At batch 1 that is about one FLOP per byte, so
bytes ÷ bandwidth is the floor of the time per token, whatever the arithmetic. This is the eager baseline: what a
model in `transformers` gives before anything is done about it.

Method: weights are random, N(0, 0.02), in the exact shape, or --weights names real ones; speed hardly depends on their
values. Time to first token: from the call to the token on the host, over several lengths of prompt. Time per output
token: each later token, on the host. Greedy choice. What the device can do is taken from this run's records or measured
first; what a step costs beyond it, on a narrow twin. Check: the logits of the incremental decode equal one forward pass
over the whole sequence.

Output: seconds to first token, seconds per output token (every gap is kept), one request and what its time is made of,
tokens/s, $ per million tokens, J per token where the device tells; one record.

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

from labs.models import Model, find_model
from labs.results import Measurement
from workloads.answer import energy_row, notes, roof_lines, row_line, summarise
from workloads.command import CheckFailed, Parser, positive, start
from workloads.device import TORCH_DTYPES, Device
from workloads.draft import Draft
from workloads.mistral import HUB, locate, restore
from workloads.mistral import build as build  # where others look for it, too
from workloads.nvml import Gauge
from workloads.record import Surroundings, write
from workloads.request import Request, ceilings, twin
from workloads.sensors import Sensors, describe

# Shape suffixes: B batch, S tokens so far, N new tokens, V vocabulary.

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Largest root mean square difference of one position's logits, in units of their standard deviation. Rounding gave
1e-6 in fp32 and 1e-2 in bf16 (mistral-mini); one wrong token among 80 gives 0.3 to 0.6, a position off by one 0.6
to 0.9."""


SWEEP_REPEATS = 3
"""Timed prompts of each length."""
TWIN_TOKENS = 24
"""Steps of the narrow twin; the first third warms up."""


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
    prompts: tuple[int, ...]
    """Lengths of prompt whose time to the first token is measured by itself."""
    weights: str
    """Folder or file of safetensors, or hf:ORG/NAME; empty: random ones."""
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
    model = flags.model or default_model(device)
    if flags.weights:
        locate(flags.weights, find_model(model))
    return Config(
        model=model, dtype=flags.dtype or device.half, batch=flags.batch,
        prompt=flags.prompt or (512 if device.cuda else 64),
        new_tokens=flags.new_tokens or (128 if device.cuda else 24),
        repeats=flags.repeats or (10 if device.cuda else 5),
        prompts=flags.prompts or ((128, 512, 2048, 8192) if device.cuda else (16, 64, 256, 512)),
        weights=flags.weights or "", seed=flags.seed, threads=torch.get_num_threads(),
    )  # fmt: skip


def default_model(device: Device) -> str:
    """mistral-7b where its weights and a fifth more fit; else the billion on a GPU, and on a CPU the size at which a
    laptop feels its memory."""
    if not device.cuda:
        return "mistral-mini"
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


def time_first(model: MistralForCausalLM, prompt_BS: Tensor, repeats: int) -> tuple[float, ...]:
    """Seconds to the first token of a prompt, so many times after one that warms up."""
    return tuple(generate(model, prompt_BS, 1).first_s for _ in range(repeats + 1))[1:]


def overhead_s(shape: Model, dtype: str, device: Device, batch: int) -> float:
    """Seconds that a decode step of `shape` takes however little there is in its layers: its narrow twin's."""
    narrow = twin(shape)
    model = build(narrow, dtype, device, seed=0)
    made = generate(model, torch.zeros(batch, 8, dtype=torch.long, device=device.torch), TWIN_TOKENS)
    return statistics.median(made.gaps_s[TWIN_TOKENS // 3 :])


def sweep(config: Config, request: Request, model: MistralForCausalLM, generator: torch.Generator
          ) -> Iterator[Measurement]:  # fmt: skip
    """Time to the first token over the prompt's length."""
    for prompt in config.prompts:
        samples_s = time_first(model, draw(request, prompt, generator), SWEEP_REPEATS)
        bound = request.first(prompt)
        yield Measurement(
            name=f"time to first token, prompt of {prompt}", value=statistics.median(samples_s), unit="s",
            estimator=f"median of {len(samples_s)}", samples_s=samples_s, roof=bound.roof,
            config={"kind": "sweep", "model": config.model, "dtype": config.dtype, "batch": config.batch,
                    "prompt": prompt, "attention_share": prompt / (prompt + request.bend)},
            no_roof_because=bound.no_roof_because, expected=request.first_expected(prompt),
            others=(request.first_measured(prompt),), checked="greedy choice as in the generations that were checked",
        )  # fmt: skip


def draw(request: Request, prompt: int, generator: torch.Generator) -> Tensor:
    """Random prompts."""
    return torch.randint(request.shape.vocabulary, (request.batch, prompt), generator=generator,
                         device=request.device.torch)  # fmt: skip


def run(config: Config, device: Device, flags: argparse.Namespace, within: Surroundings) -> None:
    """Print the roofs, make the model, measure, check, print and write what came out."""
    shape, gauge = find_model(config.model), Gauge(device)
    can = ceilings(flags.out, within.node, device, shape, config.dtype, config.seed)
    request = Request(shape=shape, dtype=config.dtype, batch=config.batch, prompt=config.prompt,
                      new_tokens=config.new_tokens, device=device, ceilings=can,
                      overhead_s=overhead_s(shape, config.dtype, device, config.batch))  # fmt: skip
    for line in roof_lines(request):
        print(line, flush=True)
    if config.weights:
        print(f"reading {config.model} from {config.weights} as {config.dtype}", flush=True)
        model = restore(locate(config.weights, shape), shape, config.dtype, device)
    else:
        print(f"building {config.model}: {shape.parameters:,} random parameters, {config.dtype}", flush=True)
        model = build(shape, config.dtype, device, config.seed)
    generator = torch.Generator(device.torch).manual_seed(config.seed)
    prompt_BS = draw(request, config.prompt, generator)
    generate(model, prompt_BS, min(4, config.new_tokens))
    with Sensors(device) as sensors:
        before_j = gauge.energy_j
        made = [generate(model, prompt_BS, config.new_tokens) for _ in range(config.repeats)]
        after_j = gauge.energy_j
        rows = Draft("generate", config, device, within)
        rows += summarise(request, made, check(model, made[-1], config.dtype), within.node_price)
        if before_j is not None and after_j is not None:
            rows.append(energy_row(after_j - before_j, config.repeats * config.batch * config.new_tokens))
        for row in sweep(config, request, model, generator):
            rows.append(row)
    for row in rows:
        print(row_line(row), flush=True)
    machine = describe(device, devices=1, reading=sensors.reading, instance_type=within.instance_type,
                       libraries=("transformers",))  # fmt: skip
    path = write(flags.out, "generate", tuple(rows), within=within, machine=machine, config=config,
                 notes=tuple(notes(request, gauge, before_j)))  # fmt: skip
    print(f"{rows[0].checked}: {path}", flush=True)


def lengths(text: str) -> tuple[int, ...]:
    """A flag's value as lengths, "64,256"."""
    return tuple(sorted({positive(word) for word in text.split(",")}))


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: the decode is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser("generate", __doc__)
    parser.add_argument("--model", help="a shape of labs/models.py; default: the largest that suits the device")
    parser.add_argument("--weights", help=f"folder or file of safetensors, or {HUB}ORG/NAME; default: random ones")
    parser.add_argument("--dtype", help="fp32, fp16 or bf16; default: bf16 on a GPU that has it, fp32 on a CPU")
    parser.add_argument("--batch", type=positive, default=1, help="sequences at once")
    parser.add_argument("--prompt", type=positive, help="tokens of the prompt")
    parser.add_argument("--new-tokens", type=positive, help="tokens to make")
    parser.add_argument("--repeats", type=positive, help="generations that are timed")
    parser.add_argument("--prompts", type=lengths, help="lengths of prompt for the sweep, for example 128,512,2048")
    flags, device, config, within = parser.read(arguments, configure)
    run(config, device, flags, within)


if __name__ == "__main__":
    start("generate", main)
