"""Where a training goes on: the newest checkpoint that is whole, read on however many ranks there are now."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.command import Ended
from workloads.group import Group
from workloads.survival.history import History, Story
from workloads.survival.saver import Saver
from workloads.survival.store import Store
from workloads.survival.trainee import Trainee

HISTORY = "history.jsonl"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all ranks agree on before they build anything."""

    story: Story
    """Of the lives before this one; on the first rank only, elsewhere empty."""
    life: int
    shared: bool
    """Whether all ranks see the folder; where not, nothing can be saved."""


def survey(group: Group, store: Store, *, anew: bool) -> Ground:
    """Open the folder, see that it is everybody's, read what happened there; `anew`: after an end, begin again.

    Raises:
        Ended: on all ranks, with exit code 2: the folder cannot be written.
    """
    story, fault, token = Story(), "", f".seen-{uuid.uuid4().hex}"
    if group.first:
        try:
            store.open()
            (store.folder / token).touch()
            history = History(path=store.folder / HISTORY)
            story = history.read()
            store.sweep()
            if anew and story.finished:
                print(f"the training in {store.folder} had ended: its checkpoints go, a new one begins", flush=True)
                store.clear()
                history.clear()
                story = Story()
        except ValueError as error:
            fault = str(error)
    told = group.gather((fault, len(story.lives), token))[0]
    if told[0]:
        raise Ended(told[0] if group.first else "", 2)
    seen = group.gather((store.folder / told[2]).exists())
    if group.first:
        (store.folder / token).unlink()
    if not all(seen):
        group.say(f"warning: rank {seen.index(False)} does not see {store.folder}: nothing is saved, and a lost node "
                  "loses all; name a folder that all share, for example --checkpoints /fsx/checkpoints")  # fmt: skip
    return Ground(story=story, life=told[1], shared=all(seen))


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where this life begins."""

    step: int
    skipped: tuple[str, ...] = ()
    """Checkpoints that were not whole, and why."""
    load_s: float = 0.0


def newest(group: Group, store: Store, facts: Mapping[str, Any]) -> Found:
    """The newest whole checkpoint, its files looked at by all ranks together; step 0 where there is none.

    Raises:
        Ended: on all ranks, with exit code 2: it is of another training.
    """
    skipped: list[str] = []
    for step in group.gather(store.steps() if group.first else [])[0]:
        faults = group.gather(store.fault(step, (group.rank, group.size)))
        fault = next(filter(None, faults), "")
        if not fault:
            _demand_same(group, store.path(step), store.manifest(step), facts)
            return Found(step=step, skipped=tuple(skipped))
        skipped.append(f"step {step}: {fault}")
        group.say(f"warning: the checkpoint of step {step} is not whole ({fault}): it is not loaded, an older one is")
    return Found(step=0, skipped=tuple(skipped))


def _demand_same(group: Group, folder: Path, manifest: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if manifest.get(name) != value:
            line = (f"{name}={value!r}, and {folder} was made with {name}={manifest.get(name)!r}: write the same, or "
                    "another --checkpoints for a new training")  # fmt: skip
            raise Ended(line if group.first else "", 2)


def resume(group: Group, store: Store, saver: Saver, trainee: Trainee, facts: Mapping[str, Any]) -> Found:
    """Look, and load what was found."""
    begin = time.perf_counter()
    found = newest(group, store, facts)
    if found.step:
        state = trainee.state()
        saver.load(found.step, state)
        trainee.take(state)
    return Found(step=found.step, skipped=found.skipped, load_s=time.perf_counter() - begin)
