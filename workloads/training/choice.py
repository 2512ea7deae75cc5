"""What one device trains, as the flags have it or as its memory allows."""

import argparse
from typing import Any

import torch

from labs.models import find_model
from workloads.command import Parser, positive
from workloads.device import Device

ROOM = 1.15
"""A model is chosen whose states and this much more fit."""


def default_model(device: Device) -> str:
    """The largest whose states fit with room for activations; the smallest on a CPU."""
    for name in ("mistral-7b", "mistral-tiny", "mistral-mini") if device.cuda else ():
        if device.memory_bytes > ROOM * find_model(name).adam_bytes():
            return name
    return "mistral-nano"


def large(model: str, device: Device) -> bool:
    """Whether it is one of those that fill a GPU by few long sequences."""
    return device.cuda and model in ("mistral-7b", "mistral-tiny")


def parser_of(name: str, description: str | None) -> Parser:
    """A parser with the flags that say what is trained."""
    parser = Parser(name, description)
    parser.add_argument("--model", help="a shape of labs/models.py; default: the largest whose states fit")
    parser.add_argument("--dtype", help="fp32 or bf16; default: bf16 on a GPU that has it")
    parser.add_argument("--sequence", type=positive, help="tokens per sequence")
    return parser


def chosen(flags: argparse.Namespace, device: Device) -> dict[str, Any]:
    """Fields of a workload's configuration: what is trained, and by which seed and threads."""
    model = flags.model or default_model(device)
    return {
        "model": model, "dtype": flags.dtype or ("bf16" if device.half == "bf16" else "fp32"),
        "sequence": flags.sequence or (4096 if large(model, device) else 1024 if device.cuda else 64),
        "seed": flags.seed, "threads": torch.get_num_threads(),
    }  # fmt: skip
