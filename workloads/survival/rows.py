"""A record's rows of the story of a training: steps and losses, what each resume lost and took, what saving cost."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from labs.results import Measurement, Roof
from labs.roofs import Bound, inverse, usd_per_million
from labs.survival import NOTICE_S, Saving
from workloads.survival.history import Life, Save, Step, Story

WARMUP = 1
"""Steps of each life that are not timed: in the first, memory is found and kernels are chosen."""


def timed(story: Story) -> list[Step]:
    """Steps whose time counts, of all lives."""
    return [one for life in story.lives for one in life.steps[WARMUP:]]


def extra_s(story: Story) -> float | None:
    """Wall time that saving took from the steps: those with a save beside them against as many without. None where
    there are not both; below 0 where noise is more."""
    beside = [one.taken_s for one in timed(story) if one.saving]
    without = [one.taken_s for one in timed(story) if not one.saving]
    return sum(beside) - len(beside) * statistics.median(without) if beside and without else None


def curve(story: Story) -> list[dict[str, Any]]:
    """Loss against wall time, a list a life; seconds since the first life began."""
    began = story.lives[0].start.began
    return [
        {"ranks": life.start.ranks, "resumed": life.start.resumed, "begin_s": life.start.began - began,
         "ready_s": life.start.at - began, "told": life.told is not None, "steps": [one.step for one in life.steps],
         "at_s": [one.at - began for one in life.steps], "losses": [one.loss for one in life.steps],
         "saved": [[save.step, save.written_s] for save in life.saves]}
        for life in story.lives
    ]  # fmt: skip


def rows(story: Story, *, tokens: int, bound: Bound, price: float | None, checked: str, most_lost: int | None
         ) -> Iterator[Measurement]:  # fmt: skip
    """All rows. `tokens`: of a step, over all ranks. `most_lost`: steps that may be lost; None where it is seconds."""
    samples = tuple(one.taken_s for one in timed(story))
    if samples:
        yield from _training(story, samples, tokens, bound, price, checked)
    for resume in story.resumes:
        if resume.down_s is not None:
            yield Measurement(
                name=f"resume {resume.life}", value=resume.down_s, unit="s", samples_s=(resume.down_s,),
                estimator="from the last sign of the life before to the first step of this one",
                config={"kind": "resume", **asdict(resume)}, checked=checked,
                no_roof_because="it is the launcher's time to notice and start again, imports and reading, no device's",
            )  # fmt: skip
    if story.resumes:
        yield _lost(story, most_lost)
    saves = [save for life in story.lives for save in life.saves]
    if saves:
        yield from _saving(story, saves)
    for life in story.lives:
        if life.told is not None:
            yield _notice(life, saves)


def _training(story: Story, samples: Sequence[float], tokens: int, bound: Bound, price: float | None, checked: str
              ) -> Iterator[Measurement]:  # fmt: skip
    step_s = statistics.median(samples)
    losses = [loss for _, loss in sorted(story.losses.items())]
    config = {"kind": "training", "tokens_per_step": tokens, "lives": len(story.lives), "curve": curve(story)}
    yield Measurement(
        name="training", value=tokens / step_s, unit="token/s", estimator=f"from the median step of {len(samples)}, "
        "saves included", config=config, roof=bound.roof, no_roof_because=bound.no_roof_because, checked=checked,
        usd_per_unit=None if price is None else usd_per_million(price, tokens / step_s), work_unit="million tokens",
    )  # fmt: skip
    floor = inverse(bound, tokens)
    yield Measurement(
        name="step", value=step_s, unit="s", estimator=f"median of {len(samples)}, saves included",
        config={"kind": "step", "losses": losses, "parity": story.parity, "parity_alone": list(story.alone)},
        samples_s=tuple(samples), roof=floor.roof, no_roof_because=floor.no_roof_because, checked=checked,
    )  # fmt: skip


def _lost(story: Story, most_lost: int | None) -> Measurement:
    worst = max(resume.lost for resume in story.resumes)
    return Measurement(
        name="steps lost", value=float(worst), unit="step", estimator=f"the most of {len(story.resumes)} resumes",
        config={"kind": "lost", "each": [resume.lost for resume in story.resumes], "interval": most_lost},
        no_roof_because="steps are counted, not timed",
        others=() if most_lost is None else (Roof(value=float(most_lost), source="the interval that was asked for"),),
    )  # fmt: skip


def _saving(story: Story, saves: Sequence[Save]) -> Iterator[Measurement]:
    blocked = tuple(save.blocked_s for save in saves)
    size = max(save.bytes for save in saves)
    shared = {"saves": len(saves), "bytes": size, "written_s": [save.written_s for save in saves]}
    yield Measurement(
        name="checkpoint, blocked", value=statistics.median(blocked), unit="s", samples_s=blocked,
        estimator=f"median of {len(saves)}: the copy, and waiting for the files where more would have stood unsaved",
        config={"kind": "blocked", **shared}, no_roof_because="a copy in memory needs no disk",
    )  # fmt: skip
    if (lost := extra_s(story)) is not None:
        share = lost / max(1e-9, sum(one.taken_s for one in timed(story)))
        yield Measurement(
            name="checkpoint, extra time", value=lost / len(saves), unit="s",
            estimator="a save's part of: steps with a save beside them − as many of the median without",
            config={"kind": "extra", **shared, "share": share},
            no_roof_because="what the steps lose to the writer depends on the cores that are free",
        )  # fmt: skip


def _notice(life: Life, saves: Sequence[Save]) -> Measurement:
    assert life.told is not None
    needed = life.told.notice_s
    sizes = [save for save in saves if save.written_s > 0]
    rate = max((save.bytes / save.written_s for save in sizes), default=0.0)
    reckoned = Saving(bytes=max(save.bytes for save in sizes), rate=rate).seconds if rate else None
    return Measurement(
        name=f"notice at step {life.told.step}", value=needed, unit="s", estimator="from the signal to the whole "
        "checkpoint", config={"kind": "notice", "why": life.told.why, "step": life.told.step, "at_best_s": reckoned,
        "fits": needed <= NOTICE_S}, no_roof_because="it ends with the step at work, then the files",
        others=(Roof(value=NOTICE_S, source="a spot instance's notice"),),
    )  # fmt: skip
