"""HF Trainer on the shape of mistral-7b, random weights and tokens: tokens a second, its best configuration that fits.

bf16=True keeps weights and AdamW's states in fp32 and casts as it goes: 18 bytes a parameter, 121.5 GiB of a 7B, so on
one H200 it fits with gradient checkpointing alone. Fused AdamW, SDPA attention, torch_compile; nothing is saved.

    python -m benchmarks.peers.hf_trainer
"""

import argparse
import statistics
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import pairwise

STEPS, WARM = 6, 2


def main(arguments: list[str]) -> int:
    """Print "figure: TOKENS_PER_SECOND", by the median of the later optimiser steps."""
    parser = argparse.ArgumentParser(prog="hf_trainer", description=__doc__)
    parser.add_argument("--model", default="mistral-7b", help="a shape of labs/models.py")
    parser.add_argument("--sequence", type=int, default=4096, help="tokens per sequence")
    parser.add_argument("--accumulate", type=int, default=8, help="batches of one sequence per optimiser step")
    parser.add_argument(
        "--plain", action="store_true", help="as on a CPU, where memory suffices: fp32, eager, all activations kept"
    )
    flags = parser.parse_args(arguments)
    missing = [name for name in ("transformers", "accelerate") if find_spec(name) is None]
    if missing:
        print(f"hf-trainer: {missing[0]} is not installed: pip install {missing[0]}", file=sys.stderr)
        return 3
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from labs.models import find_model
    from workloads.device import find_device
    from workloads.mistral import build

    shape, device = find_model(flags.model), find_device("cpu" if flags.plain else "auto")
    model = build(shape, "fp32", device, 0).train()
    tokens = torch.randint(shape.vocabulary, (STEPS * flags.accumulate, flags.sequence))
    data = [{"input_ids": row, "labels": row} for row in tokens]
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers ships no types that mypy follows
        """Wall time at the end of every optimiser step."""

        def on_step_end(self, *_: object, **__: object) -> None:
            device.synchronize()
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder, max_steps=STEPS, per_device_train_batch_size=1, report_to=[], save_strategy="no",
            gradient_accumulation_steps=flags.accumulate, bf16=not flags.plain, torch_compile=not flags.plain,
            gradient_checkpointing=not flags.plain, optim="adamw_torch" if flags.plain else "adamw_torch_fused",
            logging_strategy="no", use_cpu=flags.plain, disable_tqdm=True,
        )  # fmt: skip
        Trainer(model=model, args=settings, train_dataset=data, callbacks=[Clock()]).train()
    taken = [after - before for before, after in pairwise(ends)][WARM - 1 :]
    print(f"figure: {flags.accumulate * flags.sequence / statistics.median(taken):.6e}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
