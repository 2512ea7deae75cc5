"""A model of a shape in labs/models.py as transformers has it: with random weights, or with those of safetensors."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import MistralConfig, MistralForCausalLM
from transformers.utils import logging

from labs.models import Model
from workloads.device import TORCH_DTYPES, Device
from workloads.disk.loader import load
from workloads.disk.safetensors import files_of, layout

HUB = "hf:"
"""What a repository of huggingface.co is written with, as in hf:mistralai/Mistral-7B-v0.3."""
_TAKEN = ["*.json", "model*.safetensors"]
"""What is downloaded of a repository, configuration and tokenizer with it; it may hold the weights twice, in its
maker's own format as well."""


def architecture(shape: Model, **given: Any) -> MistralConfig:
    """The configuration of a shape; transformers' defaults are those of v0.1, and v0.3's are others."""
    settings = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, **given}
    return MistralConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size, max_position_embeddings=32768, sliding_window=None, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, **settings,
    )  # fmt: skip


def build(shape: Model, dtype: str, device: Device, seed: int) -> MistralForCausalLM:
    """The model with random weights, made on the device itself: a host may have less memory than its GPU."""
    logging.set_verbosity_error()
    torch.manual_seed(seed)
    model = _made(architecture(shape), dtype, device.torch)
    assert sum(weight.numel() for weight in model.parameters()) == shape.parameters
    return model


def _made(config: MistralConfig, dtype: str, where: torch.device) -> MistralForCausalLM:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(TORCH_DTYPES[dtype])
    try:
        with where:
            return MistralForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(usual)


def locate(weights: str, shape: Model) -> Path:
    """The file or folder that `weights` means, of this shape; a repository is downloaded first.

    Raises:
        ValueError: it is not there, may not be had, or holds another shape.
    """
    path = _download(weights) if weights.startswith(HUB) else Path(weights)
    with torch.device("meta"):
        wanted = {
            name: tuple(tensor.shape) for name, tensor in MistralForCausalLM(architecture(shape)).state_dict().items()
        }
    held = {entry.name: entry.shape for file in files_of(path) for entry in layout(file).entries}
    for name, size in wanted.items():
        if name not in held:
            raise ValueError(
                f"weights={weights!r} lacks {name}: {shape.name} needs it; write another --model or weights"
            )
        if held[name] != size:
            raise ValueError(f"weights={weights!r} holds {name} of {_size(held[name])}, and {shape.name} has "
                             f"{_size(size)}: write the --model of that shape, or other weights")  # fmt: skip
    return path


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(str(length) for length in shape)


def _download(weights: str) -> Path:
    """The repository's snapshot in the local cache (HF_HOME)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    name = weights.removeprefix(HUB)
    token = os.environ.get("HF_TOKEN") or None
    try:
        return Path(snapshot_download(name, allow_patterns=_TAKEN, token=token))
    except HFValidationError:
        raise ValueError(f"weights={weights!r} is not a repository: write hf:ORG/NAME, or a PATH") from None
    except GatedRepoError:
        have = "the token given has no access" if token else "there is no token"
        raise ValueError(f"weights={weights!r} is gated and {have}: accept its terms at huggingface.co/{name}, then "
                         "export HF_TOKEN=hf_…") from None  # fmt: skip
    except RepositoryNotFoundError:
        raise ValueError(f"weights={weights!r} does not exist, or is private and needs HF_TOKEN") from None
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"weights={weights!r} cannot be downloaded ({reason}): write the PATH of a copy") from None


def restore(path: Path, shape: Model, dtype: str, device: Device) -> MistralForCausalLM:
    """The model with the weights that `locate` found, read straight to the device, in `dtype`."""
    logging.set_verbosity_error()
    config = architecture(shape, **_told(path))
    model = _made(config, dtype, torch.device("meta"))
    found = load(path, device.torch)
    held = {name: found.pop(name).to(TORCH_DTYPES[dtype]) for name in list(model.state_dict())}
    model.load_state_dict(held, assign=True)
    with device.torch:  # not in the file, and on `meta` not computed either
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval().requires_grad_(False)


def _told(path: Path) -> dict[str, Any]:
    """What weights were trained with and their shapes do not say: rotary embedding and the norms' epsilon."""
    told = path / "config.json"
    if not told.is_file():
        return {}
    document = json.loads(told.read_text())
    found = {"rms_norm_eps": document["rms_norm_eps"]} if "rms_norm_eps" in document else {}
    if "rope_parameters" in document:
        return found | {"rope_parameters": document["rope_parameters"]}
    if "rope_theta" in document:  # before transformers 5
        return found | {"rope_parameters": {"rope_type": "default", "rope_theta": document["rope_theta"]}}
    return found
