"""Which shape of a matrix product is fastest? A search within a budget of time, guided by a model, fooled by no noise.

A GPU works a product off in tiles, one to an SM at a time: 132 tiles keep an H200 busy for one wave, 133 for two.
So waves = ⌈tiles ÷ SMs⌉ and tiles ÷ (waves × SMs) is the share of SMs that work (wave quantisation); the longer the
inner dimension, the less weighs what each tile costs once. Both together are the prior: shapes are tried in its
order. Then the best one's neighbours are tried, and the few best run against each other in turns, with fresh samples:
the best of many noisy medians is partly luck (of 300 equal shapes with 1 % noise it looks 2.9 % too fast), and
samples that chose a winner never vouch for it.

Nothing here knows torch or a clock: `time` runs a shape, `now` tells the seconds.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

Shape = tuple[int, int, int]
"""M, N, K of C[M,N] = A[M,K]·W[N,K]ᵀ."""
Timer = Callable[[Shape, int], Sequence[float]]
"""Runs a shape so many times, warm, and gives the seconds of each."""

TILE = (128, 256)
"""Rows and columns of C that one SM works on: cuBLAS' tile for large products on Hopper, and on Ampere."""
INNER = (2048, 3072, 4096, 6144, 8192, 10240, 16384, 24576, 40960)
"""Inner dimensions to try; bursts like long ones, a device at its power cap shorter ones."""
WAVES = 16
"""Most waves that a seed fills."""
ASPECT = 12.0
"""Most that one side of C may exceed the other: beyond that, reading the operands costs more than the tiles gain."""
INNER_HALF = 500
"""Prior: at this K half of a tile's time goes into what it costs once."""

EXPLORE, CLIMB = 0.5, 0.75
"""Shares of the budget after which exploring, and climbing, end; the race has the rest."""
FIRST_SAMPLES = 3
FINALISTS = 6
ROUND_SAMPLES = 2
"""Samples of each finalist in each round of the race."""
ROUNDS = 15
"""Most rounds."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """The shapes that may win."""

    units: int
    """SMs of the device; on a CPU 1, for nothing is quantised by it."""
    tile: tuple[int, int] = TILE
    inner: tuple[int, ...] = INNER
    largest: int = 2**62
    """Most multiply-adds of one product, so that one does not eat the budget."""
    step: int = 16
    """Edges are multiples of this."""

    def seeds(self) -> tuple[Shape, ...]:
        """Shapes whose tiles fill 1 to `WAVES` waves exactly, and powers of two; the most promising first."""
        grids = {
            (count // columns, columns)
            for waves in range(1, WAVES + 1)
            for count in (waves * self.units,)
            for columns in range(1, count + 1)
            if count % columns == 0
        }
        edges = {(rows * self.tile[0], columns * self.tile[1]) for rows, columns in grids}
        edges |= {(2**power, 2**power) for power in range(8, 15)}
        shapes = {(m, n, k) for m, n in edges for k in self.inner if self.admits((m, n, k))}
        return tuple(sorted(shapes, key=lambda shape: (-self.promise(shape), shape)))

    def admits(self, shape: Shape) -> bool:
        """Whether a shape is one of the space."""
        m, n, k = shape
        if min(shape) < self.step or any(edge % self.step for edge in shape):
            return False
        return m * n * k <= self.largest and max(m, n) <= ASPECT * min(m, n)

    def tiles(self, m: int, n: int) -> int:
        """Tiles that C of m rows and n columns is worked off in; one that is not full costs as much as any."""
        return math.ceil(m / self.tile[0]) * math.ceil(n / self.tile[1])

    def waves(self, m: int, n: int) -> int:
        """Rounds of one tile to each SM; the last may be nearly empty, and takes as long."""
        return math.ceil(self.tiles(m, n) / self.units)

    def promise(self, shape: Shape) -> float:
        """Share of the peak by the prior: full waves, a long inner dimension, and not so small that launching shows."""
        m, n, k = shape
        full = m * n / (self.waves(m, n) * self.units * self.tile[0] * self.tile[1])
        square = 2 * math.sqrt(m * n) / (m + n)
        return full * k / (k + INNER_HALF) * math.pow(square, 0.1)

    def neighbours(self, shape: Shape) -> tuple[Shape, ...]:
        """One step away: the next inner dimensions, a tile more or fewer rows or columns, sides exchanged."""
        m, n, k = shape
        place = self.inner.index(k) if k in self.inner else 0
        inner = (self.inner[near] for near in (place - 1, place + 1) if 0 <= near < len(self.inner))
        rows, columns = self.tile
        moved = [(m, n, near) for near in inner]
        moved += [(m + rows, n, k), (m - rows, n, k), (m, n + columns, k), (m, n - columns, k), (n, m, k)]
        moved += [(2 * m, n, k), (m, 2 * n, k), (m // 2, n, k), (m, n // 2, k)]
        return tuple(near for near in moved if near != shape and self.admits(near))


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search came to."""

    shape: Shape
    """The winner of the race."""
    ranking: tuple[Shape, ...]
    """All finalists, the winner first."""
    tried: int
    """Shapes that were timed."""
    spent_s: float
    promised_flops: float
    """FLOP/s of the shape that looked fastest while searching: too high by the winner's luck, never to be reported."""
    race_s: tuple[float, ...]
    """The winner's samples in the race."""


@dataclass
class _Book:
    """Who ran how fast so far."""

    time: Timer
    now: Callable[[], float]
    began: float
    budget_s: float
    rates: dict[Shape, float] = field(default_factory=dict)
    """FLOP/s by the median."""

    def share(self) -> float:
        """How much of the budget is spent."""
        return (self.now() - self.began) / self.budget_s

    def run(self, shapes: Iterable[Shape], until: float) -> bool:
        """Time those not timed yet, as long as the budget's share lasts; whether any was."""
        any_ran = False
        for shape in shapes:
            if shape in self.rates:
                continue
            if self.rates and self.share() >= until:
                break
            self.rates[shape] = rate(shape, self.time(shape, FIRST_SAMPLES))
            any_ran = True
        return any_ran

    def best(self, count: int) -> list[Shape]:
        return sorted(self.rates, key=lambda shape: (-self.rates[shape], shape))[:count]


def rate(shape: Shape, samples_s: Sequence[float]) -> float:
    """FLOP/s of a shape by the median of its samples."""
    return 2 * math.prod(shape) / statistics.median(samples_s)


def search(space: Space, time: Timer, now: Callable[[], float], budget_s: float) -> Found:
    """The fastest shape of `space` that a budget of seconds finds; at least one shape is timed, however small it is.

    Raises:
        ValueError: the space holds no shape.
    """
    seeds = space.seeds()
    if not seeds:
        raise ValueError(f"largest={space.largest} admits no shape: allow more multiply-adds")
    book = _Book(time=time, now=now, began=now(), budget_s=budget_s)
    book.run(seeds, EXPLORE)
    while book.share() < CLIMB:
        near = dict.fromkeys(shape for leader in book.best(FINALISTS) for shape in space.neighbours(leader))
        if not book.run(near, CLIMB):
            break
    ranking, race = _race(book)
    return Found(
        shape=ranking[0], ranking=tuple(ranking), tried=len(book.rates), spent_s=now() - book.began,
        promised_flops=max(book.rates.values()), race_s=tuple(race[ranking[0]]),
    )  # fmt: skip


def _race(book: _Book) -> tuple[list[Shape], dict[Shape, list[float]]]:
    """Finalists in turns, forwards and backwards, so that a device that warms up or slows down favours none."""
    finalists = book.best(FINALISTS)
    samples: dict[Shape, list[float]] = {shape: [] for shape in finalists}
    for turn in range(ROUNDS):
        for shape in finalists if turn % 2 == 0 else reversed(finalists):
            samples[shape] += book.time(shape, ROUND_SAMPLES)
        if book.share() * (turn + 2) / (turn + 1) >= 1.0 and turn:
            break
    return sorted(finalists, key=lambda shape: -rate(shape, samples[shape])), samples
