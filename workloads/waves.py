"""One column more, and a whole wave more: the rate of a product while its N grows in small steps past full waves.

C is worked off in tiles, one to an SM at a time. While the last wave has room a larger N costs nothing, and the rate
climbs; the first column past a full wave starts one that is nearly empty and takes as long. Model: time = waves × the
time of a full one, taken where the waves are full. A library that picks smaller tiles there, or splits K over the SMs
that would idle, falls less far than the model: that is what it is paid for.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import log
from typing import TYPE_CHECKING

from labs.results import Measurement
from labs.roofs import gemm_flops
from workloads.search import Shape, Space

if TYPE_CHECKING:
    from workloads.gemm import Bench, Config

INNER = 4096
"""Long enough for a wave to outweigh what a product costs once."""
FROM, FULL, TO = 0.5, (1, 2), 2.5
"""N grows from half a wave past those that are full, in waves."""
POINTS = 40
SAMPLES, WARMUP = 10, 5
"""Per shape: neighbours in the figure confirm each other."""


def sawtooth(space: Space, inner: int = INNER) -> tuple[Shape, ...]:
    """Shapes of one M and K, N growing; each full wave is among them, and its next step."""
    height, width = space.tile
    rows = min((rows for rows in range(1, space.units + 1) if space.units % rows == 0),
               key=lambda rows: (round(abs(log(rows * rows * height / (space.units * width))), 6), rows))  # fmt: skip
    wave = space.units // rows * width
    pace = max(space.step, round((TO - FROM) * wave / POINTS / space.step) * space.step)
    columns = set(range(int(FROM * wave / space.step) * space.step, int(TO * wave) + 1, pace))
    columns |= {edge for count in FULL for edge in (count * wave, count * wave + space.step)}
    return tuple((rows * height, n, inner) for n in sorted(columns))


def sweep(config: "Config", bench: "Bench", space: Space, inner: int = INNER) -> Iterator[Measurement]:
    """A row for each shape, in bursts, with its tiles, its waves and the model's rate in its config.

    Raises:
        CheckFailed: a product is wrong.
    """
    few = replace(config, iterations=SAMPLES, warmup=WARMUP)
    rows = [(shape, bench.measure(few, shape, "burst")) for shape in sawtooth(space, inner)]
    wave_s = statistics.median(_full(space, rows))
    for (m, n, k), row in rows:
        tiles, waves = space.tiles(m, n), space.waves(m, n)
        told = {"kind": "wave", "tiles": tiles, "waves": waves, "units": space.units,
                "model_flops": gemm_flops(m, n, k) / (waves * wave_s)}  # fmt: skip
        said = f"{row.name}, {tiles} tiles in {waves} wave{'s' * (waves > 1)}"
        yield replace(row, name=said, config=row.config | told)


def _full(space: Space, rows: Sequence[tuple[Shape, Measurement]]) -> Iterator[float]:
    """Seconds of one wave, from every shape whose tiles are whole and leave no SM idle."""
    for (m, n, _), row in rows:
        waves = space.waves(m, n)
        if n % space.tile[1] == 0 and space.tiles(m, n) == waves * space.units:
            yield statistics.median(row.samples_s) / waves
