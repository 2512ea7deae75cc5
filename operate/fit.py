"""Whether models fit machines before there are any: those that a lab's workloads load, and any that is asked about."""

import json as documents
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from rich.table import Table
from rich.text import Text

from labs.catalog import Lab, Workload
from labs.instances import InstanceType, instance_type
from labs.memory import Footprint, Recipe, serve, train
from labs.models import Model, find_model
from labs.placement import Answer, Verdict, cheapest, choose, gib, place_of, serve_verdicts, train_verdicts
from operate.check import Check, failed, passed, warned
from operate.problem import Problem
from operate.screen import Screen

_CONTEXT = 640
"""Tokens of a generation on a GPU: 512 of prompt and 128 made."""
_BATCH, _SEQUENCE = 2, {True: 1024, False: 32}
"""Of workloads/ddp.py, by whether the type has GPUs."""
_STATES_SHARE = 0.8
"""Share of a device that workloads/ddp.py gives to the states of the model it chooses."""
_STYLE: dict[Answer, str] = {"fits": "green", "tight": "yellow", "no": "bold red"}


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one workload loads on one device."""

    workload: str
    model: str
    footprint: Footprint


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
    return _answering(workload, kind, find_model(named) if named else default_model(kind))


def _serving(workload: Workload, kind: InstanceType, named: str) -> Need:
    return _answering(workload, kind, find_model(named) if named else served_model(kind))


def _answering(workload: Workload, kind: InstanceType, model: Model) -> Need:
    size = 2 if kind.gpus else 4
    whole = serve(model, batch=1, context=_CONTEXT, weight_size=size, kv_size=size)
    return Need(workload=workload.name, model=model.name, footprint=whole)


def _training(workload: Workload, kind: InstanceType, named: str) -> Need:
    cuda = kind.gpus > 0
    model = find_model(named) if named else trained_model(kind)
    recipe = Recipe(strategy="ddp", ranks=max(2, kind.gpus), saving="eager" if cuda else "eager-cpu",
                    compute_size=2 if cuda else 4)  # fmt: skip
    whole = train(model, recipe, batch=_BATCH, context=_SEQUENCE[cuda])
    return Need(workload=workload.name, model=model.name, footprint=whole)


def trained_model(kind: InstanceType) -> Model:
    """The model that workloads/ddp.py takes on a device of that type when none is named."""
    for name in ("mistral-tiny", "mistral-mini") if kind.gpus else ():
        if find_model(name).adam_bytes() <= _STATES_SHARE * place_of(kind).device_bytes:
            return find_model(name)
    return find_model("mistral-nano")


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
    there = place_of(kind)
    judged = Verdict(purpose="train", way="", footprint=need.footprint, host_bytes=0, place=there)
    largest = sorted((part for part in need.footprint.parts if part.bytes), key=lambda part: -part.bytes)
    parts = ", ".join(f"{part.name} {gib(part.bytes)}" for part in largest[:3])
    seen = (
        f"{need.workload} on {kind.name}: {need.model} takes {gib(need.footprint.bytes)} ({parts}) "
        f"of {gib(there.device_bytes)} {kind.gpu or 'of memory'}"
    )
    if judged.answer == "fits":
        return passed("models", seen)
    remedy = "choose a type with more memory, for example -c instance_type=g6e.xlarge"
    return failed("models", seen, remedy) if judged.answer == "no" else warned("models", seen, remedy)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to fit: a model, at so many tokens a device."""

    model: Model
    purposes: tuple[Literal["train", "serve"], ...]
    batch: int
    sequence: int


def read_question(model: str, *, purpose: str, batch: str, sequence: str) -> Question:
    """The question that the flags put.

    Raises:
        ValueError: a flag has a value that is not allowed.
    """
    if purpose not in ("", "train", "serve"):
        raise ValueError(f"purpose={purpose!r} is not allowed: write train or serve, or leave it out for both")
    for flag, text in (("batch", batch), ("sequence", sequence)):
        if text and not (text.isascii() and text.isdigit() and int(text)):
            raise ValueError(f"{flag}={text!r} is not a whole number of at least 1: write for example --{flag} 2048")
    asked: tuple[Literal["train", "serve"], ...] = ("train", "serve")
    if purpose:
        asked = (cast(Literal["train", "serve"], purpose),)
    return Question(model=find_model(model), purposes=asked, batch=int(batch or 1), sequence=int(sequence or 4096))


def verdicts(lab: Lab, question: Question) -> list[Verdict]:
    """Every way on every type of the lab, training first."""
    found: list[Verdict] = []
    given: dict[str, Any] = {"batch": question.batch, "context": question.sequence}
    for name in lab.types:
        there = place_of(instance_type(name), lab.nodes)
        for purpose in question.purposes:
            judge = train_verdicts if purpose == "train" else serve_verdicts
            found += judge(question.model, there, **given)
    return found


def show_fits(lab: Lab, question: Question, screen: Screen, *, json: bool) -> None:
    """Print every way and what follows (with `json`, one document).

    Raises:
        Problem: something that was asked fits in no way; raised last, when all is shown.
    """
    found = verdicts(lab, question)
    if json:
        print(documents.dumps(as_json(lab, question, found), indent=1))
    else:
        screen.console.print(table(found))
        states = gib(question.model.adam_bytes())
        screen.note(f"AdamW in fp32 keeps 16 B × {question.model.parameters:,} parameters = {states} in all")
        for purpose in question.purposes:
            if chosen := choose([verdict for verdict in found if verdict.purpose == purpose]):
                screen.note(f"{question.model.name} {purpose}s on {chosen.place.name}: {chosen.way}, {chosen.why}")
    for purpose in question.purposes:
        if choose([verdict for verdict in found if verdict.purpose == purpose]) is None:
            raise Problem(f"{question.model.name} does not {purpose} on {lab.stack}'s {' or '.join(lab.types)}",
                          _instead(question, purpose))  # fmt: skip


def _instead(question: Question, purpose: Literal["train", "serve"]) -> str:
    kind = cheapest(question.model, purpose, batch=question.batch, context=question.sequence)
    if kind is None:
        return "no single node does: write fewer tokens, more nodes or a smaller model"
    return f"the cheapest node that does: --context instance_type={kind.name} (${kind.usd_per_hour:.2f}/h by the list)"


def table(found: Sequence[Verdict]) -> Table:
    """Every way for the terminal."""
    shown = Table("", "on", "way", "fits", "why")
    for one in found:
        answer = Text(one.answer, style=_STYLE[one.answer])
        shown.add_row(one.purpose, one.place.name, one.way, answer, one.why)
    return shown


def as_json(lab: Lab, question: Question, found: Sequence[Verdict]) -> dict[str, Any]:
    """For `--json`."""
    return {
        "model": question.model.name, "batch": question.batch, "sequence": question.sequence, "stack": lab.stack,
        "ways": [
            {"purpose": one.purpose, "place": one.place.name, "way": one.way, "answer": one.answer, "why": one.why,
             "device_bytes": one.place.device_bytes, "bytes": one.footprint.bytes, "host_bytes": one.host_bytes,
             "parts": {part.name: part.bytes for part in one.footprint.parts}}
            for one in found
        ],
    }  # fmt: skip
