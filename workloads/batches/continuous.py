"""Continuous batching: a request takes a place when one is free and leaves it when its answer ends.

By vLLM where it is installed and there is a GPU, else by transformers' own.
"""

import logging
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, MistralForCausalLM
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from workloads.batches.requests import Request
from workloads.batches.static import Served
from workloads.device import Device

Serve = Callable[[Sequence[Request]], Served]
PAGE = 16
"""Tokens of a page of the cache on a CPU; a GPU has transformers' own choice."""


class NotApplicable(Exception):
    """This machine cannot do it; the text says why."""


def engine(device: Device) -> str:
    """Whose continuous batching is measured."""
    return "vLLM" if device.cuda and find_spec("vllm") is not None else "transformers"


def by_transformers(model: MistralForCausalLM, requests: Sequence[Request], places: int, device: Device) -> Serve:
    """Transformers' own, with `places` requests at once.

    Raises:
        NotApplicable: it does not start here.
    """
    longest = max(len(one.prompt) + one.answer for one in requests)
    settings: dict[str, Any] = {"max_requests_per_batch": places, "allow_block_sharing": False}
    if not device.cuda:  # it would size itself by a GPU's memory
        settings |= {"page_size": PAGE, "num_blocks": places * (-(-longest // PAGE) + 1), "max_batch_tokens": 256,
                     "use_cuda_graph": False, "use_async_batching": False}  # fmt: skip
    # Greedy, exactly as many tokens as asked for: no token ends an answer.
    wanted = GenerationConfig(do_sample=False, max_new_tokens=max(one.answer for one in requests), eos_token_id=-1,
                              pad_token_id=0)  # fmt: skip
    logging.getLogger("ContinuousBatchingLogger").setLevel(
        logging.CRITICAL
    )  # it mourns psutil, which it can do without

    def serve(given: Sequence[Request]) -> Served:
        try:
            with model.continuous_batching_context_manager(
                generation_config=wanted, continuous_batching_config=ContinuousBatchingConfig(**settings), block=True,
                timeout=30, warmup=device.cuda,
            ) as manager:  # fmt: skip
                return _collect(manager, given)
        except (AttributeError, ImportError, MemoryError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise NotApplicable(f"transformers' continuous batching does not run here: {type(error).__name__}: {reason}"
                                ) from None  # fmt: skip

    return serve


def _collect(manager: Any, requests: Sequence[Request]) -> Served:
    began = time.perf_counter()
    names = [
        manager.add_request(list(one.prompt), max_new_tokens=one.answer, record_timestamps=True) for one in requests
    ]
    found: dict[str, Any] = {}
    while len(found) < len(names):
        result = manager.get_result(timeout=1)
        if result is not None and result.is_finished():
            found[result.request_id] = result
        elif result is None and not manager.is_running():
            raise RuntimeError("its thread ended before all answers had")
    seconds = time.perf_counter() - began
    failed = next((result.error for result in found.values() if result.error), None)
    if failed:
        raise RuntimeError(failed)
    gaps = [after - before for name in names for before, after in pairwise(found[name].timestamps or ())]
    return Served(answers=tuple(tuple(found[name].generated_tokens) for name in names), seconds=seconds, prefill_s=0.0,
                  gaps_s=tuple(gaps))  # fmt: skip


def by_vllm(folder: Path, requests: Sequence[Request], places: int) -> Serve:
    """vLLM on the weights in `folder`, with `places` requests at once; it tells no time of single tokens here."""
    from vllm import LLM, SamplingParams

    longest = max(len(one.prompt) + one.answer for one in requests)
    # Half of the GPU's memory: the model that fixed batches ran on is still there.
    server = LLM(model=str(folder), skip_tokenizer_init=True, max_num_seqs=places, max_model_len=longest + 1,
                 gpu_memory_utilization=0.5)  # fmt: skip

    def serve(given: Sequence[Request]) -> Served:
        prompts = [{"prompt_token_ids": list(one.prompt)} for one in given]
        wanted = [
            SamplingParams(temperature=0.0, max_tokens=one.answer, ignore_eos=True, detokenize=False) for one in given
        ]
        began = time.perf_counter()
        found = server.generate(prompts, wanted, use_tqdm=False)
        seconds = time.perf_counter() - began
        return Served(answers=tuple(tuple(one.outputs[0].token_ids) for one in found), seconds=seconds, prefill_s=0.0,
                      gaps_s=())  # fmt: skip

    return serve
