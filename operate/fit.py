"""Whether a lab's own workloads fit its machines: the models they load, by the formulas of labs/models.py."""

from dataclasses import dataclass

from labs.catalog import Lab, Workload
from labs.instances import InstanceType, instance_type
from labs.models import Model, find_model
from operate.check import Check, failed, passed, warned

_ROOM = 0.8
"""Above this share of the memory, what the formulas leave out (activations, CUDA's own) may not fit."""
_CONTEXT = 640
"""Tokens of a generation on a GPU: 512 of prompt and 128 made."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one workload loads on one device."""

    workload: str
    model: str
    bytes: int
    what: str
    """What the bytes are made of."""


def check_models(lab: Lab) -> list[Check]:
    """Whether each workload's model fits one GPU (or the node's memory, without GPUs) of every type of the lab."""
    checks = []
    for name in lab.types:
        kind = instance_type(name)
        needs = [need for workload in lab.workloads if (need := need_of(workload, kind))]
        checks += [_fits(need, kind) for need in needs]
        if not needs:
            checks.append(passed("models", f"the lab's workloads load none on {name}"))
    return checks


def need_of(workload: Workload, kind: InstanceType) -> Need | None:
    """What a workload of the catalogue loads on a device of that type; None where it loads no model."""
    ways = {"workloads.generate": _generating, "workloads.load": _serving, "workloads.ddp": _training}
    choose = ways.get(workload.module)
    if choose is None:
        return None
    named = dict(zip(workload.args, workload.args[1:], strict=False)).get("--model", "")
    return choose(workload, kind, named)


def _generating(workload: Workload, kind: InstanceType, named: str) -> Need:
    model = find_model(named) if named else default_model(kind)
    weights = model.weight_bytes(2 if kind.gpus else 4)
    cache = model.kv_bytes(2 if kind.gpus else 4) * _CONTEXT
    return Need(workload=workload.name, model=model.name, bytes=weights + cache, what="weights and KV cache")


def _serving(workload: Workload, kind: InstanceType, named: str) -> Need:
    model = find_model(named) if named else served_model(kind)
    weights = model.weight_bytes(2 if kind.gpus else 4)
    cache = model.kv_bytes(2 if kind.gpus else 4) * _CONTEXT
    return Need(workload=workload.name, model=model.name, bytes=weights + cache, what="weights and KV cache")


def _training(workload: Workload, kind: InstanceType, named: str) -> Need:
    model = find_model(named or ("mistral-mini" if kind.gpus else "mistral-nano"))
    what = "weights, gradients and Adam's moments, without activations"
    return Need(workload=workload.name, model=model.name, bytes=model.adam_bytes(), what=what)


def default_model(kind: InstanceType) -> Model:
    """The model that workloads/generate.py takes on a device of that type when none is named."""
    if not kind.gpus:
        return find_model("mistral-mini")
    largest = find_model("mistral-7b")
    return largest if _memory(kind) > 1.2 * largest.weight_bytes(2) else find_model("mistral-tiny")


def served_model(kind: InstanceType) -> Model:
    """The model that workloads/load.py serves on a device of that type when none is named."""
    if not kind.gpus:
        return find_model("mistral-nano")
    largest = find_model("mistral-7b")
    return largest if _memory(kind) > 1.5 * largest.weight_bytes(2) else find_model("mistral-tiny")


def _memory(kind: InstanceType) -> int:
    return (kind.gpu_memory_mib if kind.gpus else kind.memory_mib) << 20


def _fits(need: Need, kind: InstanceType) -> Check:
    has, device = _memory(kind), kind.gpu or "of memory"
    seen = (
        f"{need.workload} on {kind.name}: {need.model} takes {need.bytes / 2**30:.1f} GiB ({need.what}) "
        f"of {has / 2**30:.1f} GiB {device}"
    )
    if need.bytes <= _ROOM * has:
        return passed("models", seen)
    remedy = "choose a type with more memory, for example -c instance_type=g6e.xlarge"
    return failed("models", seen, remedy) if need.bytes > has else warned("models", seen, remedy)
