"""A small model trained on the spot, so that perplexity means something: on this project's own text, nothing fetched.

Byte-level BPE made here, then mistral-nano on the tokens, in fp32; the last part of the text is held out. With so
little text the model learns how it is written, not what it says, which is all that a change of weights needs.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import MistralForCausalLM

from labs.models import Model
from workloads.device import TORCH_DTYPES, Device
from workloads.mistral import build

# Shape suffixes: B batch, S tokens, T tokens with the one to predict, N positions, V vocabulary.

ROOT = Path(__file__).parents[2]
TEXT_BYTES = 400_000
"""Of the project's text that is used."""
HELD_OUT = 0.05
BATCH, TOKENS = 8, 128
PEAK_RATE = 3e-3


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model and the text that it has not seen."""

    model: Callable[[str], MistralForCausalLM]
    """Makes it in a data type, the same weights each time."""
    text: Tensor
    """Tokens held out [N]."""
    before: float
    """Perplexity on them with random weights."""
    after: float


def train(shape: Model, device: Device, seed: int, steps: int) -> Trained:
    """Train a model of that shape for so many steps."""
    text = project_text()
    tokens_N = tokens_of(text, shape.vocabulary).to(device.torch)
    cut = int(len(tokens_N) * (1 - HELD_OUT))
    learned_N, held_N = tokens_N[:cut], tokens_N[cut:]
    model = build(shape, "fp32", device, seed)
    before = _judge(model, held_N)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * min(1.0, 10 * (step + 1) / steps) * (1 + math.cos(math.pi * step / steps)) / 2
        starts = torch.randint(len(learned_N) - TOKENS - 1, (BATCH,), generator=generator).tolist()
        batch_BT = torch.stack([learned_N[start : start + TOKENS + 1] for start in starts])
        _loss(model, batch_BT).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def made(dtype: str) -> MistralForCausalLM:
        fresh = build(shape, dtype, device, seed)
        fresh.load_state_dict({name: value.to(TORCH_DTYPES[dtype]) for name, value in state.items()})
        return fresh

    return Trained(model=made, text=held_N, before=before, after=_judge(model, held_N))


def project_text(limit: int = TEXT_BYTES) -> str:
    """What this project says of itself: its pages, then its sources."""
    paths: Sequence[Path] = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")),
                             *sorted(ROOT.glob("labs/*.py")), *sorted(ROOT.glob("workloads/**/*.py"))]  # fmt: skip
    found = io.StringIO()
    for path in paths:
        found.write(path.read_text(encoding="utf-8"))
    return found.getvalue()[:limit]


def tokens_of(text: str, vocabulary: int) -> Tensor:
    """The text in tokens of a byte-level BPE made for it [N]."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text], vocab_size=vocabulary, show_progress=False)
    return torch.tensor(tokenizer.encode(text).ids)


def perplexity(logits_NV: Tensor, follows_N: Tensor) -> float:
    """exp of the mean surprise at each token, given the logits before it."""
    return math.exp(float(functional.cross_entropy(logits_NV.float(), follows_N)))


def _loss(model: MistralForCausalLM, tokens_BT: Tensor) -> Tensor:
    logits_BSV = model(tokens_BT[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits_BSV.flatten(0, 1), tokens_BT[:, 1:].flatten())


def _judge(model: MistralForCausalLM, text_N: Tensor) -> float:
    """Perplexity over whole pieces of the text."""
    pieces = text_N[: len(text_N) // (TOKENS + 1) * (TOKENS + 1)].view(-1, TOKENS + 1)[:64]
    with torch.inference_mode():
        return math.exp(float(_loss(model, pieces)))
