"""scaling: the same training on 1, 2, … n ranks, the work kept (strong) and grown (weak), and the laws fitted to it.

Strong: one batch divided over more ranks. Amdahl: T(n) = T(1)·(s + (1 − s)/n), s the share that does not spread.
Weak: as much for each rank, whatever their number. Gustafson: speed-up n − s·(n − 1). What the law leaves over is in
the residuals, and where the time went in the spans: arithmetic, communication that nothing hides, neither.

The baseline is one rank with as many threads as each of the others. torchrun gives each rank its share of the cores,
while a process alone takes all: held against that one, ranks that spread well seem to gain nothing. Both are shown.

Method: data parallel (`ddp`) over the first 1, 2, … ranks while the others wait. Tokens are counted once. Checks: the
losses of one batch are the same on any number of ranks; parameters are bitwise equal on all of them.

Output: seconds per step by ranks, both ways, speed-up, both laws' serial share with residuals; one record.

    python -m workloads.scaling
    torchrun --standalone --nproc-per-node 4 -m workloads.scaling
"""

import argparse
import math
from collections.abc import Iterator, Sequence

from labs.memory import Recipe
from labs.models import find_model
from labs.placement import judge
from labs.results import Measurement
from labs.roofs import Bound, compute_bound, inverse, per_unit, usd_per_million
from labs.scaling import Fit, fit_amdahl, fit_gustafson
from labs.traffic import data_parallel
from workloads.command import start
from workloads.device import Device
from workloads.group import Group, Place
from workloads.parallel.points import ALLOWED, Config, Kind, Point, all_cores, measure_all, speedups
from workloads.parallel.recipe import place_of
from workloads.parallel.settings import chosen, parser_of
from workloads.parallel.trace import shares, spans
from workloads.parallel.workload import enter, record
from workloads.record import Surroundings, surroundings
from workloads.sensors import Sensors


def configure(flags: argparse.Namespace, device: Device, here: Place) -> Config:
    """The flags, with the device's own defaults where none is given.

    Raises:
        ValueError: a value is not allowed.
    """
    sizes = sizes_of(here.size, surroundings().nodes)
    sequences = math.lcm(*sizes) * (flags.batch or 1)
    told = {**chosen(flags, device), "batch": sequences // here.size}
    if device.cuda and not flags.sequence:
        told["sequence"] = longest(told["model"], sequences, device)
    return Config(**told, sizes=sizes, sequences=sequences)


def sizes_of(ranks: int, nodes: int) -> tuple[int, ...]:
    """Numbers of ranks to measure: within a node every one up to four and then powers of two, then whole nodes."""
    each = ranks // nodes
    within = range(1, each + 1) if each <= 4 else [2**power for power in range(each.bit_length()) if 2**power < each]
    return tuple(sorted({*within, *(each * count for count in range(1, nodes + 1))}))


def longest(model: str, sequences: int, device: Device) -> int:
    """Tokens per sequence at which one rank alone can hold the whole batch."""
    place, recipe = place_of(device, 1, 1), Recipe(saving="eager")
    for sequence in (1024, 512, 256):
        if judge(find_model(model), place, recipe, batch=sequences, context=sequence).answer == "fits":
            return sequence
    return 128


def bound_of(config: Config, group: Group, ranks: int) -> Bound:
    """Most tokens/s of so many ranks."""
    peak = compute_bound(group.device.name, group.device.accelerator, config.dtype, ranks)
    return per_unit(peak, find_model(config.model).train_flops(config.sequence))


def summarise(config: Config, group: Group, points: Sequence[Point], wrong: Point | None, price: float | None
              ) -> Iterator[Measurement]:  # fmt: skip
    """A row per point, both fits, tokens/s at the most ranks, and the wrong baseline."""
    checked = f"losses of {config.steps} steps the same on any number of ranks, within {ALLOWED[config.dtype]:.0e}"
    for kind, fit in fits(points):
        gained = speedups(points, kind)
        for point in (point for point in points if point.kind == kind):
            yield point_row(point, config, group, gained[point.ranks], fit, checked)
        if fit is not None:
            yield fit_row(fit, kind, gained)
    last = points[-1]
    rate, tokens_per_s = bound_of(config, group, last.ranks), config.tokens("strong", last.ranks) / last.median_s
    yield Measurement(
        name=f"training on {last.ranks} ranks", value=tokens_per_s, unit="token/s", samples_s=last.samples_s,
        estimator=f"from the median of {len(last.samples_s)} steps", roof=rate.roof, checked=checked,
        no_roof_because=rate.no_roof_because, config={"model": config.model, "dtype": config.dtype},
        usd_per_unit=None if price is None else usd_per_million(price, tokens_per_s), work_unit="million tokens",
    )  # fmt: skip
    if wrong is not None:
        yield Measurement(
            name="speed-up over all cores", value=wrong.median_s / last.median_s, unit="×", samples_s=wrong.samples_s,
            estimator="from medians of both", checked=checked, no_roof_because="its baseline is another machine",
            config={"ranks": last.ranks, "alone_s": wrong.median_s, "right": speedups(points, "strong")[last.ranks]},
        )  # fmt: skip


def fits(points: Sequence[Point]) -> list[tuple[Kind, Fit | None]]:
    """Amdahl to strong scaling, Gustafson to weak; none on one rank."""
    if max(point.ranks for point in points) == 1:
        return [("strong", None), ("weak", None)]
    return [("strong", fit_amdahl(speedups(points, "strong"))), ("weak", fit_gustafson(speedups(points, "weak")))]


def point_row(point: Point, config: Config, group: Group, speedup: float, fit: Fit | None, checked: str
              ) -> Measurement:  # fmt: skip
    """One number of ranks, one way: its step's time beside the roof, taken apart."""
    bound = inverse(bound_of(config, group, point.ranks), config.tokens(point.kind, point.ranks))
    return Measurement(
        name=f"{point.kind}, {point.ranks} rank{'s' * (point.ranks > 1)}", value=point.median_s, unit="s",
        estimator=f"median of {len(point.samples_s)}, slowest rank of each", samples_s=point.samples_s,
        config={
            "kind": point.kind, "ranks": point.ranks, "tokens_per_step": config.tokens(point.kind, point.ranks),
            "tokens_per_s": config.tokens(point.kind, point.ranks) / point.median_s, "speedup": speedup,
            "efficiency": speedup / point.ranks, "law": None if fit is None else fit.speedup(point.ranks),
            "shares": shares(point.breakdowns), "threads": config.threads, "losses": point.losses,
        },
        roof=bound.roof, no_roof_because=bound.no_roof_because, checked=checked,
        spans=spans(point.breakdowns, point.median_s, group.device.cuda),
    )  # fmt: skip


def fit_row(fit: Fit, kind: Kind, gained: dict[int, float]) -> Measurement:
    """A law's one unknown, with what it leaves over."""
    return Measurement(
        name=f"{fit.law}: serial share", value=fit.serial, unit="of the work",
        estimator=f"least squares over {len(fit.residuals)} point{'s' * (len(fit.residuals) > 1)}",
        config={"kind": kind, "law": fit.law, "limit": fit.limit, "exact": fit.exact,
                "speedups": {str(ranks): value for ranks, value in gained.items()},
                "residuals": {str(ranks): value for ranks, value in fit.residuals.items()}},
        no_roof_because="a fitted law, not a measurement",
    )  # fmt: skip


def fit_line(fit: Fit, gained: dict[int, float]) -> str:
    """A law beside the measurement, for the log."""
    points = ", ".join(f"{ranks}: {gained[ranks]:.2f} × ({over:+.2f})" for ranks, over in fit.residuals.items())
    beyond = "" if fit.limit is None else f", so never more than {fit.limit:.1f} ×"
    warning = "; one point and one unknown: the residual says nothing" if fit.exact else ""
    return f"{fit.law}: serial share {fit.serial:.1%}{beyond}; speed-up (residual) {points}{warning}"


def run(config: Config, group: Group, flags: argparse.Namespace, within: Surroundings) -> None:
    """Predict, measure every point, fit, print and write what came out."""
    bound = bound_of(config, group, group.size)
    group.say(f"roof on {group.size} ranks: {bound.roof.value:.0f} token/s ({bound.roof.source})" if bound.roof
              else f"roof on {group.size} ranks: none, {bound.no_roof_because}")  # fmt: skip
    sent = data_parallel(find_model(config.model), group.size).sent_bytes
    group.say(f"predicted: at best {group.size} ×; each rank sends {sent / 1e6:.2f} MB a step, however small its share")
    with Sensors(group.device) as sensors:
        points = measure_all(config, group)
        wrong = all_cores(config, group)
    for kind, fit in fits(points):
        if fit is not None:
            group.say(fit_line(fit, speedups(points, kind)))
    notes = ["speed-up over all cores: not applicable, " + (
        "GPUs do not share cores" if group.device.cuda else "one rank alone has all cores already"
    )] if wrong is None else []  # fmt: skip
    if wrong is not None:
        right = speedups(points, "strong")[config.sizes[-1]]
        group.say(f"against one rank with {config.threads} threads like the others: {right:.2f} ×; against one that "
                  f"takes all cores: {wrong.median_s / points[-1].median_s:.2f} × (the wrong baseline)")  # fmt: skip
    if group.first:
        rows = tuple(summarise(config, group, points, wrong, within.price))
        path = record("scaling", rows, config, group, flags, within, sensors, tuple(notes))
        group.say(f"{len(config.sizes)} numbers of ranks, strong and weak, the same losses on all: {path}")


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        CheckFailed: what was trained is wrong.
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = parser_of("scaling", __doc__)
    enter(parser, arguments, configure, run)


if __name__ == "__main__":
    start("scaling", main)
