"""How fast one instance of a type makes or trains tokens of a model, and what that costs: arithmetic line by line.

Training: peak FLOP/s × a stated share ÷ FLOPs of a trained token (causal-exact). Serving, for each replica of r GPUs:

    step_s(B)    = max(bytes(B, S) ÷ (r × memory rate × share), B × FLOPs ÷ (r × peak × share))    B tokens
    prefill_s    = FLOPs of a prompt ÷ (r × peak × share)
    tokens/s     = B·N ÷ (B × prefill_s + N × step_s)         N tokens an answer, S = prompt + N/2
    TTFT         = prefill_s + step_s                         nothing waits in a queue
    TPOT         = (B × prefill_s + N × step_s) ÷ N           prompts of others come in between

B is the largest batch that memory and both bounds allow. A share is measured where this machine has a record of the
same device, else assumed, and every line says which. What ranks send each other is not counted: a measured share has
it in it, an assumed one has not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from labs.accelerators import Accelerator
from labs.instances import InstanceType
from labs.memory import serve
from labs.models import Model
from labs.placement import RESERVE_BYTES, RESERVE_SHARE, choose, place_of, train_verdicts
from labs.roofs import usd_per_million

MOST_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Share:
    """How much of a roof is reached."""

    value: float
    """0 to 1."""
    source: str
    """"assumed: …", or "measured: …" with the run."""


ASSUMED: Mapping[str, Share] = {
    "train": Share(value=0.40, source="assumed: 8 × H100 reach 0.46 by 6P + 12LDS, some 0.42 causal-exact "
                   "(mosaicml/llm-foundry)"),
    "prefill": Share(value=0.50, source="assumed: large products reach 0.7 to 0.8, what lies between them nothing"),
    "decode": Share(value=0.60, source="assumed: eager reaches 0.3 to 0.8, the faster the device the less; "
                    "gpt-fast 0.69 of an A100's"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one instance of a type does."""

    tokens_per_s: float | None
    """Trained, or made; None where it cannot be told or cannot be done."""
    why: str
    """How the model lies on it; or why it cannot, or why its speed is unknown."""
    lines: tuple[str, ...] = ()
    """The arithmetic."""
    possible: bool = True
    ttft_s: float | None = None
    """Of serving: to the first token, with nothing waiting."""
    tpot_s: float | None = None
    """Of serving: for each later one."""
    batch: int = 0
    """Of serving: sequences at once on a replica."""


def half(accelerator: Accelerator) -> str:
    """The type of 16 bits that the device computes in."""
    return "fp16" if "fp16" in accelerator.peak_tflops and "bf16" not in accelerator.peak_tflops else "bf16"


def train_plan(model: Model, kind: InstanceType, accelerator: Accelerator, sequence: int, share: Share) -> Plan:
    """Training on sequences of `sequence` tokens, one a device at a time."""
    chosen = choose(train_verdicts(model, place_of(kind), batch=1, context=sequence))
    if chosen is None:
        return Plan(tokens_per_s=None, why="the model does not fit", possible=False)
    peak, dtype = accelerator.peak_flops(half(accelerator)), half(accelerator)
    why = f"{chosen.way}: {chosen.why}{', tight' if chosen.answer == 'tight' else ''}"
    if chosen.recipe is not None and chosen.recipe.states == "offload":
        return Plan(tokens_per_s=None, why=f"{why}; how fast that is depends on the host")
    if peak is None:
        return Plan(tokens_per_s=None, why=f"{why}; the dense {dtype} peak of {accelerator.name} is not known")
    flops, whole = model.train_flops(sequence), kind.gpus * peak
    again = chosen.recipe is not None and chosen.recipe.saving == "recomputed" and share is ASSUMED["train"]
    executed = model.train_flops_recomputed(sequence) if again else flops
    more = (f"executed: {executed:,} FLOPs, for activations are made again",) if again else ()
    rate = whole * share.value / executed
    return Plan(tokens_per_s=rate, why=why, lines=(
        f"fits: {why}",
        f"a trained token: {flops:,} FLOPs at {sequence:,} tokens of context, causal-exact",
        *more,
        f"peak: {kind.gpus} × {accelerator.name} × {peak / 1e12:g} TFLOP/s {dtype} = {whole / 1e12:,.0f} TFLOP/s "
        f"({accelerator.source})",
        f"reached: × {share.value:.2f} ({share.source})",
        f"speed: {whole / 1e12:,.0f} TFLOP/s × {share.value:.2f} ÷ {executed:,} = {rate:,.0f} token/s",
    ))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What is served, and how fast it must be."""

    prompt: int = 512
    """Tokens of a request's prompt."""
    answer: int = 128
    """Tokens of its answer."""
    ttft_s: float | None = None
    """Longest time to the first token; None: any."""
    tpot_s: float | None = None
    """Longest time for each later one; None: any."""


def serve_plan(model: Model, kind: InstanceType, accelerator: Accelerator, traffic: Traffic,
               shares: Mapping[str, Share]) -> Plan:  # fmt: skip
    """Serving in 16 bits with as many replicas as the instance holds: over how few GPUs each, the rate decides."""
    dtype = half(accelerator)
    peak, bandwidth = accelerator.peak_flops(dtype), accelerator.bytes_per_s
    whole = [ranks for ranks in (1, 2, 4, 8) if kind.gpus % ranks == 0 and model.kv_heads % ranks == 0]
    fitting = [ranks for ranks in whole if _most(model, kind, traffic, ranks)]
    if not fitting:
        return Plan(tokens_per_s=None, why="the model does not fit", possible=False)
    if peak is None or bandwidth is None:
        missing = f"dense {dtype} peak" if peak is None else "memory rate"
        return Plan(
            tokens_per_s=None, why=f"fits on {fitting[0]} GPU; the {missing} of {accelerator.name} is not known"
        )
    found = [_served(model, kind, accelerator, traffic, shares, ranks) for ranks in fitting]
    return max(found, key=lambda plan: plan.tokens_per_s or 0.0)


def _served(model: Model, kind: InstanceType, accelerator: Accelerator, traffic: Traffic, shares: Mapping[str, Share],
            ranks: int) -> Plan:  # fmt: skip
    dtype = half(accelerator)
    peak, bandwidth = accelerator.peak_flops(dtype), accelerator.bytes_per_s
    assert peak is not None
    assert bandwidth is not None
    context = traffic.prompt + traffic.answer // 2
    prefill_s = model.prefill_flops(traffic.prompt) / (ranks * peak * shares["prefill"].value)

    def step_s(batch: int) -> float:
        moved = model.decode_bytes(context, batch=batch) / (ranks * bandwidth * shares["decode"].value)
        return max(moved, batch * model.decode_flops(context) / (ranks * peak * shares["prefill"].value))

    def answer_s(batch: int) -> float:
        return batch * prefill_s + traffic.answer * step_s(batch)

    def within(batch: int) -> bool:
        first, each = prefill_s + step_s(batch), answer_s(batch) / traffic.answer
        return first <= (traffic.ttft_s or first) and each <= (traffic.tpot_s or each)

    most = _most(model, kind, traffic, ranks)
    batch = _largest(most, within)
    if batch == 0:
        first, each = prefill_s + step_s(1), answer_s(1) / traffic.answer
        return Plan(tokens_per_s=None, possible=False, why=f"too slow even alone: first token after {first * 1e3:.0f} "
                    f"ms, then {each * 1e3:.1f} ms each on {ranks} GPU")  # fmt: skip
    replicas = kind.gpus // ranks
    rate = replicas * batch * traffic.answer / answer_s(batch)
    moved = model.decode_bytes(context, batch=batch)
    gpus = f"{ranks} GPU{'s' * (ranks > 1)}"
    why = f"{replicas} × {gpus}, {batch} at once"
    return Plan(
        tokens_per_s=rate, why=why, ttft_s=prefill_s + step_s(batch), tpot_s=answer_s(batch) / traffic.answer,
        batch=batch,
        lines=(
            f"fits: {model.name} in {dtype} on {gpus} of {kind.gpu_memory_mib / 1024:.0f} GiB, up to {most} sequences "
            f"of {traffic.prompt + traffic.answer:,} tokens; {batch} keep the bounds; {replicas} replicas",
            f"prompt: {model.prefill_flops(traffic.prompt):,} FLOPs ÷ ({ranks} × {peak / 1e12:g} TFLOP/s × "
            f"{shares['prefill'].value:.2f}) = {prefill_s * 1e3:.2f} ms ({shares['prefill'].source})",
            f"step: {moved:,} B for {batch} sequences ÷ ({ranks} × {bandwidth / 1e9:g} GB/s × "
            f"{shares['decode'].value:.2f}), or its FLOPs = {step_s(batch) * 1e3:.2f} ms ({shares['decode'].source})",
            f"speed: {replicas} × {batch} × {traffic.answer} tokens ÷ ({batch} × {prefill_s * 1e3:.2f} ms + "
            f"{traffic.answer} × {step_s(batch) * 1e3:.2f} ms) = {rate:,.0f} token/s made",
        ),
    )  # fmt: skip


def _most(model: Model, kind: InstanceType, traffic: Traffic, ranks: int) -> int:
    """Sequences that the memory of `ranks` GPUs holds beside the weights, one prompt read at a time."""
    context, memory = traffic.prompt + traffic.answer, kind.gpu_memory_mib << 20
    room = memory - RESERVE_BYTES - int(RESERVE_SHARE * memory)
    working = serve(model, batch=1, context=context, ranks=ranks).of("one layer of the prompt")

    def fits(batch: int) -> bool:
        return working + serve(model, batch=batch, context=context, ranks=ranks).of(
            "weights", "KV cache", "logits") <= room  # fmt: skip

    return _largest(MOST_BATCH, fits)


def _largest(most: int, allowed: Callable[[int], bool]) -> int:
    """The largest of 1 to `most` that is allowed, where all below an allowed one are too; 0 where none is."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if allowed(middle) else (low, middle - 1)
    return low


def money_lines(tokens: float, rate: float, usd_per_hour: float | None, source: str) -> tuple[str, ...]:
    """From a speed and a price to hours and dollars."""
    hours = tokens / rate / 3600
    took = f"time: {tokens:,.0f} tokens ÷ {rate:,.0f} token/s = {hours:,.1f} h on one instance"
    if usd_per_hour is None:
        return (took, f"price: unknown, {source}")
    each = usd_per_million(usd_per_hour, rate)
    return (took, f"price: {hours:,.1f} h × ${usd_per_hour:.4f}/h = ${hours * usd_per_hour:,.2f}, "
            f"${each:.4f} per million tokens ({source})")  # fmt: skip
