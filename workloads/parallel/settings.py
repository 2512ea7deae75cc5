"""What is trained, by whichever strategy, and the flags that say so."""

import argparse
from dataclasses import dataclass
from typing import Any

import torch

from labs.models import find_model
from workloads.command import Parser, learning_rate, positive
from workloads.device import Device
from workloads.parity import TOLERANCE

ROOM = 0.8
"""Share of a GPU's free memory that weights, gradients and states may take; activations need the rest."""

BATCH = 2
"""Sequences per rank where the flags name none."""
_RATE_TIMES_WIDTH = 0.768
"""A step moves a logit by about the learning rate times the width: 3e-3 for mistral-nano, less for the wider."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained."""

    model: str
    """A name in labs/models.py."""
    dtype: str
    """Of the arithmetic."""
    batch: int
    """Sequences per rank and step: a step takes ranks × batch of them, however ranks share the work."""
    sequence: int
    """Tokens per sequence."""
    steps: int
    """Optimiser steps; the first quarter warms up and is not timed."""
    learning_rate: float
    seed: int
    threads: int
    """CPU threads per rank."""

    def __post_init__(self) -> None:
        """Check what the parser cannot. Raises: ValueError that names field, value and what is allowed."""
        find_model(self.model)
        if self.dtype not in TOLERANCE:
            raise ValueError(f"dtype={self.dtype!r} is not one that training runs in: write {', '.join(TOLERANCE)}")
        if self.steps < 8:
            raise ValueError(f"steps={self.steps} cannot show a falling loss: write at least 8")

    @property
    def warmup(self) -> int:
        """Steps before the timed ones."""
        return self.steps // 4


def parser_of(name: str, description: str | None) -> Parser:
    """A parser with the flags that all strategies share."""
    parser = Parser(name, description)
    parser.add_argument("--model", help="a shape of labs/models.py")
    parser.add_argument("--dtype", help="fp32 or bf16; default: bf16 on a GPU that has it")
    parser.add_argument("--batch", type=positive, help="sequences per rank and step")
    parser.add_argument("--sequence", type=positive, help="tokens per sequence")
    parser.add_argument("--steps", type=positive, help="optimiser steps")
    parser.add_argument("--learning-rate", type=learning_rate, help="of AdamW; default: 0.768 ÷ the model's width")
    return parser


def chosen(flags: argparse.Namespace, device: Device, model: str = "") -> dict[str, Any]:
    """The fields of `Settings` as the flags have them, with the device's own defaults; `model` where none is named.

    Raises:
        ValueError: there is no such model.
    """
    name = flags.model or model or default_model(device)
    return {
        "model": name, "dtype": flags.dtype or ("bf16" if device.half == "bf16" else "fp32"),
        "batch": flags.batch or BATCH, "sequence": sequence_of(flags, device),
        "steps": flags.steps or (24 if device.cuda else 12),
        "learning_rate": flags.learning_rate or _RATE_TIMES_WIDTH / find_model(name).hidden,
        "seed": flags.seed, "threads": torch.get_num_threads(),
    }  # fmt: skip


def sequence_of(flags: argparse.Namespace, device: Device) -> int:
    """Tokens per sequence, as the flags or the device have it."""
    return int(flags.sequence or (1024 if device.cuda else 32))


def default_model(device: Device, bytes_per_parameter: int = 16) -> str:
    """The billion where its states leave room on one GPU, else the next smaller; on a CPU the smallest."""
    if not device.cuda:
        return "mistral-nano"
    for name in ("mistral-tiny", "mistral-mini"):
        if bytes_per_parameter * find_model(name).parameters <= ROOM * device.memory_bytes:
            return name
    return "mistral-nano"
