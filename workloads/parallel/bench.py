"""Measures strategies one after the other on the same batches, and makes a record's rows of what came out.

For each: parity with one process, steps to warm up, timed steps, one step whose collectives are counted and held
against the prediction, and a step or two under the profiler. All are ordinary steps: nothing is switched off.
"""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from labs.models import Model, find_model
from labs.results import Measurement, Roof
from labs.roofs import Bound, compute_bound, inverse, per_unit, usd_per_million
from labs.traffic import Traffic
from workloads.chain import draw
from workloads.group import Group
from workloads.parallel.counting import counted
from workloads.parallel.links import Link
from workloads.parallel.oneprocess import Parity, check_parity
from workloads.parallel.settings import Settings
from workloads.parallel.strategy import Steps, Strategy, Together, alone, builder, trainer_of
from workloads.parallel.trace import Breakdown, breakdown_of, shares, spans
from workloads.parity import digest, digest_failure, loss_failure

PROFILED = {True: 2, False: 1}
"""Steps under the profiler, by whether the device is a GPU; on a CPU to read one takes longer than to run it."""


@dataclass(frozen=True, kw_only=True)
class Outcome(Together):
    """What came of one strategy."""

    strategy: Strategy
    traffic: Traffic
    """Predicted, and counted on this rank to be the same."""
    breakdowns: tuple[Breakdown, ...]
    """Of all ranks."""
    parity: Parity
    peak_bytes: int
    """Most memory that a GPU held on any rank; 0 on a CPU."""

    @property
    def checked(self) -> str:
        """What held."""
        equal = "; parameters bitwise equal on all ranks" if self.strategy.equal else ""
        fall = f"loss {self.losses[0]:.2f} to {self.losses[-1]:.2f}"
        return f"{self.parity.text}; bytes counted as predicted{equal}; {fall}"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The model, its batches and the ranks."""

    settings: Settings
    group: Group

    @property
    def shape(self) -> Model:
        """The model's."""
        return find_model(self.settings.model)

    @property
    def tokens(self) -> int:
        """Of a step, over all ranks, each counted once."""
        return self.group.size * self.settings.batch * self.settings.sequence

    def batches(self, steps: int) -> list[torch.Tensor]:
        """Global batches [G, T], the same on every rank and for every strategy."""
        size = (self.group.size * self.settings.batch, self.settings.sequence + 1)
        return [draw(self.settings.seed, step, *size) for step in range(steps)]

    def baseline(self) -> Steps:
        """One rank alone on its own share, with as many threads; the others wait. On every rank."""
        mine = None
        if self.group.first:
            build = builder(self.shape, self.settings.seed, self.group.device)
            trainer = trainer_of(alone(), self.settings, build, self.group.device)
            share = [tokens_GT[: self.settings.batch] for tokens_GT in self.batches(self.settings.steps // 2)]
            mine = trainer.train(share).after(self.settings.warmup)
            del trainer
        free(self.group)
        found = self.group.gather(mine)[0]
        assert found is not None
        return found

    def measure(self, strategy: Strategy, like_fp32: Strategy) -> Outcome:
        """Everything about one strategy; `like_fp32` is the same in fp32, which is held against one process.

        Raises:
            CheckFailed: on every rank, if losses, gradients or bytes are not what they must be.
        """
        group, settings = self.group, self.settings
        parity = check_parity(like_fp32, settings, group)
        free(group)
        told = group.gather(self._observe(strategy))
        free(group)
        outcome = Outcome(
            strategy=strategy, every=tuple(steps for steps, _, _ in told),
            traffic=strategy.traffic(self.shape, self.tokens),
            breakdowns=tuple(breakdown for _, breakdown, _ in told), parity=parity,
            peak_bytes=max(peak for _, _, peak in told),
        )  # fmt: skip
        group.require(f"loss of {strategy.name} falls", loss_failure(outcome.losses))
        return outcome

    def _observe(self, strategy: Strategy) -> tuple[Steps, Breakdown, int]:
        """This rank's timed steps, its breakdown and the peak of its GPU's memory; bytes are checked on the way."""
        group, settings = self.group, self.settings
        if group.device.cuda:
            torch.cuda.reset_peak_memory_stats(group.device.torch)
        trainer = trainer_of(strategy, settings, builder(self.shape, settings.seed, group.device), group.device)
        batches = self.batches(settings.steps)
        steps = trainer.train(batches).after(settings.warmup)
        tokens_BT = strategy.share_of(batches[-1], group.device)

        def step() -> object:
            return trainer.step(tokens_BT)

        differ = strategy.traffic(self.shape, self.tokens).unlike(counted(step))
        group.require(f"bytes of {strategy.name}", differ)
        breakdown = breakdown_of(step, PROFILED[group.device.cuda], group.device)
        if strategy.equal:
            same = digest_failure(group.gather(digest(trainer.model)))
            group.require(f"parameters of {strategy.name} equal on all ranks", same)
        return steps, breakdown, torch.cuda.max_memory_allocated(group.device.torch) if group.device.cuda else 0

    def bound(self) -> Bound:
        """Most tokens/s of all ranks together, by the model's own arithmetic."""
        device = self.group.device
        peak = compute_bound(device.name, device.accelerator, self.settings.dtype, self.group.size)
        return per_unit(peak, self.shape.train_flops(self.settings.sequence))

    def rows(self, outcome: Outcome, expected: Roof | None, price: float | None, label: str = ""
             ) -> Iterator[Measurement]:  # fmt: skip
        """Tokens/s, the step's time taken apart, and the bytes; `label` tells them from another strategy's."""
        group, steps, rate = self.group, len(outcome.samples_s), self.bound()
        config = {
            "model": self.settings.model, "dtype": self.settings.dtype, "ranks": group.size,
            "tokens_per_step": self.tokens, "flops_per_token": self.shape.train_flops(self.settings.sequence),
            "predicted_bytes_per_rank": outcome.traffic.sent_bytes, "strategy": outcome.strategy.name,
            **outcome.strategy.config,
        }  # fmt: skip
        throughput = self.tokens / outcome.median_s
        yield Measurement(
            name=f"training{label}", value=throughput, unit="token/s",
            estimator=f"from the median of {steps} steps", config={**config, "peak_bytes": outcome.peak_bytes},
            samples_s=outcome.samples_s, roof=rate.roof, no_roof_because=rate.no_roof_because,
            usd_per_unit=None if price is None else usd_per_million(price, throughput), work_unit="million tokens",
            checked=outcome.checked,
        )  # fmt: skip
        step = inverse(rate, self.tokens)
        yield Measurement(
            name=f"step{label}", value=outcome.median_s, unit="s", estimator=f"median of {steps}, slowest rank of each",
            config={**config, "losses": outcome.losses, "shares": shares(outcome.breakdowns),
                    "strip": strip_of(outcome.breakdowns[0]), **outcome.parity.config},
            samples_s=outcome.samples_s, roof=step.roof, no_roof_because=step.no_roof_because, expected=expected,
            spans=spans(outcome.breakdowns, outcome.median_s, group.device.cuda), checked=outcome.checked,
        )  # fmt: skip
        sent = outcome.traffic.sent_bytes
        yield Measurement(
            name=f"sent{label}", value=sent, unit="B", estimator="counted in one step, on each rank", config=config,
            no_roof_because="bytes are counted, not timed",
            expected=Roof(value=sent, source="predicted: the least that its collectives must send"),
            checked="every collective's buffer counted as predicted, on every rank",
        )  # fmt: skip


def strip_of(breakdown: Breakdown) -> dict[str, Any]:
    """One rank's last profiled step, for a drawing."""
    return {"step_s": breakdown.step_s, **{name: list(found) for name, found in breakdown.strip.items()}}


def expectation(alone_s: float | None, traffic: Traffic, link: Link | None) -> Roof | None:
    """Seconds that a step should take with nothing hidden: one rank's own arithmetic, then all bytes over the link."""
    talk_s = None if link is None else link.seconds(traffic)
    if alone_s is None or talk_s is None:
        return None
    source = (f"one rank alone {alone_s * 1e3:.1f} ms, then its bytes at the rate that collectives measured, "
              f"{talk_s * 1e3:.1f} ms, nothing hidden")  # fmt: skip
    return Roof(value=alone_s + talk_s, source=source)


def free(group: Group) -> None:
    """Give back what the last model held, and wait for each other."""
    gc.collect()
    if group.device.cuda:
        torch.cuda.empty_cache()
    group.gather(None)


def outcome_lines(outcome: Outcome, expected: Roof | None, bound: Bound, tokens: int) -> Sequence[str]:
    """What came of a strategy, for the log."""
    share, sent = shares(outcome.breakdowns), outcome.traffic.sent_bytes
    rate = tokens / outcome.median_s
    held = "" if bound.roof is None else f", {rate / bound.roof.value:.1%} of roof (MFU, causal)"
    wanted = "" if expected is None else f" (expected {expected.value * 1e3:.1f} ms)"
    lines = [
        f"{outcome.strategy.name}: step {outcome.median_s * 1e3:.1f} ms{wanted}, {rate:.0f} token/s{held}",
        f"  of it {share['compute']:.0%} arithmetic, {share['exposed']:.0%} exposed communication, {share['idle']:.0%} "
        f"idle; {share['overlap']:.0%} of the communication is hidden",
        f"  {sent / 1e6:.2f} MB sent a rank and step, counted as predicted; {outcome.parity.text}",
    ]
    return lines if outcome.peak_bytes == 0 else [*lines, f"  at most {outcome.peak_bytes / 2**30:.2f} GiB on a GPU"]
