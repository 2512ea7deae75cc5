"""The tokenizer and the folder that servers read."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, MistralForCausalLM

from labs.models import MODELS, find_model
from workloads.device import Device
from workloads.serving import endpoint, folder, tokens

NANO = find_model("mistral-nano")


@pytest.mark.parametrize("vocabulary", sorted({model.vocabulary for model in MODELS.values()}))
def test_a_vocabulary_is_full_and_its_words_are_single_tokens(vocabulary: int) -> None:
    made = tokens.tokenizer(vocabulary)
    assert len(made) == vocabulary
    words = tokens.words(vocabulary)
    assert len(words) == vocabulary - 256
    for word in (words[0], words[700], words[-1]):
        assert len(made(f" {word}").input_ids) == 1
        assert made.decode(made(f" {word}").input_ids) == f" {word}"
    assert made.decode(made(" Zürich, naïve").input_ids) == " Zürich, naïve", "any text comes back whole"


def test_a_prompt_has_exactly_so_many_tokens_and_another_seed_is_another_prompt() -> None:
    made = tokens.tokenizer(NANO.vocabulary)
    for count in (1, 7, 500):
        assert len(made(tokens.prompt(count, seed=count)).input_ids) == count
    assert tokens.prompt(8, 1) == tokens.prompt(8, 1) != tokens.prompt(8, 2)


def test_a_vocabulary_too_small_for_a_prompts_words_is_refused() -> None:
    with pytest.raises(ValueError, match="a vocabulary of 900 is too small"):
        tokens.tokenizer(900)


def test_a_folder_holds_the_model_and_never_says_half_a_character(cpu: Device, tmp_path: Path) -> None:
    made = folder.make(tmp_path, NANO, "fp32", cpu, seed=5)
    stamp = (made / "model.safetensors").stat().st_mtime_ns
    assert folder.make(tmp_path, NANO, "fp32", cpu, seed=5) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == stamp, "what is whole is not made again"
    words = AutoTokenizer.from_pretrained(made)
    model = MistralForCausalLM.from_pretrained(made)
    assert sum(weight.numel() for weight in model.parameters()) == NANO.parameters
    broken = tokens.unreadable(words)
    assert len(broken) == 128
    with torch.inference_mode():
        chosen = model(torch.randint(NANO.vocabulary, (4, 64))).logits.argmax(-1)
    assert not set(chosen.flatten().tolist()) & set(broken)
    assert words.apply_chat_template([{"role": "user", "content": " ab"}], tokenize=False) == " ab"


def test_a_folder_for_dummy_weights_holds_none(cpu: Device, tmp_path: Path) -> None:
    made = folder.make(tmp_path, NANO, "fp32", cpu, seed=5, weights=False)
    assert not list(made.glob("*.safetensors"))
    assert '"MistralForCausalLM"' in (made / "config.json").read_text()


def test_a_disk_without_room_is_said_before_anything_is_built(
    cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 10**9

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Full)
    with pytest.raises(ValueError, match=r"model='mistral-7b' needs 15\.2 GB in .*, which has 1\.0 free: write --fold"):
        folder.make(tmp_path, find_model("mistral-7b"), "bf16", cpu, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_large_files_go_to_the_scratch_disk_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOFLAB_SCRATCH", "/scratch")
    assert folder.scratch() == Path("/scratch")


def test_commands_are_these(cpu: Device) -> None:
    plan = endpoint.Plan(kind="transformers", folder=Path("/m"), dtype="fp32", device=cpu, port=81, longest=4096,
                         batching=False)  # fmt: skip
    words = ["-m", "transformers.cli.transformers", "serve", "/m", "--host", "127.0.0.1", "--port", "81", "--device",
             "cpu", "--log-level", "error"]  # fmt: skip
    assert plan.command[1:] == words
    shared = endpoint.Plan(kind="transformers", folder=Path("/m"), dtype="fp32", device=cpu, port=81, longest=4096,
                           batching=True)  # fmt: skip
    assert shared.command[1:] == [*words, "--continuous-batching"]
    large = endpoint.Plan(kind="vllm", folder=Path("/m"), dtype="bf16", device=cpu, port=81, longest=4096,
                          batching=True, dummy=True)  # fmt: skip
    assert large.command[1:] == [
        "-m", "vllm.entrypoints.openai.api_server", "--model", "/m", "--host", "127.0.0.1", "--port", "81",
        "--load-format", "dummy", "--dtype", "bfloat16", "--max-model-len", "4096",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("installed", "wanted", "chosen"),
    [
        (("vllm", "fastapi", "uvicorn", "pydantic", "openai", "accelerate"), "auto", "vllm"),
        (("vllm", "fastapi", "uvicorn", "pydantic", "openai", "accelerate"), "transformers", "transformers"),
        (("fastapi", "uvicorn", "pydantic", "openai", "accelerate"), "auto", "transformers"),
        (("fastapi", "pydantic"), "auto", "lacks uvicorn, openai, accelerate here: `pip install uvicorn openai acc"),
        (("fastapi",), "vllm", "server='vllm' lacks vllm here: `pip install vllm`, or give the --url"),
    ],
)
def test_the_server_is_the_first_that_is_installed(
    installed: tuple[str, ...], wanted: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in installed else None)
    if chosen in endpoint.KINDS:
        assert endpoint.choose(wanted) == chosen
    else:
        with pytest.raises(ValueError, match=chosen):
            endpoint.choose(wanted)
