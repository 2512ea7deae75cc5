"""gpt-fast's decode of Mistral-7B, random weights in bf16, batch 1: seconds a token, decode alone.

Its own generate.py divides by prefill and decode together; here its `decode_one_token`, compiled as it compiles it, is
timed by itself. Both of its interfaces are known: the older takes a dense mask, the newer a block mask first.

    python -m benchmarks.peers.gpt_fast FOLDER
"""

import inspect
import statistics
import sys
import types
from pathlib import Path
from typing import Any

CONTEXT, TOKENS, WARM = 1024, 64, 8


def main(folder: str) -> int:
    """Print "figure: SECONDS" for the median of the later tokens."""
    import torch

    sys.path.insert(0, str(Path(folder).resolve()))
    sys.modules.setdefault("sentencepiece", _tokenizer())
    import generate  # type: ignore[import-not-found]  # gpt-fast's own
    from model import Transformer  # type: ignore[import-not-found]  # the same

    torch.manual_seed(0)
    with torch.device("meta"):
        model = Transformer.from_name("Mistral-7B")
    model = model.to(torch.bfloat16).to_empty(device="cuda").eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    decode = torch.compile(generate.decode_one_token, mode="reduce-overhead", fullgraph=True)
    token = torch.zeros((1, 1), dtype=torch.int, device="cuda")
    with torch.no_grad(), torch.device("cuda"):
        model.setup_caches(max_batch_size=1, max_seq_length=CONTEXT)
        masked = "block_mask" in inspect.signature(generate.decode_one_token).parameters
        mask: Any = _mask(CONTEXT) if masked else None
        seconds = []
        for at in range(CONTEXT - TOKENS - WARM, CONTEXT):
            position = torch.tensor([at], dtype=torch.int, device="cuda")
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            given = (model, token, position, mask) if masked else (model, token, position)
            chosen, _ = decode(*given)
            end.record()
            token = chosen.clone().view(1, 1)
            torch.cuda.synchronize()
            seconds.append(begin.elapsed_time(end) / 1e3)
    print(f"figure: {statistics.median(seconds[WARM:]):.6e}")
    return 0


def _mask(length: int) -> Any:
    """As its `decode_n_tokens` makes one for a whole cache."""
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(lambda b, h, q, kv: q >= kv, 1, 1, length, length, device="cuda")


def _tokenizer() -> types.ModuleType:
    """Its generate.py imports a tokenizer that decoding does not use."""
    stand_in = types.ModuleType("sentencepiece")
    stand_in.SentencePieceProcessor = object  # type: ignore[attr-defined]  # the one name that it asks for
    return stand_in


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
