"""Decoding as transformers does it: the whole model's forward, a KV cache that grows, a token on the host each time."""

import torch
from torch import Tensor
from transformers import MistralForCausalLM

# Shape suffixes: B batch, S tokens, V vocabulary.


class Growing:
    """One sequence through the model's own forward."""

    def __init__(self, model: MistralForCausalLM, attention: str) -> None:
        """`attention` is a name that transformers knows."""
        model.set_attn_implementation(attention)
        self._model = model
        self._cache: object = None
        self.token_B1 = torch.empty(0)
        """What the next step reads."""

    @property
    def cache_bytes(self) -> int:
        """Of the KV cache as it is now."""
        layers = getattr(self._cache, "layers", ())
        return sum(part.numel() * part.element_size() for layer in layers for part in (layer.keys, layer.values))

    def read(self, token_B1: Tensor) -> None:
        """Let the next step read this token instead of the one that was chosen."""
        self.token_B1 = token_B1

    def start(self, prompt_BS: Tensor) -> Tensor:
        """Read a prompt; the logits [B, V] of its last position."""
        self._cache = None
        return self._forward(prompt_BS)

    def step(self) -> Tensor:
        """One token; the logits [B, V] that the next one is chosen from."""
        logits_BV = self._forward(self.token_B1)
        self.token_B1.tolist()  # a token counts when the host has it
        return logits_BV

    def _forward(self, tokens_BS: Tensor) -> Tensor:
        with torch.inference_mode():
            output = self._model(tokens_BS, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            self._cache = output.past_key_values
            logits_BV: Tensor = output.logits[:, -1]
            self.token_B1 = logits_BV.argmax(-1, keepdim=True)
        return logits_BV
