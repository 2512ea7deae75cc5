"""A model as a folder that servers read: configuration, tokenizer, and weights made on the device."""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers.utils import logging

from labs.models import Model
from workloads.device import TORCH_DTYPES, Device
from workloads.mistral import architecture, build
from workloads.serving import tokens

_SHARD = "2GB"
_ROOM = 1.05
"""Free space that is asked for, in units of the weights."""
_MARK = "complete"


def scratch() -> Path:
    """Where large files go: the node's NVMe, else the system's temporary folder."""
    return Path(os.environ.get("ROOFLAB_SCRATCH") or tempfile.gettempdir())


def make(within: Path, shape: Model, dtype: str, device: Device, seed: int, *, weights: bool = True) -> Path:
    """The model's folder below `within`, made where it is not there whole; without `weights` for a server that makes
    its own (vLLM's dummy loader).

    Raises:
        ValueError: the disk has no room for the weights.
    """
    folder = within / f"{shape.name}-{dtype}-{seed}{'' if weights else '-dummy'}"
    if (folder / _MARK).exists():
        return folder
    within.mkdir(parents=True, exist_ok=True)
    needed = _ROOM * shape.weight_bytes(TORCH_DTYPES[dtype].itemsize) if weights else 0
    free = shutil.disk_usage(within).free
    if needed > free:
        raise ValueError(f"model={shape.name!r} needs {needed / 1e9:.1f} GB in {within}, which has {free / 1e9:.1f} "
                         "free: write --folder on a larger disk, or a smaller --model")  # fmt: skip
    logging.disable_progress_bar()
    made = tokens.tokenizer(shape.vocabulary)
    made.save_pretrained(folder)
    if weights:
        model = build(shape, dtype, device, seed)
        with torch.no_grad():  # logit 0 is never the largest: greedy choice then makes readable text only
            model.lm_head.weight[tokens.unreadable(made)] = 0
        model.save_pretrained(folder, max_shard_size=_SHARD)
        del model
        if device.cuda:
            torch.cuda.empty_cache()
    else:
        config = architecture(shape, architectures=["MistralForCausalLM"])
        config.save_pretrained(folder)
    (folder / _MARK).touch()
    return folder
