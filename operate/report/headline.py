"""Which of a workload's rows stand for the rest: few enough to be read, asked for in a quiz, shown on a terminal."""

from collections.abc import Iterable, Sequence
from statistics import median

from labs.results import Measurement, Record, Roof

Row = tuple[Record, Measurement]
MOST = 4
FOLD = 12
"""A table of more rows than this shows its headlines and folds the rest."""


def headlines(rows: Sequence[Row], most: int = MOST) -> list[Row]:
    """Those whose time is taken apart or was predicted, then the nearest to its roof and the farthest, then the best
    of each unit; of the first node, in the records' order."""
    mine = [entry for entry in rows if entry[0].node == rows[0][0].node and not entry[1].suspect]
    mine = [entry for entry in mine if entry[1].value > 0 and entry[1].config.get("past_cache", True)] or mine
    held = [entry for entry in mine if _held(entry[1]) is not None]
    chosen: dict[int, None] = {}
    for group in (
        [entry for entry in mine if entry[1].spans],
        [entry for entry in mine if entry[1].expected],
        _ends(held),
        _best(mine),
    ):
        for entry in group:
            if len(chosen) < most:
                chosen[mine.index(entry)] = None
    return [mine[at] for at in sorted(chosen)]


def _held(row: Measurement) -> float | None:
    return row.fraction if row.roof else None


def _ends(held: Sequence[Row]) -> list[Row]:
    """The row nearest to its roof and the one farthest from it."""
    if not held:
        return []
    by = sorted(held, key=lambda entry: _held(entry[1]) or 0.0)
    return [by[-1], by[0]] if len(by) > 1 else by


def _best(rows: Iterable[Row]) -> list[Row]:
    """The best row of each unit: the least time, the most of anything else."""
    best: dict[str, Row] = {}
    for entry in rows:
        unit, value = entry[1].unit, entry[1].value
        known = best.get(unit)
        if known is None or (value < known[1].value if unit == "s" else value > known[1].value):
            best[unit] = entry
    return list(best.values())


def sample_s(row: Measurement) -> float | None:
    """Time of the median sample; None where the row has none."""
    return median(row.samples_s) if row.samples_s else row.value if row.unit == "s" else None


def at_s(row: Measurement, limit: Roof) -> float | None:
    """What a sample would take if the row reached `limit`."""
    taken = sample_s(row)
    return None if taken is None else taken * row.share_of(limit)
